"""Do packages of another Debian release arrive beside the machine's own, and only those that were meant?

`archive` is a signed archive with two packages; InRelease was signed with the key of key.gpg.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from debian import HOME

from tdforge.apt import Apt, Suite, alone, files_digest
from tdforge.errors import UserError

ARCHIVE = Path(__file__).parent / "archive"
BOTH = files_digest((ARCHIVE / "pool").iterdir())


def suite(archive: Path = ARCHIVE, key: str = "key.gpg") -> Suite:
    return Suite("other", f"file:{archive}", ARCHIVE / key)


def test_a_package_and_all_that_it_needs_arrive(tmp_path: Path) -> None:
    apt = Apt(tmp_path, suite=suite())
    packages = apt.missing("small-thing")
    assert packages == ["small-base", "small-thing"], "nothing that this machine has counts"
    apt.unpack(packages, tmp_path / "tree", digest=BOTH)
    found = [path.relative_to(tmp_path / "tree").as_posix() for path in (tmp_path / "tree").rglob("text")]
    assert sorted(found) == ["usr/share/small-base/text", "usr/share/small-thing/text"]
    assert {path.name for path in tmp_path.iterdir()} == {"apt-other", "tree"}, "lists of its own"
    assert Apt(tmp_path, suite=suite()).names("small-.*") == packages
    assert "small-thing" not in Apt(tmp_path).names("small-.*"), "the machine's own lists are not touched"


@pytest.mark.parametrize("digest", [None, BOTH])
def test_what_is_not_pinned_is_not_unpacked(digest: str | None, tmp_path: Path) -> None:
    apt = Apt(tmp_path, suite=suite())
    with pytest.raises(UserError) as caught:
        apt.unpack(["small-thing"], tmp_path / "tree", digest=digest)
    one = files_digest([ARCHIVE / "pool" / "small-thing_2.0_all.deb"])
    name = "small-thing_1%3a2.0_all.deb"
    assert str(caught.value) == f"{name}: digest is {one}, expected {digest or 'a pinned digest'}"
    assert not (tmp_path / "tree").exists()


def test_an_archive_that_another_key_signed_is_refused(tmp_path: Path) -> None:
    apt = Apt(tmp_path, suite=suite(key="stranger.gpg"))
    with pytest.raises(UserError, match="is not signed"):
        apt.unpack(["small-thing"], tmp_path / "tree", digest=BOTH)
    assert not (tmp_path / "tree").exists()


def test_a_package_that_was_changed_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(ARCHIVE, archive)
    package = archive / "pool" / "small-thing_2.0_all.deb"
    raw = bytearray(package.read_bytes())
    raw[-1] ^= 1
    package.write_bytes(raw)
    with pytest.raises(UserError, match="Hash Sum mismatch"):
        Apt(tmp_path, suite=suite(archive)).unpack(["small-thing"], tmp_path / "tree", digest=BOTH)


def test_without_the_keyring_it_says_what_to_install(tmp_path: Path) -> None:
    apt = Apt(tmp_path, suite=suite(key="no.gpg"))
    with pytest.raises(
        UserError, match=r"no\.gpg \(Debian's archive keys\) does not exist; install package debian-arch"
    ):
        apt.unpack(["small-thing"], tmp_path / "tree", digest=BOTH)


def test_backports_stand_on_their_release() -> None:
    lines = Suite("trixie-backports").sources.splitlines()
    assert [line.split()[-2:] for line in lines] == [["trixie", "main"], ["trixie-backports", "main"]]
    assert len(Suite("trixie").sources.splitlines()) == 1


def test_debian_13_on_any_debian(tmp_path: Path) -> None:
    """The smallest package that everybody knows."""
    with alone(HOME):
        apt = Apt(HOME, suite=Suite("trixie"))
        pinned = "d1ee581302805d6ee6a7c384d7d45d3b8e730af84c0a446b05dc4bcc8ac25ab7"
        apt.unpack(["hello"], tmp_path / "hello", only=("usr/bin/",), digest=pinned)
    program = tmp_path / "hello" / "usr" / "bin" / "hello"
    assert program.read_bytes().startswith(b"\x7fELF")
    assert program.stat().st_mode & 0o111
