"""Where does a linear address lie? A page walk that leaves no trace in the guest, for a debugger's eyes."""

from __future__ import annotations

from emu.view import Memory, Registers
from formats.paging import ADDRESS, ENTRIES, PageBit
from formats.units import PAGE

CR0_PG, CR4_LA57 = 1 << 31, 1 << 12


def translate(regs: Registers, memory: Memory, gla: int) -> int | None:
    """GPA of a linear address, shared bit included (Intel SDM volume 3, 4.5); None if unmapped."""
    if not regs.cr0 & CR0_PG:
        return gla & 0xFFFFFFFF
    levels = 5 if regs.cr4 & CR4_LA57 else 4
    table = int(regs.cr3) & ADDRESS
    for level in reversed(range(levels)):
        if table >= memory.span:
            return None
        shift = 12 + 9 * level
        slot = table + 8 * (gla >> shift & ENTRIES - 1)
        entry = int.from_bytes(memory.read(slot, 8), "little")
        if not entry & PageBit.PRESENT:
            return None
        if not level or (level < 3 and entry & PageBit.LARGE):
            inside = (1 << shift) - 1
            return entry & ADDRESS & ~inside | gla & inside
        table = entry & ADDRESS
    return None


def _parts(regs: Registers, memory: Memory, gla: int, size: int) -> list[tuple[int, int, bool]] | None:
    """(offset in backing memory, bytes, shared) page by page; None if a page is absent."""
    found = []
    while size:
        part = min(size, PAGE - gla % PAGE)
        gpa = translate(regs, memory, gla)
        if gpa is None:
            return None
        bare = gpa & ~memory.shared_bit
        if bare + part > memory.span:
            return None
        found.append((bare, part, bool(gpa & memory.shared_bit)))
        gla, size = gla + part, size - part
    return found


def read(regs: Registers, memory: Memory, gla: int, size: int) -> bytes | None:
    """Memory at a linear address, None if part of it is not mapped."""
    parts = _parts(regs, memory, gla, size)
    return None if parts is None else b"".join(memory.read(*part) for part in parts)


def write(regs: Registers, memory: Memory, gla: int, data: bytes) -> bool:
    """Writes whatever the page permissions are; False if part of it is not mapped."""
    parts = _parts(regs, memory, gla, len(data))
    if parts is None:
        return False
    for gpa, size, shared in parts:
        memory.write(gpa, data[:size], shared)
        data = data[size:]
    return True
