"""Which field does an id name, and which comes next? (intel/tdx-module TDX_1.5.01, metadata_generic.c)"""

from __future__ import annotations

from formats.tdx.fields import (
    CLASS_AND_CODE,
    CONTEXT,
    FIELDS,
    HOST,
    LAST_ELEMENT_AND_FIELD,
    NEWER_FIELDS,
    NULL_ID,
    RESERVED,
    Field,
)
from formats.tdx.hostfields import known


def of(scope: str, newer: bool = False) -> tuple[Field, ...]:
    """The fields of one scope; `newer`: of a module after 1.5.01."""
    return tuple(field for field in (NEWER_FIELDS if newer else FIELDS) if field.scope == scope)


def is_null(identifier: int) -> bool:
    """Whether this is the id of no field; its context does not count."""
    return identifier | CONTEXT == NULL_ID


def find(scope: str, identifier: int, newer: bool = False) -> tuple[Field, int] | None:
    """Field and element that a single-element id names; None where the module says FIELD_ID_INCORRECT."""
    if identifier & (RESERVED | LAST_ELEMENT_AND_FIELD):
        return None
    key = identifier & CLASS_AND_CODE
    for field in of(scope, newer):
        element = key - (field.id & CLASS_AND_CODE)
        if 0 <= element < field.elements:
            return field, element
    if known(HOST[scope], key >> 56, key & 0xFFFFFF):
        return Field(scope, identifier, "of the host", readable=0), 0
    return None


def following(scope: str, identifier: int, newer: bool = False) -> int:
    """The next readable id after this one, all ones at the end; the first one for the null id. Within a field
    the size bits stay those of the id that was given.
    """
    fields = of(scope, newer)
    if is_null(identifier):
        return fields[0].id
    found = find(scope, identifier, newer)
    if found is None or found[0] not in fields:
        return NULL_ID
    field, element = found
    if element + 1 < field.elements:
        return (identifier & ~CONTEXT | field.id & CONTEXT) + 1
    at = fields.index(field) + 1
    return fields[at].id if at < len(fields) else NULL_ID
