"""How does the native core get built and loaded? Compiled once per content against the unicorn wheel,
kept in a cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import cffi

from emu.signals import EmuError
from formats.tdx import status

NATIVE = Path(__file__).parent / "native"
# Statuses that the native core answers with itself
NUMBERS = {
    "TDX_PAGE_ALREADY_ACCEPTED": status.PAGE_ALREADY_ACCEPTED,
    "TDX_PAGE_SIZE_MISMATCH": status.PAGE_SIZE_MISMATCH,
}
COMPILE_FLAGS = (
    "-mcpu=baseline",  # any x86-64: the cache may be shared with a machine of another kind
    *("-shared", "-fPIC", "-O2", "-std=gnu17", "-Wall", "-Wextra", "-Werror"),
    *(f"-D{name}={value:#x}ULL" for name, value in NUMBERS.items()),
)


def cache_dir() -> Path:
    """Folder for built artefacts: $TDFORGE_CACHE, else the user's cache folder."""
    if configured := os.environ.get("TDFORGE_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "tdforge"


def unicorn_dir() -> Path:
    """Where the unicorn wheel lies; its Python binding is not imported."""
    import importlib.util

    spec = importlib.util.find_spec("unicorn")
    if spec is None or spec.origin is None:
        raise EmuError("the CPU engine is missing: install the package 'unicorn' 2.1.2 or newer")
    return Path(spec.origin).parent


def library() -> Path:
    """The native core, built if the cache has none of these sources."""
    wheel = unicorn_dir()
    library = wheel / "lib" / "libunicorn.so.2"
    if not library.exists():
        raise EmuError(f"{library}: not found; the unicorn wheel of this platform has another layout")
    sources = sorted(NATIVE.glob("*.c"))
    digest = hashlib.sha256(repr((COMPILE_FLAGS, str(wheel))).encode())
    for file in [*sources, *sorted(NATIVE.glob("*.h"))]:
        digest.update(file.name.encode() + file.read_bytes())
    digest.update(library.stat().st_size.to_bytes(8, "little"))
    target = cache_dir() / "native" / f"tdcore-{digest.hexdigest()[:20]}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        built = Path(work) / "tdcore.so"
        command = [sys.executable, "-m", "ziglang", "cc", *COMPILE_FLAGS, f"-I{wheel / 'include'}"]
        command += [*map(str, sources), str(library), f"-Wl,-rpath,{library.parent}", "-o", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise EmuError(f"the native core does not compile: {done.stderr.strip().splitlines()[-1:]}")
        built.replace(target)
    return target


def identity() -> str:
    """Names the build of native core and CPU engine: what one build saved, another may not understand."""
    return library().stem


@functools.cache
def load() -> tuple[Any, Any]:
    """The cffi pair (ffi, library) of the native core."""
    ffi = cffi.FFI()
    ffi.cdef((NATIVE / "api.h").read_text())
    return ffi, ffi.dlopen(str(library()))
