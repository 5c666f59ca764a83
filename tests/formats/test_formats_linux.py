"""Is a bzImage read by its own header, and are files that are none refused in one line?"""

from __future__ import annotations

import struct

import pytest
from debian import kernel as debian_kernel
from hypothesis import given
from hypothesis import strategies as st

from formats import bundle, linux
from formats.errors import FormatError, TruncatedError
from formats.linux import XLoadFlags


def bzimage(setup_sects: int = 1, syssize: int = 8) -> bytearray:
    """The least file that is a bzImage, built by offsets of boot.rst alone."""
    data = bytearray(((setup_sects or 4) + 1) * 512 + syssize * 16)
    data[0x1F1] = setup_sects
    struct.pack_into("<I", data, 0x1F4, syssize)
    struct.pack_into("<HBB4sH", data, 0x1FE, 0xAA55, 0xEB, 0x6A, b"HdrS", 0x20F)
    data[0x211] = 1
    struct.pack_into("<IBBHI", data, 0x230, 0x200000, 1, 21, 1, 2047)
    struct.pack_into("<QI", data, 0x258, 0x100_0000, 0x300_0000)
    return data


def test_debian_kernel() -> None:
    data = debian_kernel().read_bytes()
    found = linux.kernel(data)
    assert found.version >= 0x20C
    assert "6.12." in found.version_text
    assert XLoadFlags.KERNEL_64 in found.xloadflags
    (syssize,) = struct.unpack_from("<I", data, 0x1F4)
    assert found.true_length == (data[0x1F1] + 1) * 512 + syssize * 16 <= len(data)
    assert (found.preferred_address, found.init_size) == struct.unpack_from("<QI", data, 0x258)
    assert (found.alignment, found.relocatable, found.cmdline_size) == (0x200000, True, 2047)


def test_zero_setup_sectors_mean_four() -> None:
    assert linux.kernel(bytes(bzimage(setup_sects=0))).setup_size == 5 * 512


@pytest.mark.parametrize(
    ("offset", "value", "text"),
    [
        (0x202, b"HdrX", "offset 0x202: found b'HdrX', expected b'HdrS'"),
        (0x1FE, b"\0\0", "offset 0x202"),
        (0x206, b"\x0b\x02", "found 2.11, expected 2.12 or later"),
        (0x236, b"\x02\x00", "expected bit 0: a kernel with a 64-bit entry"),
        (0x211, b"\0", "expected bit 0: a kernel that is loaded high"),
        (0x1F4, b"\xff\xff\xff\x7f", "bytes by the setup header"),
    ],
)
def test_what_is_no_kernel_is_told(offset: int, value: bytes, text: str) -> None:
    data = bzimage()
    data[offset : offset + len(value)] = value
    with pytest.raises(FormatError) as caught:
        linux.kernel(bytes(data), place="vmlinuz")
    assert text in str(caught.value)
    assert str(caught.value).startswith("vmlinuz")


@given(st.integers(0, 1151), st.binary(max_size=3))
def test_cut_and_garbage_give_one_line(length: int, rest: bytes) -> None:
    with pytest.raises(FormatError):
        linux.kernel(bytes(bzimage()[: min(length, 1151)]))
    with pytest.raises(FormatError):
        linux.kernel(rest)


@given(st.binary(max_size=9000), st.integers(1, 300), st.integers(0, 5000))
def test_bundle_round_trip(initrd: bytes, syssize: int, padding: int) -> None:
    image = bytes(bzimage(syssize=syssize))
    section = bundle.write(image + b"a signature", initrd).ljust(20000, b"\0") + bytes(padding)
    assert bundle.read(section) == (image, initrd)
    if initrd:
        start = -(-len(image) // 4096) * 4096
        head = section[start : start + 4096]
        assert head[:16].hex() == "523c1b7da4860f4e9d3a5c1fe2b0a764"
        assert struct.unpack_from("<Q", head, 16) == (len(initrd),)
        assert section[start + 4096 :].startswith(initrd)


def test_an_initrd_larger_than_its_section_is_refused() -> None:
    section = bundle.write(bytes(bzimage()), b"initrd")
    with pytest.raises(TruncatedError, match="an initrd of 6 bytes, expected at most 5"):
        bundle.read(section[:-1])
