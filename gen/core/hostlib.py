"""How does Python call the C core? Builds the firmware's own sources for this machine and loads it."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import cffi

from dsl.capabilities import prelude
from formats import tdvf
from formats.cstructs import c_header, c_struct
from formats.units import PAGE
from gen.core.headers import prelude_h
from gen.errors import BuildError
from host.library import CompileError, shared_library

SOURCES = Path(__file__).resolve().parents[2] / "runtime-c"
FLAGS = ("-std=c17", "-g")
# Undefined behaviour ends the process at once: no runtime library is needed. Beside `-fno-sanitize=all`, in
# whatever order, zig drops `-fsanitize=undefined`, so it is one or the other.
SANITIZE = {False: ("-fno-sanitize=all",), True: ("-fsanitize=undefined", "-fsanitize-trap=all")}

# Headers that are written by hand, and what memory.c calls the C library's functions in a hosted build.
HEADERS = ("tdf_base.h", "sha384.h", "signature.h")
HOSTED = """
void *tdf_memcpy(void *to, const void *from, size_t size);
void *tdf_memmove(void *to, const void *from, size_t size);
void *tdf_memset(void *to, int value, size_t size);
int tdf_memcmp(const void *a, const void *b, size_t size);
"""


@dataclass(frozen=True)
class Guarded:
    """Bytes that end right before a page that nobody may touch, so that a read past them ends the process."""

    address: int
    size: int
    memory: mmap.mmap = field(repr=False)


@dataclass(frozen=True)
class Lib:
    """The loaded core. `lib.<primitive>` is the C function, `ffi` makes its arguments."""

    ffi: Any
    lib: Any
    errors: dict[str, int]
    alignment: int  # the most that a structure asks for, in bytes; cffi's own allocator gives 16

    def new(self, what: str, *initial: Any) -> Any:
        """A zeroed structure, as aligned as its declaration asks for: `new("vmm")` is a `struct vmm *`."""
        return self.ffi.new_allocator(self._aligned)(f"struct {what} *", *initial)

    def _aligned(self, size: int) -> Any:
        # cffi does not know of the padding that the alignment brings.
        kept = self.ffi.new("uint8_t[]", size + 2 * self.alignment)
        pointer = self.ffi.cast("uint8_t *", kept)
        pointer += -int(self.ffi.cast("uintptr_t", pointer)) % self.alignment
        _KEPT[pointer] = kept
        return pointer

    def span(self, data: Any, size: int | None = None) -> Any:
        """A span over bytes (a copy, kept with the result), a cffi buffer, or an address and a size."""
        if isinstance(data, bytes | bytearray):
            kept = self.ffi.new("uint8_t[]", bytes(data) or b"\0")
            return self._span(kept, self.ffi.cast("uint8_t *", kept), len(data))
        if isinstance(data, int):
            return self._span(None, self.ffi.cast("uint8_t *", data), size or 0)
        return self._span(data, self.ffi.cast("uint8_t *", data), len(data) if size is None else size)

    def _span(self, kept: Any, pointer: Any, size: int) -> Any:
        span = self.ffi.new("struct span *", {"data": pointer, "size": size})
        _KEPT[span] = kept
        return span

    def guarded(self, size: int) -> Guarded:
        """`size` writable bytes that end at an unmapped page; page aligned if `size` is whole pages."""
        pages = -(-size // PAGE)
        memory = mmap.mmap(-1, (pages + 1) * PAGE)
        base = int(self.ffi.cast("uintptr_t", self.ffi.from_buffer(memory)))
        _protect_none(base + pages * PAGE)
        return Guarded(base + pages * PAGE - size, size, memory)

    def bytes_at(self, address: int, size: int) -> bytes:
        """Memory as bytes."""
        return bytes(self.ffi.buffer(self.ffi.cast("uint8_t *", address), size))

    def content(self, span: Any) -> bytes:
        """What a span covers."""
        return bytes(self.ffi.buffer(span.data, span.size))

    def address(self, pointer: Any) -> int:
        """The address of what a cffi pointer points to."""
        return int(self.ffi.cast("uintptr_t", pointer))

    def text(self, status: int) -> str:
        """What a boot that ends with this status says; empty for 0."""
        return prelude().errors[self.error(status)].text if status else ""

    def error(self, status: int) -> str:
        """The prelude's name of a status; "ok" for 0."""
        return next(
            (name for name, number in self.errors.items() if number == status), "ok" if not status else "?"
        )


# A cffi pointer -> the memory it points to, for as long as the pointer lives.
_KEPT: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()


def load(sanitize: bool = False) -> Lib:
    """The C core for this machine, built on first use. BuildError if it does not compile."""
    return _load(sanitize)


@cache
def _load(sanitize: bool) -> Lib:
    names = prelude()
    header = prelude_h()
    ffi = cffi.FFI()
    layout = (c_struct(tdvf.LAYOUT_ENTRY), c_struct(tdvf.LAYOUT))
    ffi.cdef("\n".join(map(_declarations, (*layout, *map(_header, HEADERS), HOSTED, header))))
    path = library(sanitize)
    errors = {name: each.number for name, each in names.errors.items()}
    return Lib(ffi, ffi.dlopen(str(path)), errors, max(each.align for each in names.records.values()))


def _header(name: str) -> str:
    return (SOURCES / "include" / name).read_text()


def _declarations(header: str) -> str:
    """A header as cffi reads it: sizes, but no function bodies, assertions or alignment."""
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    header = re.sub(r"^static inline .*?\}$", "", header, flags=re.DOTALL | re.MULTILINE)
    header = re.sub(r"^#define (\w+) (\d+)u$", r"enum { \1 = \2 };", header, flags=re.MULTILINE)
    lines = [line for line in header.splitlines() if not line.startswith(("#", "_Static_assert"))]
    return re.sub(r"_Alignas\(\d+\) | __attribute__\(\(packed\)\)", "", "\n".join(lines))


def library(sanitize: bool) -> Path:
    """The shared library of the C core, built if the cache has none of these sources. BuildError."""
    generated = {"primitives.h": prelude_h(), "formats.h": c_header()}
    flags = (*FLAGS, *SANITIZE[sanitize])
    try:
        return shared_library(
            "hostlib/core",
            SOURCES / "src",
            flags,
            headers=SOURCES / "include",
            generated=generated,
            checked=sanitize,
        )
    except CompileError as error:
        raise BuildError(f"C core for this machine: {error}") from error


def _protect_none(address: int) -> None:
    ffi = cffi.FFI()
    ffi.cdef("int mprotect(void *addr, size_t len, int prot);")
    if ffi.dlopen(None).mprotect(ffi.cast("void *", address), PAGE, 0) != 0:
        raise OSError("mprotect failed")
