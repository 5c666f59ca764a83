"""Which payload shows that a firmware hands over as it says? The one of runtime-c/sample, in each format.

One program, compiled for System V's convention and linked as ELF, and for Microsoft's and linked as PE. Each
part of the file has one right (R, RX or RW) and pages of its own. The same bytes in any folder.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from formats.cstructs import c_header
from formats.units import MIB, PAGE
from gen.errors import BuildError
from gen.link.toolchain import FREESTANDING, POSITION_INDEPENDENT, TARGET, Source, compile_c, tool
from host.cache import cache_dir

PROJECT = Path(__file__).resolve().parents[2]
ENTRY = "sample_entry"
_ELF_FLAGS = (*TARGET, *FREESTANDING, *POSITION_INDEPENDENT)
_ELF_LINK = (
    "ld.lld",
    "-m",
    "elf_x86_64",
    "-static",
    "--no-dynamic-linker",
    "--gc-sections",
    "--strip-all",
    "--build-id=none",
    "--fatal-warnings",
    "-z",
    "text",
    "-z",
    "separate-loadable-segments",
    "-z",
    f"max-page-size={PAGE}",
    "-z",
    "noexecstack",
    "-e",
    ENTRY,
)
_PE_FLAGS = ("-target", "x86_64-windows-gnu", *FREESTANDING)
_PE_LINK = (
    "lld-link",
    "/machine:x64",
    "/subsystem:native",
    "/nodefaultlib",
    "/dynamicbase",
    "/nxcompat",
    "/opt:ref",
    "/timestamp:0",
    "/WX",
    f"/entry:{ENTRY}",
)


@dataclass(frozen=True)
class Format:
    """How the sample gets a format; `out`: how its linker is told the name of the file."""

    flags: tuple[str, ...]
    link: tuple[str, ...]
    out: str = "--output="


FORMATS = {
    "elf": Format(_ELF_FLAGS, (*_ELF_LINK, "-pie")),
    "elf-relr": Format(_ELF_FLAGS, (*_ELF_LINK, "-pie", "--pack-dyn-relocs=relr")),
    "elf-exec": Format(_ELF_FLAGS, (*_ELF_LINK, "--no-pie", f"--image-base={32 * MIB:#x}")),
    "pe": Format(_PE_FLAGS, _PE_LINK, "/out:"),
}


def sample(name: str) -> bytes:
    """The sample as a file of the format with this name. BuildError if the toolchain fails."""
    kind, core = FORMATS[name], PROJECT / "runtime-c"
    if not core.is_dir():
        raise BuildError(f"no C sources in {core}: tdforge runs from its checkout, not from a wheel")
    cache = cache_dir() / "objects"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "formats.h").write_text(c_header())
        includes = (core / "include", scratch)
        paths = [*sorted((core / "sample").glob("*.c")), core / "src" / "memory.c"]
        objects = [compile_c(Source(path, includes, kind.flags), PROJECT, cache) for path in paths]
        made = scratch / "sample"
        tool(*kind.link, f"{kind.out}{made}", *(each.name for each in objects), cwd=cache)
        return made.read_bytes()
