"""Are the firmware's own memcpy and friends what C says they are; do text and copies stay in bounds?"""

from __future__ import annotations

import pytest
from ccore import CORE, LIB, CoreError, check
from hypothesis import given
from hypothesis import strategies as st


@given(st.binary(min_size=1, max_size=200), st.data())
def test_memory_functions(data, draw):
    size = draw.draw(st.integers(0, len(data)))
    source = draw.draw(st.integers(0, len(data) - size))
    to = draw.draw(st.integers(0, len(data) - size))
    memory = CORE.ffi.new("uint8_t[]", data)
    assert LIB.tdf_memmove(memory + to, memory + source, size) == memory + to
    expected = bytearray(data)
    expected[to : to + size] = data[source : source + size]
    assert bytes(memory)[: len(data)] == bytes(expected)
    other = CORE.ffi.new("uint8_t[]", len(data))
    LIB.tdf_memcpy(other, memory, len(data))
    assert LIB.tdf_memcmp(other, memory, len(data)) == 0
    LIB.tdf_memset(other, 0x1AB, size)
    assert bytes(other) == bytes([0xAB] * size) + bytes(expected[size:])


@pytest.mark.parametrize(("to", "source"), [(1, 0), (0, 1), (99, 0), (0, 99), (50, 50)])
def test_memmove_over_itself(to, source):
    data = bytes(range(200))
    memory = CORE.ffi.new("uint8_t[]", data)
    LIB.tdf_memmove(memory + to, memory + source, 100)
    assert bytes(memory)[:200] == data[:to] + data[source : source + 100] + data[to + 100 :]


@given(st.binary(min_size=4, max_size=4), st.binary(min_size=4, max_size=4))
def test_memcmp_orders_like_bytes(a, b):
    result = LIB.tdf_memcmp(CORE.ffi.new("uint8_t[]", a), CORE.ffi.new("uint8_t[]", b), 4)
    assert (result > 0) - (result < 0) == (a > b) - (a < b)


@given(st.binary(max_size=100))
def test_text_ends_at_the_first_nul(data):
    memory = CORE.guarded(len(data)) if data else CORE.guarded(1)
    CORE.ffi.buffer(CORE.ffi.cast("uint8_t *", memory.address), len(data))[:] = data
    out = CORE.new("span")
    status = LIB.text_extent(CORE.span(memory.address, len(data)), out)
    if b"\0" not in data:
        assert CORE.error(status) == "text_unterminated"
    else:
        assert CORE.content(out) == data.split(b"\0", 1)[0]


def test_copy_in():
    target, out = CORE.span(bytes(10)), CORE.new("span")
    check(LIB.copy_in(target, CORE.span(b"shared"), out))
    assert CORE.content(out) == b"shared"
    assert out.data == target.data
    with pytest.raises(CoreError, match="out_of_bounds"):
        check(LIB.copy_in(target, CORE.span(bytes(11)), out))
