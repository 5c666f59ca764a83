"""Does the native core measure instructions as an independent decoder does?"""

from __future__ import annotations

import random

import iced_x86
import pytest
from debian import ovmf

from emu.cpu import engine


def lengths(code: bytes, mode: int) -> tuple[int, int]:
    """Length by iced-x86 (0 when it is no instruction) and by the native core."""
    ffi, lib = engine.load()
    decoded = iced_x86.Decoder(mode, code).decode()
    amd_only = decoded.encoding == iced_x86.EncodingKind.XOP
    wanted = 0 if decoded.is_invalid or amd_only else decoded.len
    return wanted, int(lib.td_insn_length(ffi.from_buffer(code), len(code), mode))


@pytest.mark.parametrize("mode", [64, 32, 16])
def test_random_instructions(mode: int) -> None:
    source = random.Random(mode)
    checked = 0
    for _ in range(60_000):
        code = source.randbytes(15)
        wanted, found = lengths(code, mode)
        if wanted:
            assert found == wanted, code.hex()
            checked += 1
    assert checked > 50_000


def test_code_of_a_real_firmware() -> None:
    image = ovmf().read_bytes()[-0x40000:-0x10000]
    at, checked = 0, 0
    while at < len(image) - 16:
        wanted, found = lengths(image[at : at + 15], 64)
        if wanted:
            assert found == wanted, image[at : at + 15].hex()
            checked += 1
        at += wanted or 1
    assert checked > 10_000


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("660f01cc", "TDCALL"),
        ("0fa2", "CPUID"),
        ("0f32", "RDMSR"),
        ("0f30", "WRMSR"),
        ("f4", "HLT"),
        ("ec", "IN"),
        ("e670", "OUT"),
        ("f36e", "OUTS"),
        ("0f31", "RDTSC"),
        ("0f01f9", "RDTSCP"),
        ("0f22c0", "MOV_CR0"),
        ("0f22e3", "MOV_CR4"),
        ("0f22d8", "NONE"),
        ("440f22c0", "MOV_CR8"),
        ("410f20c0", "NONE"),
        ("0f010f", "STORE_TABLE"),
        ("0f01f0", "LMSW"),
        ("c5f8a2", "UD"),
        ("c5f877", "UD"),
        ("c4e3fbf0c104", "NONE"),
        ("480fc7f1", "RDRAND"),
        ("0fc7f8", "RDSEED"),
        ("0fc70f", "NONE"),
        ("0f01d1", "XSETBV"),
        ("0f01d0", "XGETBV"),
        ("f30f09", "WBINVD"),
        ("0f05", "SYSCALL"),
        ("90", "NONE"),
    ],
)
def test_which_instructions_are_caught(code: str, name: str) -> None:
    ffi, lib = engine.load()
    raw = bytes.fromhex(code)
    assert lib.td_insn_kind(ffi.from_buffer(raw), len(raw), 64) == getattr(lib, f"TD_INSN_{name}")
