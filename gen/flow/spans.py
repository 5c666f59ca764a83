"""Which spans are known to fit what a primitive needs, so that nothing has to be checked before the call?"""

from __future__ import annotations

from dsl import model
from dsl.model import Expression, Firmware, Primitive, SpanNeed


def unchecked(call: model.Call, primitive: Primitive, firmware: Firmware) -> list[SpanNeed]:
    """What the primitive needs of its arguments and only the running firmware can check."""
    names = [parameter.name for parameter in primitive.parameters if not parameter.state]
    given = dict(zip(names, call.arguments, strict=True))
    return [need for need in primitive.spans if not _fits(need, given, firmware)]


def _fits(need: SpanNeed, given: dict[str, Expression], firmware: Firmware) -> bool:
    span = _known(given[need.parameter], firmware)
    least = (0, need.minimum) if need.other is None else _known(given[need.other], firmware)
    if span is None or least is None:
        return False
    start, size = span
    if need.within and not _in_one_block(need, given[need.parameter], start, firmware):
        return False
    return size >= least[1] and not start % need.align and not size % need.align


def _in_one_block(need: SpanNeed, e: Expression, start: int, firmware: Firmware) -> bool:
    """Of a section the address is known; a memory region that fits into a block lies in one (plan.c)."""
    while isinstance(e, model.Slice):
        e = e.base
    assert isinstance(e, model.RegionOf)
    for region in firmware.memory:
        if region.name == e.name:
            return region.size <= need.within
    first = next(s.address for s in firmware.image if s.name == e.name)
    if first is None:
        return False
    return (first + start) // need.within == (first + start + need.minimum - 1) // need.within


def _known(e: Expression, firmware: Firmware) -> tuple[int, int] | None:
    """Offset in its region, which begins at a page, and size."""
    match e:
        case model.RegionOf(name=name):
            sizes: dict[str, int | None] = {section.name: section.size for section in firmware.image}
            sizes |= {region.name: region.size for region in firmware.memory}
            size = sizes[name]
            return None if size is None else (0, size)
        case model.Slice(start=model.Literal() as low, end=model.Literal() as high):
            base = _known(e.base, firmware)
            return None if base is None else (base[0] + low.number, high.number - low.number)
    return None
