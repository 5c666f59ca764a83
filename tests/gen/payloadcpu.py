"""How do tests run a payload without a firmware? In a CPU emulator; the test is loader and VMM."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import pefile
import unicorn as uc
import unicorn.x86_const as x86
from cpu import TDCALL
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection, RelrRelocationSection

PAGE = 4096
R, W, X = uc.UC_PROT_READ, uc.UC_PROT_WRITE, uc.UC_PROT_EXEC
# Intel SDM volume 3A, 4.7: the error code of a page fault.
ERRORS = {
    uc.UC_MEM_READ_UNMAPPED: 0,
    uc.UC_MEM_WRITE_UNMAPPED: 2,
    uc.UC_MEM_FETCH_UNMAPPED: 16,
    uc.UC_MEM_WRITE_PROT: 3,
    uc.UC_MEM_READ_PROT: 1,
    uc.UC_MEM_FETCH_PROT: 17,
}


def up(size: int) -> int:
    """To whole pages."""
    return -(-size // PAGE) * PAGE


@dataclass
class Loaded:
    """An image in memory: its bytes, the rights of its ranges (offset, size), and whose convention it has."""

    content: bytearray
    entry: int
    rights: list[tuple[int, int, int]]
    pe: bool = False


def load_elf(file: bytes, base: int, relocate: bool = True) -> Loaded:
    """By the System V ABI, as pyelftools reads the file: segments, relative relocations, PT_GNU_RELRO."""
    elf = ELFFile(io.BytesIO(file))
    parts = list(elf.iter_segments("PT_LOAD"))
    low = min(part["p_vaddr"] for part in parts)
    content = bytearray(up(max(part["p_vaddr"] + part["p_memsz"] for part in parts) - low))
    rights = []
    for part in parts:
        at, flags = part["p_vaddr"] - low, part["p_flags"]
        content[at : at + part["p_filesz"]] = part.data()
        rights.append((at, up(part["p_memsz"]), R | (W if flags & 2 else 0) | (X if flags & 1 else 0)))
    for section in elf.iter_sections() if relocate else ():
        if isinstance(section, RelocationSection | RelrRelocationSection):
            for each in section.iter_relocations():
                at = each["r_offset"] - low
                if isinstance(section, RelocationSection):
                    assert each["r_info_type"] == 8, "R_X86_64_RELATIVE"
                    value = each["r_addend"]
                else:
                    (value,) = struct.unpack_from("<Q", content, at)
                struct.pack_into("<Q", content, at, base - low + value)
    for part in elf.iter_segments("PT_GNU_RELRO"):
        rights.append((part["p_vaddr"] - low, part["p_memsz"] // PAGE * PAGE, R))
    return Loaded(content, elf["e_entry"] - low, rights)


def load_pe(file: bytes, base: int, relocate: bool = True) -> Loaded:
    """As pefile does."""
    pe = pefile.PE(data=file)
    if relocate:
        pe.relocate_image(base)
    content = bytearray(pe.get_memory_mapped_image()).ljust(pe.OPTIONAL_HEADER.SizeOfImage, b"\0")
    rights = [(0, PAGE, R)]
    for part in pe.sections:
        flags = part.Characteristics
        right = R | (W if flags >> 31 & 1 else 0) | (X if flags >> 29 & 1 else 0)
        rights.append((part.VirtualAddress, up(part.Misc_VirtualSize), right))
    return Loaded(content, pe.OPTIONAL_HEADER.AddressOfEntryPoint, rights, pe=True)


@dataclass
class Machine:
    """A payload at `base`, a HOB list at `hobs` and a stack; `text` is what it wrote to COM1."""

    image: Loaded
    base: int
    hobs: int
    stack: tuple[int, int]
    stack_rights: int = R | W
    guard: int | None = None  # rights of the page below the stack; None: it is not present
    flags: int = 2  # RFLAGS: bit 1 is always set
    text: str = ""
    faults: list[tuple[int, int]] = field(default_factory=list)

    def run(self, hob_list: bytes, told: int | None = None, stack_pointer: int | None = None) -> list[str]:
        """From the entry to HLT, by the convention of the format; the lines that it wrote."""
        self.cpu = uc.Uc(uc.UC_ARCH_X86, uc.UC_MODE_64)
        content, (low, high) = self.image.content, self.stack
        self.cpu.mem_map(self.base, up(len(content)), R | W)
        self.cpu.mem_write(self.base, bytes(content))
        for at, size, right in self.image.rights:
            if size:
                self.cpu.mem_protect(self.base + at, size, right)
        if hob_list:
            self.cpu.mem_map(self.hobs, up(len(hob_list)), R | W)
            self.cpu.mem_write(self.hobs, hob_list)
        self.cpu.mem_map(low, high - low, self.stack_rights)
        if self.guard is not None:
            self.cpu.mem_map(low - PAGE, PAGE, self.guard)
        self.cpu.hook_add(uc.UC_HOOK_INSN_INVALID, self._tdcall)
        self.cpu.hook_add(uc.UC_HOOK_MEM_INVALID, self._fault)
        names = (
            (x86.UC_X86_REG_RCX, x86.UC_X86_REG_RDX)
            if self.image.pe
            else (x86.UC_X86_REG_RDI, x86.UC_X86_REG_RSI)
        )
        values = self.hobs, self.base if told is None else told
        top = high - (40 if self.image.pe else 8) if stack_pointer is None else stack_pointer
        for name, value in zip((*names, x86.UC_X86_REG_RSP), (*values, top), strict=True):
            self.cpu.reg_write(name, value)
        self.cpu.reg_write(x86.UC_X86_REG_EFLAGS, self.flags)
        at: int | None = self.base + self.image.entry
        while at is not None:
            try:
                self.cpu.emu_start(at, 0)
                at = None
            except uc.UcError:
                at = self._deliver()
        return self.text.splitlines()

    def _tdcall(self, cpu: uc.Uc, _: object) -> bool:
        at = cpu.reg_read(x86.UC_X86_REG_RIP)
        assert bytes(cpu.mem_read(at, 4)) == TDCALL, hex(at)
        names = ("RAX", "RCX", "R10", "R11", "R12", "R13", "R14", "R15")
        rax, rcx, r10, r11, *rest = (cpu.reg_read(getattr(x86, f"UC_X86_REG_{name}")) for name in names)
        assert (rax, rcx, r10) == (0, 0xFC00, 0)  # TDG.VP.VMCALL; R10 to R15; a function of the GHCI
        if r11 == 0x0C:
            cpu.emu_stop()
            return True
        assert (r11, rest[:3]) == (0x1E, [1, 1, 0x3F8])
        self.text += chr(rest[3])
        cpu.reg_write(x86.UC_X86_REG_RIP, at + 4)
        return True

    def _fault(self, cpu: uc.Uc, access: int, address: int, *_: object) -> bool:
        self.faults.append((address, ERRORS[access]))
        return False

    def _deliver(self) -> int:
        """The page fault through the payload's own IDT, as the processor does."""
        address, error = self.faults[-1]
        cpu, (_, table, limit, _) = self.cpu, self.cpu.reg_read(x86.UC_X86_REG_IDTR)
        assert limit >= 16 * 15 - 1, f"page fault {error:#x} at {address:#x} without an IDT: {self.text}"
        low, selector, kind, middle, upper = struct.unpack("<HHxBHI", cpu.mem_read(table + 16 * 14, 12))
        assert (selector, kind) == (cpu.reg_read(x86.UC_X86_REG_CS), 0x8E)
        rip, rsp = cpu.reg_read(x86.UC_X86_REG_RIP), cpu.reg_read(x86.UC_X86_REG_RSP)
        frame = (
            error,
            rip,
            selector,
            cpu.reg_read(x86.UC_X86_REG_EFLAGS),
            rsp,
            cpu.reg_read(x86.UC_X86_REG_SS),
        )
        pushed = struct.pack("<6Q", *frame)
        rsp = (rsp & ~15) - len(pushed)
        cpu.mem_write(rsp, pushed)
        cpu.reg_write(x86.UC_X86_REG_RSP, rsp)
        cpu.reg_write(x86.UC_X86_REG_CR2, address)
        return low | middle << 16 | upper << 32


