"""Which constants does the code of a flow point to? Bytes, digests and spans of sections, each once."""

from __future__ import annotations

from dsl.model import Firmware
from gen.flow.names import region_symbols
from gen.x86 import DB, DQ, Symbol, Unit


class Pool:
    """Hands out symbols while code is emitted; `emit` writes what they name."""

    def __init__(self, firmware: Firmware) -> None:
        self._sections = {section.name: section for section in firmware.image}
        self._spans: dict[bytes, str] = {}
        self._digests: dict[bytes, str] = {}
        self._regions: dict[str, str] = {}

    def span(self, content: bytes) -> Symbol:
        """The span of constant bytes; a text has no NUL."""
        return Symbol(self._spans.setdefault(content, f"tdf_text_{len(self._spans)}"))

    def digest(self, content: bytes) -> Symbol:
        """A constant digest."""
        return Symbol(self._digests.setdefault(content, f"tdf_digest_{len(self._digests)}"))

    def region(self, name: str) -> Symbol:
        """The span of an image section."""
        return Symbol(self._regions.setdefault(name, f"tdf_region_{name}"))

    def emit(self, unit: Unit) -> None:
        """Writes the constants in the order of their first use."""
        for content, name in self._spans.items():
            with unit.data(name, section=f".rodata.{name}", exported=False):
                DQ(Symbol(f"{name}.bytes"), "data")
                DQ(len(content), "size")
            with unit.data(f"{name}.bytes", section=f".rodata.{name}", align=1, exported=False):
                DB(content, _shown(content))
        for content, name in self._digests.items():
            with unit.data(name, section=f".rodata.{name}", align=8, exported=False):
                DB(content, content.hex())
        for section, name in self._regions.items():
            address, size = self._sections[section].address, self._sections[section].size
            start, _ = region_symbols(section)
            with unit.data(name, section=f".rodata.{name}", exported=False):
                DQ(Symbol(start) if address is None else address, f"{section}: data")
                DQ(Symbol(f"region_{section}_size") if size is None else size, f"{section}: size")


def _shown(content: bytes) -> str:
    """As a listing shows it."""
    text = content.decode("latin-1")
    return repr(text) if text.replace("\n", "").replace("\t", "").isprintable() else content.hex()
