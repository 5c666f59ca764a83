"""How does the Python side of a machine become plain data, and come back? By the fields of its objects, so
that a new field is saved without anybody thinking of it; what cannot be saved is refused by name.
"""

from __future__ import annotations

import dataclasses
import importlib
import random
from collections import Counter, deque
from enum import Enum
from typing import Any

from cffi import FFI

from emu.observe import Observer
from emu.signals import EmuError

HOME = "emu."  # objects of other packages have no business in a machine's state
# Set when a machine is built, the same in the machine that resumes
FIXED = frozenset(("Memory", "Launch", "Symbols", "TdParams", "Until", "Keyboard", "RunConfig", "Probe"))
PLAIN = (type(None), bool, int, float, str)


def _is_fixed(value: object) -> bool:
    kind = type(value)
    native = isinstance(value, FFI | FFI.CData) or "cffi" in kind.__module__ or kind.__name__ == "FFILibrary"
    return native or callable(value) or isinstance(value, Observer) or kind.__name__ in FIXED


def _fields(value: object) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(vars(value))


def capture(value: Any, place: str = "machine", seen: dict[int, object] | None = None) -> Any:
    """Data for json.dumps. An object met twice is saved once. EmuError names what cannot be saved."""
    seen = {} if seen is None else seen
    if isinstance(value, Enum):
        return {"enum": _name(type(value)), "value": value.value}
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, random.Random):
        return {"random": capture(value.getstate(), place)}
    if isinstance(value, tuple | list | set | frozenset | deque):
        kind = next(k for k in ("tuple", "list", "set", "frozenset", "deque") if type(value).__name__ == k)
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return {kind: [capture(item, f"{place}[{at}]", seen) for at, item in enumerate(items)]}
    if isinstance(value, dict):
        pairs = [
            [capture(k, place, seen), capture(v, f"{place}[{k!r}]", seen)]
            for k, v in value.items()
            if not _is_fixed(v)
        ]
        return {"dict": pairs}
    if not type(value).__module__.startswith(HOME):
        raise EmuError(f"this machine cannot be saved: {place} is a {type(value).__name__}")
    if id(value) in seen:
        return {"same": _name(type(value))}
    seen[id(value)] = value
    parts = {
        name: capture(part, f"{place}.{name}", seen)
        for name, part in _fields(value).items()
        if not _is_fixed(part)
    }
    return {"object": _name(type(value)), "fields": parts}


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> type:
    module, _, inner = name.partition(":")
    if not module.startswith(HOME):
        raise EmuError(f"snapshot: {name} is no part of the emulator")
    try:
        found: Any = importlib.import_module(module)
        for part in inner.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise EmuError(f"snapshot: {name} is not in this version of the emulator") from None
    if not isinstance(found, type):
        raise EmuError(f"snapshot: {name} is no class")
    return found


def restore(data: Any, current: Any = None) -> Any:
    """The value of captured data. Objects, lists and dicts that are already there (`current`) are changed in
    place, so that everyone who shares them sees it.
    """
    if not isinstance(data, dict):
        return data
    ((kind, content), *_) = data.items()
    match kind:
        case "same":
            return current
        case "bytes":
            raw = bytes.fromhex(content)
            if isinstance(current, bytearray):
                current[:] = raw
                return current
            return raw
        case "enum":
            return _class(content)(data["value"])
        case "random":
            source = current if isinstance(current, random.Random) else random.Random()
            source.setstate(restore(content))
            return source
        case "dict":
            return _restore_dict(content, current)
        case "object":
            return _restore_object(content, data["fields"], current)
    return _restore_items(kind, content, current)


def _restore_items(kind: str, content: list[Any], current: Any) -> Any:
    old = list(current) if isinstance(current, list | tuple | deque) else []
    old += [None] * (len(content) - len(old))
    items = [restore(item, was) for item, was in zip(content, old, strict=False)]
    if kind == "list" and isinstance(current, list):
        current[:] = items
        return current
    if kind == "deque" and isinstance(current, deque):
        current.clear()
        current.extend(items)
        return current
    kinds = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "deque": deque}
    return kinds[kind](items)


def _restore_dict(content: list[list[Any]], current: Any) -> Any:
    target = current if isinstance(current, dict) else {}
    pairs = {}
    for key_data, value in content:
        key = restore(key_data)
        pairs[key] = restore(value, target.get(key))
    kept = {key: value for key, value in target.items() if key not in pairs and _is_fixed(value)}
    target.clear()
    if isinstance(target, Counter):
        dict.update(target, pairs | kept)
    else:
        target.update(pairs | kept)
    return target


def _restore_object(name: str, fields: dict[str, Any], current: Any) -> Any:
    kind = _class(name)
    if type(current) is not kind:
        blank: Any = BaseException if issubclass(kind, BaseException) else object
        current = blank.__new__(kind)
    for field, value in fields.items():
        object.__setattr__(current, field, restore(value, getattr(current, field, None)))
    return current
