"""How do objects become one linked firmware volume? By lld of the `ziglang` wheel.

The volume ends at 4 GiB and is packed against it: data, rodata, text, each on pages of its own; .reset, what
16-bit code and gates reach, is the last of the text. The last KiB stays free for metadata.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from dsl.layout import WITHIN_BFV
from dsl.model import Firmware
from formats.tdvf import RESET_VECTOR_DISTANCE
from formats.units import FOUR_GIB, PAGE, align_up
from gen.errors import BuildError
from gen.flow.names import DESCRIBED, region_symbols
from gen.link.toolchain import tool
from image.write import METADATA_DISTANCE

LINK_FLAGS = (
    "-m",
    "elf_x86_64",
    "-static",
    "--no-pie",
    "--gc-sections",
    "--build-id=none",
    "-z",
    f"max-page-size={PAGE}",
    "-z",
    "norelro",
    "-z",
    "noexecstack",
    "-e",
    "reset_vector",
)
_LOADED = (".data", ".rodata", ".text", ".resetvec")


@dataclass(frozen=True)
class Linked:
    """The linked firmware volume: flat bytes that end at 4 GiB, the ELF file, and its symbols by name."""

    content: bytes
    elf: bytes
    symbols: Mapping[str, int]
    map: str

    @property
    def used(self) -> int:
        """Bytes of code and data, without the padding between them."""
        return self.symbols["__used_bytes"]


@dataclass(frozen=True)
class _Sizes:
    """Bytes of the three parts; where they begin follows."""

    data: int = 0
    rodata: int = 0
    text: int = 0

    @property
    def text_start(self) -> int:
        return FOUR_GIB - align_up(self.text + METADATA_DISTANCE, PAGE)

    @property
    def rodata_start(self) -> int:
        return self.text_start - align_up(self.rodata, PAGE)

    @property
    def data_start(self) -> int:
        return self.rodata_start - align_up(self.data, PAGE)


def link(firmware: Firmware, objects: Iterable[Path], folder: Path) -> Linked:
    """Links twice: the first time to learn the sizes. Files go to `folder`."""
    names = [os.path.relpath(path, folder) for path in objects]  # they end up in the linker map
    sizes = _Sizes(PAGE, PAGE, PAGE)
    _run_lld(firmware, names, folder, sizes, "--noinhibit-exec")
    learnt = _sizes(folder / "boot.elf")
    _run_lld(firmware, names, folder, learnt)
    if _sizes(folder / "boot.elf") != learnt:
        raise BuildError("the linker produced different sizes in the second pass")
    elf = (folder / "boot.elf").read_bytes()
    return Linked(
        _flat(folder / "boot.elf", learnt),
        elf,
        _symbols(folder / "boot.elf"),
        (folder / "boot.map").read_text(),
    )


def script(firmware: Firmware, sizes: _Sizes) -> str:
    """The linker script for parts of these sizes; names every image section."""
    regions = []
    described = [section for section in firmware.image if section.kind in WITHIN_BFV]
    kept = f"KEEP(*({DESCRIBED})) " if described else ""
    for section in firmware.image:
        if section in described:
            continue
        start, end = region_symbols(section.name)
        if section.address is None or section.size is None:
            regions += [f"{start} = {sizes.data_start:#x};", f"{end} = {FOUR_GIB:#x};"]
        else:
            regions += [f"{start} = {section.address:#x};", f"{end} = {section.address + section.size:#x};"]
        regions.append(f"region_{section.name}_size = {end} - {start};")
    return f"""\
SECTIONS {{
    .data {sizes.data_start:#x} : {{ *(.data .data.*) *(.bss .bss.* COMMON) }}
    .rodata {sizes.rodata_start:#x} : {{ {kept}*(.rodata .rodata.*) }}
    .text {sizes.text_start:#x} : {{ *(.text .text.*) *(.reset) }}
    .resetvec {FOUR_GIB - RESET_VECTOR_DISTANCE:#x} : {{ KEEP(*(.resetvec)) }}
    /DISCARD/ : {{ *(.eh_frame) *(.comment) *(.llvm_addrsig) *(.stack_sizes) *(.note*) }}
}}
__data_start = {sizes.data_start:#x};
__data_end = {sizes.rodata_start:#x};
__data_size = {sizes.rodata_start - sizes.data_start:#x};
__rodata_start = {sizes.rodata_start:#x};
__rodata_end = {sizes.text_start:#x};
__text_start = {sizes.text_start:#x};
__text_end = {FOUR_GIB:#x};
__used_bytes = SIZEOF(.data) + SIZEOF(.rodata) + SIZEOF(.text) + SIZEOF(.resetvec);
{chr(10).join(regions)}
"""


def _run_lld(firmware: Firmware, objects: Sequence[str], folder: Path, sizes: _Sizes, *more: str) -> None:
    (folder / "link.ld").write_text(script(firmware, sizes))
    outputs = ("-T", "link.ld", "-Map=boot.map", "-o", "boot.elf")
    tool("ld.lld", *LINK_FLAGS, *more, *outputs, *objects, cwd=folder)


def _sizes(path: Path) -> _Sizes:
    with path.open("rb") as file:
        elf = ELFFile(file)
        found = [elf.get_section_by_name(name) for name in (".data", ".rodata", ".text")]
        return _Sizes(*(section["sh_size"] if section else 0 for section in found))


def _flat(path: Path, sizes: _Sizes) -> bytes:
    content = bytearray(FOUR_GIB - sizes.data_start)
    with path.open("rb") as file:
        elf = ELFFile(file)
        for section in elf.iter_sections():
            if section.name in _LOADED and section["sh_type"] != "SHT_NOBITS":
                start = section["sh_addr"] - sizes.data_start
                content[start : start + section["sh_size"]] = section.data()
            elif section["sh_flags"] & 2 and section["sh_size"] and section.name not in _LOADED:  # SHF_ALLOC
                raise BuildError(f"section {section.name} has no place in the firmware volume")
    return bytes(content)


def _symbols(path: Path) -> dict[str, int]:
    with path.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if symbol.name}
