"""Are kernel and initrd found and checked as the boot protocol wants it?"""

from __future__ import annotations

import pytest
from bzimage import bzimage, extent, guarded, parse
from ccore import (
    CORE,
    LIB,
    CoreError,
    check,
)
from debian import kernel as debian_kernel
from hypothesis import given, settings
from hypothesis import strategies as st

from formats import bundle, linux


def test_debians_kernel():
    data = debian_kernel().read_bytes()
    expected = linux.kernel(data)
    assert extent(data) == expected.true_length < len(data)
    out = parse(data)
    assert (out.image.size, out.setup_size, out.protected_size, out.init_size) == (
        expected.true_length,
        expected.setup_size,
        expected.protected_size,
        expected.init_size,
    )
    assert (out.pref_address, out.alignment, out.relocatable, out.xloadflags) == (
        expected.preferred_address,
        expected.alignment,
        expected.relocatable,
        expected.xloadflags,
    )
    assert (out.initrd_max, out.command_line_max) == (expected.initrd_max, expected.cmdline_size)


def test_setup_sects_zero_means_four():
    data = bzimage(setup_sects=0)
    assert extent(data + bytes(100)) == len(data) == 2560 + 4096


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"header": 0}, "kernel_not_bzimage"),
        ({"boot_flag": 0}, "kernel_not_bzimage"),
        ({"version": 0x20B}, "kernel_too_old"),
        ({"xloadflags": 0x7E}, "kernel_too_old"),
        ({"loadflags": 0}, "kernel_malformed"),
        ({"jump": 0xE9}, "kernel_malformed"),
        ({"jump_offset": 0x61}, "kernel_malformed"),
        ({"jump_offset": 0x8F}, "kernel_malformed"),
        ({"kernel_alignment": 0}, "kernel_malformed"),
        ({"kernel_alignment": 0x300000}, "kernel_malformed"),
        ({"kernel_alignment": 0x800}, "kernel_malformed"),
        ({"init_size": 0}, "kernel_malformed"),
        ({"syssize": 0x20}, "kernel_malformed"),
        ({"pref_address": 0x1000001}, "kernel_malformed"),
        ({"pref_address": (1 << 64) - 0x1000}, "kernel_malformed"),
    ],
)
def test_refuses(changes, error):
    with pytest.raises(CoreError, match=error):
        parse(bzimage(**changes))


def test_truncated():
    data = bzimage()
    for size, error in (
        (len(data) - 1, "kernel_truncated"),
        (0x26B, "kernel_not_bzimage"),
        (0, "kernel_not_bzimage"),
    ):
        with pytest.raises(CoreError, match=error):
            extent(data[:size])
        with pytest.raises(CoreError, match=error):
            parse(data[:size])


def initrd_of(section: bytes) -> bytes:
    span, kernel, out = guarded(section), CORE.new("span"), CORE.new("span")
    check(LIB.linux_extent(span, kernel))
    check(LIB.initrd_extent(span, kernel, out))
    return CORE.content(out)


@pytest.mark.parametrize("size", [1, 4095, 4096, 10000])
def test_bundle(size):
    initrd = bytes(i % 251 for i in range(size))
    section = bundle.write(bzimage(), initrd)
    assert initrd_of(section) == initrd
    assert initrd_of(section + bytes(5000)) == initrd
    with pytest.raises(CoreError, match="initrd_malformed"):
        initrd_of(section[:-1])


def test_no_bundle_is_no_initrd():
    assert initrd_of(bzimage()) == b""
    assert initrd_of(bzimage() + bytes(8192)) == b""
    assert initrd_of(bzimage() + b"signature" * 1000) == b""
    span = guarded(bzimage())
    out = CORE.new("span")
    with pytest.raises(CoreError, match="initrd_malformed"):
        check(LIB.initrd_extent(span, CORE.span(CORE.address(span.data) - 1, 10), out))


def test_an_empty_bundle_is_no_bundle():
    """The event log has the address of the initrd: no register would tell the two apart."""

    def place(section: bytes) -> tuple[int, int]:
        span, kernel, out = guarded(section), CORE.new("span"), CORE.new("span")
        check(LIB.linux_extent(span, kernel))
        check(LIB.initrd_extent(span, kernel, out))
        return CORE.address(out.data) - CORE.address(span.data), out.size

    kernel = bzimage()
    size = bundle.write(kernel, b"i")
    header = size.index(bundle.GUID.bytes_le)
    empty = size[:header] + bundle.GUID.bytes_le + bytes(8192)
    assert place(empty) == place(kernel + bytes(8192)) == (len(kernel), 0)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0x1F0, 0x26F), st.integers(0, 255)), max_size=8), st.integers(0, 5200))
def test_any_header_is_parsed_or_refused(changes, size):
    data = bytearray(bundle.write(bzimage(), b"initrd"))
    for offset, value in changes:
        data[offset] = value
    span = guarded(bytes(data[:size]))
    kernel, initrd, out = CORE.new("span"), CORE.new("span"), CORE.new("linux")
    if LIB.linux_extent(span, kernel) == 0:
        assert kernel.size <= size
        LIB.initrd_extent(span, kernel, initrd)
        LIB.parse_linux(kernel, out)
