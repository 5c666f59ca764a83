"""Which payload boots where no Linux kernel can be had? Our own bzImage, which prints one line and halts."""

import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

from formats import linux
from formats.structs import pack
from formats.units import LARGE_PAGE, MIB, align_up
from host.cache import cache_dir
from tdforge.errors import UserError

SOURCE = Path(__file__).with_name("tiny.S")
BANNER = "tdforge tiny payload: started"

SETUP_SIZE = 2 * linux.SECTOR_SIZE  # boot sector and one setup sector
VERSION = "tdforge tiny payload"
VERSION_OFFSET = 0x300
# boot.rst: of a relocatable 64-bit kernel, protocol 2.15
HEADER = {
    "setup_sects": SETUP_SIZE // linux.SECTOR_SIZE - 1,
    "boot_flag": linux.BOOT_FLAG,
    "jump": 0xEB,  # JMP over the header, of which it says where it ends
    "jump_offset": linux.SETUP_HEADER_OFFSET + linux.SETUP_HEADER.sizeof() - 0x202,
    "header": linux.HEADER_MAGIC,
    "version": 0x020F,
    "kernel_version": VERSION_OFFSET - linux.SECTOR_SIZE,
    "loadflags": linux.LoadFlags.LOADED_HIGH,
    "initrd_addr_max": 0x7FFFFFFF,
    "kernel_alignment": LARGE_PAGE,
    "relocatable_kernel": 1,
    "min_alignment": 21,  # log2
    "xloadflags": linux.XLoadFlags.KERNEL_64,
    "cmdline_size": 2047,
    "pref_address": linux.MIN_PREFERRED_ADDRESS,
    "init_size": MIB,
}


def tiny_payload() -> bytes:
    """A bzImage of about 2 KiB for the 64-bit boot protocol (2.15, relocatable, preferred at 16 MiB).

    Raises UserError if the assembler (the ziglang wheel) fails.
    """
    protected = bytes([0xF4, 0xEB, 0xFD]).ljust(linux.ENTRY64_OFFSET, b"\0") + _code()  # 32-bit entry: HLT
    protected = protected.ljust(align_up(len(protected), linux.SYSSIZE_UNIT), b"\0")
    header = pack(linux.SETUP_HEADER, **HEADER, syssize=len(protected) // linux.SYSSIZE_UNIT)
    setup = bytearray(SETUP_SIZE)
    setup[linux.SETUP_HEADER_OFFSET : linux.SETUP_HEADER_OFFSET + len(header)] = header
    setup[VERSION_OFFSET : VERSION_OFFSET + len(VERSION)] = VERSION.encode()
    return bytes(setup) + protected


def _code() -> bytes:
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    kept = cache_dir() / f"tiny-{digest}.bin"
    if not kept.is_file():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            made = Path(scratch) / "tiny.bin"
            _assemble(made)
            made.rename(kept)
    return kept.read_bytes()


def _assemble(out: Path) -> None:
    elf = out.with_suffix(".elf")
    zig = [sys.executable, "-m", "ziglang"]
    target = ["-target", "x86_64-freestanding-none", "-nostdlib", "-static"]
    for command in (
        [*zig, "cc", *target, "-Wl,--image-base=0x200000", str(SOURCE), "-o", str(elf)],
        [*zig, "objcopy", "--only-section=.text", "-O", "binary", str(elf), str(out)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr.strip() or "no message").splitlines()[0]
            raise UserError(f"could not assemble {SOURCE.name}: {said}")
