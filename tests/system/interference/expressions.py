"""Which well-typed expressions can stand here? Written from the prelude's signatures and what is in scope."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from hashlib import sha384
from random import Random

from dsl.model import (
    Bytes,
    Digest,
    EnumRef,
    Firmware,
    ListOf,
    Primitive,
    Provenance,
    RecordRef,
    Scalar,
    Text,
    Type,
)
from emu.oracle.contents import INITRDS, LINES
from interference.scope import Scope, given

NUMBERS = (
    *(0, 1, 2, 3, 4, 7, 8, 9, 16, 27, 32, 33, 64, 255, 256, 512, 4095, 4096, 8192, 65536),
    *(1 << 20, 1 << 28),
)
TEXTS = ("e1", "e2", "td_hob", "initrd")
CONSTANTS = ('"ro quiet"', '"console=ttyS0 ro"', 'hex"726f00"', '""')  # bytes that the image has
WIDTHS = (8, 16, 32, 64)
U64 = Scalar("u64", 64)
BOOL = Scalar("bool", 8)
OWNED = ("paging", "stack")  # of generated code
SUGAR = ("measure_", "separate", "accept", "park_aps", "handoff_", "print")  # have statements of their own
NEW = "v"  # names of what was put in; they are chosen more often, so that it matters


class Impossible(Exception):
    """Nothing in scope makes a value of this type."""


class Expressions:
    """Writes expressions' text; the same random numbers write the same."""

    def __init__(self, random: Random, firmware: Firmware, text: str) -> None:
        self.random, self.firmware = random, firmware
        declared = [s.name for s in (*firmware.image, *firmware.memory)]
        self.regions = [n for n in declared if n not in OWNED] * 4 + declared
        self.primitives = [
            p for p in firmware.primitives.values() if not p.internal and not p.name.startswith(SUGAR)
        ]
        self.readers = [p for p in self.primitives if p.name.endswith("_at") and isinstance(p.result, Scalar)]
        self.measures = [p for p in firmware.primitives.values() if p.name.startswith("measure_")]
        self.errors = [e.name for e in firmware.errors]
        self.given = given(firmware, text)
        self.sizes = {s.name: s.size for s in (*firmware.image, *firmware.memory) if s.size}
        self.next = sum(text.count(f"{word} {NEW}") for word in ("let", "flow", "for")) + 1
        self.literals: tuple[int, ...] = NUMBERS
        self.favoured = ""  # a number that is taken nearly always

    def name(self) -> str:
        """A new one."""
        self.next += 1
        return f"{NEW}{self.next}"

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.random.random() < share

    def among(self, names: Sequence[str]) -> str:
        """One of the names, the newer and the put in more often."""
        if not names:
            raise Impossible
        weights = [6 if n.startswith(NEW) else 2 for n in names]
        return self.random.choices(names, weights)[0]

    def of(self, kind: Type, scope: Scope, depth: int = 2) -> str:
        """An expression of a type. Raises Impossible."""
        match kind:
            case Scalar(name="bool"):
                return self.condition(scope, depth)
            case Scalar():
                return self.number(kind, scope, depth)
            case Bytes():
                return self.bytes(scope, depth)
            case Digest():
                return self.digest(scope)
            case Text():
                return f'"{self.random.choice(TEXTS)}"'
            case EnumRef():
                members = self.firmware.enumerations[kind.name].members
                return f"{kind.name}.{self.random.choice(members)[0]}"
        return self.among(self.named(kind, scope))

    def named(self, kind: Type, scope: Scope) -> list[str]:
        """Everything in scope that has this type: variables, their fields, elements of their lists."""
        found = []
        for name, have in scope:
            found += [name] if have == kind else []
            if isinstance(have, RecordRef):
                for field in self.firmware.records[have.name].fields:
                    place = f"{name}.{field.name}"
                    if field.type == kind:
                        found.append(place)
                    elif isinstance(field.type, ListOf) and field.type.element == kind:
                        found.append(f"{place}[{self.random.choice((0, 0, 1))}]")
        return found

    # ---- numbers

    def number(self, kind: Scalar, scope: Scope, depth: int = 2) -> str:
        """A number that fits into the type."""
        narrow = kind.bits < 64
        widths = [bits for bits in WIDTHS if bits <= kind.bits]
        have = [n for bits in widths for n in self.named(Scalar(f"u{bits}", bits), scope)]
        if self.favoured and self.chance(0.8) and not narrow:
            return self.favoured
        mine = [n for n in have if n.startswith(NEW) and "." not in n]
        roll = self.random.random()
        if mine and roll < 0.4:
            return self.random.choice(mine)
        if roll < 0.6 or depth <= 0 or (roll < 0.8 and not have):
            return str(self.random.choice([n for n in self.literals if n < 1 << kind.bits]))
        if roll < 0.7 and have:
            return self.among(have)
        if roll < 0.76:
            spans = self.named(Bytes(), scope)
            return f"{self.among([*spans, *self.regions])}.size" if not narrow else "1"
        if roll < 0.84:
            return self.read(kind, scope)
        left, right = self.number(U64, scope, depth - 1), self.number(U64, scope, 0)
        if narrow:
            return f"{grouped(left)} & {(1 << kind.bits) - 1:#x}"
        if self.chance(0.1):
            return f"if {self.condition(scope, 0)} {{ {left} }} else {{ {right} }}"
        match self.random.randrange(9):
            case 0 | 6 | 7 | 8:
                return f"{grouped(left)} + {right}"
            case 1:
                return f"{grouped(left)} - {right}"
            case 2:
                return f"{grouped(left)} * {right}"
            case 3:
                return f"{grouped(left)} / {self.random.choice((2, 3, 8))}"
            case 4:
                return f"{grouped(left)} & {self.random.choice((1, 3, 7, 0xFF, 0xFFF))}"
        return f"{grouped(left)} >> {self.random.choice((1, 3, 8, 12))}"

    def read(self, kind: Scalar, scope: Scope) -> str:
        """A number out of bytes."""
        able = [p for p in self.readers if isinstance(p.result, Scalar) and p.result.bits <= kind.bits]
        if not able:
            raise Impossible
        at = self.number(U64, scope, 0) if self.chance(0.2) else str(self.random.choice((0, 0, 1, 8, 64)))
        return f"{self.random.choice(able).name}({self.bytes(scope, 0)}, {at})?"

    # ---- truth values

    def condition(self, scope: Scope, depth: int = 2) -> str:
        """A truth value."""
        roll = self.random.random()
        if roll < 0.1 and depth > 0:
            word = self.random.choice(("and", "or"))
            return f"{self.condition(scope, 0)} {word} {self.condition(scope, 0)}"
        if roll < 0.17 and depth > 0:
            return f"not ({self.condition(scope, 0)})"
        bools = self.named(BOOL, scope)
        if bools and roll < 0.4:
            return self.among(bools)
        if roll < 0.47 and not self.favoured:
            return self.about_bytes(scope)
        left, right = self.number(U64, scope, 1), self.number(U64, scope, 0)
        if left == right or self.favoured or not right.isalnum():
            right = str(self.random.choice(NUMBERS[:18]))
        left = left if not left.startswith("if ") else f"({left})"
        if self.chance(0.1):
            others = {right, *(str(n) for n in self.random.sample(NUMBERS[:18], 2))}
            return f"{left} in [{', '.join(sorted(others))}]" if right.isdigit() else f"{left} == {right}"
        if self.chance(0.15):
            left, right = right, left
        return f"{left} {self.random.choice(('==', '!=', '<', '<=', '>', '>='))} {right}"

    def about_bytes(self, scope: Scope) -> str:
        """What is compared with bytes or digests that an honest VMM can give."""
        data = self.bytes(scope, 0)
        known = [f'hex"{d}"' for d in self.random.sample(known_digests(), 2)]
        match self.random.randrange(4):
            case 0:
                return f"{data} {self.random.choice(('==', '!='))} {self.random.choice(CONSTANTS)}"
            case 1:
                return f"{data} in [{', '.join(self.random.sample(CONSTANTS, 2))}]"
            case 2:
                return f"digest({data}) {self.random.choice(('==', '!='))} {known[0]}"
        return f"digest({data}) in [{', '.join(known)}]"

    # ---- bytes

    def bytes(self, scope: Scope, depth: int = 2) -> str:
        """A span: a region, a variable, a field, a constant, a part of one of these, or a choice of two."""
        names = self.named(Bytes(), scope)
        base = self.among(names) if names and self.chance(0.6) else self.random.choice(self.regions)
        if depth <= 0 or self.chance(0.45):
            return base
        if self.chance(0.1):
            return self.random.choice(CONSTANTS)
        return self.choice(scope) if self.chance(0.1) else self.part(base, scope)

    def choice(self, scope: Scope) -> str:
        """Bytes that a condition or a number selects."""
        arms = [self.random.choice(CONSTANTS) if self.chance(0.4) else self.bytes(scope, 0) for _ in range(2)]
        if self.chance(0.5):
            return f"if {self.condition(scope, 0)} {{ {arms[0]} }} else {{ {arms[1]} }}"
        chosen = self.random.sample(NUMBERS[:9], self.random.choice((1, 2)))
        values = ", ".join(str(n) for n in sorted(chosen))
        return f"match {self.number(U64, scope, 0)} {{ {values} -> {{ {arms[0]} }} _ -> {{ {arms[1]} }} }}"

    def part(self, base: str, scope: Scope) -> str:
        """A slice."""
        size = self.sizes.get(base, 8)  # of what is not known, the least
        marks = [n for n in (0, 0, 1, 2, 4, 8, 16, 64, 256, 4096, 8192, 32768, 65536) if n <= size]
        start, end = sorted(self.random.sample(marks, 2))
        low = self.number(U64, scope, 0) if self.chance(0.1) else str(start)
        mine = [n for n in self.named(U64, scope) if n.startswith(NEW) and "." not in n]
        high = self.number(U64, scope, 1) if self.chance(0.4) else str(end)
        high = f"{base}.size" if self.chance(0.15) else high
        high = self.random.choice(mine) if mine and self.chance(0.4) else high
        return f"{base}[{low} .. {high}]"

    def digest(self, scope: Scope) -> str:
        """A digest: of bytes, or a constant."""
        have = self.named(Digest(), scope)
        if have and self.chance(0.4):
            return self.among(have)
        if self.chance(0.7):
            return f"digest({self.bytes(scope, 0)})"
        return f'hex"{self.random.choice(known_digests())}"'


@cache
def known_digests() -> tuple[str, ...]:
    """SHA-384 of what the VMMs of the oracle give: command lines and initrds."""
    return tuple(sha384(data).hexdigest() for data in (*(line.encode() for line in LINES), *INITRDS))


def grouped(text: str) -> str:
    """What binds less than an operator does, in parentheses."""
    return f"({text})" if " " in text else text


def from_vmm(p: Primitive) -> bool:
    """Whether what it returns is the VMM's: a number it answers, shared memory, what comes out of that."""
    if Provenance.SHARED in (p.result_provenance, *(q.provenance for q in p.parameters)):
        return True
    return p.result_provenance == Provenance.UNTRUSTED and isinstance(p.result, Scalar)


def show(kind: Type) -> str:
    """A type as it is written."""
    match kind:
        case Bytes():
            return "bytes"
        case Digest():
            return "digest"
        case Scalar() | RecordRef() | EnumRef():
            return kind.name
        case ListOf():
            return f"list<{show(kind.element)}, {kind.capacity}>"
    return "u64"
