"""What is a checked firmware? The frozen model that emitters read; nothing else reaches them.

Every node that can produce code carries a `Span`, so that listings and debug lines can name the place in the
flow. Sizes are bytes, addresses are GPAs. Frame slots are assigned by the emitter; a variable is named by its
unique id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True)
class Span:
    """A place in a source file: 1-based lines and columns, end exclusive."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int


# ---------------------------------------------------------------- types


class Provenance(Enum):
    """How far a value may be believed. Order is trust, the least first."""

    SHARED = 0
    UNTRUSTED = 1
    MEASURED = 2
    AUTHORISED = 3  # measured, and signed with the key that the trust anchor names
    TRUSTED = 4


@dataclass(frozen=True)
class Scalar:
    """`bool`, `u8`, `u16`, `u32`, `u64`: one word in generated code, `bits` wide in memory."""

    name: str
    bits: int


@dataclass(frozen=True)
class Bytes:
    """`bytes`: a span of private memory. C: `struct span { uint8_t *data; uint64_t size; }`, 16 bytes."""


@dataclass(frozen=True)
class Digest:
    """`digest`: SHA-384, by address. C: `struct digest`, 48 bytes at a multiple of 8."""


@dataclass(frozen=True)
class Text:
    """`text`: a constant string of the flow, passed to C as a span without the NUL."""


@dataclass(frozen=True)
class Unit:
    """No value."""


@dataclass(frozen=True)
class Never:
    """Control does not come back."""


@dataclass(frozen=True)
class ListOf:
    """`list<T, N>`: C `struct { uint64_t count; T items[N]; }`, count <= N guaranteed by whoever made it."""

    element: Type
    capacity: int


@dataclass(frozen=True)
class RecordRef:
    """A record of the prelude, by name. Passed by pointer."""

    name: str


@dataclass(frozen=True)
class EnumRef:
    """An enumeration of the prelude, by name; u32 in memory, one word in generated code."""

    name: str


@dataclass(frozen=True)
class Handle:
    """What only a primitive makes and only primitives look into, an address for one: a word without
    arithmetic, comparison or constant. C: `uint64_t`."""

    name: str


Type = Scalar | Bytes | Digest | Text | Unit | Never | ListOf | RecordRef | EnumRef | Handle


@dataclass(frozen=True)
class RecordField:
    """`provenance`: its trust level in a trusted record."""

    name: str
    type: Type
    offset: int
    doc: str = ""
    provenance: Provenance = Provenance.TRUSTED


@dataclass(frozen=True)
class Record:
    """Layout is natural C layout (`align` overrides upwards). C name: `VpInfo` is `struct vp_info`."""

    name: str
    fields: tuple[RecordField, ...]
    size: int
    align: int
    doc: str = ""


@dataclass(frozen=True)
class Enumeration:
    name: str
    members: tuple[tuple[str, int], ...]
    doc: str = ""


@dataclass(frozen=True)
class ErrorCode:
    """`number` is the status a primitive returns (1..); `text` is for ReportFatalError (<= 47 bytes)."""

    name: str
    number: int
    text: str


@dataclass(frozen=True)
class Constant:
    name: str
    value: int | str | bytes | tuple[int, ...] | tuple[bytes, ...]


# ---------------------------------------------------------------- primitives


@dataclass(frozen=True)
class Parameter:
    """`mutable`: the callee may write through the pointer. `state`: the compiler supplies it."""

    name: str
    type: Type
    provenance: Provenance
    mutable: bool = False
    state: bool = False


@dataclass(frozen=True)
class SpanNeed:
    """The bytes given for `parameter` are at least `minimum`, or as many as those of `other`; they begin at a
    multiple of `align` and their number is one. The first `minimum` of them cross no multiple of `within`, if
    that is not 0. What is not known at build time is checked before the call, which then fails with `error`.
    """

    parameter: str
    minimum: int
    other: str | None
    align: int
    within: int
    error: int


