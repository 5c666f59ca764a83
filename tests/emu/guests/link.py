"""How do the blocks of a Unit become bytes at their addresses? A linker for guests of a few kilobytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gen.x86 import Code


def link(
    blocks: Sequence[Code],
    start: int,
    end: int,
    fixed: Mapping[str, int],
    outside: Mapping[str, int],
    size: int,
) -> bytes:
    """The `size` bytes from `start` on: blocks one after another, those in `fixed` at their own addresses."""
    symbols, free = dict(outside), start
    for block in blocks:
        if block.name in fixed:
            symbols[block.name] = fixed[block.name]
        else:
            symbols[block.name] = free = -(-free // block.align) * block.align
            free += block.size
    assert free <= min([end, *fixed.values()]), f"the guest's tools end at {free:#x}"
    image = bytearray(size)
    for block in blocks:
        base = symbols[block.name]
        for item in block.encoded():
            content = bytearray(item.content)
            if fixup := item.fixup:
                address = base + item.offset + fixup.offset
                value = symbols[fixup.symbol.name] + fixup.symbol.addend
                if fixup.relative_end is not None:
                    value -= address + fixup.relative_end
                field = value.to_bytes(fixup.size, "little", signed=value < 0)
                content[fixup.offset : fixup.offset + fixup.size] = field
            at = base + item.offset - start
            image[at : at + len(content)] = content
    return bytes(image)
