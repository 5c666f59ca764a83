"""Is the VMM a policy: honest unless told otherwise, hostile by seed, or as a script wants it?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import guest
import pytest

from emu import view
from emu.api import EmuError, RunConfig, prepare, report, run
from emu.cpu import pagestate
from emu.machine import Machine
from emu.vmm import backing, choose
from emu.vmm.backing import union
from emu.vmm.hostile import hob as hob_lies
from emu.vmm.hostile import payload as payload_lies
from emu.vmm.presets import PRESETS, Kernel
from formats import hob
from formats.registers import R10, R11, R12, RCX
from formats.tdvf import SectionType

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
EXAMPLE = EXAMPLES / "deny_large_pages.py"
HALT = "main: halt\n"
# A port read and GetTdVmCallInfo, whose answers are kept, then a report of a fatal error and a halt forever
CALLS = """
main:
    movq $0, %r13
    movq $0x3fd, %r14
    movl $1, %r12d
    vmcall 0x1E
    keep 0, %r10
    keep 1, %r11
    vmcall 0x10000
    keep 2, %r11
    movl $0, %r12d
    movq $0x0021646165642049, %r14
    movq $0, %r15
    vmcall 0x10003
    keep 3, %r10
again:
    halt
    jmp again
"""


def config(code: str = HALT, **more: object) -> RunConfig:
    made = {"memory": guest.MEMORY, "until": "halt", "max_instructions": 1_000_000}
    return RunConfig(guest.build(code).image, "guest", **(made | more))  # type: ignore[arg-type]


@contextmanager
def launched(given: RunConfig) -> Iterator[Machine]:
    machine = prepare(given)
    try:
        yield machine
    finally:
        machine.close()


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "vmm",
    ["bochs", "hostile", "hostile:", "hostile:x", "hostile:-1", "hostile:1:bochs", "hostile-fw_cfg:1:qemu"],
)
def test_unknown_vmm(vmm: str) -> None:
    with pytest.raises(EmuError, match="expected"):
        prepare(config(vmm=vmm))


def test_honest_vmm_did_nothing_to_tell() -> None:
    assert run(config()).hostile == []
    assert run(config()).to_json()["hostile"] == []


def test_preset_of_a_hostile_vmm() -> None:
    assert choose.parse("hostile:3:qemu")[0].name == "qemu"
    assert choose.parse("hostile:3:td-shim-spec:legacy")[0].name == "td-shim-spec:legacy"
    presets = {choose.parse(f"hostile:{seed}")[0].name for seed in range(5)}
    assert presets == {name for name, preset in PRESETS.items() if preset.kernel is Kernel.SECTION}


def state_at_launch(given: RunConfig) -> tuple[bytes, ...]:
    with launched(given) as machine:
        held = [machine.read_guest(region.gpa, region.length) for region in machine.launch.regions]
        return (*held, repr(machine.launch.ram).encode(), repr(machine.vmm.policy.done).encode())


def test_a_seed_is_the_same_run_again() -> None:
    states = [state_at_launch(config(vmm=f"hostile:{seed}")) for seed in (1, 1, 2)]
    assert states[0] == states[1] != states[2]
    first, second = (run(config(CALLS, vmm="hostile:9", until="halt")) for _ in range(2))
    assert first.to_json() == second.to_json()


def test_all_that_is_claimed_is_backed() -> None:
    cut = 0
    for seed in range(150):
        with launched(config(vmm=f"hostile:{seed}")) as machine:
            unmapped = pagestate.UNMAPPED
            listed, ranges, texts = backing.backed(machine.launch.hob)
            assert listed == machine.launch.hob
            assert not texts
            for start, end in ranges:
                assert unmapped not in machine.memory.states(start, end - start)
            cut += any("a claim cut" in line for line in machine.vmm.policy.done)
    assert cut  # the seeds do reach for more than can be given


def test_a_claim_beyond_all_hosts_is_cut() -> None:
    honest = hob.write(0x809000, [hob.Resource(7, 0, 1 << 46), hob.Resource(7, 1 << 46, 4096)])
    listed, ranges, texts = backing.backed(honest)
    assert len(texts) == 2
    assert [r.length for r in hob.read(listed).resources] == [backing.BACKED_SIZE, 0]
    assert ranges == [(0, backing.BACKED_SIZE)]


@pytest.mark.parametrize("lie", [lie for lie, _ in hob_lies.LIES], ids=lambda lie: lie.__name__)
def test_each_hob_lie_changes_a_list_and_survives_any(lie: hob_lies.Lie) -> None:
    honest = state_at_launch(config())
    whole = next(held for held in honest if held[:4] == b"\x01\0\x38\0")
    changed = 0
    for seed in range(40):
        parts = hob_lies.split(whole)
        before = [bytes(part) for part in parts]
        assert lie(Random(seed), parts).startswith("HOB: ")
        changed += [bytes(part) for part in parts] != before
        few = hob_lies.split(whole)[:2]
        lie(Random(seed), few)
        broken = bytearray(whole)
        broken[58:60] = b"\0\0"  # a HOB of length 0, as an earlier lie may have left it
        parts = hob_lies.split(bytes(broken))
        assert len(parts) == 2
        lie(Random(seed), parts)
    assert changed >= 20


def test_payload_and_command_line_lies() -> None:
    honest = bytes(range(256)) * 8
    changed = sum(payload_lies.payload(Random(seed), honest)[0] != honest for seed in range(100))
    assert changed >= 90
    kinds = {payload_lies.command_line(Random(seed), b"quiet\0", 4096)[1] for seed in range(100)}
    assert len(kinds) >= 6
    assert all(len(payload_lies.command_line(Random(seed), b"q\0", 64)[0]) >= 0 for seed in range(50))
    assert payload_lies.payload(Random(1), b"") == (b"", [])


def test_union() -> None:
    assert union([(4, 6), (0, 2), (2, 3), (5, 9)]) == ((0, 3), (4, 9))


def test_a_claim_of_more_than_is_backed_is_cut() -> None:
    listed = hob.write(0, [hob.Resource(hob.ResourceType.UNACCEPTED, 0, backing.BACKED_SIZE + 4096)])
    _, ranges, texts = backing.backed(listed)
    assert (ranges, len(texts)) == ([(0, backing.BACKED_SIZE)], 1)


def test_fatal_report_may_be_resumed_but_stays_the_end() -> None:
    ends = []
    for seed in range(30):
        found = run(config(CALLS, vmm=f"hostile:{seed}"))
        resumed = any("resumed" in line for line in found.hostile)
        ends.append((found.end["reason"], resumed))
    assert {reason for reason, _ in ends} <= {"fatal", "halt"}
    assert {resumed for _, resumed in ends} == {True, False}


def test_script_changes_answers_and_sees_calls(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "from formats.registers import R11\n"
        "seen = []\n"
        "def on_call(call):\n"
        "    seen.append(call.name)\n"
        "    return 1 if call.name == 'Instruction.IO' else None\n"
        "def on_answer(call):\n"
        "    call.answer[R11] = len(seen)\n"
        "def on_end(call, end):\n"
        "    return end.reason == 'fatal'\n",
    )
    given = config(CALLS, script=path)
    with launched(given) as machine:
        ending = machine.run(given.max_instructions, None)
        results = guest_results(machine)
        told = report(machine, ending)
        assert told.end["reason"] == "halt"  # resumed after its fatal report
        assert told.hostile == ["script script.py: on_call, on_answer, on_end"]
        assert results[0] == 1  # refused, not carried out
        assert results[2] == 2


def test_script_that_takes_pages_away(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "kept = []\n"
        "def on_launched(machine):\n"
        "    kept.append(machine)\n"
        "def on_call(call):\n"
        f"    kept[0].memory.remove({guest.RESULTS:#x}, 4096)\n",
    )
    given = config(CALLS, script=path)
    with launched(given) as machine:
        end = machine.run(given.max_instructions, None).end
        assert end.reason == "sept-violation"
        assert "not accepted" in end.detail
        assert guest_results(machine) == [0] * 8


def guest_results(machine: Machine) -> list[int]:
    raw = machine.read_guest(guest.RESULTS, 64)
    return [int.from_bytes(raw[at : at + 8], "little") for at in range(0, 64, 8)]


def test_script_over_launch_parameters_and_turns(tmp_path: Path) -> None:
    path = script(
        tmp_path,
        "from dataclasses import replace\n"
        "from emu.vmm.policy import with_content\n"
        "from formats.tdvf import SectionType\n"
        "def params(params):\n"
        "    return replace(params, mrowner=b'o' * 48)\n"
        "def launch(launch):\n"
        "    return with_content(replace(launch, hob_address=0x1234), SectionType.TEMP_MEM, b'hello')\n"
        "def turn(vcpu, instructions):\n"
        "    return 10\n",
    )
    with launched(config(script=path)) as machine:
        assert machine.module.params.mrowner == b"o" * 48
        assert int(machine.vcpus[0].regs.gpr[1]) == 0x1234
        place = next(s.address for s in machine.launch.sections if s.type == SectionType.TEMP_MEM)
        assert machine.read_guest(place, 6) == b"hello\0"
        assert machine.run(100_000, None).end.reason == "halt"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("def launch(launch:\n", 1, "never closed"),
        ("x = 1 / 0\n", 1, "ZeroDivisionError"),
        ("def on_vmcall(call):\n    pass\n", 1, "on_vmcall is not a hook"),
        ("def turn(vcpu):\n    pass\n", 1, "expected turn(vcpu, instructions)"),
        ("\ndef launch(launch):\n    return launch.rom\n", 3, "AttributeError"),
        ("def on_answer(call):\n    raise ValueError('no')\n", 2, "ValueError: no"),
    ],
)
def test_mistakes_in_a_script_are_one_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = script(tmp_path, text)
    with pytest.raises(EmuError) as caught:
        run(config(CALLS, script=path))
    told = str(caught.value)
    assert told.startswith(f"script {path}:{line}: ")
    assert words in told
    assert "\n" not in told


def test_a_script_that_returns_the_wrong_thing(tmp_path: Path) -> None:
    with pytest.raises(EmuError, match="launch returned 7, expected Launch or None"):
        run(config(script=script(tmp_path, "def launch(launch):\n    return 7\n")))
    with pytest.raises(EmuError, match="turn returned -1"):
        run(config(script=script(tmp_path, "def turn(vcpu, instructions):\n    return -1\n")))


def test_a_script_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EmuError, match=r"absent\.py: No such file"):
        run(config(script=tmp_path / "absent.py"))


def test_the_example_script(capsys: pytest.CaptureFixture[str]) -> None:
    given = config(CALLS, script=EXAMPLE)
    with launched(given) as machine:
        large = pagestate.LARGE
        assert not any(state & large for state in machine.memory.states(0, guest.MEMORY))
        place = next(s.address for s in machine.launch.sections if s.type == SectionType.PAYLOAD_PARAM)
        assert b"from_the_script" in machine.read_guest(place, 64)
        r = [0] * 16
        r[RCX], r[R11], r[R12] = 0xFC00, 0x10001, 0x10000
        machine.vmm.handle(0, r)
        assert (r[R10], r[R11]) == (1, 0x10000)
        assert machine.run(given.max_instructions, None).end.reason == "fatal"
    assert "vCPU 0: GetTdVmCallInfo" in capsys.readouterr().out


def offered(protocol: type) -> set[str]:
    """The names that a protocol of emu.view has."""
    return {name for name in (*vars(protocol), *protocol.__annotations__) if not name.startswith("_")}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_a_shipped_script_uses_nothing_but_the_view(path: Path) -> None:
    used: dict[str, set[str]] = {"machine": set(), "memory": set(), "vcpu": set()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            of = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            used.get(of, set()).add(node.attr)
    assert used["machine"] <= offered(view.Machine)
    assert used["memory"] <= offered(view.Memory)
    assert used["vcpu"] <= offered(view.Vcpu)
    assert used["machine"]
