"""Is the sample payload a file as loaders want it, and does it notice what a firmware does wrong?"""

from __future__ import annotations

import io
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pefile
import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection, RelrRelocationSection
from payloadcpu import (
    ACPI,
    E820,
    Loaded,
    Machine,
    R,
    W,
    X,
    acpi_table,
    cpu_hob,
    e820,
    guid_hob,
    hob_list,
    load_elf,
    load_pe,
    volume_hob,
)

from gen.errors import BuildError
from gen.link.sample import FORMATS, sample

PROJECT = Path(__file__).resolve().parents[2]
MIB, PAGE = 1 << 20, 4096
LINKED = 32 * MIB  # of elf-exec
ELF = [name for name in FORMATS if name != "pe"]
POINTERS = 160

file = cache(sample)


def parsed(name: str) -> ELFFile:
    return ELFFile(io.BytesIO(file(name)))


# ---- the files


@pytest.mark.parametrize("name", ELF)
def test_an_elf_file_has_parts_of_one_right_on_pages_of_their_own(name: str) -> None:
    elf = parsed(name)
    assert (elf.elfclass, elf.little_endian, elf["e_machine"]) == (64, True, "EM_X86_64")
    assert elf["e_type"] == ("ET_EXEC" if name == "elf-exec" else "ET_DYN")
    parts = list(elf.iter_segments("PT_LOAD"))
    assert [part["p_flags"] for part in parts] == [4, 5, 6, 6]  # R, RX, RW until it is relocated, RW
    base = LINKED if name == "elf-exec" else 0
    assert parts[0]["p_vaddr"] == base
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        assert part["p_align"] == PAGE
        assert part["p_vaddr"] % PAGE == part["p_offset"] % PAGE == 0
        end = part["p_vaddr"] + part["p_memsz"]
        assert following is None or end <= following["p_vaddr"]
    assert parts[1]["p_vaddr"] <= elf["e_entry"] < parts[1]["p_vaddr"] + parts[1]["p_filesz"]
    assert parts[3]["p_memsz"] - parts[3]["p_filesz"] >= 4 * MIB
    (relro,) = elf.iter_segments("PT_GNU_RELRO")
    assert (relro["p_vaddr"], relro["p_memsz"]) == (parts[2]["p_vaddr"], parts[2]["p_memsz"])
    assert relro["p_memsz"] % PAGE == 0
    assert not list(elf.iter_segments("PT_INTERP"))


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("elf", {"DT_RELA", "DT_RELASZ", "DT_RELAENT", "DT_RELACOUNT"}),
        ("elf-relr", {"DT_RELR", "DT_RELRSZ", "DT_RELRENT"}),
    ],
)
def test_an_elf_file_has_relative_relocations_only(name: str, tags: set[str]) -> None:
    elf = parsed(name)
    (dynamic,) = elf.iter_segments("PT_DYNAMIC")
    assert isinstance(dynamic, DynamicSegment)
    assert {tag.entry.d_tag for tag in dynamic.iter_tags() if "REL" in tag.entry.d_tag} == tags
    kinds = RelocationSection | RelrRelocationSection
    (section,) = (each for each in elf.iter_sections() if isinstance(each, kinds))
    found = list(section.iter_relocations())
    assert len(found) == POINTERS
    if name == "elf":
        assert {each["r_info_type"] for each in found} == {8}  # R_X86_64_RELATIVE
        assert not any(parsed("elf").get_section_by_name(name) for name in (".rela.plt", ".got"))


def test_a_linked_elf_file_has_no_relocations() -> None:
    assert not list(parsed("elf-exec").iter_segments("PT_DYNAMIC"))


