"""What do the TD_INFO and TD_PARAMS sections of a firmware hold? Data of the BFV, which the linker keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from dsl.layout import WITHIN_BFV
from dsl.model import Firmware, ImageSection
from formats import described
from gen.errors import BuildError
from gen.flow.names import DESCRIBED, described_symbol
from gen.sections import read_file
from gen.x86 import DB, Unit


def emit_described(unit: Unit, firmware: Firmware) -> None:
    """Adds the bytes of each such section. BuildError or FormatError: its file is not what it should be."""
    for section in _sections(firmware):
        with unit.data(described_symbol(section.name), section=DESCRIBED, align=16):
            DB(content_of(firmware, section), f"{section.name}: {section.kind}")


def content_of(firmware: Firmware, section: ImageSection) -> bytes:
    """TD_INFO has the firmware's version and SVN, and the file behind them; TD_PARAMS is made of JSON."""
    name = section.file
    file = read_file(Path(firmware.path).parent / name, name, section) if name is not None else b""
    if section.kind == "TD_INFO":
        assert section.guid is not None  # dsl/layout.py
        return described.td_info(UUID(section.guid), firmware.version, firmware.svn, file)
    try:
        text = file.decode()
    except UnicodeDecodeError as error:
        raise BuildError(f"{section.file} is no text: byte {error.start}", section.span) from error
    return described.td_params(text, place=Path(str(section.file)).name)


def places(firmware: Firmware, symbols: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    """Address and size of each such section in a linked firmware, by name."""
    found = {}
    for section in _sections(firmware):
        found[section.name] = symbols[described_symbol(section.name)], len(content_of(firmware, section))
    return found


def _sections(firmware: Firmware) -> list[ImageSection]:
    return [section for section in firmware.image if section.kind in WITHIN_BFV]
