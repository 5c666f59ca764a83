"""Is a span checked before a call if only the running firmware knows how large it is, and where?"""

from __future__ import annotations

import re

import pytest
from flowcpu import SHIPPED, FlowCpu, firmware_with
from machinecode import Link

from dsl import model
from dsl.api import check_source
from gen.flow.spans import unchecked

# `region` may be any part; what stands for itself (`boot_params`, `wakeup`) is known at build time.
FLOWS = """
flow share_it(region: mut bytes, td: VpInfo) fails { let seen = share(region, td)? }
flow share_or_not(region: mut bytes, td: VpInfo) -> untrusted u64 fails {
    try let seen = share(region, td) { return seen.size }
    on out_of_bounds { return 1 }
    on _ { fail out_of_bounds }
}
flow copy_it(to: mut bytes, from: shared bytes) fails { let ours = copy_in(to, from)? }
flow park_it(td: VpInfo) fails { park aps on wakeup }
flow park_part(region: bytes) fails { park_aps(region)? }
flow park_block(region: bytes) fails { park aps on region with reset }
flow park_region(td: VpInfo) fails { park aps on tables with reset }
"""
OUTSIDE = {
    "park_aps": "prim_park_aps",
    "park_aps_with_reset": "prim_park_aps_with_reset",
    "share": "prim_share",
    "copy_in": "copy_in",
}


@pytest.fixture(scope="module")
def machine(link: Link) -> FlowCpu:
    return FlowCpu(firmware_with(FLOWS), link)


@pytest.fixture
def cpu(machine: FlowCpu) -> FlowCpu:
    machine.callees = {name: lambda cpu, arguments: 0 for name in OUTSIDE.values()}
    return machine


def span(cpu: FlowCpu, start: int, size: int) -> int:
    return cpu.place(start.to_bytes(8, "little") + size.to_bytes(8, "little"))


@pytest.mark.parametrize(
    ("start", "size", "fits"),
    [
        (0x10_0000, 0x1000, True),
        (0x10_0000, 0x3000, True),
        (0x10_0000, 0xFFF, False),
        (0x10_0000, 0, False),
        (0x10_0000, 0x1800, False),
        (0x10_0800, 0x1000, False),
        (0x10_0001, 0x2FFF, False),
    ],
)
def test_size_and_alignment(cpu: FlowCpu, start: int, size: int, fits: bool) -> None:
    td = cpu.place(bytes(32))
    status = cpu.call("flow_share_it", span(cpu, start, size), td)
    assert status == (0 if fits else cpu.error("out_of_bounds"))
    assert [name for name, _ in cpu.calls] == (["prim_share"] if fits else [])


@pytest.mark.parametrize(("size", "fits"), [(0x7FFF, False), (0x7000, False), (0x8000, True), (0x9000, True)])
def test_a_mailbox_holds_the_page_tables_behind_it(cpu: FlowCpu, size: int, fits: bool) -> None:
    status = cpu.call("flow_park_part", span(cpu, 0x10_0000, size))
    assert status == (0 if fits else cpu.error("out_of_bounds"))
    assert len(cpu.calls) == fits


@pytest.mark.parametrize(
    ("start", "size", "fits"),
    [
        (0x1F_0000, 0x1_0000, True),
        (0x1F_1000, 0x1_0000, False),
        (0x1F_F000, 0x1_0000, False),
        (0x20_0000, 0x1_0000, True),
        (0x10_0000, 0xF000, False),
        (0x1F_0000, 0x80_0000, True),  # of which the first 64 KiB count
        (0x1_001F_1000, 0x1_0000, False),
    ],
)
def test_a_mailbox_with_reset_vector_lies_in_one_block(
    cpu: FlowCpu, start: int, size: int, fits: bool
) -> None:
    status = cpu.call("flow_park_block", span(cpu, start, size))
    assert status == (0 if fits else cpu.error("out_of_bounds"))
    assert len(cpu.calls) == fits


@pytest.mark.parametrize(
    ("to", "source", "fits"), [(64, 64, True), (63, 64, False), (0, 0, True), (100, 1, True)]
)
def test_as_large_as_another(cpu: FlowCpu, to: int, source: int, fits: bool) -> None:
    status = cpu.call("flow_copy_it", span(cpu, 0x10_0000, to), span(cpu, 0x20_0000, source))
    assert status == (0 if fits else cpu.error("out_of_bounds"))
    assert len(cpu.calls) == fits


def test_a_try_handles_it_as_an_error_of_the_call(cpu: FlowCpu) -> None:
    td, out = cpu.place(bytes(32)), cpu.place(bytes(8))
    assert cpu.call("flow_share_or_not", span(cpu, 0x10_0000, 12), td, out) == 0
    assert (cpu.u64(out), cpu.calls) == (1, [])


def test_what_is_known_is_not_checked_again(cpu: FlowCpu) -> None:
    """The span of a carved region is empty before `accept`, so that a check would fail here."""
    assert cpu.call("flow_park_it", cpu.place(bytes(32))) == 0
    assert [name for name, _ in cpu.calls] == ["prim_park_aps"]
    assert cpu.call("flow_park_region", cpu.place(bytes(32))) == 0
    assert [name for name, _ in cpu.calls] == ["prim_park_aps_with_reset"]


SECTIONS = """event_log   TempMem       128 KiB                  nvs
        one         TempMem        64 KiB  at 0x009F_0000  nvs
        other       TempMem       128 KiB  at 0x00A0_0000  nvs
"""
REGIONS = "large 4 MiB nvs full 2 MiB nvs wakeup"


@pytest.mark.parametrize(
    ("place", "known"),
    [
        ("one", True),
        ("other", True),
        ("other[0x1000 .. 0x11000]", True),
        ("wakeup", True),
        ("full", True),
        ("full[0x1000 .. 0x11000]", True),
        ("large", False),
        ("large[0x1000 .. 0x11000]", False),
    ],
)
def test_where_a_block_is_known_to_hold_all(place: str, known: bool) -> None:
    text = SHIPPED.read_text().replace("at 0x00A0_0000", "at 0x00B0_0000")
    text = re.sub(r"event_log +TempMem.*\n", SECTIONS, text)
    text = re.sub(r"wakeup +32 KiB", f"{REGIONS} 64 KiB", text)
    text = text.replace("park aps on wakeup", f"park aps on {place} with reset")
    firmware = check_source(text.replace("cpus, wakeup", f"cpus, {place}"), "places.tdf").require()
    done = [s.value for s in firmware.flows["boot"].body if isinstance(s, model.Do)]
    calls = [each for each in done if isinstance(each, model.Call)]
    (call,) = [each for each in calls if each.callee == "park_aps_with_reset"]
    assert (not unchecked(call, firmware.primitives[call.callee], firmware)) == known