@dataclass(frozen=True)
class Primitive:
    """Declared in the prelude. `home` is "c" (a pure C function) or "generated" (may execute TDCALL).

    C ABI of both homes: SysV. Scalars and enums by value in their word; `bytes`, `text`, records and lists by
    pointer (`const` unless mutable); `layout` state is `const struct layout *`. A result that is not Unit or
    Never goes through a last pointer argument `out`. A fallible primitive returns `status_t` (uint32_t, 0 =
    ok) in EAX; an infallible one returns void. At most six arguments with `out`.
    """

    name: str
    parameters: tuple[Parameter, ...]
    result: Type
    result_provenance: Provenance
    home: str
    errors: tuple[str, ...]
    internal: bool = False  # called by generated primitives only, never by a flow
    spans: tuple[SpanNeed, ...] = ()
    doc: str = ""

    @property
    def fallible(self) -> bool:
        return bool(self.errors)


# ---------------------------------------------------------------- image and memory


@dataclass(frozen=True)
class ImageSection:
    """A section of the TDVF metadata. `address`/`size` are None for BFV, which ends at 4 GiB, and for what is
    part of it: TD_INFO, of the type `guid`, and TD_PARAMS.

    `kind`: BFV CFV TD_HOB TempMem PermMem Payload PayloadParam TD_INFO TD_PARAMS. `guarded`: the first page
    is never mapped. `e820`: its type in the memory map: "ram", "reserved", "acpi", "nvs" (BFV: "reserved").
    `access`: how the firmware may touch it: "r", "rw" or (BFV only) "rx"; within BFV the linker's segments
    are finer. `budget`: bytes that the linked code may take at most (BFV only), None for no bound but the
    window below 4 GiB. `file`: what fills a CFV, Payload, TD_INFO or TD_PARAMS when the image is built,
    relative to the flow file; `chosen`: the file that the build is given does."""

    name: str
    kind: str
    address: int | None
    size: int | None
    guarded: bool
    e820: str
    span: Span
    access: str = "rw"
    budget: int | None = None
    file: str | None = None
    chosen: bool = False
    guid: str | None = None

    @property
    def built_in(self) -> bool:
        """Whether the image file has its content."""
        return self.chosen or self.file is not None

    @property
    def measured(self) -> bool:
        """Whether the VMM also extends MRTD by its content at launch."""
        return self.kind == "BFV" or (self.kind == "Payload" and self.built_in)


@dataclass(frozen=True)
class MemoryRegion:
    """Carved from RAM at run time, top down below `limit` (a GPA), page aligned, cleared before first use."""

    name: str
    size: int
    limit: int
    e820: str
    span: Span
    access: str = "rw"


# ---------------------------------------------------------------- code


@dataclass(frozen=True)
class Literal:
    """A list is of one type and stands on the right of `in` only."""

    value: int | bool | str | bytes | tuple[int, ...] | tuple[bytes, ...]
    type: Type
    span: Span

    @property
    def number(self) -> int:
        """The value of a number or a `bool`."""
        assert isinstance(self.value, int)
        return int(self.value)


@dataclass(frozen=True)
class Variable:
    """`id` is unique in its flow."""

    id: int
    name: str
    type: Type
    span: Span


@dataclass(frozen=True)
class FieldOf:
    base: Expression
    record: str
    field: str
    offset: int
    type: Type
    span: Span


@dataclass(frozen=True)
class RegionOf:
    """A declared region as `bytes`: an image section (static address) or a memory region."""

    name: str
    carved: bool
    type: Type
    span: Span


@dataclass(frozen=True)
class Length:
    """`.size` of bytes/text or `.count` of a list, u64."""

    base: Expression
    type: Type
    span: Span


@dataclass(frozen=True)
class Slice:
    """`data[start .. end]`: generated code checks start <= end <= size and takes `error` if not."""

    base: Expression
    start: Expression
    end: Expression
    error: int
    type: Type
    span: Span


@dataclass(frozen=True)
class Index:
    """`list[i]`: generated code checks i < count and takes `error` if not."""

    base: Expression
    index: Expression
    error: int
    type: Type
    span: Span


@dataclass(frozen=True)
class Unary:
    """op: "not" (bool), "~"."""

    op: str
    operand: Expression
    type: Type
    span: Span


@dataclass(frozen=True)
class Binary:
    """op: + - * / % & | ^ << >> == != < <= > >= and or. Unsigned 64-bit; `and`/`or` short-circuit.
    + - * that wrap take `error` (status number). == != also compare bytes and digests; the right side of `in`
    is a literal list."""

    op: str
    left: Expression
    right: Expression
    error: int
    type: Type
    span: Span


