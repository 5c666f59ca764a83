"""Do vCPUs that share acceptance, whichever takes what, accept and clear what one alone does?"""

from __future__ import annotations

import pytest
from ccore import (
    ADDED,
    CORE,
    GIB,
    LARGE,
    LEFT_OUT,
    LIB,
    MIB,
    NVS,
    PAGE,
    RAM,
    UNACCEPTED,
    CoreError,
    Range,
    check,
    make_ram,
    ranges_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from test_c_accept import INVALID, MISMATCH, Sept, memory, pages, run, wanted


def shares_of(ram, level=1):
    shares = CORE.new("shares")
    LIB.accept_shares(ram, level, shares)
    return shares


def listed(shares):
    return [(s.start, s.end, s.chunks, s.large) for s in shares.list.items[0 : shares.list.count]]


def chunks_of(shares):
    """What the generated code makes of the list: the chunks by their number."""
    chunks = []
    for start, end, count, large in listed(shares):
        first = start - start % LARGE
        areas = [(first + i * LARGE, first + (i + 1) * LARGE) for i in range(count)]
        chunks += [(max(start, low), min(end, high), large) for low, high in areas]
    return chunks


def take_part(sept, start, end, large):
    """An AP: where the rest begins that it leaves; `end` if it leaves none."""
    if end - start == large:
        status = sept.accept(start, 1)
        if status == 0:
            return end
        if status >> 32 != MISMATCH >> 32:
            return start
    while start < end and sept.accept(start, 0) == 0:
        start += PAGE
    return start


def finish(ram, sept, start, end, level):
    """vCPU 0 with the rest of a chunk."""
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, (1 << 64) - 1, level, at)
    at.next = start
    done = status = 0
    while True:
        check(LIB.accept_rest(ram, at, end, done, status, run))
        sept.clear(run.clear, run.clear_size)
        size = LARGE if run.level else PAGE
        assert start <= run.start
        assert not run.count or run.start + run.count * size <= end, "it is another's"
        if run.count == 0:
            return
        done = status = 0
        while done < run.count and not status:
            status = sept.accept(run.start + done * size, run.level)
            done += not status


def shared(ram, sept, level, order):
    """Chunks in some order; the rest of one is finished before the next, or after all."""
    rests = []
    chunks = chunks_of(shares_of(ram, level))
    for number, late in order(len(chunks)):
        start, end, large = chunks[number]
        rest = take_part(sept, start, end, large)
        if rest < end:
            rests.append((rest, end))
        if not late:
            while rests:
                finish(ram, sept, *rests.pop(), level)
    for rest in rests:
        finish(ram, sept, *rest, level)


def test_ranges_that_touch_are_one_and_others_are_none() -> None:
    ram = make_ram(
        [
            Range(PAGE, MIB, UNACCEPTED, RAM),
            Range(MIB, 4 * MIB, UNACCEPTED, NVS),
            Range(4 * MIB, 5 * MIB, ADDED, RAM),
            Range(5 * MIB, 6 * MIB, LEFT_OUT, RAM),
            Range(6 * MIB + PAGE, 8 * MIB + PAGE, UNACCEPTED, RAM),
            Range(8 * MIB + 2 * PAGE, 8 * MIB + 3 * PAGE, UNACCEPTED, RAM),
        ]
    )
    shares = shares_of(ram)
    assert listed(shares) == [
        (PAGE, 4 * MIB, 2, LARGE),
        (6 * MIB + PAGE, 8 * MIB + PAGE, 2, LARGE),
        (8 * MIB + 2 * PAGE, 8 * MIB + 3 * PAGE, 1, LARGE),
    ]
    assert shares.chunks == 5


def test_no_large_page_is_asked_for_at_level_4k() -> None:
    shares = shares_of(make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)]), level=0)
    assert (listed(shares), shares.chunks) == ([(0, 4 * MIB, 2, 0)], 2)


def test_as_many_ranges_as_a_plan_has() -> None:
    ram = make_ram([Range(i * LARGE, i * LARGE + PAGE, UNACCEPTED, RAM) for i in range(256)])
    shares = shares_of(ram)
    assert (shares.list.count, shares.chunks) == (256, 256)
    assert shares_of(make_ram([])).chunks == 0


def test_all_that_can_be_private() -> None:
    assert shares_of(make_ram([Range(0, 1 << 51, UNACCEPTED, RAM)])).chunks == 1 << 30


@settings(max_examples=150, deadline=None)
@given(
    memory(),
    st.sets(st.integers(0, 3000), max_size=20),
    st.sets(st.integers(0, 6)),
    st.sets(st.integers(0, 20)),
    st.integers(0, 1),
    st.randoms(use_true_random=False),
)
def test_any_order_accepts_and_clears_what_one_vcpu_does(ranges, single, large, small, level, random) -> None:
    mapped = [(number * PAGE, 0) for number in single if number // 512 not in large]
    mapped += [(area * LARGE, 1) for area in large]
    alone, together = (Sept(small=lambda area: area in small, mapped=mapped) for _ in range(2))
    run(make_ram(ranges), alone, level=level)
    ram = make_ram(ranges)

    def order(count):
        return [(number, random.random() < 0.5) for number in random.sample(range(count), count)]

    shared(ram, together, level, order)
    assert together.accepted == alone.accepted
    assert together.cleared == alone.cleared
    assert pages(together) >= wanted(ranges)
    assert ranges_of(ram) == ranges


def test_a_rest_ends_with_its_chunk_though_ram_goes_on() -> None:
    ram = make_ram([Range(0, 8 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    at.next = 2 * MIB
    check(LIB.accept_rest(ram, at, 4 * MIB, 0, 0, run))
    assert (run.start, run.count, run.level) == (2 * MIB, 1, 1)
    check(LIB.accept_rest(ram, at, 4 * MIB, 0, MISMATCH, run))
    assert (run.start, run.count, run.level) == (2 * MIB, 512, 0)
    check(LIB.accept_rest(ram, at, 4 * MIB, 512, 0, run))
    assert run.count == 0


def test_a_rest_of_small_pages_ends_before_the_next_chunk() -> None:
    ram = make_ram([Range(0, 1 * GIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 0, at)
    at.next = 2 * MIB - 3 * PAGE
    check(LIB.accept_rest(ram, at, 2 * MIB, 0, 0, run))
    assert (run.start, run.count, run.level) == (2 * MIB - 3 * PAGE, 3, 0)


def test_what_another_range_has_in_the_same_area_is_another_chunk() -> None:
    ram = make_ram([Range(0, PAGE, UNACCEPTED, RAM), Range(2 * PAGE, 3 * PAGE, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_rest(ram, at, PAGE, 0, 0, run))
    assert (run.start, run.count) == (0, 1)
    check(LIB.accept_rest(ram, at, PAGE, 1, 0, run))
    assert run.count == 0


def test_a_refusal_is_handed_on() -> None:
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_rest(ram, at, 2 * MIB, 0, 0, run))
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_rest(ram, at, 2 * MIB, 0, INVALID, run))
