"""Is the reading order true and complete? Every path in it exists; every page and package is in it."""

import re

from transcript import ROOT

TEXT = (ROOT / "docs" / "reading-order.md").read_text()
LINKS = re.findall(r"\]\(([^)#]+)\)", TEXT)
PATHS = [path for path in re.findall(r"`([\w./-]+)`", TEXT) if not path.startswith("build/")]


def test_every_path_exists() -> None:
    assert [path for path in PATHS if not (ROOT / path).exists()] == []
    assert [link for link in LINKS if not (ROOT / "docs" / link).exists()] == []


def test_every_page_is_named() -> None:
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(LINKS) == {"reading-order.md"}


def test_every_package_is_named() -> None:
    folders = {
        path.parent.relative_to(ROOT).as_posix()
        for room in ("gen", "emu")
        for path in ROOT.glob(f"{room}/*/*.py")
    }
    assert [name for name in sorted(folders) if f"`{name}/" not in TEXT] == []
