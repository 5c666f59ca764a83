"""Does speculation end behind each check of what the VMM gave? Reads the linked code, where it says that a
check of the C core is, and the flow's code where a list or a span is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import iced_x86
import pytest
from elftools.elf.elffile import ELFFile

from dsl.api import check_file
from gen.build import build, generate

ROOT = Path(__file__).resolve().parents[2]
FLOWS = [ROOT / "dsl/flows" / f"{name}.tdf" for name in ("alioth", "linux", "qemu", "vmlinux")]
FLOWS += [ROOT / "tests/dsl/flows" / f"{name}.tdf" for name in ("elf", "host_acpi")]
CHECK = "tdf_inside"
STACK = (iced_x86.Register.RSP, iced_x86.Register.RBP)
LFENCE = iced_x86.Mnemonic.LFENCE
FAR_ENOUGH = 200  # instructions


@dataclass(frozen=True)
class Code:
    """Instructions of a firmware by address, and where its checks were inlined: ranges of addresses."""

    at: dict[int, Any] = field(default_factory=dict)
    checks: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    lines: set[str] = field(default_factory=set)  # files with an LFENCE, by name, with the line


def _ranges(dwarf: Any, unit: Any, die: Any) -> tuple[tuple[int, int], ...]:
    if "DW_AT_ranges" in die.attributes:
        lists, top = dwarf.range_lists(), unit.get_top_DIE().attributes
        base = top["DW_AT_low_pc"].value if "DW_AT_low_pc" in top else 0
        found = []
        for entry in lists.get_range_list_at_offset(die.attributes["DW_AT_ranges"].value, unit):
            if type(entry).__name__ == "BaseAddressEntry":
                base = entry.base_address
            else:
                start = 0 if getattr(entry, "is_absolute", False) else base
                found.append((start + entry.begin_offset, start + entry.end_offset))
        return tuple(found)
    low, high = die.attributes["DW_AT_low_pc"].value, die.attributes["DW_AT_high_pc"]
    return ((low, high.value if high.form == "DW_FORM_addr" else low + high.value),)


def _checks(dwarf: Any) -> Iterator[tuple[tuple[int, int], ...]]:
    for unit in dwarf.iter_CUs():
        for die in unit.iter_DIEs():
            if die.tag == "DW_TAG_inlined_subroutine":
                origin = die.get_DIE_from_attribute("DW_AT_abstract_origin")
                if origin.attributes["DW_AT_name"].value == CHECK.encode():
                    yield _ranges(dwarf, unit, die)
            elif die.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in die.attributes:
                name = die.attributes.get("DW_AT_name")
                assert name is None or name.value != CHECK.encode(), "its callers branch behind the barrier"


def _lines(dwarf: Any, at: dict[int, Any]) -> Iterator[str]:
    for unit in dwarf.iter_CUs():
        program = dwarf.line_program_for_CU(unit)
        states = [entry.state for entry in program.get_entries() if entry.state] if program else []
        for state, after in pairwise(states):
            if state.end_sequence:
                continue
            if any(at[ip].mnemonic == LFENCE for ip in range(state.address, after.address) if ip in at):
                name = program["file_entry"][state.file - (program["version"] < 5)].name.decode()
                yield f"{Path(name).name}:{state.line}"


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Code]:
    out = tmp_path_factory.mktemp("barriers")
    found = {}
    for flow in FLOWS:
        with build(flow, out).elf.open("rb") as file:
            elf = ELFFile(file)
            text, dwarf = elf.get_section_by_name(".text"), elf.get_dwarf_info()
            decoder = iced_x86.Decoder(64, text.data(), ip=text["sh_addr"])
            code = Code({read.ip: read for read in decoder})
            # What the linker dropped begins at 0.
            code.checks.extend(ranges for ranges in _checks(dwarf) if ranges[0][0] in code.at)
            code.lines.update(_lines(dwarf, code.at))
            found[flow.stem] = code
    return found


def _memory(read: Any) -> list[Any]:
    """What it reads of memory that is not the stack."""
    memory = iced_x86.InstructionInfoFactory().info(read).used_memory()
    reading = (iced_x86.OpAccess.READ, iced_x86.OpAccess.READ_WRITE, iced_x86.OpAccess.COND_READ)
    return [each for each in memory if each.access in reading and each.base not in STACK]


def _registers(read: Any, *kinds: int) -> set[int]:
    used = iced_x86.InstructionInfoFactory().info(read).used_registers()
    return {iced_x86.RegisterExt.full_register(each.register) for each in used if each.access in kinds}


def _compared(read: Any) -> set[int]:
    """The registers that a comparison looks at, not those that lead it to memory."""
    operands = [n for n in range(read.op_count) if read.op_kind(n) == iced_x86.OpKind.REGISTER]
    return {iced_x86.RegisterExt.full_register(read.op_register(n)) for n in operands}


def _dependent(code: Code, compared: set[int], way: list[int]) -> list[str]:
    """Loads on the way whose address was made of what was compared."""
    access = iced_x86.OpAccess
    bad = []
    known = set(compared)
    for read in (code.at[ip] for ip in way):
        leading = {iced_x86.RegisterExt.full_register(r) for m in _memory(read) for r in (m.base, m.index)}
        if leading & known:
            bad.append(f"{read.ip:#x}: {read}")
        taken = _registers(read, access.READ, access.READ_WRITE, access.COND_READ)
        written = _registers(read, access.WRITE, access.READ_WRITE, access.COND_WRITE)
        known = known | written if taken & known else known - written
    return bad


def _next(read: Any) -> tuple[int, ...]:
    """Where it goes on in this function."""
    flow = iced_x86.FlowControl
    if read.flow_control == flow.CONDITIONAL_BRANCH:
        return (read.next_ip, read.near_branch_target)
    if read.flow_control == flow.UNCONDITIONAL_BRANCH:
        return (read.near_branch_target,)
    return (read.next_ip,) if read.flow_control in (flow.NEXT, flow.CALL) else ()


def _way(code: Code, start: int, ends: set[int]) -> list[int]:
    """The shortest way from one instruction to the first of some others; empty if there is none."""
    ways, seen = [[start]], {start}
    for way in ways:
        if way[-1] in ends:
            return way
        for target in _next(code.at[way[-1]]):
            if target in code.at and target not in seen and len(way) < FAR_ENOUGH:
                seen.add(target)
                ways.append([*way, target])
    return []


@pytest.mark.parametrize("flow", [flow.stem for flow in FLOWS])
def test_behind_each_check_of_the_c_core(flow: str, codes: dict[str, Code]) -> None:
    """No load by what was compared lies between a check's branches and its barrier."""
    code = codes[flow]
    assert len(code.checks) >= 20
    branches = 0
    for ranges in code.checks:
        inside = [ip for start, end in ranges for ip in range(start, end) if ip in code.at]
        fences = {ip for ip in inside if code.at[ip].mnemonic == LFENCE}
        assert fences, f"the check at {ranges[0][0]:#x} has no barrier"
        comparing = (iced_x86.Mnemonic.CMP, iced_x86.Mnemonic.SUB)
        compared = set().union(
            *(_compared(code.at[ip]) for ip in inside if code.at[ip].mnemonic in comparing)
        )
        for ip in inside:
            if code.at[ip].flow_control == iced_x86.FlowControl.CONDITIONAL_BRANCH:
                branches += 1
                way = _way(code, ip, fences)
                assert way, f"{ip:#x}: no way to the barrier"
                assert _dependent(code, compared, way) == []
    assert branches > 10


