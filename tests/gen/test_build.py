"""Does a flow file become the image it should? Built for real, in more than one place."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import iced_x86
import peachpy
import pytest
import ziglang  # type: ignore[import-untyped]
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from dsl.api import CheckFailed, check_file, check_source
from dsl.capabilities import prelude
from gen.build import BuildResult, build, core_sources, generate, stack_depth
from gen.errors import BuildError
from gen.link import stack
from gen.link.toolchain import Source, compile_all, compile_c
from gen.x86 import Unit
from image.check import check_image

PROJECT = Path(__file__).resolve().parents[2]
FLOW = PROJECT / "dsl/flows/linux.tdf"
TOP = 1 << 32


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    return build(FLOW, tmp_path_factory.mktemp("build"))


def test_the_image_obeys_every_rule_and_is_small(built: BuildResult) -> None:
    image = built.image.read_bytes()
    assert check_image(image) == []
    assert len(image) == 64 << 10
    facts = json.loads(built.manifest.read_text())
    bfv = next(section for section in facts["sections"] if section["type"] == "BFV")
    assert bfv["raw_size"] <= 64 << 10, "at most 16 measured pages"


def test_what_the_flow_does_not_use_is_not_in_the_image(built: BuildResult) -> None:
    firmware = check_file(FLOW).require()
    unused = prelude().primitives.keys() - firmware.primitives.keys()
    assert {"io_read", "copy_in"} <= unused
    with built.elf.open("rb") as file:
        (table,) = (s for s in ELFFile(file).iter_sections() if isinstance(s, SymbolTableSection))
        symbols = {symbol.name.removeprefix("prim_") for symbol in table.iter_symbols()}
    assert {"accept", "parse_hob"} <= symbols
    assert not unused & symbols
    image = built.image.read_bytes()
    used = {error.name for error in firmware.errors}
    for error in prelude().errors.values():
        assert (error.text.encode() in image) == (error.name in used), error.name


def no_cache(folder: Path) -> dict[str, str]:
    """An environment in which each object has to be made."""
    return {"TDFORGE_CACHE": str(folder / "cache")}


def test_the_same_bytes_in_any_directory(built: BuildResult, tmp_path: Path) -> None:
    """A copy of the project elsewhere, another output folder, another time of day."""
    copy = tmp_path / "another place"
    for room in ("dsl", "gen", "runtime-c", "tdforge"):
        shutil.copytree(PROJECT / room, copy / room, ignore=shutil.ignore_patterns("__pycache__", "build"))
    code = "from gen.build import Path, build; build(Path('dsl/flows/linux.tdf'), Path('out'))"
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONHASHSEED": "7"} | no_cache(tmp_path)
    subprocess.run([sys.executable, "-c", code], cwd=copy, env=environment, check=True)
    for path in (built.image, built.elf):
        assert path.read_bytes() == (copy / "out" / path.name).read_bytes(), path.name
    for path in sorted(built.listings.iterdir()):
        assert path.read_bytes() == (copy / "out" / built.listings.name / path.name).read_bytes(), path.name


def test_the_same_bytes_through_symbolic_links(built: BuildResult, tmp_path: Path) -> None:
    """As when Python is started as `.nox/env/bin/python`, where `env` is a link."""
    project, packages = tmp_path / "project", tmp_path / "packages"
    project.symlink_to(PROJECT)
    packages.symlink_to(Path(peachpy.__file__).resolve().parents[1])
    out = tmp_path / "out"
    flow = project / "dsl" / "flows" / "linux.tdf"
    code = (
        "import peachpy, gen.build as b\n"
        f"assert peachpy.__file__.startswith({str(packages)!r}) and b.__file__.startswith({str(project)!r})\n"
        f"b.build(b.Path({str(flow)!r}), b.Path({str(out)!r}))"
    )
    environment = os.environ | {"PYTHONPATH": f"{project}{os.pathsep}{packages}"} | no_cache(tmp_path)
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, check=True)
    assert built.elf.read_bytes() == (out / built.elf.name).read_bytes()
    for path in sorted(built.listings.iterdir()):
        assert path.read_bytes() == (out / built.listings.name / path.name).read_bytes(), path.name


def test_a_second_build_compiles_nothing(cache: Path, tmp_path: Path) -> None:
    """Nor does one in another folder, but what is made of the flow."""

    def kept(folder: Path) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    image = build(FLOW, tmp_path / "one").image.read_bytes()
    folders = cache / "objects", tmp_path / "one" / ".objects"
    before = [kept(folder) for folder in folders]
    assert {path.suffix for path in (*before[0], *before[1])} == {".o", ".s"}
    assert build(FLOW, tmp_path / "one").image.read_bytes() == image
    assert build(FLOW, tmp_path / "other").image.read_bytes() == image
    assert [kept(folder) for folder in folders] == before


def test_builds_side_by_side_leave_whole_files(built: BuildResult, cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "build"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: build(FLOW, out).image.read_bytes(), range(4)))
    assert set(found) == {built.image.read_bytes()}
    assert not list(out.glob("*.partial")) + list(out.glob(".*.partial"))
    assert {path.suffix for path in (cache / "objects").iterdir()} == {".o"}


def test_objects_that_no_build_uses_are_forgotten_after_a_month(cache: Path, tmp_path: Path) -> None:
    """And what an interrupted one left."""
    source = tmp_path / "one.c"
    source.write_text("int one(void) { return 1; }")

    def compiled() -> list[Path]:
        return compile_all([Source(source, ())], [], tmp_path, tmp_path / "listings")

    (old,) = compiled()
    left = cache / "objects" / "tmp"
    left.mkdir()
    long_ago = old.stat().st_mtime - 31 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    assert compiled() == [old]
    for path in (old, left):
        os.utime(path, (long_ago, long_ago))
    source.write_text("int one(void) { return 2; }")
    new = compiled()
    assert list((cache / "objects").iterdir()) == new


def test_the_elf_is_what_lies_in_the_image(built: BuildResult) -> None:
    image = built.image.read_bytes()
    with built.elf.open("rb") as file:
        elf = ELFFile(file)
        sections = {section.name: section for section in elf.iter_sections()}
        for name in (".data", ".rodata", ".text", ".resetvec"):
            at = sections[name]["sh_addr"] - (TOP - len(image))
            content = sections[name].data()
            assert image[at : at + len(content)] == content, name
        assert sections[".resetvec"]["sh_addr"] == TOP - 16
        parts = [sections[name]["sh_addr"] for name in (".data", ".rodata", ".text")]
        assert parts == sorted(parts)
        assert all(address % 4096 == 0 for address in parts), "each has pages of its own"
        symbols = {s.name: s["st_value"] for s in elf.get_section_by_name(".symtab").iter_symbols()}
        names = [f"__{part}_{end}" for part in ("data", "rodata", "text") for end in ("start", "end")]
        bounds = [symbols[name] for name in names]
        assert bounds == [parts[0], parts[1], parts[1], parts[2], parts[2], TOP]


def test_the_debugger_finds_the_lines_of_the_flow(built: BuildResult) -> None:
    with built.elf.open("rb") as file:
        elf = ELFFile(file)
        dwarf = elf.get_dwarf_info()
        symbols = {s.name: s for s in elf.get_section_by_name(".symtab").iter_symbols()}
        boot = symbols["flow_boot"]
        start, end = boot["st_value"], boot["st_value"] + boot["st_size"]
        lines = set()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            for entry in program.get_entries() if program else ():
                if entry.state is not None and start <= entry.state.address < end:
                    name = program["file_entry"][
                        entry.state.file - (0 if program["version"] >= 5 else 1)
                    ].name
                    lines.add((name.decode().rsplit("/")[-1], entry.state.line))
    calls = [
        i
        for i, line in enumerate(FLOW.read_text().splitlines(), 1)
        if line.startswith("    ") and "?" in line
    ]
    assert {("linux.tdf", line) for line in calls} <= lines


def test_no_path_of_this_machine_is_in_any_file(built: BuildResult) -> None:
    compiler = Path(ziglang.__file__).resolve().parent  # the folder that it knows itself by
    for path in (built.image, built.elf, built.map):
        content = path.read_bytes()
        for folder in (PROJECT, built.image.parent, Path(sys.prefix), compiler):
            assert str(folder).encode() not in content, path.name


def test_a_vmlinux_comes_with_sections_that_have_no_memory_of_their_own() -> None:
    """Its handoff clears sections that are RAM to the OS; TD_INFO is a part of the code."""
    text = FLOW.with_name("vmlinux.tdf").read_text()
    info = 'info TD_INFO guid "11111111-2222-4333-8444-555555555555"'
    text = text.replace(" {\n        code ", f" {{\n        {info}\n        code ", 1)
    assert info in text
    assert generate(check_source(text).require())


def test_every_instruction_of_the_generated_code_decodes() -> None:
    firmware = check_file(FLOW).require()
    count = 0
    for unit in generate(firmware):
        for block in unit.blocks:
            if block.kind != "function" or unit.name in ("reset", "exceptions", "tdcall"):
                continue  # those have tests of their own
            content = block.content()
            read = list(iced_x86.Decoder(64, content))
            assert not any(each.is_invalid for each in read), block.name
            assert sum(each.len for each in read) == len(content)
            count += len(read)
    assert count > 500


# ---------------------------------------------------------------- mistakes


def test_a_flow_with_mistakes_builds_nothing(tmp_path: Path) -> None:
    flow = tmp_path / "wrong.tdf"
    flow.write_text(FLOW.read_text().replace("park aps on wakeup", "park aps on nothing"))
    with pytest.raises(CheckFailed):
        build(flow, tmp_path / "out")
    assert not (tmp_path / "out/linux.bin").exists()


def test_a_stack_that_is_too_small_is_refused(tmp_path: Path) -> None:
    flow = tmp_path / "small.tdf"
    text, count = re.subn(r"(stack +TempMem +)\d+ KiB", r"\g<1>8 KiB", FLOW.read_text())
    assert count == 1
    flow.write_text(text)
    with pytest.raises(CheckFailed, match="T10"):
        build(flow, tmp_path / "out")


def test_a_missing_stack_is_one_clear_line(tmp_path: Path) -> None:
    flow = tmp_path / "none.tdf"
    flow.write_text(re.sub(r"stack( +)TempMem", r"heap\g<1>TempMem", FLOW.read_text()))
    with pytest.raises((CheckFailed, BuildError)) as caught:
        build(flow, tmp_path / "out")
    assert "stack" in str(caught.value)


# ---------------------------------------------------------------- stack depth

CHAIN = """
#define KEEP(a) __asm__("" : : "r"(a) : "memory")
#define FUNCTION __attribute__((noinline))
FUNCTION static int leaf(volatile char *a) { char b[1000]; KEEP(b); return *a; }
int outside(volatile char *);
FUNCTION int middle(volatile char *a) { char b[500]; KEEP(b); b[0] = *a; return leaf(b) + outside(b) + 1; }
int top(volatile char *a) { return middle(a) + 2; }
"""


def functions(text: str, folder: Path) -> dict[str, stack.Function]:
    source = folder / "chain.c"
    source.write_text(text)
    return stack.of_objects([compile_c(Source(source, ()), folder, folder)])


def test_frames_add_up_along_the_deepest_chain(tmp_path: Path) -> None:
    found = functions(CHAIN, tmp_path)
    found["outside"] = stack.Function("outside", 100, frozenset())
    assert found["top"].calls == {"middle"}
    assert found["middle"].calls == {"leaf", "outside"}
    assert 1000 < found["leaf"].frame < 1040
    assert 508 < found["middle"].frame < 560
    assert stack.depth(found, "top") == sum(found[name].frame for name in ("top", "middle", "leaf"))
    found["outside"] = stack.Function("outside", 5000, frozenset())
    assert stack.depth(found, "top") == found["top"].frame + found["middle"].frame + 5000


def test_recursion_has_no_bound(tmp_path: Path) -> None:
    text = "#define F __attribute__((noinline))\n"
    text += "F int odd(volatile int *); F int even(volatile int *n) { return *n ? odd(n) * *n + 2 : 1; }\n"
    text += "F int odd(volatile int *n) { return *n ? even(n) * *n + 3 : 0; }"
    with pytest.raises(BuildError, match=r"even -> odd -> even|odd -> even -> odd"):
        stack.depth(functions(text, tmp_path), "even")


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="outside is not known, called by middle"):
        stack.depth(functions(CHAIN, tmp_path), "top")


def test_function_pointers_are_refused(tmp_path: Path) -> None:
    text = "int f(int a) { return a; } int g(int a) { return -a; } int (*const table[])(int) = {f, g};"
    with pytest.raises(BuildError, match=r"takes the address of [fg]"):
        functions(text, tmp_path)


# ---------------------------------------------------------------- Zig

P384 = Source(PROJECT / "runtime-c/src/p384.zig", ())


@pytest.fixture(scope="module")
def zig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zig")
    return compile_c(P384, PROJECT, folder)


def test_zig_gives_the_same_bytes_in_any_directory(zig: Path, tmp_path: Path) -> None:
    project = tmp_path / "elsewhere"
    source = Source(project / P384.path.name, ())
    project.mkdir()
    shutil.copy(P384.path, source.path)
    assert compile_c(source, project, tmp_path).read_bytes() == zig.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", zig.name]


def test_zig_uses_general_registers_and_calls_nobody_unknown(zig: Path) -> None:
    with zig.open("rb") as file:
        elf = ELFFile(file)
        code = [s.data() for s in elf.iter_sections() if s["sh_flags"] & 4]
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        outside = {s.name for s in table.iter_symbols() if s["st_shndx"] == "SHN_UNDEF" and s.name}
    assert outside <= {"memcpy", "memmove", "memset", "memcmp"}
    info = iced_x86.InstructionInfoFactory()
    widths = (iced_x86.Register.XMM0, iced_x86.Register.YMM0, iced_x86.Register.ZMM0, iced_x86.Register.MM0)
    vectors = {first + n for first in widths for n in range(8)}
    for content in code:
        read = list(iced_x86.Decoder(64, content))
        assert not any(each.is_invalid for each in read)
        assert not any(used.register in vectors for each in read for used in info.info(each).used_registers())
        indirect = (iced_x86.FlowControl.INDIRECT_CALL, iced_x86.FlowControl.INDIRECT_BRANCH)
        assert not any(each.flow_control in indirect for each in read)


def test_the_depth_of_zig_is_known(zig: Path) -> None:
    found = stack.of_objects([zig])
    with zig.open("rb") as file:
        sections = [s for s in ELFFile(file).iter_sections() if s["sh_flags"] & 4 and s["sh_size"]]
    assert len(found) == len(sections) > 10
    deepest = max(function.frame for function in found.values())
    assert deepest < stack.depth(found, "p384_verify") < 8 << 10


def test_generated_frames_are_read_from_the_instructions() -> None:
    from peachpy.x86_64 import CALL, PUSH, RET, SUB, rbx

    from gen.x86 import Symbol, rsp

    unit = Unit("sample")
    with unit.code("outer"):
        PUSH(rbx)
        SUB(rsp, 0x120)
        CALL(Symbol("inner"))
        RET()
    with unit.code("inner"):
        RET()
    found = stack.of_units([unit])
    assert found["outer"] == stack.Function("outer", 8 + 8 + 0x120, frozenset({"inner"}))
    assert stack.depth(found, "outer") == 8 + 8 + 0x120 + 8


def test_the_shipped_stack_is_deep_enough_with_room(built: BuildResult, tmp_path: Path) -> None:
    firmware = check_file(FLOW).require()
    listings = sorted((built.image.parent / ".objects").glob("*.o"))
    compiled = compile_all(core_sources(tmp_path / "include"), [], PROJECT, tmp_path)
    depth = stack_depth(generate(firmware), [*compiled, *listings])
    boot = next(f for f in stack.of_units(generate(firmware)).values() if f.name == "flow_boot")
    assert boot.frame < depth < 36 << 10


def test_without_the_c_core_it_says_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gen.build.PROJECT", tmp_path)
    with pytest.raises(BuildError, match="runs from its checkout"):
        build(FLOW, tmp_path)


def test_a_flow_may_have_any_name() -> None:
    """No helper of generated code has the symbol of a flow."""
    names = ["fatal", "entry", "text_0", "digest_0", "region_hob", "error_numbers", "error_texts", "memcpy"]
    flows = "".join(f'flow {name}() {{ print "{name}" }}\n' for name in names)
    units = generate(check_source(FLOW.read_text() + flows).require())
    blocks = [block.name for unit in units for block in unit.blocks]
    assert {f"flow_{name}" for name in names} <= set(blocks)
    assert len(blocks) == len(set(blocks))


def at_the_limits(more: int) -> str:
    """linux.tdf with a volume where the file begins, and sections of 1 GiB (2 MiB for BFV) and `more` KiB."""
    size = (1 << 20) - (2 << 10) - (64 + 80 + 40 + 128 + 4 + 4) + more
    last = f"{size} KiB  at 0x00A0_0000\n        settings  CFV  4 KiB  at 0xFF00_1000"
    return re.sub(r"48 MiB  at 0x00A0_0000", last, FLOW.read_text())


def test_the_largest_sum_of_sections_and_the_lowest_volume_can_be_built(tmp_path: Path) -> None:
    flow = tmp_path / "limits.tdf"
    flow.write_text(at_the_limits(0))
    image = build(flow, tmp_path).image.read_bytes()
    assert len(image) == 16 << 20
    assert check_image(image) == []


def test_a_larger_sum_of_sections_is_refused() -> None:
    (error,) = check_source(at_the_limits(4), "limits.tdf").diagnostics
    assert (error.code, error.source_line.split()[0]) == ("T10", "settings")


def test_one_section_too_many_is_refused() -> None:
    more = "".join(f"\n        more{n}  TempMem  4 KiB  at {0x480_0000 + n * 4096:#x}" for n in range(22))
    line = "parameters  PayloadParam    4 KiB"
    assert check_source(FLOW.read_text().replace(line, line + more[: more.rindex("\n")]), "x").firmware
    (error,) = check_source(FLOW.read_text().replace(line, line + more), "x").diagnostics
    assert (error.code, error.source_line.split()[0]) == ("T10", "payload")
