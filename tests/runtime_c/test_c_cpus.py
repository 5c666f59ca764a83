"""Are the APIC ids that the vCPUs tell checked and put in order, and does an ordinary machine get those of
its own?"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from ccore import CORE, LIB, CoreError, check, make_td
from hypothesis import given
from hypothesis import strategies as st

from dsl.capabilities import prelude

MAX_CPUS = prelude().constants["MAX_CPUS"].value
LARGEST = 2**32 - 2  # all ones is everybody's


def collect(told: Sequence[int], count: int | None = None, tdx: int = 1) -> list[int]:
    """The ids in the order of the MADT; `told` is in the slots, which end at a page nobody may touch."""
    memory = CORE.guarded(4 * len(told))
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), 4 * len(told))[:] = b"".join(
        each.to_bytes(4, "little") for each in told
    )
    td, cpus = make_td(len(told) if count is None else count), CORE.new("cpus")
    td.tdx = tdx
    check(LIB.collect_cpus(CORE.span(memory.address, 4 * len(told)), td, cpus))
    assert cpus.wait == tdx
    data = CORE.content(cpus.ids)
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


@given(st.lists(st.integers(0, LARGEST), min_size=1, max_size=40, unique=True))
def test_the_boot_cpu_comes_first_then_the_others_ascend(ids: list[int]) -> None:
    assert collect([each + 1 for each in ids]) == [ids[0], *sorted(ids[1:])]


def test_as_many_as_there_may_be() -> None:
    ids = list(range(2 * MAX_CPUS, 0, -2))
    assert collect([each + 1 for each in ids]) == [ids[0], *sorted(ids[1:])]


@pytest.mark.parametrize("ids", [(3, 3), (3, 4, 3), (3, 4, 4), (4, 1, 2, 3, 1), (0, 0)])
def test_two_cpus_of_one_id(ids: tuple[int, ...]) -> None:
    with pytest.raises(CoreError, match="cpus_mismatch"):
        collect([each + 1 for each in ids])


@pytest.mark.parametrize("told", [(0,), (1, 0), (1, 0, 2), (0, 1)])
def test_an_id_that_is_everybodys(told: tuple[int, ...]) -> None:
    """All ones; id + 1 of it is 0, the slot of a vCPU that has not come."""
    with pytest.raises(CoreError, match="cpus_mismatch"):
        collect(told)


@pytest.mark.parametrize(("slots", "count"), [(1, 0), (1, 2), (3, 2**32 - 1)])
def test_no_cpus_and_more_than_there_are_slots(slots: int, count: int) -> None:
    with pytest.raises(CoreError, match="cpus_mismatch"):
        collect(range(1, slots + 1), count)


def test_slots_behind_the_last_cpu_are_not_read() -> None:
    assert collect((5, 3, 3, 3), 2) == [4, 2]


def test_without_tdx_they_do_not_wait() -> None:
    assert collect((1, 2), tdx=0) == [0, 1]


# ---- an ordinary machine: CPUID leaf 0xB says of its levels how many CPUs they have and how many bits


def width(count: int) -> int:
    return (count - 1).bit_length()


def ordinary(cpus: int, cores: int, threads: int) -> list[int]:
    """What QEMU says in leaf 0xB of this topology, given to the C core."""
    topology = CORE.new("topology")
    topology.threads, topology.thread_bits = threads, width(threads)
    topology.per_package, topology.package_bits = cores * threads, width(cores) + width(threads)
    slots = CORE.span(bytes(4 * cpus))
    LIB.ordinary_cpus(topology, slots)
    data = CORE.content(slots)
    return [int.from_bytes(data[at : at + 4], "little") - 1 for at in range(0, len(data), 4)]


def numbered_by_qemu(cpus: int, cores: int, threads: int) -> list[int]:
    """QEMU include/hw/i386/topology.h, x86_topo_ids_from_idx and x86_apicid_from_topo_ids."""
    ids = []
    for index in range(cpus):
        package, core, thread = (
            index // (cores * threads),
            index // threads % cores,
            index % threads,
        )
        ids.append(package << width(cores) + width(threads) | core << width(threads) | thread)
    return ids


@pytest.mark.parametrize(
    ("cpus", "cores", "threads", "ids"),
    [
        (1, 1, 1, [0]),
        (4, 4, 1, [0, 1, 2, 3]),
        (4, 1, 1, [0, 1, 2, 3]),
        (6, 3, 1, [0, 1, 2, 4, 5, 6]),
        (6, 1, 3, [0, 1, 2, 4, 5, 6]),
        (12, 3, 2, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]),
        (5, 3, 2, [0, 1, 2, 3, 4]),
    ],
)
def test_cpus_of_an_ordinary_machine(cpus: int, cores: int, threads: int, ids: list[int]) -> None:
    assert ordinary(cpus, cores, threads) == ids
    assert numbered_by_qemu(cpus, cores, threads) == ids


@given(st.integers(1, 300), st.integers(1, 70), st.integers(1, 4))
def test_any_topology_as_qemu_numbers_it(cpus: int, cores: int, threads: int) -> None:
    assert ordinary(cpus, cores, threads) == numbered_by_qemu(cpus, cores, threads)


def test_a_machine_that_says_nothing_of_its_levels() -> None:
    slots = CORE.span(bytes(16))
    LIB.ordinary_cpus(CORE.new("topology"), slots)
    assert CORE.content(slots) == b"".join(told.to_bytes(4, "little") for told in (1, 2, 3, 4))
