"""How do messages call an expression, and what do they advise?"""

from __future__ import annotations

from dsl import model
from dsl.model import Expression


def describe(e: Expression) -> str:
    """How a message calls an expression."""
    match e:
        case model.Variable() | model.RegionOf():
            return f"`{e.name}`"
        case model.FieldOf():
            base = describe(e.base).strip("`")
            return f"`{base}.{e.field}`" if base != "this" else f"`{e.field}`"
        case model.Length():
            base = describe(e.base).strip("`")
            word = "count" if isinstance(e.base.type, model.ListOf) else "size"
            return f"`{base}.{word}`" if " " not in base and base != "this" else f"the {word} of {base}"
        case model.Call():
            return f"the result of `{e.callee}`"
        case model.Slice() | model.Index():
            base = describe(e.base)
            return f"a part of {base}" if base != "this" else base
    return "this"


def depends(culprit: Expression) -> str:
    """How a message calls an error for which `culprit` is the cause."""
    return f"an error that depends on {describe(culprit)}"


def bound_hint(e: Expression) -> str:
    """How a number becomes bounded."""
    if isinstance(e, model.Variable):
        return f"check it first: `require {e.name} <= LIMIT`"
    return "bind it and check it first: `let n = ...`, `require n <= LIMIT`"


def a_word(word: str) -> str:
    """The word with its article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def bytes_text(count: int) -> str:
    """`32 KiB`, `100 bytes`."""
    return f"{count // 1024} KiB" if count and count % 1024 == 0 else f"{count} bytes"


def record_hint(e: Expression, bounded: bool = True) -> str:
    """How what the VMM chose becomes recorded, and bounded if it is not."""
    what = e.base if isinstance(e, model.Length) else e
    name = what.name if isinstance(what, model.Variable | model.RegionOf) else ""
    measure = f"measure {f'`{name}`' if name else 'it'} first"
    if not bounded:
        return f"{measure}, then check it: `require {name or 'n'} <= LIMIT`"
    return f"{measure}; what is not recorded may only lead to an error, as in `require n <= LIMIT`"
