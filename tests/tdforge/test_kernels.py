"""Are the TDX kernels of an archive found, booted one by one, and told in a table or as JSON?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from emu.config import RunConfig
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
    """An apt with five kernels: one boots as far as the tiny payload goes, and so does one that lies in a
    package of its own; one is none, one has gone, one is nowhere.
    """

    def __init__(self, cache: Path, say: object, suite: object) -> None:
        del cache, say, suite

    def names(self, pattern: str) -> list[str]:
        del pattern
        return [f"linux-image-6.12.{number}-amd64" for number in (3, 1, 2, 5)] + ["linux-image-6.19.4-amd64"]

    def depends(self, package: str) -> list[str]:
        return ["kmod", "linux-binary-6.19.4-amd64"] if package.endswith("4-amd64") else ["kmod"]

    def unpack(self, packages: Sequence[str], into: Path, only: tuple[str, ...], pinned: bool) -> None:
        assert not pinned
        version = packages[0].removeprefix("linux-image-")
        assert only == (f"boot/vmlinuz-{version}", f"usr/lib/modules/{version}/vmlinuz")
        package = packages[-1]
        assert packages == [package] or package == "linux-binary-6.19.4-amd64"
        if package.endswith("3-amd64"):
            raise UserError("apt-get download: it has gone")
        file = into / only[package.startswith("linux-binary-")]
        file.parent.mkdir(parents=True)
        if package.endswith("5-amd64"):
            return
        content = tiny_payload() if package.endswith(("1-amd64", "4-amd64")) else b"none"
        file.write_bytes(content)


def test_each_kernel_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(kernels, "Apt", Archive)
    monkeypatch.setattr(kernels.boot, "LAST_WORDS", "tiny payload: started")
    monkeypatch.setattr(kernels, "GUEST", "tiny payload")
    words = ["--suite", "own", "--memory", "256M"]
    assert kernels.main([*words, "--json"]) == 1
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [row["good"] for row in found] == [True, False, False, False, True]
    names = ["6.12.1", "6.12.2", "6.12.3", "6.12.5", "6.19.4"]
    assert [row["package"] for row in found] == [f"linux-image-{name}-amd64" for name in names]
    assert "no" in found[1]["end"]
    assert found[2]["end"] == "apt-get download: it has gone"
    assert found[3]["end"].startswith("linux-image-6.12.5-amd64: neither boot/vmlinuz-6.12.5-amd64 nor ")
    assert "tdforge: own 2/5: linux-image-6.12.2-amd64" in said.err
    assert kernels.main([*words, "--match", r"[13]-amd64|2-amd64"]) == 1
    table = capsys.readouterr().out.splitlines()
    assert kernels.main([*words, "--match", r"\.3-", "--json"]) == 1
    assert [row["package"] for row in json.loads(capsys.readouterr().out)] == ["linux-image-6.12.3-amd64"]
    assert [line.split()[0] for line in table] == ["good", "BAD", "BAD"]
    asked: list[str] = []

    def run_td(config: RunConfig, console: object) -> object:
        asked.append(config.module)
        raise UserError("not run")

    monkeypatch.setattr(kernels, "run_td", run_td)
    assert kernels.main([*words, "--match", r"\.1-", "--module", "newer"]) == 1
    assert asked == ["newer"]


def test_what_is_no_regular_expression(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kernels.main(["--match", "("])
    assert "'(' is not a regular expression" in capsys.readouterr().err


def test_an_archive_without_a_tdx_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kernels, "rows", lambda suites, match, ram, module, say: iter(()))
    assert kernels.main([]) == 1
    assert "no TDX kernel" in capsys.readouterr().err
