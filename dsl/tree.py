"""What did the author write? The frozen syntax tree: one class for each form of the grammar, each with its
place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from dsl.model import Span


@dataclass(frozen=True)
class Name:
    """An identifier where it is written."""

    text: str
    span: Span


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Number:
    value: int
    span: Span


@dataclass(frozen=True)
class String:
    """`wrong`: an escape in it that the language does not have."""

    value: str
    span: Span
    wrong: str = ""


@dataclass(frozen=True)
class Hex:
    """`hex"00 1f"`: what stands between the quotes."""

    text: str
    span: Span


@dataclass(frozen=True)
class List:
    """`[a, b]`: a constant list."""

    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Boolean:
    value: bool
    span: Span


@dataclass(frozen=True)
class Field:
    base: Expression
    name: Name
    span: Span


@dataclass(frozen=True)
class Index:
    base: Expression
    index: Expression
    span: Span


@dataclass(frozen=True)
class Slice:
    base: Expression
    start: Expression
    end: Expression
    span: Span


@dataclass(frozen=True)
class Call:
    callee: Name
    arguments: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Propagate:
    """`operand?`"""

    operand: Expression
    span: Span


@dataclass(frozen=True)
class Retry:
    """`retry N times call?`"""

    times: int
    call: Call
    span: Span


@dataclass(frozen=True)
class ChoiceArm:
    """No pattern at all is `_`."""

    patterns: tuple[Name | Number | Boolean, ...]
    value: Expression
    span: Span


@dataclass(frozen=True)
class Choice:
    """`match x { 1 -> { a } _ -> { b } }` where a value stands; `is_if`: the arms are `true` and `_`."""

    subject: Expression
    arms: tuple[ChoiceArm, ...]
    is_if: bool
    span: Span


@dataclass(frozen=True)
class Unary:
    op: str
    operand: Expression
    span: Span


@dataclass(frozen=True)
class Binary:
    op: str
    left: Expression
    right: Expression
    span: Span


Expression = (
    Name
    | Number
    | String
    | Hex
    | List
    | Boolean
    | Field
    | Index
    | Slice
    | Call
    | Propagate
    | Retry
    | Choice
    | Unary
    | Binary
)

# ---------------------------------------------------------------- statements


@dataclass(frozen=True)
class TypeName:
    """`name` or `list<name, capacity>`."""

    name: Name
    element: TypeName | None
    capacity: int
    span: Span


@dataclass(frozen=True)
class Block:
    statements: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True)
class Let:
    name: Name
    type: TypeName | None
    value: Expression
    span: Span


@dataclass(frozen=True)
class Assign:
    name: Name
    value: Expression
    span: Span


@dataclass(frozen=True)
class Do:
    """`times`: of a retry."""

    call: Call
    propagate: bool
    times: int | None
    span: Span


@dataclass(frozen=True)
class If:
    condition: Expression
    then: Block
    otherwise: Block | If | None
    span: Span


@dataclass(frozen=True)
class Arm:
    """A pattern is a name, a number or a boolean; no pattern at all is `_`."""

    patterns: tuple[Name | Number | Boolean, ...]
    body: Block
    span: Span


@dataclass(frozen=True)
class Match:
    subject: Expression
    arms: tuple[Arm, ...]
    span: Span


@dataclass(frozen=True)
class For:
    name: Name
    items: Expression
    body: Block
    span: Span


@dataclass(frozen=True)
class Handler:
    """No error at all is `_`."""

    errors: tuple[Name, ...]
    body: Block
    span: Span


@dataclass(frozen=True)
class Try:
    name: Name | None
    call: Call
    body: Block
    handlers: tuple[Handler, ...]
    span: Span


@dataclass(frozen=True)
class Return:
    value: Expression | None
    span: Span


@dataclass(frozen=True)
class Fail:
    error: Name
    span: Span


@dataclass(frozen=True)
class Require:
    condition: Expression
    error: Name | None
    span: Span


@dataclass(frozen=True)
class Measure:
    """`optional`: unless the subject is empty."""

    subject: Expression
    rtmr: Expression
    kind: Call
    optional: bool
    span: Span


@dataclass(frozen=True)
class Separate:
    rtmrs: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Ranges:
    """`from A to B, C to D`"""

    bounds: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True)
class Lazily:
    """`up to LIMIT, rest lazily`"""

    limit: Expression
    span: Span


@dataclass(frozen=True)
class Accept:
    """`all_vcpus`: the APs take part."""

    plan: Expression
    limit: Expression | Ranges | Lazily | None
    page: Number | None
    all_vcpus: bool
    span: Span


@dataclass(frozen=True)
class Park:
    """`reset`: the OS can send the APs back."""

    region: Expression
    reset: bool
    span: Span


@dataclass(frozen=True)
class Handoff:
    call: Call
    span: Span


@dataclass(frozen=True)
class Hexadecimal:
    """`hex(n)` in a `print`."""

    number: Expression
    span: Span


@dataclass(frozen=True)
class Print:
    """`level`: empty if it is printed always."""

    level: str
    parts: tuple[Expression | Hexadecimal, ...]
    span: Span


Statement = (
    Let
    | Assign
    | Do
    | If
    | Match
    | For
    | Try
    | Return
    | Fail
    | Require
    | Measure
    | Separate
    | Accept
    | Park
    | Handoff
    | Print
)

# ---------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Chosen:
    """`from payload`: the file is chosen when the image is built."""

    span: Span


@dataclass(frozen=True)
class Section:
    """`up_to`: the size is a budget that the linked code must keep (BFV only)."""

    name: Name
    kind: Name
    size: Number | None
    up_to: bool
    guid: String | None
    at: Number | None
    file: String | Chosen | None
    attributes: tuple[Name, ...]
    span: Span


@dataclass(frozen=True)
class Region:
    name: Name
    size: Number
    attributes: tuple[Name, ...]
    span: Span


@dataclass(frozen=True)
class Image:
    limit: Number
    sections: tuple[Section, ...]
    span: Span


@dataclass(frozen=True)
class Memory:
    limit: Number
    regions: tuple[Region, ...]
    span: Span


@dataclass(frozen=True)
class Version:
    value: tuple[int, int, int]
    span: Span


@dataclass(frozen=True)
class LogLevel:
    value: str
    span: Span


@dataclass(frozen=True)
class WithoutTdx:
    """`runs without TDX`: on an ordinary machine too."""

    span: Span
    value: bool = True


@dataclass(frozen=True)
class Svn:
    value: int
    span: Span


@dataclass(frozen=True)
class Firmware:
    name: Name
    items: tuple[Version | Svn | LogLevel | WithoutTdx | Image | Memory, ...]
    span: Span


@dataclass(frozen=True)
class Parameter:
    name: Name
    state: bool
    mutable: bool
    provenance: str | None
    type: TypeName | None
    span: Span


@dataclass(frozen=True)
class Result:
    """`of`: the parameter whose trust it has."""

    provenance: str | None
    type: TypeName
    of: Name | None
    span: Span


@dataclass(frozen=True)
class Extent:
    """`-> extent of p`; `limit`: the most bytes that it has."""

    of: Name
    limit: int | None
    span: Span


@dataclass(frozen=True)
class Flow:
    name: Name
    parameters: tuple[Parameter, ...]
    result: Result | Extent | None
    fails: bool
    on_error_fatal: bool
    body: Block
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class Constant:
    name: Name
    value: Expression
    span: Span


@dataclass(frozen=True)
class Uses:
    """Capabilities of the prelude."""

    names: tuple[Name, ...]
    span: Span


@dataclass(frozen=True)
class Error:
    """`number`: given in the prelude, found by the compiler in a flow file. `untrusted`: the VMM can cause
    it, and no RTMR records it."""

    name: Name
    number: int | None
    text: String
    span: Span
    untrusted: bool = False


@dataclass(frozen=True)
class Enumeration:
    name: Name
    members: tuple[tuple[Name, int], ...]
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class RecordField:
    name: Name
    provenance: str | None
    type: TypeName
    internal: bool
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class Record:
    name: Name
    align: int
    fields: tuple[RecordField, ...]
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class Effect:
    """`word` is the effect's first word; `names`, `number`, `align` and `within` are its operands, in the
    order written."""

    word: str
    names: tuple[Name, ...]
    number: int
    span: Span
    align: int = 1
    within: int = 0


@dataclass(frozen=True)
class Handle:
    name: Name
    span: Span


@dataclass(frozen=True)
class Step:
    """`texts`: when, message and hint."""

    name: Name
    rule: Name
    numbered: bool
    texts: tuple[tuple[Name, String, String], ...]
    span: Span


@dataclass(frozen=True)
class Primitive:
    name: Name
    internal: bool
    parameters: tuple[Parameter, ...]
    result: Result | Extent | None
    errors: tuple[Name, ...]
    effects: tuple[Effect, ...]
    home: Name
    span: Span
    doc: str = ""


Declaration = Uses | Firmware | Flow | Constant | Error | Enumeration | Record | Handle | Step | Primitive


@dataclass(frozen=True)
class File:
    """`lost`: names whose declaration lies on a line that did not parse; nothing more is said about them.
    `complete`: no line was left out."""

    declarations: tuple[Declaration, ...]
    lost: frozenset[str] = frozenset()
    complete: bool = True


@cache
def _parts(kind: type) -> tuple[str, ...] | None:
    """The fields of a node, None for what is none."""
    if kind is Span or not dataclasses.is_dataclass(kind):
        return None
    return tuple(field.name for field in dataclasses.fields(kind))


def walk(node: object) -> Iterator[object]:
    """`node`, of this tree or of the model, and everything below it."""
    rest: list[Any] = [node]
    while rest:
        one = rest.pop()
        if isinstance(one, tuple):
            rest.extend(reversed(one))
        elif (parts := _parts(one.__class__)) is not None:
            yield one
            rest.extend([getattr(one, part) for part in reversed(parts)])
