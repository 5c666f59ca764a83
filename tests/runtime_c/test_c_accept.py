"""Does acceptance end with every unaccepted page accepted once, against a model of the Secure EPT?"""

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
from hypothesis import example, given, settings
from hypothesis import strategies as st

from formats.tdx.status import BUSY_RETRIES

BUSY = 0x8000_0200_0000_0001
ALREADY, MISMATCH = 0x0000_0B0A_0000_0000, 0xC000_0B0B_0000_0001
INVALID = 0xC000_0100_0000_0001


class Sept:
    """Secure EPT by the module's outcome table. `small`: 2 MiB areas the host backs with 4 KiB pages."""

    def __init__(self, small=lambda area: False, mapped=(), busy=()):
        self.small = small
        self.accepted: set[tuple[int, int]] = set(mapped)  # (start, level)
        self.given = {page for start, level in mapped for page in pages_of(start, level)}  # not yet cleared
        self.cleared: set[int] = set()
        self.busy = list(busy)
        self.calls = 0

    def clear(self, start: int, size: int) -> None:
        assert start % PAGE == size % PAGE == 0
        assert not size or start // LARGE == (start + size - 1) // LARGE
        for page in range(start // PAGE, (start + size) // PAGE):
            assert page in self.given, "a page that the TD has accepted, or cleared"
            assert page not in self.cleared
            self.cleared.add(page)

    def accept(self, gpa: int, level: int) -> int:
        self.calls += 1
        size = LARGE if level else PAGE
        assert gpa % size == 0
        if self.busy and self.busy.pop():
            return BUSY
        area = gpa - gpa % LARGE
        if (area, 1) in self.accepted:
            return ALREADY | 1
        if level:
            if self.small(area // LARGE) or any((area + i * PAGE, 0) in self.accepted for i in range(512)):
                return MISMATCH
        elif (gpa, 0) in self.accepted:
            return ALREADY
        self.accepted.add((gpa, level))
        return 0


def run(ram, sept, limit=(1 << 64) - 1, level=1):
    """What the generated code does: TDCALLs until one fails; returns the books and the number of runs."""
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, limit, level, at)
    done = status = runs = 0
    while True:
        check(LIB.accept_next(ram, at, done, status, run))
        sept.clear(run.clear, run.clear_size)
        if run.count == 0:
            return at, runs
        runs += 1
        done = status = 0
        size = LARGE if run.level else PAGE
        while done < run.count and not status:
            status = sept.accept(run.start + done * size, run.level)
            done += not status


def pages_of(start: int, level: int) -> range:
    return range(start // PAGE, start // PAGE + (512 if level else 1))


def pages(sept) -> set[int]:
    return {page for start, level in sept.accepted for page in pages_of(start, level)}


def wanted(ranges, state=UNACCEPTED) -> set[int]:
    return {p for r in ranges if r.state == state for p in range(r.start // PAGE, r.end // PAGE)}


def test_large_pages_where_they_fit_over_touching_ranges():
    ram = make_ram(
        [
            Range(0, 8 * MIB, UNACCEPTED, RAM),
            Range(8 * MIB, 8 * MIB + 2 * PAGE, ADDED, RAM),
            Range(8 * MIB + 2 * PAGE, 2047 * MIB - PAGE, UNACCEPTED, RAM),
            Range(2047 * MIB - PAGE, 2047 * MIB, UNACCEPTED, NVS),
        ]
    )
    sept = Sept()
    at, runs = run(ram, sept)
    assert pages(sept) == wanted(ranges_of(ram))
    assert (at.pages_2m, at.pages_4k) == (4 + (2046 - 10) // 2, 510 + 256)
    assert runs == 4


def test_a_64_gib_td_takes_few_runs():
    ram = make_ram([Range(0, 3 * GIB, UNACCEPTED, RAM), Range(4 * GIB, 65 * GIB, UNACCEPTED, RAM)])
    at, runs = run(ram, Sept())
    assert (at.pages_2m, at.pages_4k, runs) == (64 * 512, 0, 2)


def test_host_with_small_pages_falls_back_and_tries_again():
    ram = make_ram([Range(0, 16 * MIB, UNACCEPTED, RAM)])
    sept = Sept(small=lambda area: area % 2 == 0)
    at, _ = run(ram, sept)
    assert pages(sept) == wanted(ranges_of(ram))
    assert (at.pages_2m, at.pages_4k) == (4, 4 * 512)


def test_level_4k_only():
    ram = make_ram([Range(0, 6 * MIB, UNACCEPTED, RAM)])
    at, runs = run(ram, Sept(), level=0)
    assert (at.pages_2m, at.pages_4k, runs) == (0, 3 * 512, 1)


def test_already_accepted_is_skipped_by_its_level():
    ram = make_ram([Range(PAGE, 8 * MIB, UNACCEPTED, RAM)])
    sept = Sept(mapped=[(0, 1), (2 * MIB + PAGE, 0), (4 * MIB, 1)])
    at, _ = run(ram, sept)
    assert pages(sept) == set(range(8 * MIB // PAGE))
    assert (at.pages_2m, at.pages_4k) == (1, 511)
    assert sept.cleared == sept.given - {0}


def test_of_a_large_page_around_a_section_all_but_the_section_is_cleared():
    """A host may join pages that it added (TDH.MEM.PAGE.PROMOTE)."""
    section = Range(2 * MIB + 64 * PAGE, 2 * MIB + 96 * PAGE, ADDED, RAM)
    ram = make_ram(
        [Range(0, section.start, UNACCEPTED, RAM), section, Range(section.end, 8 * MIB, UNACCEPTED, RAM)]
    )
    sept = Sept(mapped=[(2 * MIB, 1)])
    run(ram, sept)
    assert sept.cleared == sept.given - set(range(section.start // PAGE, section.end // PAGE))


def test_pages_that_touch_are_cleared_at_once():
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 0, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    for number in range(511):
        check(LIB.accept_next(ram, at, 0, ALREADY, run))
        assert (run.clear_size, run.start) == (0, (number + 1) * PAGE)
    check(LIB.accept_next(ram, at, 0, ALREADY, run))
    assert (run.clear, run.clear_size, run.start) == (0, LARGE, LARGE)
    check(LIB.accept_next(ram, at, 3, ALREADY, run))
    assert run.clear_size == 0
    check(LIB.accept_next(ram, at, 1, 0, run))
    assert (run.clear, run.clear_size) == (LARGE + 3 * PAGE, PAGE)


@pytest.mark.parametrize("there", [0, 1, 511])
def test_small_pages_end_with_the_large_page_that_was_refused(there):
    ram = make_ram([Range(0, 6 * MIB, UNACCEPTED, RAM)])
    at, _ = run(ram, Sept(mapped=[(2 * MIB + there * PAGE, 0)]))
    assert (at.pages_2m, at.pages_4k) == (2, 511)


def test_small_pages_end_with_a_large_page_of_which_all_was_added():
    """Nothing is accepted there that would end the fallback."""
    ram = make_ram([Range(0, 6 * MIB, UNACCEPTED, RAM)])
    at, _ = run(ram, Sept(mapped=[(2 * MIB + i * PAGE, 0) for i in range(512)]))
    assert (at.pages_2m, at.pages_4k) == (2, 0)


def test_limit_leaves_the_rest_out_but_not_carved_regions():
    ram = make_ram(
        [
            Range(0, 64 * MIB, UNACCEPTED, RAM),
            Range(64 * MIB, 64 * MIB + PAGE, UNACCEPTED, NVS),
            Range(70 * MIB, 71 * MIB, ADDED, RAM),
            Range(80 * MIB, 90 * MIB, UNACCEPTED, RAM),
        ],
        carved=[(64 * MIB, PAGE)],
    )
    sept = Sept()
    run(ram, sept, limit=33 * MIB + 5)
    assert ranges_of(ram) == [
        Range(0, 33 * MIB, UNACCEPTED, RAM),
        Range(33 * MIB, 64 * MIB, LEFT_OUT, RAM),
        Range(64 * MIB, 64 * MIB + PAGE, UNACCEPTED, NVS),
        Range(70 * MIB, 71 * MIB, ADDED, RAM),
        Range(80 * MIB, 90 * MIB, LEFT_OUT, RAM),
    ]
    assert pages(sept) == wanted(ranges_of(ram))


def test_limit_with_a_full_table_still_leaves_out():
    ram = make_ram([Range(i * MIB, i * MIB + 2 * PAGE, UNACCEPTED, RAM) for i in range(256)])
    sept = Sept()
    run(ram, sept, limit=10 * MIB + PAGE)
    assert max(pages(sept)) == 10 * MIB // PAGE
    assert ram.ranges.count == 256


def test_busy_is_retried_but_not_forever():
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    run(ram, Sept(busy=[False, True, True, True]))
    with pytest.raises(CoreError, match="accept_failed"):
        run(ram, Sept(busy=[True] * 5000))


def test_busy_is_retried_as_often_as_declared():
    ram = make_ram([Range(0, PAGE, UNACCEPTED, RAM)])
    sept = Sept(busy=[True] * BUSY_RETRIES)
    run(ram, sept)
    assert (pages(sept), sept.calls) == ({0}, BUSY_RETRIES + 1)
    with pytest.raises(CoreError, match="accept_failed"):
        run(ram, Sept(busy=[True] * (BUSY_RETRIES + 1)))


def test_busy_answers_are_counted_anew_for_each_page():
    ram = make_ram([Range(0, 2 * PAGE, UNACCEPTED, RAM)])
    busy = [True] * BUSY_RETRIES
    sept = Sept(busy=[*busy, False, *busy])
    run(ram, sept)
    assert (pages(sept), sept.calls) == ({0, 1}, 2 * BUSY_RETRIES + 2)


@pytest.mark.parametrize("status", [INVALID, 1 << 63, 1, ALREADY | 3, 0x8000_0300_0000_0000])
def test_other_statuses_fail(status):
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 1, status, run))


def test_a_smaller_level_than_asked_is_no_answer():
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    assert run.level == 1
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 0, ALREADY, run))


def test_mismatch_at_4k_fails():
    ram = make_ram([Range(0, MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 0, MISMATCH, run))


@pytest.mark.parametrize("status", [BUSY, ALREADY, MISMATCH, INVALID])
def test_a_status_before_anything_was_asked_is_no_answer(status):
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 0, status, run))


def test_pages_that_nobody_asked_for_are_not_counted():
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 1, 0, run))


@pytest.mark.parametrize("done", [(1 << 64) - 1, 1 << 43])
def test_more_pages_than_addresses_are_no_answer(done):
    ram = make_ram([Range(0, 4 * MIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, done, 0, run))


def test_a_page_of_1_gib_is_cleared_and_skipped_in_steps():
    ram = make_ram([Range(LARGE, 3 * GIB, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, 1 << 40, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    check(LIB.accept_next(ram, at, 3, ALREADY | 2, run))
    assert (run.start, run.level) == (5 * LARGE, 1)
    assert (run.clear, run.clear_size) == (4 * LARGE, LARGE)


def test_a_page_of_1_gib_that_ends_above_all_addresses_is_not_skipped():
    top = 1 << 64
    ram = make_ram([Range(top - 2 * PAGE, top - PAGE, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, top - 1, 1, at)
    check(LIB.accept_next(ram, at, 0, 0, run))
    assert (run.start, run.count, run.level) == (top - 2 * PAGE, 1, 0)
    with pytest.raises(CoreError, match="accept_failed"):
        check(LIB.accept_next(ram, at, 0, ALREADY | 2, run))


@st.composite
def memory(draw):
    ranges, at = [], 0
    for _ in range(draw(st.integers(1, 6))):
        start = at + PAGE * draw(st.sampled_from([0, 0, 1, 511, 512, 700]))
        at = start + PAGE * draw(st.sampled_from([1, 3, 511, 512, 513, 1024, 1500]))
        ranges.append(Range(start, at, draw(st.sampled_from([UNACCEPTED, UNACCEPTED, ADDED])), RAM))
    return ranges


@settings(max_examples=150, deadline=None)
@given(memory(), st.sets(st.integers(0, 3000), max_size=60), st.sets(st.integers(0, 6)), st.integers(0, 1))
def test_every_page_that_the_vmm_had_added_is_cleared_and_no_other(ranges, small, large, level):
    """Single pages, runs of them, and whole areas; sections may lie anywhere among them."""
    single = {number for first in small for number in range(first, first + first % 5 + 1)}
    areas = [(area * LARGE, 1) for area in large]
    mapped = [(number * PAGE, 0) for number in single if number // 512 not in large] + areas
    ram = make_ram(ranges)
    sept = Sept(mapped=mapped)
    at, _ = run(ram, sept, level=level)
    assert sept.cleared == sept.given & wanted(ranges)
    assert pages(sept) >= wanted(ranges)
    assert at.pages_2m * 512 + at.pages_4k == len(wanted(ranges) - sept.given)


@settings(max_examples=150, deadline=None)
@given(memory(), st.sets(st.integers(0, 20)), st.lists(st.booleans(), max_size=40), st.sampled_from([0, 1]))
def test_every_unaccepted_page_once_and_no_added_page(ranges, small, busy, level):
    ram = make_ram(ranges)
    sept = Sept(small=lambda area: area in small, busy=busy)
    at, _ = run(ram, sept, level=level)
    assert pages(sept) == wanted(ranges)
    assert at.pages_2m * 512 + at.pages_4k == len(wanted(ranges))


@example([(4, MISMATCH)])  # all pages done, and one refused
@given(
    st.lists(
        st.tuples(
            st.integers(0, (1 << 64) - 1),
            st.sampled_from([0, BUSY, ALREADY, ALREADY | 1, ALREADY | 2, MISMATCH]),
        ),
        max_size=30,
    )
)
def test_answers_that_make_no_sense_do_no_harm(answers):
    ram = make_ram([Range(0, 8 * MIB, UNACCEPTED, RAM), Range((1 << 51) - PAGE, 1 << 51, UNACCEPTED, RAM)])
    at, run = CORE.new("acceptance"), CORE.new("accept_run")
    LIB.accept_begin(ram, (1 << 64) - 1, 1, at)
    for done, status in [(0, 0), *answers]:
        if LIB.accept_next(ram, at, done, status, run) or run.count == 0:
            return
        size = LARGE if run.level else PAGE
        assert any(r.start <= run.start < r.end for r in ranges_of(ram))
        assert any(r.start < run.start + run.count * size <= r.end for r in ranges_of(ram))


CUT = [
    ((2 * MIB, 4 * MIB), [(0, 2, UNACCEPTED), (2, 4, LEFT_OUT), (4, 8, UNACCEPTED), (16, 32, UNACCEPTED)]),
    ((0, 8 * MIB), [(0, 1, UNACCEPTED), (1, 8, LEFT_OUT), (16, 32, UNACCEPTED)]),
    ((4 * MIB, 20 * MIB), [(0, 4, UNACCEPTED), (4, 8, LEFT_OUT), (16, 20, LEFT_OUT), (20, 32, UNACCEPTED)]),
    ((8 * MIB, 16 * MIB), [(0, 8, UNACCEPTED), (16, 32, UNACCEPTED)]),
    ((0, 2**64 - 1), [(0, 1, UNACCEPTED), (1, 8, LEFT_OUT), (16, 32, LEFT_OUT)]),
    ((0, MIB), [(0, 8, UNACCEPTED), (16, 32, UNACCEPTED)]),
]


@pytest.mark.parametrize(("gap", "expected"), CUT)
def test_a_part_of_the_plan_is_left_out(gap: tuple[int, int], expected: list[tuple[int, int, int]]) -> None:
    ram = make_ram([Range(0, 8 * MIB, UNACCEPTED, RAM), Range(16 * MIB, 32 * MIB, UNACCEPTED, RAM)])
    LIB.leave_out(ram, *gap)
    assert [(r.start // MIB, r.end // MIB, r.state) for r in ranges_of(ram)] == expected


def test_what_is_left_out_is_whole_pages_and_neither_added_nor_carved() -> None:
    added, carved = Range(8 * MIB, 9 * MIB, ADDED, RAM), Range(9 * MIB, 10 * MIB, UNACCEPTED, NVS)
    ram = make_ram([Range(0, 8 * MIB, UNACCEPTED, RAM), added, carved], [(9 * MIB, MIB)])
    LIB.leave_out(ram, 7 * MIB + 1, 32 * MIB)
    assert ranges_of(ram) == [
        Range(0, 7 * MIB, UNACCEPTED, RAM),
        Range(7 * MIB, 8 * MIB, LEFT_OUT, RAM),
        added,
        carved,
    ]
    LIB.leave_out(ram, 0, MIB + PAGE + 1)
    assert ranges_of(ram)[:2] == [
        Range(0, MIB, UNACCEPTED, RAM),
        Range(MIB, MIB + 2 * PAGE, LEFT_OUT, RAM),
    ]


def test_a_limit_below_1_mib_leaves_nothing_there_to_the_vmm() -> None:
    """Linux looks for tables of a BIOS there (formats/limits.py), and a VMM may have added pages."""
    ram = make_ram([Range(0, 0xA_0000, UNACCEPTED, RAM), Range(0xC_0000, 2 * MIB, UNACCEPTED, RAM)])
    sept = Sept(mapped=[(0xF_0000, 0)])
    run(ram, sept, limit=PAGE)
    assert pages(sept) == {*range(0xA_0000 // PAGE), *range(0xC_0000 // PAGE, MIB // PAGE)}
    assert sept.cleared == {0xF_0000 // PAGE}


def test_with_no_entry_free_the_upper_part_is_not_listed() -> None:
    ranges = [Range(4 * i * MIB, (4 * i + 2) * MIB, UNACCEPTED, RAM) for i in range(256)]
    ram = make_ram(ranges)
    LIB.leave_out(ram, 4 * MIB, 5 * MIB)
    assert ranges_of(ram) == [ranges[0], Range(4 * MIB, 5 * MIB, LEFT_OUT, RAM), *ranges[2:]]
