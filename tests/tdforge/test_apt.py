"""Do files of a Debian package arrive where they should, and is a changed tree noticed?"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tdforge import apt
from tdforge.apt import Apt, alone, tree_digest
from tdforge.errors import UserError


def tree(root: Path) -> Path:
    (root / "sub").mkdir(parents=True)
    (root / "a.py").write_text("one")
    (root / "sub" / "b.py").write_text("two")
    return root


def test_a_digest_sees_names_and_content_only(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    os.utime(second / "a.py", (0, 0))
    (second / "notes.txt").write_text("not a .py")
    assert tree_digest(first, "*.py") == tree_digest(second, "*.py")


@pytest.mark.parametrize("change", ["content", "name", "more", "less"])
def test_a_digest_sees_each_change(change: str, tmp_path: Path) -> None:
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    match change:
        case "content":
            (second / "a.py").write_text("One")
        case "name":
            (second / "a.py").rename(second / "c.py")
        case "more":
            (second / "c.py").write_text("")
        case "less":
            (second / "a.py").unlink()
    assert tree_digest(first, "*.py") != tree_digest(second, "*.py")


class LocalApt(Apt):
    """An archive whose packages are built on the spot."""

    def _download(self, packages: Sequence[str], folder: Path) -> list[Path]:
        return [self._build(package, folder) for package in packages]

    @staticmethod
    def _build(package: str, folder: Path) -> Path:
        content = folder / f"content of {package}"
        (content / "DEBIAN").mkdir(parents=True)
        (content / "DEBIAN" / "control").write_text(
            f"Package: {package}\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
        )
        for name in ("boot/vmlinuz-1", "boot/config-1", "lib/modules/a.ko", f"usr/bin/{package}"):
            (content / name).parent.mkdir(parents=True, exist_ok=True)
            (content / name).write_text(name)
        (content / "usr" / "bin" / package).chmod(0o4755)
        (content / "usr" / "bin" / f"{package}.1").symlink_to(package)
        (content / "boot" / "vmlinuz-link").symlink_to("/etc/passwd")
        (content / "boot" / "vmlinuz-up").symlink_to("../../../../../../../../../etc/passwd")
        deb = folder / f"{package}.deb"
        subprocess.run(["dpkg-deb", "--build", str(content), str(deb)], check=True, capture_output=True)
        return deb


def test_only_what_is_wanted_is_unpacked(tmp_path: Path) -> None:
    place = tmp_path / "kernels" / "linux"
    (place / "old").mkdir(parents=True)
    LocalApt(tmp_path).unpack(["linux"], place, only=("boot/vmlinuz-",))
    found = [path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()]
    assert found == ["boot/vmlinuz-1"]
    assert (place / "boot" / "vmlinuz-1").read_text() == "boot/vmlinuz-1"


def test_programs_and_links_of_several_packages_work(tmp_path: Path) -> None:
    LocalApt(tmp_path).unpack(["one", "two"], tmp_path / "tools", only=("usr/bin/", "usr/lib/"))
    for name in ("one", "two"):
        program = tmp_path / "tools" / "usr" / "bin" / name
        assert program.stat().st_mode & 0o7777 == 0o755
        assert program.with_suffix(".1").resolve() == program.resolve()
    assert not (tmp_path / "tools" / "boot").exists()


def test_a_machine_without_apt_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt.shutil, "which", lambda name: None)
    with pytest.raises(UserError, match="this machine has no apt"):
        Apt(tmp_path).unpack(["linux"], tmp_path / "linux")


class NoNetwork(Apt):
    """apt-get as it is without a network: an update that fetched nothing is a success, a download is not."""

    def _run(self, tool: str, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        if "download" in words:
            raise UserError("E: Unable to locate package")
        return ""


def test_without_a_network_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is the network available"):
        NoNetwork(tmp_path).unpack("linux", tmp_path / "linux")
    with pytest.raises(UserError, match="is the network available"):
        NoNetwork(tmp_path).names("linux-image")


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot write to .*file.*; set XDG_CACHE_HOME"),
        alone(tmp_path / "file"),
    ):
        pass


def test_the_second_process_waits_and_says_so(tmp_path: Path) -> None:
    other = "import sys, pathlib, tdforge.apt\nwith tdforge.apt.alone(pathlib.Path(sys.argv[1])): print('in')"
    with alone(tmp_path):
        process = subprocess.Popen(
            [sys.executable, "-c", other, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert process.stderr.readline() == f"tdforge: waiting for another process at work in {tmp_path}\n"
        assert process.poll() is None
    assert process.communicate()[0] == "in\n"
