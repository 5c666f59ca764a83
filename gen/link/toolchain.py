"""How do sources become objects? C and listings by clang of the `ziglang` wheel, Zig by its own compiler.
Unchanged ones are kept: of C and Zig, which all firmware shares, in tdforge's cache, of listings in the
build's own folder.

Paths that reach debug information are relative, so the same sources give the same bytes in any directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata as packages
from pathlib import Path

import ziglang  # type: ignore[import-untyped]

from gen.errors import BuildError
from gen.x86 import Listing
from host.cache import cache_dir

TARGET = ("-target", "x86_64-freestanding-none")
FREESTANDING = (  # C that needs nothing of an operating system, in objects of whatever target
    "-std=c17",
    "-Os",
    "-ffreestanding",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-jump-tables",
    "-fno-asynchronous-unwind-tables",
    "-mno-red-zone",
    "-mgeneral-regs-only",
    "-ffunction-sections",
    "-fdata-sections",
    "-Wall",
    "-Wextra",
    "-Werror",
)
POSITION_INDEPENDENT = ("-fPIE", "-fvisibility=hidden")
C_FLAGS = (*TARGET, *FREESTANDING, *POSITION_INDEPENDENT, "-fstack-size-section", "-g")
# As C_FLAGS: no vector registers, no checks. By way of bitcode: Zig's own objects have no stack sizes.
ZIG_FLAGS = (
    *TARGET,
    "-mcpu=x86_64+soft_float-sse-sse2-mmx-x87",
    "-O",
    "ReleaseSmall",
    "-fsingle-threaded",
    "-fstrip",
    "-mno-red-zone",
    "-fPIE",
    "-fno-stack-check",
    "-fno-stack-protector",
    "-fno-unwind-tables",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-emit-bin",
    "-j1",  # threads number what has no name in no certain order
)
BITCODE_FLAGS = (
    *TARGET,
    "-Os",
    "-mgeneral-regs-only",
    "-mno-red-zone",
    "-fPIE",
    "-ffunction-sections",
    "-fdata-sections",
    "-fstack-size-section",
)
KEPT_DAYS, DAY = 30, 24 * 3600 * 10**9  # of an object that is not used; in nanoseconds
_HERE = "-fdebug-compilation-dir=."
_WHEEL = Path(ziglang.__file__).resolve().parent  # the compiler names itself by its real path


@dataclass(frozen=True)
class Source:
    """A C or Zig file to compile; `includes` are folders of headers."""

    path: Path
    includes: tuple[Path, ...]
    flags: tuple[str, ...] = C_FLAGS


def tool(*arguments: str, cwd: Path) -> str:
    """Runs one of the wheel's tools; BuildError with its first message if it fails. Returns its warnings."""
    done = subprocess.run(
        [str(_WHEEL / "zig"), *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{arguments[0]}: {lines[0] if lines else f'exit code {done.returncode}'}")
    return done.stderr


def compile_all(
    sources: Sequence[Source], listings: Sequence[Listing], root: Path, folder: Path
) -> list[Path]:
    """Objects of sources (below `root`) and of listings, those in `folder`; unchanged ones are reused."""
    cache = cache_dir() / "objects"
    for each in (cache, folder):
        each.mkdir(parents=True, exist_ok=True)
    headers = {source.includes: _headers(source.includes) for source in sources}
    with ThreadPoolExecutor() as pool:
        compiled = [
            pool.submit(_compile, source, headers[source.includes], root, cache) for source in sources
        ]
        assembled = [pool.submit(_assemble, listing, folder) for listing in listings]
        made = [[each.result() for each in objects] for objects in (compiled, assembled)]
    for place, objects in zip((cache, folder), made, strict=True):
        _prune(place, objects)
    return [*made[0], *made[1]]


def _prune(folder: Path, used: Iterable[Path]) -> None:
    """Forgets what no build has asked for in a month; the time of access says when one last did."""
    now = time.time_ns()
    for path in used:
        os.utime(path, ns=(now, path.stat().st_mtime_ns))
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # of another build
            if path.stat().st_atime_ns < now - KEPT_DAYS * DAY:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def compile_c(source: Source, root: Path, cache: Path) -> Path:
    """The object of one source, made if `cache` does not have it. BuildError."""
    return _compile(source, _headers(source.includes), root, cache)


def _headers(folders: tuple[Path, ...]) -> str:
    """A digest of every header there: cheaper than tracking which are used, and never wrong."""
    return _key(
        *(path.read_text() for path in sorted(each for folder in folders for each in folder.glob("*.h")))
    )


def _compile(source: Source, headers: str, root: Path, cache: Path) -> Path:
    if source.path.suffix == ".zig":
        return _compile_zig(source.path, cache)
    name = source.path.relative_to(root).as_posix()
    key = _key(name, " ".join(source.flags), source.path.read_text(), headers)
    target = cache / f"{source.path.stem}-{key}.o"
    if not target.exists():
        includes = [f"-I{folder}" for folder in source.includes]
        generated = [f"-ffile-prefix-map={folder}=generated" for folder in source.includes]
        # The compiler names its own headers relative to the working folder when they lie below it.
        wheel = [f"-ffile-prefix-map={place}=ziglang" for place in (_WHEEL, os.path.relpath(_WHEEL, root))]
        maps = (f"-ffile-prefix-map={root}=.", *generated, *wheel)  # the last that fits counts
        _produce(target, "cc", *source.flags, *maps, _HERE, *includes, "-c", name, cwd=root)
    return target


def _compile_zig(source: Path, cache: Path) -> Path:
    key = _key(source.name, " ".join((*ZIG_FLAGS, *BITCODE_FLAGS)), source.read_text())
    target = cache / f"{source.stem}-{key}.o"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            folder = Path(scratch)
            shutil.copy(source, folder)  # the bitcode names its folder
            caches = ("--cache-dir", "made", "--global-cache-dir", "made")
            bitcode = f"-femit-llvm-bc={source.stem}.bc"
            tool("build-obj", source.name, *ZIG_FLAGS, bitcode, *caches, cwd=folder)
            _produce(target, "cc", *BITCODE_FLAGS, "-c", f"{source.stem}.bc", cwd=folder)
    return target


def _assemble(listing: Listing, folder: Path) -> Path:
    target = folder / f"{listing.name}-{_key(listing.text)}.o"
    if not target.exists():
        source = target.with_suffix(".s")
        source.write_text(listing.text)
        _produce(target, "cc", *TARGET, _HERE, "-c", source.name, cwd=folder)
    return target


def _produce(target: Path, *arguments: str, cwd: Path) -> None:
    """Makes a file elsewhere first: no build, interrupted or beside another, leaves half an object there."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch).resolve() / target.name
        tool(*arguments, "-o", str(made), cwd=cwd)
        made.replace(target)


@lru_cache
def _compiler() -> str:
    return packages.version("ziglang")


def _key(*parts: str) -> str:
    digest = hashlib.sha256(_compiler().encode())
    for part in parts:
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:24]
