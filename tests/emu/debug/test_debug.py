"""Does looking into a run show what happened, and change nothing? All but the debugger."""

from __future__ import annotations

import base64
import dataclasses
import json
import zipfile
from pathlib import Path

import guest
import pytest
from test_userspace import USER

from emu.api import RunConfig, prepare, report, run
from emu.debug import diff, kernelsyms
from emu.debug.profile import Counted, Namer, Profile, attribute
from emu.debug.timeline import CATEGORIES, Timeline
from emu.debug.trace import Trace
from emu.machine import Machine
from emu.observe import Several
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.symbols import Symbol, Symbols
from tdforge import cli, show

# Two TDCALLs, a #PF, a counted loop, a string instruction, and one character after the other on the console
BODY = """
.macro put byte
    movl $1, %r12d
    movl $1, %r13d
    movl $0x3F8, %r14d
    movl $\\byte, %r15d
    vmcall 0x1E
.endm
main:
    movl $1, %eax
    .byte 0x66, 0x0f, 0x01, 0xcc
    put 72
    put 105
    put 10
    call busy
    movl $0x1002, %ecx
    movl $0x7FFFFFFF, %eax
    .byte 0x66, 0x0f, 0x01, 0xcc
    put 33
    movl $RESULTS, %edi
    movl $100, %ecx
    xorl %eax, %eax
    rep stosb
    rdtsc
    keep 200, %rax
    put 10
    halt
busy:
    movl $1000, %ecx
1:  addl $3, %ebx
    decl %ecx
    jnz 1b
    keep 100, %rbx
    ret
.globl busy
.size busy, . - busy
.globl main
"""


@pytest.fixture(scope="module")
def image() -> guest.Guest:
    return guest.build(BODY)


