"""Do the libraries that are built and cached for the host run on any x86-64?"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import iced_x86
import pytest
from elftools.elf.elffile import ELFFile
from iced_x86 import CpuidFeature

from emu.cpu import engine
from gen.core import hostlib

# The x86-64 baseline (x86-64 psABI, table 3.1) and what every such CPU executes, if only as a NOP or a trap.
BASELINE = {
    *("INTEL8086", "INTEL8086_ONLY", "INTEL186", "INTEL286", "INTEL386", "INTEL486", "X64", "CPUID"),
    *("FPU", "FPU287", "FPU387", "FXSR", "MMX", "SSE", "SSE2", "CMOV", "CX8"),
    *("MULTIBYTENOP", "PAUSE", "CET_IBT", "UD"),
}
NAMES = {value: name for name, value in vars(CpuidFeature).items() if isinstance(value, int)}


def needs(library: Path) -> Counter[str]:
    """CPUID features of a library's instructions. TZCNT is BSF to a CPU that does not know it."""
    with library.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".text")
        decoder = iced_x86.Decoder(64, section.data(), ip=section["sh_addr"])
    found: Counter[str] = Counter()
    for instruction in decoder:
        if instruction.mnemonic not in (iced_x86.Mnemonic.TZCNT, iced_x86.Mnemonic.INVALID):
            found.update(NAMES[feature] for feature in instruction.cpuid_features())
    return found


@pytest.mark.parametrize("sanitize", [False, True])
def test_the_core_for_the_host(sanitize: bool) -> None:
    found = needs(hostlib.library(sanitize))
    assert found["X64"] > 1000
    assert set(found) <= BASELINE


def test_the_native_part_of_the_emulator() -> None:
    found = needs(engine.library())
    assert found["X64"] > 1000
    assert set(found) <= BASELINE
