"""Does the C core read of the layout what the flow declares?"""

from __future__ import annotations

from pathlib import Path

from dsl.api import check_file, shipped_flows
from formats.linux import E820Type
from formats.tdvf import LAYOUT_CARVED, SECTION_TYPES
from gen.core.hostlib import load
from gen.core.layout import emit_layout
from gen.x86 import Unit


def test_the_generated_bytes_are_a_struct_layout() -> None:
    firmware = check_file(shipped_flows()["linux"]).require()
    unit = Unit("layout")
    emit_layout(unit, firmware)
    ffi = load().ffi
    content = ffi.from_buffer(unit.blocks[0].content())
    layout = ffi.cast("struct layout *", content)
    assert (layout.count, layout.carved_count) == (
        len(firmware.image) + len(firmware.memory),
        len(firmware.memory),
    )
    assert layout.carve_limit == 4 << 30
    entries = [layout.entries[index] for index in range(layout.count)]
    assert ffi.offsetof("struct layout", "entries") + sum(map(ffi.sizeof, entries)) == len(content)
    found = [(each.start, each.end - each.start, each.kind, each.e820) for each in entries]
    # BFV's bounds are symbols, for the linker to fill in.
    sections = [
        (each.address or 0, each.size or 0, int(SECTION_TYPES[each.kind]), int(E820Type[each.e820.upper()]))
        for each in firmware.image
    ]
    regions = [(0, each.size, LAYOUT_CARVED, int(E820Type[each.e820.upper()])) for each in firmware.memory]
    assert found == sections + regions


def test_permmem_is_no_section_to_the_c_core() -> None:
    """To a RAM plan it is RAM; a section would be taken for memory that was added."""
    flow = Path(__file__).parents[1] / "system/flows/no_td_hob.tdf"
    firmware = check_file(flow).require()
    unit = Unit("layout")
    emit_layout(unit, firmware)
    layout = load().ffi.cast("struct layout *", load().ffi.from_buffer(unit.blocks[0].content()))
    kinds = [layout.entries[index].kind for index in range(layout.count)]
    expected = [SECTION_TYPES[s.kind] for s in firmware.image if s.kind != "PermMem"]
    assert kinds == [*expected, *[LAYOUT_CARVED] * len(firmware.memory)]
