"""Are the TDX kernels of an archive found, booted one by one, and told in a table or as JSON?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tdforge import kernels
from tdforge.errors import UserError
from tdforge.tiny import tiny_payload

NAMES = [
    *("linux-image-6.12-amd64", "linux-image-amd64", "linux-image-6.1.0-56-cloud-amd64"),
    *("linux-image-6.12.117+deb12-rt-amd64", "linux-image-6.12.9-amd64", "linux-image-6.12.117+deb12-amd64"),
    *("linux-image-6.16.3+deb13-cloud-amd64", "linux-image-6.12.9-amd64-dbg", "linux-image-6.12.9-arm64"),
    *(
        "linux-image-7.0-cloud-amd64",
        "linux-image-6.12.9-amd64-unsigned",
        "linux-image-7.0.4+deb14-cloud-amd64",
    ),
]


def test_which_packages_are_tdx_kernels() -> None:
    assert kernels.tdx_kernels(NAMES) == [
        "linux-image-6.12.9-amd64",
        "linux-image-6.12.117+deb12-amd64",
        "linux-image-6.12.117+deb12-rt-amd64",
        "linux-image-6.16.3+deb13-cloud-amd64",
        "linux-image-7.0.4+deb14-cloud-amd64",
    ]


class Archive:
    """An apt with three kernels: one boots as far as the tiny payload goes, one is none, one has gone."""

    def __init__(self, cache: Path, say: object, suite: object) -> None:
        del cache, say, suite

    def names(self, pattern: str) -> list[str]:
        del pattern
        return [f"linux-image-6.12.{number}-amd64" for number in (3, 1, 2)]

    def unpack(self, packages: Sequence[str], into: Path, only: tuple[str, ...], pinned: bool) -> None:
        assert only == ("boot/vmlinuz-",)
        assert not pinned
        (package,) = packages
        if package.endswith("3-amd64"):
            raise UserError("apt-get download: it has gone")
        (into / "boot").mkdir(parents=True)
        content = tiny_payload() if package.endswith("1-amd64") else b"none"
        (into / "boot/vmlinuz-6.12").write_bytes(content)


def test_each_kernel_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "Apt", Archive)
    monkeypatch.setattr(kernels.boot, "LAST_WORDS", "tiny payload: started")
    monkeypatch.setattr(kernels, "GUEST", "tiny payload")
    words = ["--suite", "own", "--memory", "256M"]
    assert kernels.main([*words, "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [row["good"] for row in found] == [True, False, False]
    assert [row["package"] for row in found] == [f"linux-image-6.12.{n}-amd64" for n in (1, 2, 3)]
    assert "no" in found[1]["end"]
    assert found[2]["end"] == "apt-get download: it has gone"
    assert "tdforge: own 2/3: linux-image-6.12.2-amd64" in said.err
    assert kernels.main(words) == 1
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table] == ["good", "BAD", "BAD"]


def test_an_archive_without_a_tdx_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels, "rows", lambda suites, ram, say: iter(()))
    assert kernels.main([]) == 1
    assert "no TDX kernel" in capsys.readouterr().err
