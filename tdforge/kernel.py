"""Which kernel boots? The one named, else Debian's current 6.12 cloud kernel, else a tiny payload."""

import lzma
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from formats import linux
from formats.errors import FormatError
from host.cache import cache_dir
from tdforge.apt import Apt, Say, alone
from tdforge.errors import UserError, printable
from tdforge.tiny import VERSION, tiny_payload
from tdforge.tools import tool

# The meta-package on Debian 12 (its 6.12 kernels come with the security archive) and on Debian 13.
META_PACKAGES = ("linux-image-6.12-cloud-amd64", "linux-image-cloud-amd64")
# 6.12 is the first Debian kernel whose cloud flavour has CONFIG_INTEL_TDX_GUEST=y; 6.1 has not.
IMAGE_PACKAGE = r"linux-image-6\.12\.[0-9]+.*-cloud-amd64"


@dataclass(frozen=True)
class Kernel:
    """A kernel file, the version in its header, a phrase on where it comes from, Debian's package."""

    path: Path
    version: str
    origin: str
    package: str | None = None

    @property
    def tiny(self) -> bool:
        """True for our own payload, which is no Linux kernel."""
        return self.version == VERSION


def named_kernel(path: Path) -> Kernel:
    """The kernel in `path`. Raises UserError if it cannot be read or is no bzImage with a 64-bit entry."""
    return Kernel(path, _version(path), "named on the command line")


def find_kernel(named: Path | None, say: Say, apt: Apt | None = None, cache: Path | None = None) -> Kernel:
    """`named` if given, else Debian's kernel (fetched into `cache` without root), else the tiny payload.

    `say` gets a line for each download and for each fall-back.
    """
    if named is not None:
        return named_kernel(named)
    cache = cache or cache_dir()
    with alone(cache):
        return _found_kernel(say, apt or Apt(cache, say), cache)


def _found_kernel(say: Say, apt: Apt, cache: Path) -> Kernel:
    try:
        return _debian_kernel(apt, cache / "kernels")
    except UserError as error:
        say(f"no kernel from Debian: {error}")
    kept = sorted((cache / "kernels").glob("*/boot/vmlinuz-*"), key=lambda path: version_key(path.name))
    if kept:
        return Kernel(kept[-1], _version(kept[-1]), "fetched from Debian earlier")
    path = cache / "tiny-payload.bzImage"
    path.write_bytes(tiny_payload())
    return Kernel(path, _version(path), "tdforge's tiny payload, not a Linux kernel")


def version_key(name: str) -> tuple[int, ...]:
    """Sort key: the numbers in a package or file name, so that 6.12.9 comes before 6.12.117."""
    return tuple(int(number) for number in re.findall(r"[0-9]+", name))


def _debian_kernel(apt: Apt, kernels: Path) -> Kernel:
    package = _image_package(apt)
    place = kernels / package
    if not list(place.glob("boot/vmlinuz-*")):
        apt.unpack([package], place, only=("boot/vmlinuz-",))
    found = sorted(place.glob("boot/vmlinuz-*"))
    if not found:
        raise UserError(f"{package} has no boot/vmlinuz-*")
    return Kernel(found[0], _version(found[0]), f"Debian package {package}", package)


def modules(package: str, names: Sequence[str], say: Say, cache: Path | None = None) -> dict[str, bytes]:
    """Modules of a Debian kernel, such as drivers/block/virtio_blk.ko, by file name. UserError."""
    cache = cache or cache_dir()
    place = cache / "kernels" / f"{package}-modules"
    root = f"lib/modules/{package.removeprefix('linux-image-')}/kernel/"
    with alone(cache):
        if not all((place / root / f"{name}.xz").is_file() for name in names):
            Apt(cache, say).unpack([package], place, only=tuple(root + name for name in names))
    return {Path(name).name: lzma.decompress((place / root / f"{name}.xz").read_bytes()) for name in names}


ZSTD, XZ = bytes.fromhex("28b52ffd"), bytes.fromhex("fd377a585a00")  # how a file of each begins
SIZE_BEHIND = 4  # bytes after a packed kernel: how long it is unpacked


def vmlinux(kernel: bytes, say: Say, cache: Path | None = None) -> bytes:
    """The ELF file in a bzImage, packed by xz or zstd (boot.rst, payload_offset). UserError."""
    try:
        packed = kernel[linux.kernel(kernel).packed][:-SIZE_BEHIND]
    except FormatError as error:
        raise UserError(str(error)) from error
    if packed.startswith(XZ):
        return lzma.decompress(packed)
    if not packed.startswith(ZSTD):
        raise UserError(f"kernel: packed data begins {packed[:6].hex()}, expected xz or zstd")
    done = subprocess.run(
        [*tool("zstd", "zstd", say, cache), "-dc"], input=packed, capture_output=True, check=True
    )
    return done.stdout


def _image_package(apt: Apt) -> str:
    for meta in META_PACKAGES:
        for name in apt.depends(meta):
            if re.fullmatch(IMAGE_PACKAGE, name):
                return name
    names = apt.names(IMAGE_PACKAGE)
    if not names:
        raise UserError(
            "no package matches linux-image-6.12.*-cloud-amd64; is Debian's security archive missing?"
        )
    return max(names, key=version_key)


def _version(path: Path) -> str:
    try:
        return printable(linux.kernel(path.read_bytes(), place=str(path)).version_text)
    except OSError as error:
        raise UserError(f"cannot read kernel {path}: {error.strerror}") from error
    except FormatError as error:
        raise UserError(f"not a Linux bzImage: {error}") from error
