"""Is a flow found by name or by path, and is a wrong name answered with the right one?"""

from pathlib import Path

import pytest

from tdforge.errors import UserError
from tdforge.flows import find_flow


@pytest.mark.parametrize("name", ["linux", "linux.tdf"])
def test_by_name(name: str) -> None:
    assert find_flow(name).name == "linux.tdf"


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "linux.tdf").write_text("// another")
    monkeypatch.chdir(tmp_path)
    assert find_flow("linux.tdf").resolve() == tmp_path / "linux.tdf"


def test_did_you_mean() -> None:
    with pytest.raises(UserError, match="no flow named linus; did you mean linux"):
        find_flow("linus")


def test_far_off_names_get_the_list() -> None:
    with pytest.raises(UserError, match=r"no flow named zzz; shipped flows: .*linux"):
        find_flow("zzz")


def test_a_missing_path_is_called_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no flow file"):
        find_flow(str(tmp_path / "absent.tdf"))
