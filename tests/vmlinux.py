"""What vmlinux do tests need? An ELF file of a few segments."""

from __future__ import annotations

from collections.abc import Sequence

from formats import elf
from formats.structs import offset_of, pack, unpack
from formats.units import PAGE, align_up


def vmlinux(
    segments: Sequence[tuple[int, int, bytes]], entry: int, zeros: int = 0x100, **header: int
) -> bytes:
    """A file with these PT_LOAD segments (virtual address, physical address, bytes), each with so many zeros
    behind its bytes, and a note before them; `header`: fields of the ELF header that are otherwise.
    """
    count = len(segments) + 1
    at = elf.HEADER.sizeof() + count * elf.PROGRAM_HEADER.sizeof()
    heads, body = [pack(elf.PROGRAM_HEADER, type=4, offset=at, virtual=0x1000, physical=0x1000)], b""
    for virtual, physical, data in segments:
        sizes = {"file_size": len(data), "memory_size": len(data) + zeros}
        offset = at + len(body)
        heads.append(
            pack(
                elf.PROGRAM_HEADER,
                type=elf.PT_LOAD,
                offset=offset,
                virtual=virtual,
                physical=physical,
                **sizes,
            )
        )
        body += data
    fields = {
        "file_class": elf.CLASS_64,
        "data": elf.DATA_LITTLE,
        "ident_version": elf.VERSION,
        "type": elf.TYPE_EXEC,
        "machine": elf.MACHINE_X86_64,
        "version": elf.VERSION,
        "entry": entry,
        "program_offset": elf.HEADER.sizeof(),
        "header_size": elf.HEADER.sizeof(),
        "program_size": elf.PROGRAM_HEADER.sizeof(),
        "program_count": count,
    }
    return pack(elf.HEADER, magic=elf.MAGIC, **(fields | header)) + b"".join(heads) + body


def with_segment(file: bytes, physical: int, data: bytes) -> bytes:
    """A vmlinux with one segment more, at a whole page of physical memory; its program header follows the
    others, where a vmlinux has padding.
    """
    header = unpack(elf.HEADER, file)
    at = header.program_offset + header.program_count * elf.PROGRAM_HEADER.sizeof()
    assert not any(file[at : at + elf.PROGRAM_HEADER.sizeof()])
    offset = align_up(len(file), PAGE)
    sizes = {"file_size": len(data), "memory_size": len(data)}
    head = pack(
        elf.PROGRAM_HEADER, type=elf.PT_LOAD, offset=offset, physical=physical, alignment=PAGE, **sizes
    )
    count = offset_of(elf.HEADER, "program_count")
    changed = bytearray(file.ljust(offset, b"\0") + data)
    changed[at : at + len(head)] = head
    changed[count : count + 2] = (header.program_count + 1).to_bytes(2, "little")
    return bytes(changed)
