"""What does CPUID return in a TD, and where does it raise #VE? (intel/tdx-module TDX_1.5.01,
cpuid_configurations.c, td_cpuid.c; the feature bits are those of the emulated CPU)
"""

from __future__ import annotations

from dataclasses import dataclass

Registers = tuple[int, int, int, int]
"""EAX, EBX, ECX, EDX"""

MAX_LEAF = 0x23
MAX_EXTENDED = 0x80000008
HYPERVISOR_FIRST, HYPERVISOR_LAST = 0x40000000, 0x4FFFFFFF
FMS = 0x000806F8  # family 6, model 0x8F, stepping 8: the first generation with TDX
CRYSTAL_HZ = 25_000_000
TSC_HZ = 1_000_000_000


def bits(*numbers: int) -> int:
    """A word with these bits set."""
    return sum(1 << number for number in numbers)


# SSE3 PCLMULQDQ SSSE3 CX16 SSE4.1 SSE4.2 x2APIC MOVBE POPCNT TSC-deadline AES RDRAND hypervisor. No FMA, AVX,
# F16C, XSAVE: the CPU engine executes VEX-coded instructions wrongly.
LEAF1_ECX = bits(0, 1, 9, 13, 19, 20, 21, 22, 23, 24, 25, 30, 31)
# FPU DE PSE TSC MSR PAE MCE CX8 APIC SEP MTRR PGE MCA CMOV PAT CLFSH MMX FXSR SSE SSE2; PSE36 is fixed to 0
LEAF1_EDX = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 19, 23, 24, 25, 26)
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
    tsc_25mhz: int = TSC_HZ // CRYSTAL_HZ


@dataclass(frozen=True)
class Row:
    """One entry of the module's table: leaf, sub-leaf (None: any), its number there, which CPUID_CONTROL
    goes by, and the answer before what changes with the caller; None is #VE.
    """

    leaf: int
    subleaf: int | None
    number: int
    answer: Registers | None = ZERO


ROWS: tuple[Row, ...] = (
    Row(0, None, 10, (MAX_LEAF, 0x756E6547, 0x6C65746E, 0x49656E69)),  # GenuineIntel
    Row(1, None, 0, (FMS, 1 << 16 | 8 << 8, LEAF1_ECX, LEAF1_EDX)),
    Row(3, None, 11),
    Row(4, 0, 1, _cache(1, 1, 8, 64)),
    Row(4, 1, 2, _cache(2, 1, 8, 64)),
    Row(4, 2, 3, _cache(3, 2, 8, 1024)),
    Row(4, 3, 4, _cache(3, 3, 16, 16384)),
    Row(4, 4, 12),
    Row(5, None, 63),
    Row(6, None, 13, None),
    Row(7, 0, 5, (2, LEAF7_EBX, 0, LEAF7_EDX)),
    Row(7, 1, 6),
    Row(7, 2, 14),
    Row(8, None, 15),
    Row(0xA, None, 7),
    *(Row(0xD, subleaf, 16 + subleaf) for subleaf in range(0x13)),  # the emulated CPU has no XSAVE
    Row(0xE, None, 35),
    Row(0x11, None, 36),
    Row(0x12, None, 37),
    Row(0x13, None, 38),
    Row(0x14, 0, 39),
    Row(0x14, 1, 40),
    Row(0x15, None, 41, (1, TSC_HZ // CRYSTAL_HZ, CRYSTAL_HZ, 0)),
    Row(0x19, None, 42),
    Row(0x1C, None, 8),
    Row(0x1D, 0, 43),
    Row(0x1D, 1, 44),
    Row(0x1E, None, 45),
    *(Row(0x1F, subleaf, 46 + subleaf, None) for subleaf in range(6)),
    Row(0x20, None, 52),
    Row(0x21, 0, 53, (0, 0x65746E49, 0x20202020, 0x5844546C)),  # "IntelTDX    " in EBX, EDX, ECX
    Row(0x22, None, 58),
    *(Row(0x23, subleaf, 59 + subleaf) for subleaf in range(4)),
    Row(0x80000000, None, 54, (MAX_EXTENDED, 0, 0, 0)),
    Row(0x80000001, None, 55, (0, 0, bits(0, 5, 8), bits(20, 26, 27, 29))),
    Row(0x80000006, None, 56, None),
    Row(0x80000007, None, 57, (0, 0, 0, bits(8))),  # invariant TSC
    Row(0x80000008, None, 9, (48 << 8 | 52, 0, 0, 0)),
)
_BY_LEAF = {(row.leaf, row.subleaf): row for row in ROWS}


def in_range(leaf: int) -> int:
    """The leaf that answers: beyond their range it is leaf 0x23; those of hypervisors are no range."""
    if HYPERVISOR_FIRST <= leaf <= HYPERVISOR_LAST:
        return leaf
    return MAX_LEAF if MAX_LEAF < leaf < 0x80000000 or leaf > MAX_EXTENDED else leaf


def find(leaf: int, subleaf: int) -> Row | None:
    """The table's row; leaves beyond their range are leaf 0x23. None where there is no row, which is #VE."""
    leaf = in_range(leaf)
    return _BY_LEAF.get((leaf, None)) or _BY_LEAF.get((leaf, subleaf))


def lookup(leaf: int, subleaf: int, caller: Caller) -> Registers | None:
    """The module's answer, or None where CPUID raises #VE(10) whatever the guest chose."""
    row = find(leaf, subleaf)
    return of_caller(row, caller) if row else None


def of_caller(row: Row, caller: Caller) -> Registers | None:
    """A row's answer to this vCPU; None is #VE."""
    if row.answer is None:
        return None
    eax, ebx, ecx, edx = row.answer
    if row.leaf == 1:
        ebx |= (caller.index & 0xFF) << 24
        ecx |= 1 << 27 if caller.cr4 >> 18 & 1 else 0  # OSXSAVE
    elif row.leaf == 7 and row.subleaf == 0:
        ecx |= 1 << 4 if caller.cr4 >> 22 & 1 else 0  # OSPKE
    elif row.leaf == 0x15:
        ebx = caller.tsc_25mhz
    elif row.leaf == 0x80000001 and caller.long_mode_code:
        edx |= bits(11)  # SYSCALL
    return (eax, ebx, ecx, edx)
