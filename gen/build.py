"""How does a flow file become a bootable image? Check, generate, compile, link, prove, write."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dsl import api
from dsl.model import Firmware
from dsl.verify import verify
from dsl.verify_expression import ModelError
from formats.cstructs import c_header
from formats.tdvf import SectionType
from gen.boot.idt import VECTORS, handler
from gen.boot.ordinary import DATA_PAGES
from gen.boot.paging import Mapped, PagingError, plan
from gen.boot.units import units as always_units
from gen.core.headers import prelude_h
from gen.core.layout import emit_layout
from gen.core.payload import check_payloads
from gen.described import emit_described, places
from gen.errors import BuildError
from gen.flow import flow_unit
from gen.flow.context import context_of
from gen.link import branches, stack
from gen.link.link import Linked, link
from gen.link.toolchain import Source, compile_all
from gen.predict import Unknown, registers
from gen.primitives import emit_primitives
from gen.sections import (
    accepts_on_all,
    file_contents,
    has_memory_map,
    hob_without_tdx,
    mapped_regions,
    placed_sections,
)
from gen.x86 import Listing, Unit, listing
from image.check import profile_for
from image.igvm import write_igvm
from image.manifest import manifest, manifest_bytes, tool_versions
from image.write import Placed, metadata_sections, write_image

PROJECT = Path(__file__).resolve().parents[1]
# What the CPU pushes for an exception in 64-bit mode (SS, RSP, RFLAGS, CS, RIP, error code) and aligns away.
_EXCEPTION_FRAME = 6 * 8 + 8

Progress = Callable[[str], None]


def _silent(step: str) -> None:
    pass


@dataclass(frozen=True)
class BuildResult:
    """The files of a build. `listings`: the folder of generated code as a reviewer reads it."""

    image: Path
    manifest: Path
    elf: Path
    map: Path
    listings: Path
    igvm: Path


def build(
    flow: Path, out: Path, progress: Progress = _silent, *, igvm: bool = False, payload: Path | None = None
) -> BuildResult:
    """Builds the image of a flow file into the folder `out`, which may be new; `igvm`: an IGVM file, too;
    `payload`: the file of a flow that has it chosen at build.

    Raises dsl.api.CheckFailed if the flow breaks a rule, BuildError or FormatError if no image comes of it.
    """
    progress("checking the flow")
    return build_model(api.check_file(flow).require(), out, progress, igvm=igvm, payload=payload)


def build_model(
    firmware: Firmware,
    out: Path,
    progress: Progress = _silent,
    *,
    igvm: bool = False,
    payload: Path | None = None,
) -> BuildResult:
    """Builds the image of a checked flow into the folder `out`. Raises as `build` does."""
    contents = file_contents(firmware, payload)
    check_payloads(firmware, contents)
    result = _files(out, firmware.name)
    work = out / f".{firmware.name}"
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two builds of a flow share their files
        progress("generating code")
        units = generate(firmware)
        always = _always_listings(
            tuple(mapped_regions(firmware)), hob_without_tdx(firmware), accepts_on_all(firmware)
        )
        listings = [*always, *(listing(u) for u in units[-2:])]
        _write_listings(result.listings, listings)
        progress("compiling the C core")
        sources = core_sources(work / "include", signatures="verify_signed" in firmware.primitives)
        objects = compile_all(sources, listings, PROJECT, out / ".objects")
        progress("linking")
        linked = link(firmware, objects, work)
        progress("proving where it jumps and that it fits")
        branches.check(units, objects)
        _prove_fits(firmware, units, objects, linked)
        progress("writing the image")
        _write(firmware, linked, result, contents, igvm)
    return result


def generate(firmware: Firmware) -> list[Unit]:
    """All machine code that is not compiled from C."""
    try:
        verify(firmware)
    except ModelError as error:
        raise BuildError(str(error)) from error
    regions = mapped_regions(firmware)
    try:
        hob = hob_without_tdx(firmware)
        always = _always(tuple(regions), hob, accepts_on_all(firmware))
        first_map = plan(regions, data_pages=DATA_PAGES if hob else 0)
    except PagingError as error:
        raise BuildError(f"{firmware.path}: {error}") from error
    primitives = Unit("primitives")
    emit_primitives(primitives, firmware, context_of(firmware))
    emit_layout(primitives, firmware)
    emit_described(primitives, firmware)
    return [*always, flow_unit(firmware, first_map.pages_used), primitives]


@lru_cache(maxsize=8)  # a campaign builds many flows with the same regions
def _always(regions: tuple[Mapped, ...], without_tdx: str | None, all_vcpus: bool) -> tuple[Unit, ...]:
    """What every firmware has."""
    return tuple(always_units(list(regions), without_tdx=without_tdx, all_vcpus=all_vcpus))


@lru_cache(maxsize=8)
def _always_listings(
    regions: tuple[Mapped, ...], without_tdx: str | None, all_vcpus: bool
) -> tuple[Listing, ...]:
    return tuple(listing(unit) for unit in _always(regions, without_tdx, all_vcpus))


def _files(out: Path, name: str) -> BuildResult:
    def file(suffix: str) -> Path:
        return out / f"{name}{suffix}"

    return BuildResult(file(".bin"), file(".json"), file(".elf"), file(".map"), file(".lst"), file(".igvm"))


def core_sources(include: Path, *, signatures: bool = True) -> list[Source]:
    """The C core, and the headers that follow from the prelude; `signatures`: with P-384 (some seconds)."""
    include.mkdir(exist_ok=True)
    headers = {
        "primitives.h": prelude_h(),
        "formats.h": c_header(),
    }
    for name, text in headers.items():
        (include / name).write_text(text)
    core = PROJECT / "runtime-c"
    if not core.is_dir():
        raise BuildError(f"no C core in {core}: tdforge runs from its checkout, not from a wheel")
    kinds = (".c", ".zig") if signatures else (".c",)
    sources = sorted(path for path in (core / "src").iterdir() if path.suffix in kinds)
    return [Source(path, (core / "include", include)) for path in sources]


def _write_listings(folder: Path, listings: list[Listing]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for each in listings:
        (folder / f"{each.name}.s").write_text(each.text)


def stack_depth(units: list[Unit], objects: list[Path]) -> int:
    """The deepest call chain of the flow or of an exception, which starts at the top again, in bytes."""
    functions = stack.of_objects(objects) | stack.of_units(units)
    exceptions = (stack.depth(functions, handler(vector)) for vector in range(VECTORS))
    return max(stack.depth(functions, "reset_long"), _EXCEPTION_FRAME + max(exceptions))


def _prove_fits(firmware: Firmware, units: list[Unit], objects: list[Path], linked: Linked) -> None:
    found = api.check_fits(firmware, stack_bytes=stack_depth(units, objects), code_bytes=len(linked.content))
    if found:
        raise api.CheckFailed(tuple(found))


def _write(
    firmware: Firmware,
    linked: Linked,
    result: BuildResult,
    contents: Mapping[str, tuple[str, bytes]],
    igvm: bool,
) -> None:
    data = {name: content for name, (_, content) in contents.items()}
    sections = placed_sections(firmware, linked.content, data, places(firmware, linked.symbols))
    image = write_image(sections, profile_for(metadata_sections(sections)))
    _replace(result.image, image)
    file = _igvm(firmware, image, result.image.name) if igvm else None
    if file:
        _replace(result.igvm, file)
    facts = manifest(
        firmware.name,
        firmware.version,
        firmware.svn,
        image,
        sections,
        bfv_used=linked.used,
        files=contents,
        declared={s.name: f"{Path(s.span.path).name}:{s.span.line}" for s in firmware.image},
        tools=tool_versions(),
        igvm=file,
        registers=_registers(firmware, sections),
    )
    _replace(result.manifest, manifest_bytes(facts))
    _replace(result.elf, linked.elf)
    _replace(result.map, linked.map.encode())


def _igvm(firmware: Firmware, image: bytes, name: str) -> bytes:
    return write_igvm(image, memory_map=has_memory_map(firmware), place=name)


def _registers(firmware: Firmware, sections: Sequence[Placed]) -> tuple[bytes, ...] | None:
    """What the image leaves in the RTMRs, if that follows from the image alone."""
    try:
        return registers(firmware, {s.name: s.data for s in sections if s.data and s.type != SectionType.BFV})
    except Unknown:
        return None


def _replace(path: Path, content: bytes) -> None:
    """Whoever reads `path` meanwhile finds the old file or the new one, never a part."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.rename(path)
