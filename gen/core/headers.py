"""Which C declarations follow from the prelude? Records, enumerations, errors, constants and prototypes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from dsl.capabilities import prelude
from dsl.model import (
    Bytes,
    Constant,
    Digest,
    Enumeration,
    EnumRef,
    ErrorCode,
    Handle,
    ListOf,
    Never,
    Parameter,
    Primitive,
    Record,
    RecordRef,
    Scalar,
    Text,
    Type,
    Unit,
)
from dsl.sizes import is_word

_SCALARS = {"bool": "uint8_t", "u8": "uint8_t", "u16": "uint16_t", "u32": "uint32_t", "u64": "uint64_t"}


def snake_case(name: str) -> str:
    """`VpInfo` -> `vp_info`, `RamState` -> `ram_state`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def prelude_h() -> str:
    """The text of primitives.h for every firmware: what a flow file declares is none of the C core's."""
    names = prelude()
    errors = tuple(names.errors.values())
    return primitives_h(names.records, names.enumerations, errors, names.constants, names.primitives)


def primitives_h(
    records: Mapping[str, Record],
    enumerations: Mapping[str, Enumeration],
    errors: Sequence[ErrorCode],
    constants: Mapping[str, Constant],
    primitives: Mapping[str, Primitive],
) -> str:
    """The text of primitives.h: what C core and generated code agree on, by the ABI of `model.Primitive`."""
    parts = [
        "/* Generated from the prelude: what the C core and generated code agree on. */",
        "#ifndef TDF_PRIMITIVES_H\n#define TDF_PRIMITIVES_H",
        '#include "tdf_base.h"',
        _status_numbers(errors),
        *(_constant(constant.name, constant.value) for constant in constants.values()),
        *(_enumeration(enumeration) for enumeration in enumerations.values()),
        *(_record(record) for record in _dependencies_first(records)),
        *(_prototype(primitive) for primitive in primitives.values() if primitive.home == "c"),
        "#endif",
    ]
    return "\n\n".join(parts) + "\n"


def _status_numbers(errors: Sequence[ErrorCode]) -> str:
    lines = ["    TDF_OK = 0,", *(f"    TDF_E_{error.name.upper()} = {error.number}," for error in errors)]
    return "\n".join(["enum tdf_status {", *lines, "};"])


def _constant(name: str, value: object) -> str:
    assert isinstance(value, int), f"{name}: only numbers reach the C core"
    return f"#define TDF_{name} UINT64_C({value:#x})"


def _enumeration(enumeration: Enumeration) -> str:
    prefix = f"TDF_{snake_case(enumeration.name).upper()}"
    lines = [f"    {prefix}_{name.upper()} = {value}," for name, value in enumeration.members]
    return "\n".join([*_comment(enumeration.doc), f"enum {snake_case(enumeration.name)} {{", *lines, "};"])


def _dependencies_first(records: Mapping[str, Record]) -> Iterator[Record]:
    done: set[str] = set()

    def visit(record: Record) -> Iterator[Record]:
        if record.name in done:
            return
        done.add(record.name)
        for field in record.fields:
            part = field.type.element if isinstance(field.type, ListOf) else field.type
            if isinstance(part, RecordRef):
                yield from visit(records[part.name])
        yield record

    for each in records.values():
        yield from visit(each)


def _record(record: Record) -> str:
    tag = f"struct {snake_case(record.name)}"
    lines = [*_comment(record.doc), f"{tag} {{"]
    for position, field in enumerate(record.fields):
        # _Alignas on the first member raises the alignment of the whole structure.
        align = f"_Alignas({record.align}) " if position == 0 and record.align > 8 else ""
        lines.append(f"    {align}{_declare(field.type, field.name)};")
    lines.append("};")
    for field in record.fields:
        what = f"offsetof({tag}, {field.name}) == {field.offset}"
        lines.append(f'_Static_assert({what}, "{record.name}.{field.name}: offset");')
    lines.append(f'_Static_assert(sizeof({tag}) == {record.size}, "{record.name}: size");')
    lines.append(f'_Static_assert(_Alignof({tag}) == {record.align}, "{record.name}: alignment");')
    return "\n".join(lines)


def _declare(type_: Type, name: str) -> str:
    if isinstance(type_, ListOf):
        return f"struct {{ uint64_t count; {_declare(type_.element, f'items[{type_.capacity}]')}; }} {name}"
    return f"{_c_type(type_)} {name}"


def _c_type(type_: Type) -> str:
    match type_:
        case Scalar(name=name):
            return _SCALARS[name]
        case EnumRef():
            return "uint32_t"
        case Handle():
            return "uint64_t"
        case Bytes() | Text():
            return "struct span"
        case Digest():
            return "struct digest"
        case RecordRef(name=name):
            return f"struct {snake_case(name)}"
    raise ValueError(f"{type_} has no C type of its own")


def _prototype(primitive: Primitive) -> str:
    arguments = [_argument(parameter) for parameter in primitive.parameters]
    if not isinstance(primitive.result, Unit | Never):
        arguments.append(f"{_c_type(primitive.result)} *out")
    returns = "status_t" if primitive.fallible else "void"
    fails = f"Fails: {', '.join(primitive.errors)}." if primitive.fallible else ""
    doc = "\n".join(part for part in (primitive.doc, fails) if part)
    return "\n".join([*_comment(doc), f"{returns} {primitive.name}({', '.join(arguments) or 'void'});"])


def _argument(parameter: Parameter) -> str:
    if parameter.state and parameter.name == "layout":
        return "const struct layout *layout"
    if is_word(parameter.type):
        return f"{_c_type(parameter.type)} {parameter.name}"
    const = "" if parameter.mutable else "const "
    return f"{const}{_c_type(parameter.type)} *{parameter.name}"


def _comment(doc: str) -> list[str]:
    text = doc.strip().replace("*/", "* /")
    if not text:
        return []
    return ["/* " + "\n * ".join(line.strip() for line in text.splitlines()) + " */"]
