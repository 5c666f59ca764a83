"""Does a host get the module's answers while it builds a TD, and does MRTD come out as specified?"""

from __future__ import annotations

import pytest

from emu.api import RunConfig, prepare
from emu.signals import EmuError
from emu.tdx.launch import State, Td, build
from emu.tdx.measure import AddedRegion
from emu.tdx.params import TdParams, xfam_legal

STATE_INCORRECT, INVALID_RCX = 0xC000060800000000, 0xC000010000000001
PAGE = AddedRegion(0x1000, bytes(4096), True)


def initialized(**params: int) -> Td:
    td = Td(TdParams(**params))  # type: ignore[arg-type]
    assert td.mng_init() == 0
    return td


def test_the_order_of_a_launch() -> None:
    td = initialized()
    assert td.vp_init(0x809000) == 0
    assert td.page_add(0x1000, PAGE) == 0
    assert all(td.mr_extend(gpa) == 0 for gpa in range(0x1000, 0x2000, 256))
    assert td.vp_enter(0) == STATE_INCORRECT
    assert td.mr_finalize() == 0
    assert td.vp_enter(0) == 0
    assert td.vp_enter(1) == INVALID_RCX
    assert td.mrtd.hex().startswith("ca76d5541328afef8bc9364261c515ae")


def test_nothing_before_init() -> None:
    td = Td(TdParams())
    answers = (td.vp_init(0), td.page_add(0, PAGE), td.mr_extend(0), td.mr_finalize(), td.vp_enter(0))
    assert set(answers) == {STATE_INCORRECT}


def test_nothing_after_finalize() -> None:
    td = initialized()
    assert (td.vp_init(0), td.mr_finalize()) == (0, 0)
    answers = (td.mng_init(), td.vp_init(0), td.page_add(0, PAGE), td.mr_extend(0), td.mr_finalize())
    assert set(answers) == {STATE_INCORRECT}
    assert td.state is State.RUNNABLE


def test_finalize_without_a_vcpu() -> None:
    assert initialized().mr_finalize() == 0xC000060900000000


def test_more_vcpus_than_allowed() -> None:
    td = initialized(vcpus=2)
    assert [td.vp_init(0) for _ in range(3)] == [0, 0, 0xC000070500000000]


@pytest.mark.parametrize(("gpa", "level"), [(0x1008, 0), (0x200000, 1), (1 << 47, 0), (1 << 48, 0)])
def test_page_add_operand(gpa: int, level: int) -> None:
    assert initialized().page_add(gpa, PAGE, level) == INVALID_RCX


def test_a_page_twice() -> None:
    td = initialized()
    assert [td.page_add(0x1000, PAGE), td.page_add(0x1000, PAGE)] == [0, 0xC0000B0D00000001]


def test_extend_needs_a_page_and_256_bytes() -> None:
    td = initialized()
    assert td.mr_extend(0x1000) == 0xC0000B0300000001
    assert td.page_add(0x1000, PAGE) == 0
    assert td.mr_extend(0x1010) == INVALID_RCX
    assert td.mr_extend(0x1080) == INVALID_RCX
    assert td.mr_extend(0x2000) == 0xC0000B0300000000  # the walk reached an entry that maps nothing


def test_overlapping_sections_are_refused_in_one_line() -> None:
    with pytest.raises(EmuError, match=r"PAGE\.ADD of GPA 0x1000: the TDX module answers 0xc0000b0d00000001"):
        build(TdParams(), [PAGE, PAGE], 0)


def test_content_counts_only_where_it_is_extended() -> None:
    plain = [AddedRegion(0x1000, b"\1" * 4096, False)]
    assert (
        build(TdParams(), plain, 0).mrtd
        == build(TdParams(), [AddedRegion(0x1000, bytes(4096), False)], 0).mrtd
    )
    measured = [AddedRegion(0x1000, b"\1" * 4096, True)]
    assert build(TdParams(), measured, 0).mrtd != build(TdParams(), [PAGE], 0).mrtd


def test_the_slowest_and_the_fastest_tsc() -> None:
    for frequency in (4, 400):
        TdParams(tsc_25mhz=frequency).check()


@pytest.mark.parametrize(
    ("xfam", "legal"),
    [
        *((3, True), (1, False), (2, False), (7, True), (0x27, False), (0xE7, True), (0xE3, False)),
        *((0x1803, True), (0x803, False), (0x60003, True), (0x20003, False), (0x4003, True), (0xB, False)),
        (0x6DBE7, True),
    ],
)
def test_xfam_rules(xfam: int, legal: bool) -> None:
    assert xfam_legal(xfam) is legal


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"attributes": 1 << 31}, "attributes 0x80000000: bits 0x80000000 are not supported"),
        ({"attributes": 1 << 29 | 1}, "MIGRATABLE excludes DEBUG"),
        ({"xfam": 0x27}, "xfam 0x27"),
        ({"config_flags": 0x14}, "config flags 0x14: bits 0x10 are not supported"),
        ({"attributes": 1 << 29 | 1 << 63}, "MIGRATABLE excludes DEBUG and PERFMON"),
        ({"tsc_25mhz": 3}, "TSC frequency 3"),
        ({"tsc_25mhz": 401}, "TSC frequency 401"),
        ({"mrowner": b"x"}, "mrowner: 1 bytes, expected 48"),
        ({"vcpus": 4, "max_vcpus": 2}, "max vcpus 2"),
    ],
)
def test_td_params_are_checked(params: dict[str, object], message: str) -> None:
    with pytest.raises(EmuError, match=message):
        build(TdParams(**params), [], 0)  # type: ignore[arg-type]


def test_a_run_with_bad_parameters_is_refused() -> None:
    from guests import runner
    from guests.suite import suite

    image = runner.build(suite()[0])
    with pytest.raises(EmuError, match="xfam 0x1"):
        prepare(RunConfig(image=image, image_name="x", memory=64 << 20, td=TdParams(xfam=1)))
