"""How does the native core get built and loaded? Compiled once per content against the unicorn wheel,
kept in a cache.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import cffi

from emu.cpu import pagestate
from emu.signals import EmuError
from formats.tdx import status
from host.library import CompileError, shared_library

NATIVE = Path(__file__).parent / "native"
# Statuses that the native core answers with itself
NUMBERS = {
    "TDX_PAGE_ALREADY_ACCEPTED": status.PAGE_ALREADY_ACCEPTED,
    "TDX_PAGE_SIZE_MISMATCH": status.PAGE_SIZE_MISMATCH,
}
COMPILE_FLAGS = (
    "-std=gnu17",
    *(f"-D{name}={value:#x}ULL" for name, value in NUMBERS.items()),
    *(f"-D{name}={value}" for name, value in pagestate.IN_C.items()),
)


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
    flags = (*COMPILE_FLAGS, f"-I{wheel / 'include'}")
    try:
        return shared_library("native/tdcore", NATIVE, flags, against=library)
    except CompileError as error:
        raise EmuError(f"the native core does not compile: {error}") from error


def identity() -> str:
    """Names the build of native core and CPU engine: what one build saved, another may not understand."""
    return library().stem


@functools.cache
def load() -> tuple[Any, Any]:
    """The cffi pair (ffi, library) of the native core."""
    ffi = cffi.FFI()
    ffi.cdef((NATIVE / "api.h").read_text())
    return ffi, ffi.dlopen(str(library()))