@dataclass(frozen=True)
class Call:
    """Calls a primitive or a flow. `arguments`: what the caller supplies, in order.
    If the callee is fallible and `propagate`, a non-zero status goes to the flow's error target: for a flow
    with `on error fatal` that is `fatal(status)`, otherwise the flow returns the status. A fallible call
    without `propagate` occurs only as the subject of `Try`. One that propagates is made up to `attempts`
    times, with the same arguments, until it succeeds. `unless_empty`: nothing is done if the first argument,
    which is bytes, has none."""

    callee: str
    is_flow: bool
    arguments: tuple[Expression, ...]
    propagate: bool
    type: Type
    span: Span
    attempts: int = 1
    unless_empty: bool = False


@dataclass(frozen=True)
class ChoiceArm:
    """`values` that select this arm; empty = all others."""

    values: tuple[int, ...]
    value: Expression
    span: Span


@dataclass(frozen=True)
class Choice:
    """The value of the arm that the subject selects, the last one for all others."""

    subject: Expression
    arms: tuple[ChoiceArm, ...]
    type: Type
    span: Span


Expression = Literal | Variable | FieldOf | RegionOf | Length | Slice | Index | Unary | Binary | Call | Choice


@dataclass(frozen=True)
class Let:
    variable: Variable
    value: Expression
    span: Span


@dataclass(frozen=True)
class Assign:
    """Scalars only: `name = value`."""

    variable: Variable
    value: Expression
    span: Span


@dataclass(frozen=True)
class Do:
    """An expression for its effect."""

    value: Expression
    span: Span


@dataclass(frozen=True)
class If:
    condition: Expression
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True)
class Arm:
    """`values`: scalar or enum values that select this arm; empty = `_`."""

    values: tuple[int, ...]
    body: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True)
class Match:
    subject: Expression
    arms: tuple[Arm, ...]
    span: Span


@dataclass(frozen=True)
class Try:
    """`try CALL { ok-body } on ERROR, ... { body } on _ { body }`. `variable`: bound in `body`, or None.
    Handlers are tried in order; a handler with no numbers is `on _`. Every status is handled (checked).
    """

    call: Call
    variable: Variable | None
    body: tuple[Statement, ...]
    handlers: tuple[Handler, ...]
    span: Span


@dataclass(frozen=True)
class Handler:
    errors: tuple[int, ...]
    body: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True)
class For:
    """`for x in list { }`: x is a pointer to the element (record) or its value (scalar, bytes, enum)."""

    variable: Variable
    items: Expression
    body: tuple[Statement, ...]
    span: Span


@dataclass(frozen=True)
class Return:
    value: Expression | None
    span: Span


@dataclass(frozen=True)
class Fail:
    """`fail ERROR` (also from `require COND else ERROR`): goes to the flow's error target with the status."""

    error: int
    span: Span


Statement = Let | Assign | Do | If | Match | Try | For | Return | Fail


@dataclass(frozen=True)
class Flow:
    """`on_error_fatal`: an error ends in fatal(status); otherwise a fallible flow returns the status in EAX.

    ABI of a flow: as a primitive of home "generated", symbol `flow_<name>`. The entry is `boot(td: VpInfo)`.
    """

    name: str
    parameters: tuple[Variable, ...]
    result: Type
    fallible: bool
    on_error_fatal: bool
    body: tuple[Statement, ...]
    span: Span
    doc: str = ""


@dataclass(frozen=True)
class Firmware:
    """A flow file that passed every rule. `event_log_worst_case`: bytes the log can need. `states`: name and
    record of each state the compiler supplies (`log`, `paging`; `layout` has none and is constant data).
    `without_tdx`: it runs on a machine without TDX too."""

    name: str
    version: tuple[int, int, int]
    svn: int
    image: tuple[ImageSection, ...]
    memory: tuple[MemoryRegion, ...]
    records: dict[str, Record]
    enumerations: dict[str, Enumeration]
    errors: tuple[ErrorCode, ...]
    constants: dict[str, Constant]
    primitives: dict[str, Primitive]
    flows: dict[str, Flow]
    states: tuple[tuple[str, str], ...]
    event_log_worst_case: int
    path: str
    source: str = field(repr=False, default="")
    without_tdx: bool = False
