"""What does CPUID return in a TD, and where does it raise #VE? (intel/tdx-module TDX_1.5.01,
cpuid_configurations.c, td_cpuid.c; the feature bits are those of the emulated CPU)
"""

from __future__ import annotations

from dataclasses import dataclass

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX"""

MAX_LEAF = 0x23
MAX_EXTENDED = 0x80000008
FMS = 0x000806F8  # family 6, model 0x8F, stepping 8: the first generation with TDX
CRYSTAL_HZ = 25_000_000
TSC_HZ = 1_000_000_000


def bits(*numbers: int) -> int:
    """A word with these bits set."""
    return sum(1 << number for number in numbers)


# SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 x2APIC MOVBE POPCNT AES RDRAND hypervisor. No FMA, AVX, F16C, XSAVE:
# the CPU engine executes VEX-coded instructions wrongly.
LEAF1_ECX = bits(0, 1, 9, 13, 19, 20, 21, 22, 23, 25, 30, 31)
# FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
LEAF1_EDX = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26)
# FSGSBASE BMI1 SMEP BMI2 RDSEED ADX SMAP. No ERMS: the engine runs REP MOVSB one byte per step. No LA57.
LEAF7_EBX = bits(0, 3, 7, 8, 18, 19, 20)
LEAF7_EDX = bits(29)  # ARCH_CAPABILITIES

ZERO: Registers = (0, 0, 0, 0)


def _cache(kind: int, level: int, ways: int, sets: int) -> Registers:
    return (kind | level << 5 | 1 << 8, (ways - 1) << 22 | 63, sets - 1, 0)


@dataclass(frozen=True)
class Caller:
    """What of the calling vCPU shows in CPUID."""

    index: int
    cr4: int
    long_mode_code: bool


_ZERO_LEAVES = frozenset((3, 8, 0xE, 0x11, 0x12, 0x13, 0x20, 0x22, 0x19, 0x1C, 0x1E, 0xA))
_CACHES = (_cache(1, 1, 8, 64), _cache(2, 1, 8, 64), _cache(3, 2, 8, 1024), _cache(3, 3, 16, 16384), ZERO)


def lookup(leaf: int, subleaf: int, caller: Caller) -> Registers | None:
    """The module's answer, or None where CPUID raises #VE(10)."""
    if 0x40000000 <= leaf <= 0x4FFFFFFF:
        return None
    if MAX_LEAF < leaf < 0x80000000 or leaf > MAX_EXTENDED:
        leaf = MAX_LEAF
    if leaf in _ZERO_LEAVES:
        return ZERO
    match leaf:
        case 0:
            return (MAX_LEAF, 0x756E6547, 0x6C65746E, 0x49656E69)  # GenuineIntel
        case 1:
            ecx = LEAF1_ECX | (1 << 27 if caller.cr4 >> 18 & 1 else 0)
            return (FMS, (caller.index & 0xFF) << 24 | 1 << 16 | 8 << 8, ecx, LEAF1_EDX)
        case 4:
            return _CACHES[subleaf] if subleaf < len(_CACHES) else None
        case 5:
            return ZERO
        case 7 if subleaf <= 2:
            return (2, LEAF7_EBX, 0, LEAF7_EDX) if subleaf == 0 else ZERO
        case 0xD if subleaf <= 0x12:
            return ZERO
        case 0x14 | 0x1D if subleaf <= 1:
            return ZERO
        case 0x15:
            return (1, TSC_HZ // CRYSTAL_HZ, CRYSTAL_HZ, 0)
        case 0x21 if subleaf == 0:
            return (0, 0x65746E49, 0x20202020, 0x5844546C)  # "IntelTDX    " in EBX, EDX, ECX
        case 0x23 if subleaf <= 3:
            return ZERO
        case 0x80000000:
            return (MAX_EXTENDED, 0, 0, 0)
        case 0x80000001:
            return (0, 0, bits(0, 5, 8), bits(20, 26, 27, 29) | (bits(11) if caller.long_mode_code else 0))
        case 0x80000007:
            return (0, 0, 0, bits(8))
        case 0x80000008:
            return (48 << 8 | 52, 0, 0, 0)
    return None
