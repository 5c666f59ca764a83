"""Does each wrong use get one clear line and the right exit code, and does `--help` show an example?"""

import argparse
import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tdforge import boot, cli
from tdforge.cli import main

ROOT = Path(__file__).parents[2]


def one_line(captured: pytest.CaptureFixture[str]) -> str:
    """What was said on standard error: exactly one line that begins with the program's name."""
    text = captured.readouterr().err
    assert text.startswith("tdforge: "), text
    assert text.count("\n") == 1, text
    return text


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main([command, "--help"])
    assert leave.value.code == 0
    assert f"example: tdforge {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["launder"],
        ["build"],
        ["run"],
        ["run", "x.bin", "--memory", "2 lots"],
        ["run", "x.bin", "--memory", "1M"],
        ["run", "x.bin", "--memory", "16385K"],
        ["run", "x.bin", "--memory", "100000000000000G"],
        ["run", "x.bin", "--vcpus", "0"],
        ["run", "x.bin", "--vcpus", "513"],
        ["run", "x.bin", "--max-instructions", "0"],
        ["run", "x.bin", "--gdb", "65536"],
        ["run", "x.bin", "--rtc", "noon"],
        ["run", "x.bin", "--vmm", "bochs"],
        ["run", "x.bin", "--vmm", "hostile"],
        ["run", "x.bin", "--vmm", "hostile:7:bochs"],
        ["run", "x.bin", "--until", "midnight"],
        ["run", "x.bin", "--until", "console:"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as leave:
        main(words)
    assert leave.value.code == 2
    assert "usage: tdforge" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["build", "check"])
def test_unknown_flow_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "linus"]) == 1
    assert one_line(capsys) == "tdforge: no flow named linus; did you mean linux?\n"


@pytest.mark.parametrize("command", ["inspect", "run"])
def test_missing_image(command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([command, str(tmp_path / "absent.bin")]) == 1
    assert "cannot read image" in one_line(capsys)


@pytest.mark.parametrize("command", ["inspect", "run"])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 31, b"not an image " * 5000], ids=["empty", "short", "text"]
)
def test_no_image(command: str, content: bytes, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(content)
    assert main([command, str(path)]) == 1
    line = one_line(capsys)
    assert "is not a TD image, or is cut short" in line
    assert line.count(str(path)) == 1


def test_a_missing_image_is_not_called_a_flow(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "absent.bin")]) == 1
    assert one_line(capsys).removeprefix("tdforge: ").rstrip() == f"no file {tmp_path / 'absent.bin'}"


def test_a_directory_is_no_image(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert "Is a directory" in one_line(capsys)


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tdforge", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("tdforge ")


@pytest.mark.parametrize(
    ("stop", "code"), [(KeyboardInterrupt, 130), (BrokenPipeError, 1)], ids=["interrupted", "no reader"]
)
def test_stopped_from_outside(stop: type[BaseException], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both entry points end with a code and say nothing."""

    def work(given: argparse.Namespace) -> int:
        raise stop

    inspect = cli.command("inspect")
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(said, "close", lambda: None)
    monkeypatch.setattr(cli, "command", lambda name: replace(inspect, work=work))
    monkeypatch.setattr(boot, "boot", work)
    assert main(["inspect", "image"]) == code
    assert boot.main([]) == code
    assert said.getvalue() == ""


@pytest.mark.parametrize(("words", "rooms"), [("--version", set()), ("sign --help", {"formats", "image"})])
def test_a_command_waits_for_no_other(words: str, rooms: set[str]) -> None:
    """Imports are most of what a short command does."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from tdforge.cli import main"
    run = [sys.executable, "-c", f"{code}; main(sys.argv[1:])", *words.split()]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = said.splitlines()[-1].split()
    assert "tdforge.cli" in modules
    assert {name.split(".")[0] for name in modules} & {
        "dsl",
        "emu",
        "formats",
        "gen",
        "host",
        "image",
    } == rooms


def test_the_examples_are_taken() -> None:
    examples = [
        words for name in cli.COMMANDS for line in cli.command(name).examples for words in line.split(";")
    ]
    assert len(examples) > len(cli.COMMANDS)
    for words in examples:
        program, *rest = words.split()
        assert program == "tdforge"
        assert cli.parser().parse_args(rest).command == rest[0]


def test_a_file_name_that_is_no_text_is_said_as_it_is(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path / "x") + b"\xfe.bin"
    Path(os.fsdecode(name)).write_bytes(b"")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [sys.executable, "-m", "tdforge", "check", name]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"qemu: refuses " + name in done.stdout
