"""Does every jump go where an instruction says? Judged by the decoder, on all flows and on made faults."""

from __future__ import annotations

from pathlib import Path

import iced_x86
import pytest
from peachpy.x86_64 import CALL, JMP, RET, Label, rax, rsi
from peachpy.x86_64.pseudo import LABEL

from dsl.api import check_file
from gen.build import generate
from gen.errors import BuildError
from gen.link import branches
from gen.link.toolchain import Source, compile_c
from gen.x86 import Symbol, Unit
from gen.x86.system import IRETQ

ROOT = Path(__file__).resolve().parents[2]
FLOWS = [*sorted((ROOT / "dsl" / "flows").glob("*.tdf")), *sorted((ROOT / "tests/dsl/flows").glob("*.tdf"))]
INDIRECT = (iced_x86.FlowControl.INDIRECT_BRANCH, iced_x86.FlowControl.INDIRECT_CALL)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.stem)
def test_a_decoder_finds_the_listed_ones_and_no_other(flow: Path) -> None:
    found = []
    for unit in generate(check_file(flow).require()):
        for block in unit.blocks:
            for item in block.encoded() if block.kind == "function" else ():
                read = iced_x86.Decoder(block.bits, item.content).decode()
                if item.content and (
                    read.flow_control in INDIRECT or read.mnemonic == iced_x86.Mnemonic.IRETQ
                ):
                    found.append(block.name)
    assert sorted(found) == sorted(set(found) & set(branches.LISTED))
    assert "ap_park" in found
    assert {"prim_handoff_executable", "prim_handoff_linux"} & set(found)


def test_every_listed_one_is_somewhere() -> None:
    made = {
        block.name for flow in FLOWS for unit in generate(check_file(flow).require()) for block in unit.blocks
    }
    assert set(branches.LISTED) <= made


def _unit(name: str, *jumps: object) -> Unit:
    unit = Unit("sample")
    with unit.code(name):
        here = Label("here")
        LABEL(here)
        JMP(here)
        CALL(Symbol("memcpy"))
        for jump in jumps:
            jump()  # type: ignore[operator]
        RET()
    return unit


@pytest.mark.parametrize(
    "jump", [lambda: JMP(rax), lambda: CALL([rsi + 8]), IRETQ], ids=["jmp", "call", "iretq"]
)
def test_one_that_is_not_listed_is_refused(jump: object) -> None:
    branches.check([_unit("careful")], [])
    with pytest.raises(
        BuildError, match=r"test_branches\.py:\d+.* of careful is an indirect jump that nobody listed"
    ):
        branches.check([_unit("careful", jump)], [])


def test_a_listed_function_has_one() -> None:
    branches.check([_unit("ap_park", lambda: JMP(rax))], [])
    with pytest.raises(BuildError, match=r"`CALL rax` of ap_park"):
        branches.check([_unit("ap_park", lambda: JMP(rax), lambda: CALL(rax))], [])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("int f(int (*g)(void)) { return g() + 1; }", r"\.text\.f\+0x\w+: ff d7"),
        ("void f(void (*g)(void)) { g(); }", r"\.text\.f\+0x\w+: ff e7"),
    ],
    ids=["call", "jmp"],
)
def test_compiled_code_has_none(text: str, what: str, tmp_path: Path) -> None:
    source = tmp_path / "bent.c"
    source.write_text(
        "int g(int a) { switch (a) { case 1: return 7; case 2: return 3; case 5: return 9; } return 0; }\n"
    )
    branches.check([], [compile_c(Source(source, ()), tmp_path, tmp_path)])
    source.write_text(text)
    with pytest.raises(BuildError, match=rf"^bent-\w+\.o: {what}.*, an indirect jump in compiled code$"):
        branches.check([], [compile_c(Source(source, ()), tmp_path, tmp_path)])
