"""How does the C core learn the image's layout? `struct layout` of tdf_base.h, as read-only data."""

from __future__ import annotations

from dsl.model import Firmware
from formats.linux import E820Type
from formats.tdvf import LAYOUT_CARVED, SECTION_TYPES
from gen.flow.names import LAYOUT, region_symbols
from gen.x86 import DD, DQ, Symbol, Unit


def emit_layout(unit: Unit, firmware: Firmware) -> None:
    """Adds `tdf_layout`: image sections in order, then the carved regions in order of declaration."""
    limits = {region.limit for region in firmware.memory}
    with unit.data(LAYOUT, section=f".rodata.{LAYOUT}", align=8):
        DD(len(firmware.image) + len(firmware.memory), "count")
        DD(len(firmware.memory), "carved_count")
        DQ(limits.pop() if limits else 0, "carve_limit")
        for section in firmware.image:
            first, last = region_symbols(section.name)
            if section.address is None or section.size is None:
                DQ(Symbol(first), f"{section.name}: start")
                DQ(Symbol(last), "end")
            else:
                DQ(section.address, f"{section.name}: start")
                DQ(section.address + section.size, "end")
            DD(int(SECTION_TYPES[section.kind]), section.kind)
            DD(int(E820Type[section.e820.upper()]), section.e820)
        for region in firmware.memory:
            DQ(0, f"{region.name}: carved")
            DQ(region.size, "size")
            DD(LAYOUT_CARVED, "carved")
            DD(int(E820Type[region.e820.upper()]), region.e820)
