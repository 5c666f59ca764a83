"""Which sections has the image of a firmware, and which of its regions are mapped from reset on?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dsl.model import Call, Firmware, ImageSection
from dsl.tree import walk
from formats.errors import FormatError
from formats.tdvf import SECTION_TYPES, SectionAttribute, SectionType
from formats.units import FOUR_GIB, PAGE
from gen.boot.paging import Mapped
from gen.errors import BuildError
from image.write import Placed


def placed_sections(
    firmware: Firmware,
    bfv: bytes,
    contents: Mapping[str, bytes] | None = None,
    described: Mapping[str, tuple[int, int]] | None = None,
) -> tuple[Placed, ...]:
    """The sections of a flow in its order; `bfv` is the linked code that ends at 4 GiB, padded here to pages.

    `contents`: data of sections by name; a CFV has zeros where none is given; `described`: address and size
    of what TD_INFO and TD_PARAMS name in `bfv`. FormatError: no place for a section.
    """
    given = dict(contents or {})
    placed: list[Placed] = []
    for item in firmware.image:
        kind = SECTION_TYPES[item.kind]
        attributes = int(SectionAttribute.MR_EXTEND) if item.measured else 0
        if kind == SectionType.PERM_MEM:
            attributes = int(SectionAttribute.PAGE_AUG)
        if kind == SectionType.BFV:
            data = bytes(-len(bfv) % PAGE) + bfv
            placed.append(Placed(item.name, kind, FOUR_GIB - len(data), len(data), attributes, data))
            continue
        if item.name in (described or {}):
            address, size = (described or {})[item.name]
            placed.append(Placed(item.name, kind, address, size))
            continue
        if item.address is None or item.size is None:
            raise FormatError(
                f"section {item.name}", "no address or no size", "both, for all sections but BFV"
            )
        has_data = kind == SectionType.CFV or item.built_in
        data = given.get(item.name, b"").ljust(item.size, b"\0") if has_data else b""
        placed.append(Placed(item.name, kind, item.address, item.size, attributes, data))
    return tuple(placed)


def file_contents(firmware: Firmware, payload: Path | None = None) -> dict[str, tuple[str, bytes]]:
    """Name and content of the files that fill sections when the image is built, by section; `payload` is the
    one that sections `from payload` get. BuildError if a file is not to be had.
    """
    contents = {}
    for section in firmware.image:
        if not section.built_in:
            continue
        if section.chosen and payload is None:
            message = (
                f"section `{section.name}` is filled when the image is built: name a file, --payload FILE"
            )
            raise BuildError(message, section.span)
        file = payload if section.chosen else Path(firmware.path).parent / str(section.file)
        assert file is not None
        name = file.name if section.chosen else str(section.file)
        contents[section.name] = (name, read_file(file, name, section))
    if payload is not None and not any(section.chosen for section in firmware.image):
        raise BuildError(f"no section of this flow is `from payload`, so it takes no {payload.name}")
    return contents


def read_file(file: Path, name: str, section: ImageSection) -> bytes:
    """What is in the file for a section, which messages call `name`. BuildError."""
    try:
        content = file.read_bytes()
    except OSError as error:
        reason = error.strerror or "no file"
        raise BuildError(f"cannot read {name}: {reason}", section.span) from error
    if section.size is not None and len(content) > section.size:
        message = f"{name} has {len(content)} bytes, section `{section.name}` has {section.size}"
        raise BuildError(message, section.span)
    return content


def mapped_regions(firmware: Firmware) -> list[Mapped]:
    """What the first page tables map beside the firmware volume: every other section that the VMM adds."""
    return [
        Mapped(section.name, section.address, section.size, section.access, section.guarded)
        for section in firmware.image
        if section.address is not None and section.size is not None and section.kind != "PermMem"
    ]


def hob_without_tdx(firmware: Firmware) -> str | None:
    """If it runs on an ordinary machine too: the section that gets a TD HOB there."""
    if not firmware.without_tdx:
        return None
    return next(
        section.name for section in firmware.image if SECTION_TYPES[section.kind] == SectionType.TD_HOB
    )


def has_memory_map(firmware: Firmware) -> bool:
    """Whether it reads IGVM's memory map where others read the TD HOB."""
    return "parse_memory_map" in firmware.primitives


def accepts_on_all(firmware: Firmware) -> bool:
    """Whether it accepts RAM on all vCPUs: only then do its APs look for a part of it."""
    called = (node for flow in firmware.flows.values() for node in walk(flow.body) if isinstance(node, Call))
    return any(call.callee == "accept_on_all_vcpus" for call in called)
