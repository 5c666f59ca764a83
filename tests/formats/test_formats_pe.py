"""Is the digest of an image the one that other tools compute, whatever was signed and appended?"""

from __future__ import annotations

import pefile
from debian import kernel
from virt.peutils.pesign import pe_authenticode_hash

from formats import pe
from gen.link.sample import sample


def other(data: bytes) -> bytes:
    found: bytes = pe_authenticode_hash(pefile.PE(data=data, fast_load=True), "sha384")
    return found


def signed(data: bytes, signature: bytes = b"8 bytes." * 3) -> bytes:
    """With a table of certificates behind it, and the entry that says where."""
    image = pefile.PE(data=data, fast_load=True)
    entry = image.OPTIONAL_HEADER.DATA_DIRECTORY[4].get_file_offset()
    changed = bytearray(data + bytes(-len(data) % 8))
    changed[entry : entry + 8] = len(changed).to_bytes(4, "little") + len(signature).to_bytes(4, "little")
    return bytes(changed) + signature


def test_debians_kernel_and_the_sample() -> None:
    for data in (kernel().read_bytes(), sample("pe")):
        assert pe.authenticode(data) == other(data)


def test_signature_and_checksum_are_not_in_it() -> None:
    data = sample("pe")
    data += bytes(-len(data) % 8)
    assert pe.authenticode(signed(data)) == pe.authenticode(data)
    at = pefile.PE(data=data, fast_load=True).OPTIONAL_HEADER.get_file_offset() + 0x40
    assert pe.authenticode(data[:at] + b"sums" + data[at + 4 :]) == pe.authenticode(data)


def test_all_else_is_in_it() -> None:
    data = sample("pe")
    digest = pe.authenticode(data)
    for place in (2, 0x3D0, len(data) // 2, len(data) - 1):
        assert pe.authenticode(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]) != digest, place
    assert pe.authenticode(data + b"more") != digest


def test_a_header_that_is_cut_short_has_none() -> None:
    data = sample("pe")
    for end in (0, 10, 0x40, 0x90, 0x150):
        assert pe.authenticode(data[:end]) is None, end
