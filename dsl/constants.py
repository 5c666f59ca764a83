"""What is the value of a constant? Numbers, texts, bytes, and lists of one of these."""

from __future__ import annotations

import string
from collections.abc import Mapping

from dsl import model, tree
from dsl.diagnostics import Reporter, did_you_mean
from dsl.fold import FOLDED, fold
from dsl.model import Bytes, Constant, ListOf, Scalar, Span, Text, Type

U64 = Scalar("u64", 64)
Constants = Mapping[str, Constant]
Value = int | str | bytes | tuple[int, ...] | tuple[bytes, ...]


def literal(value: Value, span: Span) -> model.Literal:
    """A constant in the model; numbers and bytes still take the type that their place asks for."""
    return model.Literal(value, type_of(value), span)


def type_of(value: Value) -> Type:
    """The type that a constant of this value has."""
    match value:
        case tuple():
            return ListOf(type_of(value[0]), len(value))
        case str():
            return Text()
        case bytes():
            return Bytes()
    return U64


def value_of(e: tree.Expression, constants: Constants, reporter: Reporter) -> Value | None:
    """The value of a constant expression, or None after an error."""
    match e:
        case tree.String():
            return text(e, reporter)
        case tree.Hex():
            return hexadecimal(e, reporter)
        case tree.List():
            return list_of(e, constants, reporter)
        case tree.Name() if e.text in constants:
            return constants[e.text].value
    return number_of(e, constants, reporter)


def text(e: tree.String, reporter: Reporter) -> str | None:
    """The value of a text. None, and a report, if it is no text of the language (E07)."""
    if not e.value.isascii() or "\0" in e.value:
        reporter.error("E07", e.span, "a text is ASCII without NUL")
    elif e.wrong:
        reporter.error(
            "E07",
            e.span,
            f"`{e.wrong}` is not an escape sequence",
            'the escape sequences are \\n \\t \\r \\" \\\\',
        )
    else:
        return e.value
    return None


def hexadecimal(e: tree.Hex, reporter: Reporter) -> bytes | None:
    """The bytes of `hex"..."`. None, and a report, if it holds anything but pairs of digits (E07)."""
    digits = e.text.replace(" ", "").replace("_", "")
    if wrong := next((c for c in digits if c not in string.hexdigits), ""):
        reporter.error("E07", e.span, f"`{wrong}` is not a hexadecimal digit", 'write bytes as `hex"00 1f"`')
    elif len(digits) % 2:
        reporter.error("E07", e.span, f"{len(digits)} digits are not whole bytes", "two digits make a byte")
    else:
        return bytes.fromhex(digits)
    return None


def list_of(e: tree.List, constants: Constants, reporter: Reporter) -> Value | None:
    """Numbers, or bytes; an element may be a constant that is a list itself."""
    values: list[int | bytes] = []
    for item in e.items:
        value = value_of(item, constants, reporter)
        if value is None:
            return None
        if isinstance(value, str):
            value = value.encode()
        parts = value if isinstance(value, tuple) else (value,)
        if values and type(parts[0]) is not type(values[0]):
            reporter.error("E01", item.span, "a list holds either numbers or bytes, this one mixes them")
            return None
        values += parts
    return tuple(values)  # type: ignore[return-value]


def number_of(e: tree.Expression, constants: Constants, reporter: Reporter) -> int | None:
    """The value of a constant number."""
    match e:
        case tree.Number():
            return e.value
        case tree.Name() if e.text in constants:
            value = constants[e.text].value
            if isinstance(value, int):
                return value
            reporter.error("E01", e.span, f"`{e.text}` is not a number")
        case tree.Binary(op=op) if op in FOLDED:
            left = number_of(e.left, constants, reporter)
            right = number_of(e.right, constants, reporter)
            if left is None or right is None:
                return None
            folded = fold(op, left, right)
            if isinstance(folded, int):
                return folded
            reporter.error("E06", e.span, folded)
        case tree.Name():
            hint = did_you_mean(e.text, constants)
            reporter.error("N01", e.span, f"there is no constant `{e.text}`", hint)
        case _:
            reporter.error("E05", e.span, "a constant is made of numbers and constants")
    return None