def test_the_pe_file_has_sections_of_one_right_and_base_relocations() -> None:
    pe = pefile.PE(data=file("pe"))
    assert (pe.FILE_HEADER.Machine, pe.OPTIONAL_HEADER.Magic) == (0x8664, 0x20B)
    assert pe.FILE_HEADER.TimeDateStamp == 0
    assert not pe.FILE_HEADER.Characteristics & 1, "RELOCS_STRIPPED"
    assert pe.OPTIONAL_HEADER.SectionAlignment == PAGE
    assert pe.OPTIONAL_HEADER.DllCharacteristics & 0x140 == 0x140  # DYNAMIC_BASE, NX_COMPAT
    rights = [(part.Name.rstrip(b"\0"), part.Characteristics >> 29) for part in pe.sections]
    assert rights == [(b".text", 3), (b".rdata", 2), (b".data", 6), (b".reloc", 2)]  # bits: X, R, W
    text, _, data, _ = pe.sections
    assert (
        text.VirtualAddress
        <= pe.OPTIONAL_HEADER.AddressOfEntryPoint
        < text.VirtualAddress + text.Misc_VirtualSize
    )
    assert data.Misc_VirtualSize - data.SizeOfRawData >= 4 * MIB
    blocks = pe.DIRECTORY_ENTRY_BASERELOC
    kinds = [entry.type for block in blocks for entry in block.entries]
    assert (kinds.count(10), set(kinds) - {0, 10}) == (POINTERS, set())  # DIR64, and padding
    assert len(blocks) >= 2
    assert not pe.get_warnings()