def guid_hob(guid: bytes, data: bytes) -> bytes:
    """A GUID extension, padded."""
    size = -(-len(data) // 8) * 8
    return struct.pack("<HHI", 4, 24 + size, 0) + guid + data.ljust(size, b"\0")


ACPI = bytes.fromhex("70580c6aedd4f444a135dd238b6f0c8d")
E820 = bytes.fromhex("ea72808f8634474b86a72353b88a8773")


def acpi_table(signature: bytes, size: int) -> bytes:
    """A table of zeros with a true checksum."""
    table = bytearray(struct.pack("<4sI", signature, size).ljust(size, b"\0"))
    table[9] = -sum(table) % 256
    return bytes(table)


def cpu_hob() -> bytes:
    """52 bits of address."""
    return struct.pack("<HHIBB6x", 6, 16, 0, 52, 16)


def volume_hob() -> bytes:
    """Where td-shim's image has its payload."""
    return struct.pack("<HHIQQ", 5, 24, 0, 0xFF08_1000, 0xC2_D000)


def e820(ranges: Sequence[tuple[int, int, int]]) -> bytes:
    """The data of the memory map; `ranges`: start, end, type."""
    return b"".join(
        struct.pack("<QQI", start, (end - start) % (1 << 64), kind) for start, end, kind in ranges
    )


def hob_list(base: int, bounds: tuple[int, int], hobs: Sequence[bytes]) -> bytes:
    """A list for the GPA `base`; `bounds`: highest end and lowest start of its memory map."""
    body = b"".join(hobs)
    end = base + 56 + len(body) + 8
    phit = struct.pack("<HHIII5Q", 1, 56, 0, 9, 0, *bounds, *bounds, end)
    return phit + body + struct.pack("<HHI", 0xFFFF, 8, 0)
