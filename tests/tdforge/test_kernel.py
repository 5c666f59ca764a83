"""Does the kernel finder take the named kernel, else Debian's newest, else what is at hand?"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from formats import linux
from tdforge.apt import Apt
from tdforge.errors import UserError
from tdforge.kernel import META_PACKAGES, find_kernel, named_kernel, version_key
from tdforge.tiny import BANNER, tiny_payload


class FakeApt(Apt):
    """An archive with the given dependencies and names; unpacking writes a small bzImage."""

    def __init__(self, depends: dict[str, list[str]], names: list[str], broken: bool = False) -> None:
        self.known, self.all_names, self.broken = depends, names, broken
        self.unpacked: list[str] = []

    def depends(self, package: str) -> list[str]:
        return self.known.get(package, [])

    def names(self, pattern: str) -> list[str]:
        return self.all_names

    def unpack(self, packages: Sequence[str], into: Path, only: tuple[str, ...] = ("",)) -> None:
        if self.broken:
            raise UserError("the archive cannot be reached")
        self.unpacked += packages
        (into / "boot").mkdir(parents=True)
        for package in packages:
            (into / "boot" / f"vmlinuz-{package.removeprefix('linux-image-')}").write_bytes(tiny_payload())


NEWEST = "linux-image-6.12.117+deb12-cloud-amd64"
quiet = list[str]().append


def test_the_meta_package_decides(cache: Path) -> None:
    apt = FakeApt({META_PACKAGES[0]: ["linux-base", NEWEST]}, [])
    kernel = find_kernel(None, quiet, apt, cache)
    assert kernel.path == cache / "kernels" / NEWEST / "boot" / "vmlinuz-6.12.117+deb12-cloud-amd64"
    assert kernel.origin == f"Debian package {NEWEST}"


def test_a_kernel_in_the_cache_is_not_fetched_again(cache: Path) -> None:
    apt = FakeApt({META_PACKAGES[0]: [NEWEST]}, [])
    find_kernel(None, quiet, apt, cache)
    find_kernel(None, quiet, apt, cache)
    assert apt.unpacked == [NEWEST]


def test_debian_13_has_another_meta_package(cache: Path) -> None:
    apt = FakeApt({META_PACKAGES[1]: ["linux-image-6.12.107+deb13-cloud-amd64"]}, [])
    assert "6.12.107+deb13" in find_kernel(None, quiet, apt, cache).path.name


def test_a_6_1_kernel_is_passed_over(cache: Path) -> None:
    names = ["linux-image-6.12.9-cloud-amd64", "linux-image-6.12.117-cloud-amd64"]
    apt = FakeApt({META_PACKAGES[1]: ["linux-image-6.1.0-50-cloud-amd64"]}, names)
    assert find_kernel(None, quiet, apt, cache).path.name == "vmlinuz-6.12.117-cloud-amd64"


def test_versions_sort_as_numbers() -> None:
    assert version_key("linux-image-6.12.9-cloud") < version_key("linux-image-6.12.117-cloud")


def test_without_an_archive_the_kept_kernel_serves(cache: Path) -> None:
    find_kernel(None, quiet, FakeApt({META_PACKAGES[0]: [NEWEST]}, []), cache)
    said: list[str] = []
    other = FakeApt({META_PACKAGES[0]: ["linux-image-6.12.200-cloud-amd64"]}, [], broken=True)
    kernel = find_kernel(None, said.append, other, cache)
    assert kernel.path.name == "vmlinuz-6.12.117+deb12-cloud-amd64"
    assert said == ["no kernel from Debian: the archive cannot be reached"]


def test_without_any_kernel_the_tiny_payload_serves(cache: Path) -> None:
    said: list[str] = []
    kernel = find_kernel(None, said.append, FakeApt({}, []), cache)
    assert kernel.tiny
    assert kernel.path.read_bytes() == tiny_payload()
    assert "no package matches" in said[0]


def test_the_tiny_payload_is_a_bzimage(cache: Path) -> None:
    data = tiny_payload()
    header = linux.kernel(data)
    assert header.true_length == len(data)
    assert header.relocatable
    assert (header.preferred_address, header.init_size) == (16 << 20, 1 << 20)
    assert f"{BANNER}\n".encode() in data
    assert tiny_payload() == data  # from the cache this time


def test_the_tiny_payload_does_not_depend_on_the_cache(cache: Path) -> None:
    first = tiny_payload()
    shutil.rmtree(cache)
    assert tiny_payload() == first


def test_a_named_file_that_is_no_kernel(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"x" * 4096)
    with pytest.raises(UserError, match=r"not a Linux bzImage: .*notes.txt offset 0x202"):
        named_kernel(path)


def test_a_named_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read kernel .*absent: No such file"):
        named_kernel(tmp_path / "absent")


def test_a_version_text_cannot_steer_the_terminal(tmp_path: Path, cache: Path) -> None:
    data = tiny_payload().replace(b"tdforge tiny", b"\x1b[2J\x1b[31m td")
    path = tmp_path / "vmlinuz"
    path.write_bytes(data)
    assert "\x1b" not in named_kernel(path).version
