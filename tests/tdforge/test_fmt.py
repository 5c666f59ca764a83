"""Does `tdforge fmt` write flows in the one way, change nothing with --check, and tell what it cannot do?"""

from pathlib import Path

import pytest

from dsl.api import shipped_flows
from tdforge.cli import main

UGLY = "firmware   x {\n version 1.0.0 // first\n}\n"
FORMATTED = "firmware x {\n    version 1.0.0  // first\n}\n"


@pytest.fixture
def ugly(tmp_path: Path) -> Path:
    """A flow file that parses and is not formatted."""
    path = tmp_path / "ugly.tdf"
    path.write_text(UGLY)
    return path


def test_check_changes_nothing(ugly: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", "--check", str(ugly)]) == 1
    assert capsys.readouterr().out == f"{ugly}: is not formatted\n"
    assert ugly.read_text() == UGLY


def test_formats_once(ugly: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", str(ugly)]) == 0
    assert capsys.readouterr().out == f"{ugly}: formatted\n"
    assert ugly.read_text() == FORMATTED
    assert main(["fmt", "--check", str(ugly)]) == 0
    assert main(["fmt", str(ugly)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"firmware x {{", "error[S01]"), (b"\xff", "not UTF-8 text")],
    ids=["syntax", "bytes"],
)
def test_what_is_broken_stays(
    content: bytes, said: str, ugly: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.tdf"
    broken.write_bytes(content)
    assert main(["fmt", str(broken), str(ugly)]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert err.splitlines()[-1] == "tdforge: 1 of 2 files could not be formatted"
    assert broken.read_bytes() == content
    assert ugly.read_text() == FORMATTED


def test_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fmt", str(tmp_path / "absent.tdf")]) == 1
    assert "no flow file" in capsys.readouterr().err


def test_what_ships_is_formatted() -> None:
    assert main(["fmt", "--check", *map(str, shipped_flows().values())]) == 0
