"""What does an image do in an ordinary VM, where the CPU starts in 16-bit mode? (QEMU, without TDX)"""

from __future__ import annotations

import subprocess
from pathlib import Path

from debian import tool
from tdbox import Firmware

NOT_A_TD = "tdforge: not in a TD: this image needs Intel TDX"


def test_an_ordinary_vm_says_that_it_is_no_td(linux: Firmware, tmp_path: Path) -> None:
    image = tmp_path / "linux.bin"
    image.write_bytes(linux.image)
    command = [*tool("qemu-system-x86_64", "qemu-system-x86"), "-accel", "tcg", "-m", "64", "-nodefaults"]
    command += ["-display", "none", "-vga", "none", "-serial", "stdio", "-bios", str(image)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as qemu:
        assert qemu.stdout is not None
        try:
            assert qemu.stdout.readline().rstrip() == NOT_A_TD
            assert qemu.poll() is None  # halted, not reset
        finally:
            qemu.kill()
