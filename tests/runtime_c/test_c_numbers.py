"""Are numbers written as Python writes them, and read from where they lie and nowhere else?"""

from __future__ import annotations

import pytest
from ccore import CORE, LIB, CoreError, check
from hypothesis import given
from hypothesis import strategies as st

WIDTHS = {"u8_at": 1, "u16_at": 2, "u32_at": 4, "u64_at": 8}


@given(st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 63).map(lambda n: 1 << n), st.just(0)))
def test_hexadecimal(value: int) -> None:
    out = CORE.new("hex_text")
    LIB.hex_text(value, out)
    assert bytes(out.text.items[0 : out.text.count]).decode() == hex(value)


@pytest.mark.parametrize("name", WIDTHS)
def test_a_number_lies_where_it_is_read_with_the_low_byte_first(name: str) -> None:
    width = WIDTHS[name]
    content = bytes(range(1, 21))
    memory = CORE.guarded(len(content))
    CORE.ffi.memmove(CORE.ffi.cast("uint8_t *", memory.address), content, len(content))
    data, out = CORE.span(memory.address, len(content)), CORE.ffi.new(f"uint{8 * width}_t *")
    read = getattr(LIB, name)
    for at in range(len(content) - width + 1):
        check(read(data, at, out))
        assert out[0] == int.from_bytes(content[at : at + width], "little")
    for at in (len(content) - width + 1, len(content), 2**64 - 1, 2**64 - width):
        with pytest.raises(CoreError, match="out_of_bounds"):
            check(read(data, at, out))
