"""How does a trace look? One line of text for each event, or one JSON object."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from emu.debug.events import Event, Recorder
from emu.signals import EmuError
from emu.symbols import Symbols

JSON_SUFFIX = ".jsonl"
PLAIN = frozenset(("size", "write", "index", "rtmr", "level", "length", "gpaw", "vector"))


def _words(values: dict[str, int]) -> str:
    return " ".join(f"{key}={value if key in PLAIN else hex(value)}" for key, value in values.items())


def text(event: Event) -> str:
    """One line: count, vCPU, kind, name, arguments, result, where."""
    parts = [f"{event.count:>13,} v{event.vcpu} {event.kind:<9} {event.name}"]
    if event.given:
        parts.append(_words(event.given))
    if event.result or event.answer:
        parts.append(f"-> {' '.join(filter(None, (event.result, _words(event.answer))))}")
    parts.append(f"at {event.symbol or hex(event.rip)}")
    return "  ".join(parts)


def record(event: Event) -> dict[str, object]:
    """The event for json.dumps; empty parts are left out."""
    values: dict[str, object] = {
        "count": event.count,
        "vcpu": event.vcpu,
        "kind": event.kind,
        "name": event.name,
        "given": event.given,
        "result": event.result,
        "answer": event.answer,
        "rip": event.rip,
        "symbol": event.symbol,
    }
    return {key: value for key, value in values.items() if value not in ("", {})}


class Trace(Recorder):
    """Writes a trace file; a context manager. EmuError when it cannot be written."""

    def __init__(self, path: Path, kernel: Symbols | None = None) -> None:
        as_json = path.suffix == JSON_SUFFIX
        super().__init__(self.put_json if as_json else self.put_text, kernel)
        try:
            self.file: TextIO = path.open("w", encoding="utf-8")
        except OSError as error:
            raise EmuError(f"cannot write {path}: {error.strerror}") from None

    def put_text(self, event: Event) -> None:
        """One line of text."""
        self.file.write(text(event) + "\n")

    def put_json(self, event: Event) -> None:
        """One JSON object on a line."""
        self.file.write(json.dumps(record(event)) + "\n")

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.file.close()
