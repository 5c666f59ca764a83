"""What does a quote, a TDREPORT or the report of a run in the emulated TD say of a TD's registers?"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats import quote
from formats.errors import FieldError
from formats.eventlog import DIGEST_SIZE, RTMR_COUNT
from formats.quote import Registers

REPORT = "report of a run"


@dataclass(frozen=True)
class Evidence:
    """The registers, and for each RTMR the digests it was extended with, if the file has them."""

    registers: Registers
    extends: tuple[tuple[bytes, ...], ...] | None = None


def parse(data: bytes, path: Path) -> Evidence:
    """What the content of a file says. FormatError: it is nothing of the kind."""
    if not data.lstrip().startswith(b"{"):
        return Evidence(quote.registers(data, place=str(path)))
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise FieldError(
            str(path), "a text that begins with `{` but is no JSON", "the report of a run"
        ) from None
    rtmr = _list(values, "rtmr", path)
    if len(rtmr) != RTMR_COUNT:
        raise FieldError(f"{path} rtmr", f"{len(rtmr)} values", f"{RTMR_COUNT}")
    r0, r1, r2, r3 = (_digest(value, f"{path} rtmr {index}") for index, value in enumerate(rtmr))
    extends: list[list[bytes]] = [[] for _ in range(RTMR_COUNT)]
    events = _list(values, "events", path)
    for index, event in enumerate(events):
        register = event.get("rtmr") if isinstance(event, dict) else None
        if type(register) is not int or not 0 <= register < RTMR_COUNT:
            raise FieldError(f"{path} events {index}", f"register {register!r}", f"0 to {RTMR_COUNT - 1}")
        extends[register].append(_digest(event.get("digest"), f"{path} events {index}"))
    found = Registers(REPORT, _digest(values.get("mrtd"), f"{path} mrtd"), (r0, r1, r2, r3))
    return Evidence(found, tuple(map(tuple, extends)) if events else None)


def _list(values: dict[str, Any], name: str, path: Path) -> list[Any]:
    found = values.get(name)
    if not isinstance(found, list):
        raise FieldError(
            f"{path} {name}", type(found).__name__, "a list, as `tdforge run --report` writes it"
        )
    return found


def _digest(value: object, place: str) -> bytes:
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != DIGEST_SIZE:
        raise FieldError(place, repr(value)[:40], f"{2 * DIGEST_SIZE} hexadecimal digits")
    return raw
