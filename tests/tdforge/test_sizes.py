"""Are sizes read and shown as people write them?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tdforge.sizes import parse_size, show_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("0x1000", 4096),
        ("4K", 4096),
        ("128M", 128 << 20),
        ("257MiB", 257 << 20),
        ("2g", 2 << 30),
        ("64 GB", 64 << 30),
        (" 1T ", 1 << 40),
        ("0", 0),
    ],
)
def test_sizes_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "two", "1.5G", "-1", "2GG", "0x", "12iB", "1P", "1_000"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(min_value=1, max_value=1 << 52))
def test_a_shown_size_reads_back(size: int) -> None:
    assert parse_size(show_size(size).removesuffix("s").removesuffix(" byte")) == size
