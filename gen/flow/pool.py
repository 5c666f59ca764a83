"""Which constants does the code of a flow point to? Texts and spans of image sections, each once."""

from __future__ import annotations

from dsl.model import Firmware
from gen.flow.names import region_symbols
from gen.x86 import DB, DQ, Symbol, Unit


class Pool:
    """Hands out symbols while code is emitted; `emit` writes what they name."""

    def __init__(self, firmware: Firmware) -> None:
        self._sections = {section.name: section for section in firmware.image}
        self._texts: dict[str, str] = {}
        self._regions: dict[str, str] = {}

    def text(self, text: str) -> Symbol:
        """The span of a constant text, without a NUL."""
        return Symbol(self._texts.setdefault(text, f"flow_text_{len(self._texts)}"))

    def region(self, name: str) -> Symbol:
        """The span of an image section."""
        return Symbol(self._regions.setdefault(name, f"flow_region_{name}"))

    def emit(self, unit: Unit) -> None:
        """Writes the constants in the order of their first use."""
        for text, name in self._texts.items():
            content = text.encode()
            with unit.data(name, section=f".rodata.{name}", exported=False):
                DQ(Symbol(f"{name}.bytes"), "data")
                DQ(len(content), "size")
            with unit.data(f"{name}.bytes", section=f".rodata.{name}", align=1, exported=False):
                DB(content, repr(text))
        for section, name in self._regions.items():
            address, size = self._sections[section].address, self._sections[section].size
            start, _ = region_symbols(section)
            with unit.data(name, section=f".rodata.{name}", exported=False):
                DQ(Symbol(start) if address is None else address, f"{section}: data")
                DQ(Symbol(f"region_{section}_size") if size is None else size, f"{section}: size")
