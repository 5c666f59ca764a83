"""Which well-typed expressions and statements can stand here? Written from the prelude's signatures."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from dsl.model import (
    Bytes,
    EnumRef,
    Firmware,
    ListOf,
    Never,
    Primitive,
    Provenance,
    RecordRef,
    Scalar,
    Text,
    Type,
    Unit,
)
from interference.scope import Scope, given

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    16,
    27,
    32,
    33,
    64,
    255,
    256,
    512,
    4095,
    4096,
    8192,
    65536,
    1 << 20,
    1 << 28,
)
PORTS = (0x60, 0x64, 0x71, 0x80, 0xCF8)
TEXTS = ("e1", "e2", "td_hob", "initrd")
SUGAR = (
    "measure_",
    "separate",
    "accept",
    "park_aps",
    "handoff_",
    "print",
)  # statements with words of their own
U64 = Scalar("u64", 64)
BOOL = Scalar("bool", 8)
OWNED = ("paging", "stack")  # of generated code
SOURCE_WEIGHT = 4
NEW = "v"  # names of what was put in; they are chosen more often, so that it matters


class Impossible(Exception):
    """Nothing in scope makes a value of this type."""


class Maker:
    """Writes flows' text; the same random numbers write the same."""

    def __init__(self, random: Random, firmware: Firmware, text: str) -> None:
        self.random, self.firmware = random, firmware
        declared = [s.name for s in (*firmware.image, *firmware.memory)]
        self.regions = [n for n in declared if n not in OWNED] * 4 + declared
        self.primitives = [
            p for p in firmware.primitives.values() if not p.internal and not p.name.startswith(SUGAR)
        ]
        self.measures = [p for p in firmware.primitives.values() if p.name.startswith("measure_")]
        self.errors = [e.name for e in firmware.errors]
        self.given = given(firmware, text)
        self.sizes = {s.name: s.size for s in (*firmware.image, *firmware.memory) if s.size}
        self.flows: list[str] = []  # whole flows that statements call, to be put at the end
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

    # ---- expressions

    def of(self, kind: Type, scope: Scope, depth: int = 2) -> str:
        """An expression of a type. Raises Impossible."""
        match kind:
            case Scalar(name="bool"):
                return self.condition(scope, depth)
            case Scalar():
                return self.number(kind, scope, depth)
            case Bytes():
                return self.bytes(scope, depth)
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

    def number(self, kind: Scalar, scope: Scope, depth: int = 2) -> str:
        """A number that fits into the type."""
        narrow = kind.bits < 64
        have = [
            n
            for bits in (8, 16, 32, 64)
            if bits <= kind.bits
            for n in self.named(Scalar(f"u{bits}", bits), scope)
        ]
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
        if roll < 0.8:
            spans = self.named(Bytes(), scope)
            return f"{self.among([*spans, *self.regions])}.size" if not narrow else "1"
        left, right = self.number(U64, scope, depth - 1), self.number(U64, scope, 0)
        if narrow:
            return f"{self._grouped(left)} & {(1 << kind.bits) - 1:#x}"
        match self.random.randrange(9):
            case 0 | 6 | 7 | 8:
                return f"{self._grouped(left)} + {right}"
            case 1:
                return f"{self._grouped(left)} - {right}"
            case 2:
                return f"{self._grouped(left)} * {right}"
            case 3:
                return f"{self._grouped(left)} / {self.random.choice((2, 3, 8))}"
            case 4:
                return f"{self._grouped(left)} & {self.random.choice((1, 3, 7, 0xFF, 0xFFF))}"
        return f"{self._grouped(left)} >> {self.random.choice((1, 3, 8, 12))}"

    @staticmethod
    def _grouped(text: str) -> str:
        return f"({text})" if " " in text else text

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
        left, right = self.number(U64, scope, 1), self.number(U64, scope, 0)
        if left == right or self.favoured:
            right = str(self.random.choice(NUMBERS[:18]))
        if self.chance(0.15):
            left, right = right, left
        return f"{left} {self.random.choice(('==', '!=', '<', '<=', '>', '>='))} {right}"

    def bytes(self, scope: Scope, depth: int = 2) -> str:
        """A span: a region, a variable, a field, or a part of one of these."""
        names = self.named(Bytes(), scope)
        base = self.among(names) if names and self.chance(0.6) else self.random.choice(self.regions)
        if depth <= 0 or self.chance(0.5):
            return base
        return self.part(base, scope)

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

    # ---- statements

    def call(self, primitive: Primitive, scope: Scope) -> str:
        """A call with arguments of the right types, without `?`."""
        names = {n for n, _ in scope} | set(self.regions)
        arguments = []
        for number, p in enumerate(p for p in primitive.parameters if not p.state):
            usual = [
                g for g in self.given.get((primitive.name, number), ()) if g.isidentifier() and g in names
            ]
            if p.name in ("port", "function"):
                arguments.append(
                    str(self.random.choice(PORTS if p.name == "port" else (0x10000, 0x10004, 0x0A)))
                )
            elif p.name == "size" and isinstance(p.type, Scalar):
                arguments.append(str(self.random.choice((1, 2, 4))))
            elif usual and self.chance(0.6):
                arguments.append(self.random.choice(usual))
            else:
                arguments.append(self.of(p.type, scope))
        return f"{primitive.name}({', '.join(arguments)})"

    def statement(self, scope: Scope, depth: int = 2, fails: bool = True) -> list[str]:
        """The lines of one statement. Raises Impossible."""
        kinds = (
            (self.do_call, 8),
            (self.let_number, 4),
            (self.measure, 2),
            (self.require, 3),
            (self.assign, 2),
        )
        blocks = (
            (self.if_, 2),
            (self.try_, 3),
            (self.match, 1),
            (self.for_, 1),
            (self.decide, 4),
            (self.flow, 3),
        )
        others = ((self.print, 1), (self.step, 1))
        able = (*kinds, *others, *(blocks if depth > 0 else ()))
        make = self.random.choices([k for k, _ in able], [w for _, w in able])[0]
        return make(scope, depth)

    def body(self, scope: Scope, depth: int) -> list[str]:
        """The lines of a block that is not empty."""
        found = self.statement(scope, depth - 1) if self.chance(0.7) else self.print(scope, 0)
        return ["    " + line for line in found]

    def do_call(self, scope: Scope, depth: int) -> list[str]:
        """Calls a primitive; binds what it returns."""
        weights = [SOURCE_WEIGHT if from_vmm(p) else 1 for p in self.primitives]
        primitive = self.random.choices(self.primitives, weights)[0]
        call = self.call(primitive, scope) + ("?" if primitive.fallible else "")
        bound = "" if isinstance(primitive.result, Unit | Never) else f"let {self.name()} = "
        return [bound + call]

    def source(self, scope: Scope) -> list[str]:
        """Something of the VMM's: an answer, or bytes out of shared memory."""
        sources = [p for p in self.primitives if from_vmm(p)]
        shares = [p for p in sources if p.result_provenance == Provenance.SHARED]
        lines = []
        primitive = self.random.choice(sources)
        taken = (Provenance.SHARED, Bytes())
        if any((p.provenance, p.type) == taken for p in primitive.parameters) and shares:
            lines = [f"let {self.name()} = {self.call(shares[0], scope)}?"]
            scope = (*scope, (f"{NEW}{self.next}", Bytes()))
            window = f"{NEW}{self.next}[0 .. {self.random.choice((8, 64, 256))}]"
            room = self.part(self.random.choice([m.name for m in self.firmware.memory]), ())
            arguments = [window if p.provenance == Provenance.SHARED else room for p in primitive.parameters]
            call = f"{primitive.name}({', '.join(arguments)})"
        else:
            call = self.call(primitive, scope)
        return [*lines, f"let {self.name()} = {call}{'?' if primitive.fallible else ''}"]

    def steering(self, scope: Scope) -> tuple[list[str], str]:
        """Lines that bring something of the VMM's, and what then depends on it: a number, or bytes."""
        lines = self.source(scope)
        name = f"{NEW}{self.next}"
        kind = Bytes() if "copy_in(" in lines[-1] or "share(" in lines[-1] else U64
        scope = (*scope, (name, kind))
        if isinstance(kind, Bytes):
            if len(lines) > 1 and self.chance(0.3):  # without the copy
                name = lines.pop(0).split()[1] if self.chance(0.5) else name
            return lines, name
        match self.random.randrange(4):
            case 0:
                return lines, name
            case 1:
                flow, trust = self.name(), self.random.choice(("", "untrusted "))
                body = [f"    return {self.random.choice(('p0', 'p0 & 7', 'p0 + 1', 'p0 / 2'))}"]
                check = [f"    require p0 <= {self.random.choice((8, 4096))}"] if self.chance(0.7) else []
                self.flows += [f"flow {flow}(p0: untrusted u64) -> {trust}u64 fails {{", *check, *body, "}"]
                result = self.name()
                return [*lines, f"let {result} = {flow}({name})?"], result
        self.favoured = name
        more = self.decide(scope, 1)
        self.favoured = ""
        return [*lines, *more], more[0].split()[1]

    def let_number(self, scope: Scope, depth: int) -> list[str]:
        """Binds a number or a truth value, or a part of some bytes."""
        kind = self.random.choice((U64, U64, U64, BOOL, Bytes()))
        return [f"let {self.name()} = {self.of(kind, scope)}"]

    def measure(self, scope: Scope, depth: int) -> list[str]:
        """Measures something."""
        primitive = self.random.choice(self.measures)
        kind = primitive.name.removeprefix("measure_")
        subject = self.of(primitive.parameters[0].type, scope)
        rtmr = self.random.choice((0, 0, 0, 1, 1, 1, 1, 2))
        return [f'measure {subject} into RTMR[{rtmr}] as {kind}("e{self.random.randrange(9)}")']

    def require(self, scope: Scope, depth: int) -> list[str]:
        """Checks something."""
        end = f" else {self.random.choice(self.errors)}" if self.chance(0.2) else ""
        have = [n for n, t in scope if isinstance(t, Scalar) and t != BOOL]
        if have and self.chance(0.7):  # one that an honest VMM can meet
            limit = self.random.choice((1, 8, 33, 256, 4096, 1 << 20))
            return [f"require {self.among(have)} {self.random.choice(('<', '<='))} {limit}{end}"]
        return [f"require {self.condition(scope)}{end}"]

    def assign(self, scope: Scope, depth: int) -> list[str]:
        """Gives a number another value."""
        name = self.among([n for n, t in scope if t == U64])
        return [f"{name} = {self.number(U64, scope)}"]

    def print(self, scope: Scope, depth: int) -> list[str]:
        """What leaves no trace in the payload."""
        return ['print "."']

    def step(self, scope: Scope, depth: int) -> list[str]:
        """A step that has words of its own, once more or in another place."""
        match self.random.randrange(4):
            case 0:
                return [f"separate RTMR[{self.random.randrange(3)}]"]
            case 1:
                ram = self.of(RecordRef("Ram"), scope)
                limit = f" up to {self.number(U64, scope)}" if self.chance(0.5) else ""
                return [f"accept {ram}{limit}"]
            case 2:
                return [f"park aps on {self.bytes(scope)}"]
        return [f"fail {self.random.choice(self.errors)}"]

    def if_(self, scope: Scope, depth: int) -> list[str]:
        """A branch."""
        head = [f"if {self.condition(scope)} {{", *self.body(scope, depth)]
        return [*head, "} else {", *self.body(scope, depth), "}"] if self.chance(0.4) else [*head, "}"]

    def match(self, scope: Scope, depth: int) -> list[str]:
        """A choice by a number."""
        literal = self.random.choice(NUMBERS)
        head = [f"match {self.number(U64, scope, 1)} {{", f"    {literal} -> {{"]
        inner = ["    " + line for line in self.body(scope, depth)]
        other = ["    " + line for line in self.body(scope, depth)]
        return [*head, *inner, "    }", "    _ -> {", *other, "    }", "}"]

    def for_(self, scope: Scope, depth: int) -> list[str]:
        """A loop over a list of a record."""
        lists = []
        for name, kind in scope:
            if isinstance(kind, RecordRef):
                fields = self.firmware.records[kind.name].fields
                lists += [(f"{name}.{f.name}", f.type) for f in fields if isinstance(f.type, ListOf)]
        if not lists:
            raise Impossible
        items, kind = self.random.choice(lists)
        assert isinstance(kind, ListOf)
        name = self.name()
        return [f"for {name} in {items} {{", *self.body((*scope, (name, kind.element)), depth), "}"]

    def some_call(self, scope: Scope) -> tuple[str, Type]:
        """A call that can fail, and its type; of a flow that is made for it in half of the cases."""
        if self.chance(0.5):
            _, kind, call = self.new_flow(scope, fails=True)
            return call, kind
        primitive = self.random.choice([p for p in self.primitives if p.fallible])
        return self.call(primitive, scope), primitive.result

    def try_(self, scope: Scope, depth: int) -> list[str]:
        """A call whose error is handled."""
        call, kind = self.some_call(scope)
        name = "" if isinstance(kind, Unit | Never) else self.name()
        inner = (*scope, (name, kind)) if name else scope
        head = f"try {f'let {name} = ' if name else ''}{call} {{"
        handler = self.body(scope, depth)
        if self.chance(0.5):
            handler = [*handler, f"    fail {self.random.choice(self.errors)}"]
        return [head, *self.body(inner, depth), "} on _ {", *handler, "}"]

    def decide(self, scope: Scope, depth: int) -> list[str]:
        """A number that another value, or an error, decides."""
        name, first, second = self.name(), *self.random.sample(NUMBERS[:7], 2)
        inner = (*scope, (name, U64))
        match self.random.randrange(3):
            case 0:
                return [
                    f"let {name} = {first}",
                    f"if {self.condition(scope)} {{",
                    f"    {name} = {second}",
                    "}",
                ]
            case 1:
                call, kind = self.some_call(inner)
                if not isinstance(kind, Unit | Never):
                    call = f"let {self.name()} = {call}"
                sides = [f"    {name} = {second}"], self.print(scope, 0)
                yes, no = sides if self.chance(0.5) else sides[::-1]
                return [f"let {name} = {first}", f"try {call} {{", *yes, "} on _ {", *no, "}"]
        arms = [f"    {self.random.choice(NUMBERS)} -> {{ {name} = {second} }}", '    _ -> { print "." }']
        return [f"let {name} = {first}", f"match {self.number(U64, scope, 1)} {{", *arms, "}"]

    def flow(self, scope: Scope, depth: int) -> list[str]:
        """Calls a flow that is made for it."""
        fails = self.chance(0.7)
        _, kind, call = self.new_flow(scope, fails)
        bound = "" if isinstance(kind, Unit) else f"let {self.name()} = "
        return [f"{bound}{call}{'?' if fails else ''}"]

    def new_flow(self, scope: Scope, fails: bool) -> tuple[str, Type, str]:
        """Makes a flow; its name, its result's type and a call of it."""
        name, given, parameters, inner = self.name(), [], [], []
        kinds: tuple[Type, ...] = (
            U64,
            U64,
            Bytes(),
            BOOL,
            *{t for _, t in scope if isinstance(t, RecordRef)},
        )
        for _ in range(self.random.choice((1, 1, 2, 3))):
            kind = self.random.choice(sorted(kinds, key=show))
            given.append(self.of(kind, scope))
            trust = self.random.choice(("", "untrusted ", "untrusted ", "measured "))
            mutable = "mut " if isinstance(kind, RecordRef) and self.chance(0.3) else ""
            parameters.append(f"p{len(parameters)}: {mutable}{trust if not mutable else ''}{show(kind)}")
            inner.append((f"p{len(inner)}", kind))
        result = self.random.choice((Unit(), Unit(), U64, U64, BOOL, Bytes()))
        arrow = (
            ""
            if isinstance(result, Unit)
            else f" -> {self.random.choice(('', '', 'untrusted '))}{show(result)}"
        )
        body = []
        for _ in range(self.random.choice((1, 1, 2))):
            body += self.statement(tuple(inner), 1) if self.chance(0.8) else self.print((), 0)
        if not isinstance(result, Unit):
            body.append(f"return {self.of(result, tuple(inner))}")
        lines = [f"flow {name}({', '.join(parameters)}){arrow}{' fails' if fails else ''} {{"]
        self.flows += [*lines, *("    " + line for line in body), "}"]
        return name, result, f"{name}({', '.join(given)})"


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
        case Scalar() | RecordRef() | EnumRef():
            return kind.name
        case ListOf():
            return f"list<{show(kind.element)}, {kind.capacity}>"
    return "u64"
