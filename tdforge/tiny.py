"""Which payload boots where no Linux kernel can be had? Our own bzImage, which prints one line and halts."""

import hashlib
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tdforge.apt import cache_dir
from tdforge.errors import UserError

SOURCE = Path(__file__).with_name("tiny.S")
BANNER = "tdforge tiny payload: started"

# Linux Documentation/arch/x86/boot.rst: offsets of the setup header; values of a relocatable 64-bit kernel.
SETUP_SIZE = 1024  # boot sector and one setup sector (setup_sects = 1)
ENTRY_64 = 0x200  # the 64-bit entry, from the start of the protected-mode part
VERSION = "tdforge tiny payload"
VERSION_OFFSET = 0x300


def tiny_payload() -> bytes:
    """A bzImage of about 2 KiB for the 64-bit boot protocol (2.15, relocatable, preferred at 16 MiB).

    Raises UserError if the assembler (the ziglang wheel) fails.
    """
    protected = bytes([0xF4, 0xEB, 0xFD]).ljust(ENTRY_64, b"\0") + _code()  # 32-bit entry: HLT for ever
    protected = protected.ljust(-(-len(protected) // 16) * 16, b"\0")
    setup = bytearray(SETUP_SIZE)
    for offset, layout, value in (
        (0x1F1, "<B", SETUP_SIZE // 512 - 1),  # setup_sects
        (0x1F4, "<I", len(protected) // 16),  # syssize
        (0x1FE, "<H", 0xAA55),  # boot_flag
        (0x200, "<H", 0x6AEB),  # jump: the header ends at 0x26C
        (0x202, "<I", 0x53726448),  # "HdrS"
        (0x206, "<H", 0x020F),  # protocol 2.15
        (0x20E, "<H", VERSION_OFFSET - 0x200),  # kernel_version
        (0x211, "<B", 1),  # loadflags: LOADED_HIGH
        (0x22C, "<I", 0x7FFFFFFF),  # initrd_addr_max
        (0x230, "<I", 0x200000),  # kernel_alignment
        (0x234, "<B", 1),  # relocatable_kernel
        (0x235, "<B", 21),  # min_alignment, log2
        (0x236, "<H", 1),  # xloadflags: XLF_KERNEL_64
        (0x238, "<I", 2047),  # cmdline_size
        (0x258, "<Q", 0x1000000),  # pref_address: 16 MiB
        (0x260, "<I", 0x100000),  # init_size: 1 MiB
    ):
        struct.pack_into(layout, setup, offset, value)
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
