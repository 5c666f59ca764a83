"""Where does everything lie in a conformance guest? Addresses shared by harness, rows and runner."""

from __future__ import annotations

SIZE = 0x10000
BASE = (1 << 32) - SIZE
SCRIPT = BASE + 0x4000  # steps of the row, STEP_SIZE bytes each, ended by a zero code address
CODE = BASE + 0x7000  # their code
PRINT = BASE + 0x9800  # addresses of the quadwords to print, ended by zero
PML4, PDPT, PDPT_SHARED = BASE + 0xA000, BASE + 0xB000, BASE + 0xC000
VECTORS, BY_INDEX, TOOLS_END = BASE + 0x3000, BASE + 0x3E00, BASE + 0x4000
MAX_VCPUS = 4

HOB, HOB_SIZE = 0x809000, 0x2000
TEMP, TEMP_SIZE = 0x810000, 0x10000  # TempMem: added at launch, so accepted, and zero
ENTRY = TEMP  # quadwords kept at the reset vector
OTHER, OTHER_ARRIVED = ENTRY + 0xA00, ENTRY + 0xA80  # general registers, CR0, CR4 of another vCPU; a flag
RECORDS, RECORD_SIZE = TEMP + 0x1000, 0x200  # one record per step
BUFFER = TEMP + 0x6000  # 32 KiB of private memory for the rows
EXCEPTION_STACK, STACK = TEMP + 0xE000, TEMP + 0xF000
FREE = 0x1000000  # 16 MiB: RAM that nothing touched, whole pending 2 MiB pages up to MEMORY
MEMORY = 64 << 20
SHARED_WINDOW = 1 << 39  # linear address of the shared alias of GPA 0, 4 GiB long
USER_WINDOW = 2 << 39  # linear address of GPA 0 for user code

STEP_QUADS = 24
STEP_SIZE = 8 * STEP_QUADS
NO_VEINFO = 1  # step flag: leave the VE information where it is

GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
FRAME = ("vector", "error", "rip", "cs", "rflags", "old_rsp", "ss")
VEINFO = ("ve_status", "ve_rcx", "ve_rdx", "ve_r8", "ve_r9", "ve_r10")
RECORD = (*GPRS, *FRAME, *VEINFO, "cr2", "changed", "at")
SYSTEM = (
    *("rflags", "cr0", "cr2", "cr3", "cr4", "efer", "gdt_limit", "gdt_base", "idt_limit", "idt_base"),
    *("dr6", "dr7", "cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr", "dr0", "dr1", "dr2", "dr3"),
)
ENTRY_NAMES = (*GPRS, *SYSTEM)
DONE = 3  # vector of a step that ran to its end: it closes with INT3

CS32, CS64, DATA, USER_CS, USER_DATA, TSS = 0x08, 0x10, 0x18, 0x23, 0x2B, 0x30


def address_of(name: str, last: int) -> int:
    """GPA of a quadword that a row asks for: `rax` (last step), `1.rax`, `entry.rbx`, `mem.0x816000`."""
    scope, _, field = name.rpartition(".")
    if scope == "entry":
        return ENTRY + 8 * ENTRY_NAMES.index(field)
    if scope == "mem":
        return int(field, 0)
    step = int(scope) if scope else last
    return RECORDS + step * RECORD_SIZE + 8 * RECORD.index(field)