def test_every_barrier_of_the_sources_is_in_some_firmware(codes: dict[str, Code]) -> None:
    seen = {line for code in codes.values() for line in code.lines}
    wanted = {
        f"{path.name}:{number}"
        for path in (ROOT / "runtime-c/src").glob("*.c")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "TDF_BARRIER()" in line
    }
    unused = {each for each in wanted if each.startswith(("copy.c", "quote.c"))}  # of no flow here
    assert wanted - unused <= seen
    assert len(wanted) > 8


def test_behind_each_bound_of_a_flow() -> None:
    """JA and JAE to an error are the checks of a slice or an index: a barrier comes before the next load."""
    bounds = 0
    for flow in (*FLOWS, ROOT / "tests/system/tour.tdf"):
        (unit,) = (unit for unit in generate(check_file(flow).require()) if unit.name == "flow")
        for items in ([item for item in block.encoded() if item.content] for block in unit.blocks):
            for number, item in enumerate(items):
                if re.fullmatch(r"JAE? .*error\d+.*", str(item.item)):
                    bounds += 1
                    assert _fenced(items[number + 1 :])
    assert bounds > 3


def _fenced(items: list[Any]) -> bool:
    for item in items:
        read = iced_x86.Decoder(64, item.content).decode()
        if read.mnemonic == LFENCE or _memory(read):
            return bool(read.mnemonic == LFENCE)
    return False
