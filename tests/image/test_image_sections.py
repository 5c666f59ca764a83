"""Are parts that overlap found, whatever their order, by one look at each?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from image.sections import overlaps

PARTS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9)), max_size=6)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, 4), (4, 8)], []),
        ([(0, 4), (3, 8)], [(0, 1, 3)]),
        ([(3, 8), (0, 4)], [(0, 1, 3)]),
        ([(0, 9), (1, 2), (5, 6)], [(0, 1, 1), (0, 2, 5)]),  # the second hides nothing of the first
        ([(2, 3), (2, 3)], [(0, 1, 2)]),
    ],
)
def test_which_parts_overlap(parts: list[tuple[int, int]], expected: list[tuple[int, int, int]]) -> None:
    assert list(overlaps((start, end, i) for i, (start, end) in enumerate(parts))) == expected


@given(PARTS)
def test_what_is_found_overlaps_and_nothing_is_missed(sizes: list[tuple[int, int]]) -> None:
    parts = [(start, start + size, i) for i, (start, size) in enumerate(sizes)]
    found = list(overlaps(parts))
    for one, two, at in found:
        assert max(parts[one][0], parts[two][0]) == at < min(parts[one][1], parts[two][1])
    touching = any(a[0] < b[1] and b[0] < a[1] for a in parts for b in parts if a[2] < b[2])
    assert bool(found) == touching