@pytest.fixture(scope="module")
def elf(image: guest.Guest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guest") / "guest.elf"
    path.write_bytes(image.elf)
    return path


def config(image: guest.Guest, elf: Path | None = None, until: str = "halt") -> RunConfig:
    return RunConfig(image.image, "guest.bin", memory=guest.MEMORY, until=until, elf=elf)


def facts(machine: Machine) -> dict[str, object]:
    return report(machine, machine.run(1_000_000, None)).to_json()


def test_a_trace_names_calls_and_does_not_change_the_run(
    image: guest.Guest, elf: Path, tmp_path: Path
) -> None:
    plain = run(config(image, elf))
    with Trace(tmp_path / "t.jsonl") as trace:
        seen = run(config(image, elf), observer=trace)
    assert seen.to_json() == plain.to_json()
    events = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    calls = [(e["kind"], e["name"], e.get("result")) for e in events if e["kind"] in ("tdcall", "vmcall")]
    assert calls[0] == ("tdcall", "TDG.VP.INFO", "SUCCESS")
    assert calls[1] == ("vmcall", "Instruction.IO", "SUCCESS")
    assert ("tdcall", "leaf 0x7fffffff", "OPERAND_INVALID(0x0)") in calls
    assert calls[-1] == ("vmcall", "Instruction.HLT", "not done")
    first = next(e for e in events if e["kind"] == "tdcall")
    assert first["answer"]["gpaw"] == 48
    assert first["symbol"].startswith("main")
    written = [e["given"]["value"] for e in events if e["name"] == "Instruction.IO"]
    assert bytes(written) == b"Hi\n!\n"
    (mode,) = (e for e in events if e["kind"] == "mode")
    assert (mode["name"], mode["symbol"]) == ("32-bit to 64-bit code", "long")
    assert (
        mode["count"]
        == next(e for e in events if e["name"] == "CR0" and e["given"]["new"] >> 31)["count"] + 2
    )
    assert events[-1]["kind"] == "end"
    counts = [e["count"] for e in events]
    assert counts == sorted(counts)


def test_exceptions_of_the_engine_are_told(tmp_path: Path) -> None:
    body = "main:\n movq $0x123456789000, %rbx\n movq (%rbx), %rax\n halt\n"
    with Trace(tmp_path / "t.txt") as trace:
        run(config(guest.build(body)), observer=trace)
    line = next(x for x in (tmp_path / "t.txt").read_text().splitlines() if " exception " in x)
    assert "#PF" in line
    assert "address=0x123456789000" in line


def test_a_profile_is_exact(image: guest.Guest, elf: Path) -> None:
    profile = Profile()
    seen = run(config(image, elf), observer=profile)
    by_name = {row.name: row.instructions for row in profile.rows}
    assert by_name["busy"] == 1 + 3 * 1000 + 2
    assert sum(by_name.values()) == seen.instructions


def test_a_profile_decides_by_privilege_level() -> None:
    body = """
    user:
        movl $500, %ecx
    1:  decl %ecx
        jnz 1b
        rdtsc
        syscall
    entry:
        movl $300, %ecx
    2:  decl %ecx
        jnz 2b
        halt
    """
    profile = Profile()
    seen = run(config(guest.build(USER + body)), observer=profile)
    by_name = {row.name: row.instructions for row in profile.rows}
    assert by_name["[user]"] == 1 + 2 * 500 + 2
    assert sum(by_name.values()) == seen.instructions


def test_instructions_are_counted_on_every_vcpu(image: guest.Guest) -> None:
    profile = Profile()
    seen = run(dataclasses.replace(config(image), vcpus=3), observer=profile)
    assert seen.instructions_all == sum(row.instructions for row in profile.rows)
    assert seen.instructions_all > seen.instructions
    facts = json.loads(json.dumps(seen.to_json()))
    console = show.err()
    with console.capture() as text:
        show.print_run(console, facts)
    assert f"{seen.instructions_all:,} on all 3 vCPUs, {seen.instructions:,} of them on vCPU 0" in text.get()


def test_code_across_two_symbols_is_split() -> None:
    table = Symbols((Symbol(0x10, 0x14, "a"), Symbol(0x14, 0x20, "b")))
    namer = Namer((table,), (0, 0x100), 0x1000)
    found = attribute([Counted(0x10, 0x18, 30, 64)], namer, lambda code: [0x10, 0x12, 0x14])
    assert found == {"a": 20, "b": 10}
    assert Namer((), (0, 0x10), 0x1000).name(0xFFFFFFFF81000000) == "[kernel]"


def test_a_restored_run_is_the_unbroken_one(image: guest.Guest, elf: Path, tmp_path: Path) -> None:
    whole = run(config(image, elf)).to_json()
    first = config(image, elf, until="console:Hi")
    run(first, save=tmp_path / "s.snap")
    kept, point = snapshot.read(tmp_path / "s.snap")
    machine = prepare(dataclasses.replace(kept, until="halt"))
    try:
        for _ in range(3):
            snapshot.restore(machine, point)
            assert bytes(machine.console.data) == b"Hi"
            assert facts(machine) == whole
    finally:
        machine.close()


def test_a_machine_goes_back_to_what_it_was(image: guest.Guest) -> None:
    machine = prepare(config(image))
    try:
        start = snapshot.save(machine)
        assert not start.handed_over
        first = facts(machine)
        assert snapshot.save(machine) != start
        snapshot.restore(machine, start)
        assert snapshot.save(machine) == start
        assert facts(machine) == first
    finally:
        machine.close()


def test_several_vcpus_go_back_too(image: guest.Guest) -> None:
    machine = prepare(dataclasses.replace(config(image), vcpus=3))
    try:
        start = snapshot.save(machine)
        first = facts(machine)
        snapshot.restore(machine, start)
        assert facts(machine) == first
    finally:
        machine.close()


def test_what_is_no_snapshot_is_refused(image: guest.Guest, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"PK not really")
    with pytest.raises(EmuError, match="not a snapshot"):
        snapshot.read(bad)
    run(config(image, until="console:Hi"), save=tmp_path / "s")
    damaged = bytearray((tmp_path / "s").read_bytes())
    with zipfile.ZipFile(tmp_path / "s") as file:
        member = file.getinfo("ram/content")
    damaged[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    bad.write_bytes(damaged)
    with pytest.raises(EmuError, match=r"not a snapshot|another build"):
        snapshot.read(bad)


def test_a_timeline_holds_phases_exits_and_lines(image: guest.Guest, tmp_path: Path) -> None:
    timeline = Timeline("guest </script>")
    seen = run(config(image), observer=timeline)
    data = timeline.data()
    assert data["time"] == seen.instructions
    assert [text for _, _, text in timeline.lines] == ["Hi", "!"]
    kinds = [CATEGORIES[kind] for kind in timeline.kinds]
    assert kinds.count("port I/O") == 5
    assert [phase for phase, _, _ in timeline.lanes[0].phases] == [0, 1]
    assert len(base64.b64decode(str(data["stream"]))) >= 3 * len(kinds)
    page = timeline.page()
    assert page.count("</script>") == 1
    assert "@DATA@" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_kernel_symbols(tmp_path: Path) -> None:
    path = tmp_path / "System.map"
    path.write_text(
        "0000000000000000 D __per_cpu_start\nffffffff81000000 T _text\nffffffff81000040 t secondary\n"
    )
    table = kernelsyms.read(path)
    assert table.name(0xFFFFFFFF81000040) == "secondary"
    assert table.name(0xFFFFFFFF81000008) == "_text+0x8"
    path.write_text("ffffffffffffffff B The real System.map is in another package\n")
    with pytest.raises(EmuError, match=r"System\.map:1"):
        kernelsyms.read(path)


def events(*names: str, count: int = 1) -> list[dict[str, object]]:
    return [{"count": count * n, "vcpu": 0, "kind": "tdcall", "name": name} for n, name in enumerate(names)]


def test_the_first_difference_is_found() -> None:
    assert diff.traces(events("a", "b"), events("a", "b")).same
    other = diff.traces(events("a", "b", "c"), events("a", "x", "c"))
    assert other.done is not None
    assert (other.done.number, other.done.keys) == (2, ("name",))
    late = diff.traces(events("a", "b"), events("a", "b", count=2))
    assert late.done is None
    assert late.when is not None
    assert late.when.number == 2
    short = diff.traces(events("a", "b"), events("a"))
    assert short.done is not None
    assert short.done.second is None
    assert list(diff.values({"x": [1, {"y": 2}]}, {"x": [1, {"y": 3}]})) == [("x[1].y", 2, 3)]


def test_text_and_json_traces_say_the_same(image: guest.Guest, elf: Path, tmp_path: Path) -> None:
    with Trace(tmp_path / "a.txt") as one, Trace(tmp_path / "b.txt") as two:
        run(config(image, elf), observer=Several((one, two)))
    assert diff.traces(diff.read_trace(tmp_path / "a.txt"), diff.read_trace(tmp_path / "b.txt")).same


CONVERTING = """
.macro map gpa, size
    movabsq $\\gpa + 0x800000000000, %r12
    movl $\\size, %r13d
    vmcall 0x10001
.endm
main:
    map 0xA00000, 0x300000
    map 0xC00000, 0x100000
    map 0xFEC00000, 0x1000
    halt
"""


def test_what_a_conversion_did_is_traced_piece_by_piece(tmp_path: Path) -> None:
    made = guest.build(CONVERTING).image
    with Trace(tmp_path / "t.jsonl") as trace:
        run(RunConfig(made, "guest.bin", memory=64 << 20, until="halt", map_gpa_retry=True), observer=trace)
    found = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    calls = [event["result"] for event in found if event["name"] == "MapGPA"]
    assert calls == ["RETRY", "SUCCESS", "SUCCESS"]
    pages = [(event["name"], event["given"]) for event in found if event["kind"] == "page"]
    assert pages == [
        ("to shared", {"gpa": 0xA00000, "size": 0x200000}),
        ("to shared", {"gpa": 0xC00000, "size": 0x100000}),
    ]


def test_the_commands(
    image: guest.Guest, elf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = elf.with_suffix(".bin")
    binary.write_bytes(image.image)
    options = ["--until", "console:Hi", "--memory", "64M"]
    files = {name: str(tmp_path / name) for name in ("t.jsonl", "t.txt", "t.html", "s", "r.json")}
    shown = ["--trace", files["t.jsonl"], "--profile", "--timeline", files["t.html"], "--save", files["s"]]
    assert cli.main(["run", str(binary), *options, *shown, "--report", files["r.json"]]) == 0
    assert "busy" not in capsys.readouterr().err
    facts = json.loads(Path(files["r.json"]).read_text())
    assert sum(facts["profile"].values()) == facts["instructions"]
    assert (
        cli.main(["run", "--resume", files["s"], "--until", "halt", "--profile", "--trace", files["t.txt"]])
        == 0
    )
    captured = capsys.readouterr()
    assert captured.out.strip() == "!"
    assert "busy" in captured.err
    assert cli.main(["diff-run", files["t.jsonl"], files["t.jsonl"]]) == 0
    assert cli.main(["diff-run", files["t.jsonl"], files["t.txt"]]) == 1
    assert cli.main(["diff-run", str(binary), str(binary), *options]) == 0
    assert cli.main(["diff-run", files["r.json"], files["r.json"]]) == 0
    capsys.readouterr()
    assert cli.main(["diff-run", "--json", files["t.jsonl"], files["t.txt"]]) == 1
    told = json.loads(capsys.readouterr().out)
    assert not told["same"]
    assert told["done"]["number"] == 1
    assert cli.main(["diff-run", "--json", files["r.json"], files["r.json"]]) == 0
    assert json.loads(capsys.readouterr().out) == {"same": True, "differences": []}
    assert cli.main(["diff-run", str(binary), files["t.txt"]]) == 1
    assert cli.main(["diff-run", files["s"], files["t.txt"]]) == 1
    assert cli.main(["run", str(binary), "--resume", files["s"]]) == 1
    assert "Traceback" not in capsys.readouterr().err
