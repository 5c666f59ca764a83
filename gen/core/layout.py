"""How does the C core learn the image's layout? `struct layout` of formats/tdvf.py, as read-only data."""

from __future__ import annotations

from typing import Any

from dsl.layout import WITHIN_BFV
from dsl.model import Firmware, ImageSection
from formats.linux import E820Type
from formats.structs import plain
from formats.tdvf import LAYOUT, LAYOUT_CARVED, LAYOUT_ENTRY, SECTION_TYPES
from gen.flow.names import LAYOUT as SYMBOL
from gen.flow.names import region_symbols
from gen.x86 import DD, DQ, Symbol, Unit

_PUT = {4: DD, 8: DQ}  # by the size of a field


def emit_layout(unit: Unit, firmware: Firmware) -> None:
    """Adds `tdf_layout`: image sections in order, then the carved regions in order of declaration. PermMem is
    left out: to a RAM plan it is RAM like any other.
    """
    limits = {region.limit for region in firmware.memory}
    sections = [s for s in firmware.image if s.kind not in ("PermMem", *WITHIN_BFV)]
    with unit.data(SYMBOL, section=f".rodata.{SYMBOL}", align=8):
        _emit(
            LAYOUT,
            "",
            count=len(sections) + len(firmware.memory),
            carved_count=len(firmware.memory),
            carve_limit=limits.pop() if limits else 0,
        )
        for section in sections:
            start, end = _bounds(section)
            kind = int(SECTION_TYPES[section.kind])
            _emit(LAYOUT_ENTRY, section.name, start=start, end=end, kind=kind, e820=_e820(section.e820))
        for region in firmware.memory:
            e820 = _e820(region.e820)
            _emit(LAYOUT_ENTRY, region.name, start=0, end=region.size, kind=LAYOUT_CARVED, e820=e820)


def _bounds(section: ImageSection) -> tuple[int | Symbol, int | Symbol]:
    if section.address is None or section.size is None:
        first, last = region_symbols(section.name)
        return Symbol(first), Symbol(last)
    return section.address, section.address + section.size


def _e820(name: str) -> int:
    return int(E820Type[name.upper()])


def _emit(struct: Any, name: str, **values: int | Symbol) -> None:
    """The fields of a structure in their order; the comment of the first says whose they are."""
    for index, field in enumerate(plain(struct).subcons):
        comment = f"{name}: {field.name}" if name and not index else field.name
        _PUT[field.sizeof()](values[field.name], comment)
