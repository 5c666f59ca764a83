"""Does `./run boot` build, boot and tell, and does it fail in one line when the kernel stays silent?"""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from debian import kernel as debian_kernel

from tdforge import boot, initramfs
from tdforge.kernel import named_kernel
from tdforge.tiny import BANNER, tiny_payload


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny payload in an empty folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.bzImage"
    path.write_bytes(tiny_payload())
    return path


def test_summary_first_then_the_console(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot.main(["--kernel", str(kernel), "--memory", "256M"]) == 0
    page = capsys.readouterr().out
    summary, console = page.split("The guest's console:")
    assert BANNER in console
    assert "attest nothing" in summary
    assert hashlib.sha384(kernel.read_bytes()).hexdigest() in summary
    assert hashlib.sha384(boot.CMDLINE.encode()).hexdigest() in summary
    assert Path("build/linux.bin").is_file()


def test_debians_kernel_finds_itself_in_a_td(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--kernel", str(debian_kernel()), "--memory", "512M", "--until", "console:Command line:"]
    assert boot.main(words) == 0
    console = capsys.readouterr().out.split("The guest's console:")[1]
    assert "tdx: Guest detected" in console
    assert "Linux version 6.12" in console


def test_a_run_that_ends_too_early(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--kernel", str(kernel), "--memory", "256M", "--until", "console:Linux version"]
    assert boot.main(words) == 1
    said = capsys.readouterr().err
    assert said.startswith("tdforge: the run ended before console:Linux version: halt")
    assert said.count("\n") == 1


def test_no_kernel_at_all(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.write_bytes(b"MZ" + bytes(4000))
    assert boot.main(["--kernel", str(kernel)]) == 1
    assert "tdforge: not a Linux bzImage" in capsys.readouterr().err


def test_a_run_to_the_handoff_asks_for_no_banner(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert boot.main(["--kernel", str(kernel), "--memory", "256M", "--until", "handoff"]) == 0
    assert "tdforge: done: handoff" in capsys.readouterr().out


def test_a_shell_runs_until_it_powers_off(
    kernel: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny payload halts instead, behind the same initrd."""
    monkeypatch.setattr(initramfs, "busybox", lambda say: b"no busybox")
    assert boot.main(["--kernel", str(kernel), "--memory", "256M", "--shell"]) == 1
    said = capsys.readouterr()
    assert "tdforge: the run ended before shutdown: halt" in said.err
    archive = Path("build/initrd").read_bytes()
    assert hashlib.sha384(archive).hexdigest() in said.out
    assert initramfs.SHELL in archive
    words = ["--kernel", str(kernel), "--memory", "256M", "--initrd", "build/initrd"]
    assert boot.main([*words, "--until", "handoff"]) == 0
    assert boot.main([*words, "--shell"]) == 1
    assert "give it or --initrd, not both" in capsys.readouterr().err


def test_the_kernel_that_was_found_is_linked(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replace(named_kernel(kernel), origin="an archive")
    monkeypatch.setattr(boot, "find_kernel", lambda named, say: found)
    assert boot.main(["--memory", "256M", "--until", "handoff"]) == 0
    assert Path("build/vmlinuz").resolve() == kernel.resolve()
    assert boot.main(["--memory", "256M", "--until", "handoff"]) == 0
