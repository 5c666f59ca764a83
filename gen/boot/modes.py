"""What do the ways into 64-bit mode share? The segments, the control registers, and the step itself."""

from __future__ import annotations

from peachpy.x86_64 import MOV, eax

from gen.x86 import LJMP, MOVCR, Symbol, cr0, cr3, cr4

# The last 64 KiB: what 16-bit code and 16-bit gate offsets reach. The linker checks fields counted from here.
WINDOW = 0xFFFF_0000

SELECTOR_CODE32, SELECTOR_CODE64, SELECTOR_DATA, SELECTOR_TSS = 0x08, 0x10, 0x18, 0x20
# Flat descriptors, accessed bit set so that the CPU never writes to them: Intel SDM volume 3A, section 3.4.5.
GDT = (
    (0x0000_0000_0000_0000, "null"),
    (0x00CF_9B00_0000_FFFF, "0x08: 32-bit code"),
    (0x00AF_9B00_0000_FFFF, "0x10: 64-bit code"),
    (0x00CF_9300_0000_FFFF, "0x18: data"),
)

# What LGDT takes: the descriptors above and the TSS's, which has two words.
GDT_LIMIT = (len(GDT) + 2) * 8 - 1

# CR4: PAE, MCE (a TD never clears it), OSFXSR, OSXMMEXCPT. CR0: PG WP NE ET MP PE (CD or NW would fault).
# Intel SDM volume 3A, section 2.5; TDX module base specification, "CR0 and CR4 handling".
CR4 = 0x660
CR0 = 0x8001_0033
CR0_PG = 1 << 31
CR4_LA57 = 1 << 12


def paging_on() -> None:
    """32-bit code: the page tables at EAX, and long mode; a far jump to 64-bit code has to follow."""
    MOVCR(cr3, eax)
    MOV(eax, CR4)
    MOVCR(cr4, eax)
    MOV(eax, CR0)
    MOVCR(cr0, eax)


def enter_long_mode() -> None:
    """32-bit code: into 64-bit mode with the page tables at EAX, on at `reset_long`."""
    paging_on()
    LJMP(SELECTOR_CODE64, Symbol("reset_long"))
