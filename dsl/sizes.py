"""How large are the language's types in memory? Natural layout, as a C compiler for x86-64 has it."""

from __future__ import annotations

from collections.abc import Mapping

from dsl.model import Bytes, Digest, EnumRef, Handle, ListOf, Record, RecordRef, Scalar, Text, Type
from formats.units import align_up

DIGEST_SIZE = 48  # SHA-384, FIPS 180-4
# A span (bytes, text) in memory: its address, then its size; `struct span` of runtime-c/include/tdf_base.h.
SPAN_LENGTH, SPAN_DATA, SPAN_SIZE = 16, 0, 8
COUNT_SIZE = 8  # what a list begins with: how many items it has


def is_word(type_: Type) -> bool:
    """True for what lives in a register: scalars, enumerations and handles."""
    return isinstance(type_, Scalar | EnumRef | Handle)


def word_size(type_: Type) -> int:
    """Bytes a register value takes in memory."""
    match type_:
        case Scalar():
            return type_.bits // 8
        case Handle():
            return 8
    return 4


def alignment(type_: Type, records: Mapping[str, Record]) -> int:
    """Alignment in bytes of a type in memory."""
    match type_:
        case Scalar() | EnumRef() | Handle():
            return word_size(type_)
        case Bytes() | Digest() | Text():
            return 8
        case RecordRef(name=name):
            return records[name].align
        case ListOf(element=element):
            return max(8, alignment(element, records))
    raise ValueError(f"{type_} has no place in memory")


def size(type_: Type, records: Mapping[str, Record]) -> int:
    """Bytes of a type in memory."""
    match type_:
        case Scalar() | EnumRef() | Handle():
            return word_size(type_)
        case Bytes() | Text():
            return SPAN_LENGTH
        case Digest():
            return DIGEST_SIZE
        case RecordRef(name=name):
            return records[name].size
        case ListOf(element=element, capacity=capacity):
            end = items_offset(type_, records) + size(element, records) * capacity
            return align_up(end, alignment(type_, records))
    raise ValueError(f"{type_} has no size")


def items_offset(list_: ListOf, records: Mapping[str, Record]) -> int:
    """Where the first item of a list lies: behind the 64-bit count."""
    return align_up(COUNT_SIZE, alignment(list_.element, records))
