"""Is a quote asked for as GHCI says, and is the answer taken once, whole and only if it fits?"""

from __future__ import annotations

import struct

import pytest
from ccore import CORE, LIB, CoreError, check

from emu.vmm.quote import answer

REPORT = bytes(i % 251 for i in range(1024))
HEADER = struct.Struct("<QQII")  # version, status, bytes in, bytes out: Linux struct tdx_quote_buf
IN_FLIGHT = 2**64 - 1


def window(size: int = 4096) -> tuple[object, object]:
    memory = CORE.guarded(size)
    return memory, CORE.span(memory.address, size)


def test_the_request_is_what_the_service_reads() -> None:
    memory, span = window()
    LIB.quote_request(span, CORE.span(REPORT))
    content = CORE.content(span)
    assert HEADER.unpack_from(content) == (1, 0, 1024, 0)
    assert content[HEADER.size : HEADER.size + 1024] == REPORT
    assert memory is not None
    assert answer(content).status == 0


def put(span: object, status: int, size: int, data: bytes = b"") -> None:
    content = HEADER.pack(1, status, 1024, size) + data
    CORE.ffi.memmove(span.data, content, len(content))  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [0, 1, 4072])
def test_the_answer_is_copied_into_private_memory(size: int) -> None:
    memory, span = window()
    data = bytes(i % 253 for i in range(size))
    put(span, 0, size, data)
    kept, to = window()
    out = CORE.ffi.new("struct span *")
    check(LIB.quote_answer(to, span, out))
    assert (CORE.content(out), out.data) == (data, to.data)
    assert memory is not None
    assert kept is not None


@pytest.mark.parametrize(
    ("status", "size", "error"),
    [
        (IN_FLIGHT, 0, "quote_pending"),
        (1 << 63, 0, "quote_failed"),
        (0, 4073, "quote_failed"),
        (0, 2**32 - 1, "quote_failed"),
    ],
)
def test_what_is_no_answer(status: int, size: int, error: str) -> None:
    memory, span = window()
    put(span, status, size)
    with pytest.raises(CoreError, match=error):
        check(LIB.quote_answer(span, span, CORE.ffi.new("struct span *")))
    assert memory is not None


def test_a_quote_that_does_not_fit_where_it_goes() -> None:
    memory, span = window()
    put(span, 0, 100)
    with pytest.raises(CoreError, match="quote_failed"):
        check(LIB.quote_answer(CORE.span(bytes(99)), span, CORE.ffi.new("struct span *")))
    assert memory is not None


@pytest.mark.parametrize(
    ("room", "size"), [(HEADER.size + 1023, 1024), (HEADER.size + 1024, 1023), (0, 1024)]
)
def test_no_request_without_room_or_report(room: int, size: int) -> None:
    memory, span = window(room)
    kept, report = window(size)
    LIB.quote_request(span, report)
    assert CORE.content(span) == bytes(room)
    assert memory is not None
    assert kept is not None


def test_a_window_without_a_head_has_no_answer() -> None:
    memory, span = window(HEADER.size - 1)
    with pytest.raises(CoreError, match="quote_failed"):
        check(LIB.quote_answer(CORE.span(bytes(64)), span, CORE.ffi.new("struct span *")))
    assert memory is not None