def test_the_same_bytes_in_any_directory(tmp_path: Path) -> None:
    """A copy of the project elsewhere, with an empty cache, an empty home and another time of day."""
    copy = tmp_path / "another place"
    for room in ("dsl", "formats", "gen", "host", "image", "runtime-c"):
        shutil.copytree(PROJECT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from pathlib import Path\nfrom gen.link.sample import FORMATS, PROJECT, sample\n"
        f"assert PROJECT == Path({str(copy)!r})\n"
        "for name in FORMATS: Path(name).write_bytes(sample(name))"
    )
    own = {"PYTHONPATH": str(copy), "TDFORGE_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=os.environ | own, check=True)
    for name in FORMATS:
        assert (tmp_path / name).read_bytes() == file(name), name


def test_without_the_sources_it_says_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen.link.sample.PROJECT", tmp_path)
    with pytest.raises(BuildError, match="runs from its checkout"):
        sample("elf")


# ---- the program, entered as the firmware should

HOBS, STACK, BASE = 0x7FF0_0000, (0x7E00_0000, 0x7E01_0000), 0x7000_0000
MAP = [(0, 0x7000_0000, 1), (0x7000_0000, 0x7FF0_0000, 2), (0x7FF0_0000, 0x8000_0000, 3)]
BOUNDS = (0x8000_0000, 0)
TABLES = [guid_hob(ACPI, acpi_table(b"APIC", 68)), guid_hob(ACPI, acpi_table(b"CCEL", 56))]
LIST = [cpu_hob(), volume_hob(), *TABLES, guid_hob(E820, e820(MAP))]
GOOD = """\
started as {kind}
load address {base:#x}, runs at {base:#x}: ok
rsp 8 mod 16, flags 0x0: ok
return address and {shadow} bytes above it are writable: ok
cpu 52 16
volume 0xff081000 0xffcae000
acpi APIC 68
acpi CCEL 56
e820 0x0 0x70000000 1
e820 0x70000000 0x7ff00000 2
e820 0x7ff00000 0x80000000 3
hob list 0x7ff00000 0x7ff00170: ok
hob list in memory of type 3, image in type {type}: ok
pointers 160 of 160: ok
data as linked, and writable: ok
bss 4194304 bytes of zeros: ok
write to text: page fault 0x3: ok
write to rodata: page fault 0x3: ok
write to relocated rodata: page fault 0x3: ok
jump to data: page fault 0x11: ok
jump to stack: page fault 0x11: ok
stack 65536 bytes
read below stack: page fault 0x0: ok
all good"""


def loaded(name: str, base: int, relocate: bool = True) -> Loaded:
    return (load_pe if name == "pe" else load_elf)(file(name), base, relocate)


def run(
    name: str,
    change: Callable[[Machine], object] = lambda _: None,
    hobs: bytes = hob_list(HOBS, BOUNDS, LIST),
    **more: int,
) -> list[str]:
    """What it says, without the start of each line."""
    base = LINKED if name == "elf-exec" else BASE
    machine = Machine(loaded(name, base), base, HOBS, STACK)
    change(machine)
    lines = machine.run(hobs, **more)
    assert all(line.startswith("tdforge sample: ") for line in lines)
    return [line.removeprefix("tdforge sample: ") for line in lines]


@pytest.mark.parametrize("name", FORMATS)
def test_all_is_good(name: str) -> None:
    base, kind = (LINKED, 1) if name == "elf-exec" else (BASE, 2)
    form, shadow = ("PE32+", 32) if name == "pe" else ("ELF64", 0)
    assert run(name) == GOOD.format(kind=form, base=base, shadow=shadow, type=kind).splitlines()


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_all_is_good_above_4_gib(name: str) -> None:
    """Its exception handlers too."""
    base, end = 5 << 30, 6 << 30
    hobs = mapped(*MAP, (base, end, 1), bounds=(end, 0))
    lines = Machine(loaded(name, base), base, HOBS, STACK).run(hobs)
    assert lines[-1] == "tdforge sample: all good"


# ---- what it says of a firmware that does something wrong


def wrong(
    name: str, *expected: str, change: Callable[[Machine], object] = lambda _: None, **more: int
) -> None:
    """These lines are wrong, and no others; the last line counts them."""
    lines = run(name, change, **more)
    assert [line for line in lines if line.endswith("WRONG")] == [f"{line}: WRONG" for line in expected]
    assert lines[-1] == f"FAILED {len(expected)}"
    assert len(lines) == len(GOOD.splitlines())


@pytest.mark.parametrize("name", ["elf", "elf-relr", "pe"])
def test_pointers_that_are_not_relocated(name: str) -> None:
    def change(machine: Machine) -> None:
        machine.image = loaded(name, BASE, relocate=False)

    wrong(name, "pointers 0 of 160", change=change)


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_another_load_address(name: str) -> None:
    wrong(name, f"load address {BASE + PAGE:#x}, runs at {BASE:#x}", told=BASE + PAGE)


@pytest.mark.parametrize("name", ["elf", "pe"])
@pytest.mark.parametrize("low", [0, 1, 15])
def test_a_stack_pointer_that_no_call_leaves(name: str, low: int) -> None:
    wrong(name, f"rsp {low} mod 16, flags 0x0", stack_pointer=STACK[1] - 0x100 + low)


def test_a_stack_without_the_callees_bytes() -> None:
    wrong("pe", "return address and 32 bytes above it are writable", stack_pointer=STACK[1] - 24)
    assert run("elf", stack_pointer=STACK[1] - 24)[-1] == "all good"


def given(rights: int, index: int, instead: int) -> Callable[[Machine], object]:
    """The part of the image with these rights gets others; `index`: which of them."""

    def change(machine: Machine) -> None:
        at, size, _ = [part for part in machine.image.rights if part[2] == rights][index]
        machine.image.rights.append((at, size, instead))

    return change


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_a_page_that_is_writable_or_executable_by_mistake(name: str) -> None:
    """The relocated rodata has a part of its own in ELF, and is in PE with the other rodata."""
    wrong(name, "write to text: no fault", change=given(R | X, 0, R | W | X))
    wrong(name, "jump to data: no fault", change=given(R | W, -1, R | W | X))
    if name == "elf":
        wrong(name, "write to rodata: no fault", change=given(R, 0, R | W))
        wrong(name, "write to relocated rodata: no fault", change=given(R, 1, R | W))
    else:
        both = "write to rodata: no fault", "write to relocated rodata: no fault"
        wrong(name, *both, change=given(R, 1, R | W))


def setting(**values: object) -> Callable[[Machine], object]:
    """Other values of the machine's."""
    return lambda machine: vars(machine).update(values)


def test_a_stack_that_is_executable_or_has_no_guard() -> None:
    wrong("elf", "jump to stack: no fault", change=setting(stack_rights=R | W | X))
    wrong("elf", "read below stack: page fault 0x1", change=setting(guard=0))
    wrong("elf", "read below stack: no fault", change=setting(stack=(STACK[1] - 17 * MIB, STACK[1])))


def test_a_stack_of_another_size() -> None:
    lines = run("pe", setting(stack=(STACK[0], STACK[0] + 5 * PAGE)))
    assert (lines[-3:-1], lines[-1]) == (["stack 20480 bytes", GOOD.splitlines()[-2]], "all good")


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_flags_that_no_call_leaves(name: str) -> None:
    wrong(name, "rsp 8 mod 16, flags 0x200", change=setting(flags=0x202))
    wrong(name, "rsp 8 mod 16, flags 0x400", change=setting(flags=0x402))


def holding(at: int | bytes) -> Callable[[Machine], object]:
    """Another byte in the image, at an offset of its data or where these bytes are."""

    def change(machine: Machine) -> None:
        content, data = machine.image.content, [part for part in machine.image.rights if part[2] == R | W][-1]
        content[content.index(at) if isinstance(at, bytes) else data[0] + at] ^= 1

    return change


@pytest.mark.parametrize("name", ["elf", "pe"])
def test_memory_that_is_not_as_linked(name: str) -> None:
    for at in (bytes((3, 1, 4, 1, 5, 9, 2, 6)), bytes((2, 7, 1, 8, 2, 8, 1, 8))):
        wrong(name, "data as linked, and writable", change=holding(at))
    for offset in (PAGE, 4 * MIB):
        wrong(name, "bss 4194304 bytes of zeros", change=holding(offset))


def test_an_exception_that_nothing_expects() -> None:
    """No HOB list is there."""
    lines = run("pe", hobs=b"")
    assert re.fullmatch("exception 14, error code 0x0, at 0x1[0-9a-f]{3}, CR2 0x7ff00000", lines[-2])
    assert lines[-1] == "FAILED by an exception"


# ---- HOB lists


def at_(offset: int, value: int, size: int, data: bytes = hob_list(HOBS, BOUNDS, LIST)) -> bytes:
    """The good list with another number."""
    return data[:offset] + value.to_bytes(size, "little") + data[offset + size :]


def made(*hobs: bytes, bounds: tuple[int, int] = BOUNDS) -> bytes:
    return hob_list(HOBS, bounds, hobs)


def mapped(*ranges: tuple[int, int, int], bounds: tuple[int, int] = BOUNDS) -> bytes:
    """The good list with another memory map."""
    return made(*LIST[:-1], guid_hob(E820, e820(ranges)), bounds=bounds)


def table(data: bytes) -> bytes:
    """The good list with another first table."""
    return made(*LIST[:2], guid_hob(ACPI, data), *LIST[3:])


GOOD_LIST = made(*LIST)
CPU_AT, VOLUME_AT, TABLE_AT = 56, 72, 96
END_AT = len(GOOD_LIST) - 8
END = HOBS + len(GOOD_LIST)
APIC = acpi_table(b"APIC", 68)
# Its checksum is true if the first 8 bytes of the next HOB are counted.
LONG = acpi_table(b"APIC", 80)[:9] + bytes([(acpi_table(b"APIC", 80)[9] - 4 - 80) % 256]) + bytes(62)
MANY = [(n * PAGE, (n + 1) * PAGE, 1) for n in range(128)]

BAD_LISTS = {
    "PHIT type": at_(0, 3, 2),
    "PHIT length": at_(2, 64, 2),
    "PHIT reserved": at_(4, 1, 4),
    "PHIT version": at_(8, 8, 4),
    "boot mode": at_(12, 1, 4),
    "memory top": at_(16, BOUNDS[0] - PAGE, 8),
    "memory bottom": at_(24, PAGE, 8),
    "free memory top": at_(32, BOUNDS[0] - PAGE, 8),
    "free memory bottom": at_(40, PAGE, 8),
    "end before the list": at_(48, HOBS - 8, 8),
    "end before END": at_(48, END - 8, 8),
    "end behind END": at_(48, END + 8, 8),
    "end 2 MiB away": at_(48, HOBS + 2 * MIB, 8),
    "reserved": at_(CPU_AT + 4, 1, 4),
    "length 0": at_(CPU_AT + 2, 0, 2),
    "length not aligned": at_(CPU_AT + 2, 17, 2),
    "length beyond the list": at_(TABLE_AT + 2, 0xFFF8, 2),
    "CPU length": made(at_(2, 24, 2, LIST[0]) + bytes(8), *LIST[1:]),
    "volume length": made(LIST[0], at_(2, 32, 2, LIST[1]) + bytes(8), *LIST[2:]),
    "no CPU": made(*LIST[1:]),
    "two CPUs": made(LIST[0], *LIST),
    "no volume": made(LIST[0], *LIST[2:]),
    "two volumes": made(LIST[0], *LIST[1:], LIST[1]),
    "no memory map": made(*LIST[:-1]),
    "two memory maps": made(*LIST, LIST[-1]),
    "a resource": made(*LIST, struct.pack("<HHI40x", 3, 48, 0)),
    "a second PHIT": made(*LIST, GOOD_LIST[:56]),
    "another GUID": made(*LIST[:-1], guid_hob(bytes(16), e820(MAP))),
    "an extension without a GUID": made(*LIST, struct.pack("<HHI8x", 4, 16, 0)),
    "END length 0": at_(END_AT + 2, 0, 2),
    "END length": at_(END_AT + 2, 16, 2) + bytes(8),
    "no range": mapped(bounds=(0, 0)),
    "ranges that overlap": mapped((0, 2 * PAGE, 1), (PAGE, 0x8000_0000, 3)),
    "ranges out of order": mapped(*MAP[1:], MAP[0]),
    "an empty range": mapped(*MAP, (0x8000_0000, 0x8000_0000, 1)),
    "a range that wraps": mapped(*MAP, ((1 << 64) - PAGE, 1 << 65, 1), bounds=(0, 0)),
    "a start not on a page": mapped((8, 0x8000_0008, 3), bounds=(0x8000_0008, 8)),
    "an end not on a page": mapped((0, 0x8000_0008, 3), bounds=(0x8000_0008, 0)),
    "a range of type 0": mapped(*MAP, (0x8000_0000, 0x8000_1000, 0), bounds=(0x8000_1000, 0)),
    "129 ranges": mapped(*MANY, MAP[-1]),
    "a map cut short": made(*LIST[:-1], guid_hob(E820, e820(MAP) + bytes(8))),
    "a checksum": table(b"A" + APIC[:3] + APIC[4:]),
    "a table longer than its HOB": table(LONG),
    "a table shorter than its HOB": table(APIC + bytes(8)),
    "a table shorter than its header": table(acpi_table(b"APIC", 35)),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_a_hob_list_that_is_wrong(name: str) -> None:
    """Where the list is left before its memory map, nobody knows in which memory it lies."""
    lines = run("elf", hobs=BAD_LISTS[name].ljust(PAGE, b"\0"))
    found = [line.partition(" 0x")[0].partition(" type")[0] for line in lines if line.endswith("WRONG")]
    assert found in (["hob list"], ["hob list", "hob list in memory of"])
    assert lines[-1] == f"FAILED {len(found)}"


def test_lists_that_are_right() -> None:
    for hobs in (
        GOOD_LIST,
        made(LIST[-1], *LIST[:-1]),
        made(LIST[0], LIST[1], LIST[-1]),
        mapped(*MANY[:-1], MAP[-1]),
        table(acpi_table(b"A", 65_504)),
    ):
        lines = run("elf", hobs=hobs)
        assert [line for line in lines if line.endswith("WRONG")] in (
            [],
            ["hob list in memory of type 3, image in type 0: WRONG"],
        )


def test_what_no_terminal_shows_is_replaced() -> None:
    for name, shown in ((b"\x1bA~ ", "?A~ "), (b"\x7f\x80 A", "?? A")):
        assert f"acpi {shown} 68" in run("elf", hobs=table(acpi_table(name, 68)))


@pytest.mark.parametrize(
    ("ranges", "types"),
    [
        ([(0, 0x8000_0000, 1)], (1, 1)),
        ([*MAP[:2], (0x7FF0_0000, 0x8000_0000, 4)], (4, 2)),
        ([(0, 0x7000_0000, 1), (0x7000_0000, 0x7FF0_0000, 4), MAP[2]], (3, 4)),
        ([MAP[0], (0x7000_1000, 0x7FF0_0000, 2), MAP[2]], (3, 0)),
        ([*MAP[:2], (0x7FF0_1000, 0x8000_0000, 3)], (0, 2)),
    ],
)
def test_memory_of_another_type(ranges: list[tuple[int, int, int]], types: tuple[int, int]) -> None:
    lines = run("elf", hobs=mapped(*ranges))
    assert [line for line in lines if line.endswith("WRONG")] == [
        f"hob list in memory of type {types[0]}, image in type {types[1]}: WRONG"
    ]
