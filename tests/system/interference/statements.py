"""Which statements without a block can stand here? What a maker of flows writes one line at a time."""

from __future__ import annotations

from dsl.model import Bytes, Never, Primitive, Provenance, RecordRef, Scalar, Type, Unit
from interference.expressions import BOOL, NEW, U64, Expressions, from_vmm
from interference.scope import Scope

PORTS = (0x60, 0x64, 0x71, 0x80, 0xCF8)
# GHCI: GetTdVmCallInfo, SetupEventNotifyInterrupt, CPUID; and an R12 that an honest VMM takes
FUNCTIONS = {0x10000: 0, 0x10004: 64, 0x0A: 0}
SOURCE_WEIGHT = 4


class Statements(Expressions):
    """Writes single statements as lists of lines. They raise Impossible."""

    def call(self, primitive: Primitive, scope: Scope) -> str:
        """A call with arguments of the right types, without `?`."""
        names = {n for n, _ in scope} | set(self.regions)
        arguments = []
        for number, p in enumerate(p for p in primitive.parameters if not p.state):
            usual = [
                g for g in self.given.get((primitive.name, number), ()) if g.isidentifier() and g in names
            ]
            if p.name == "port":
                arguments.append(str(self.random.choice(PORTS)))
            elif p.name == "function":
                arguments.append(str(self.random.choice(list(FUNCTIONS))))
            elif p.name == "r12" and self.chance(0.9):
                arguments.append(str(FUNCTIONS[int(arguments[0])]))
            elif p.name == "size" and isinstance(p.type, Scalar):
                arguments.append(str(self.random.choice((1, 2, 4))))
            elif usual and self.chance(0.6):
                arguments.append(self.random.choice(usual))
            else:
                arguments.append(self.of(p.type, scope))
        return f"{primitive.name}({', '.join(arguments)})"

    def made(self, primitive: Primitive, scope: Scope) -> str:
        """The call as an expression: its error goes to the error target, some are tried more than once."""
        call = self.call(primitive, scope)
        if not primitive.fallible:
            return call
        return f"retry {self.random.choice((2, 3))} times {call}?" if self.chance(0.1) else f"{call}?"

    def do_call(self, scope: Scope, depth: int) -> list[str]:
        """Calls a primitive; binds what it returns."""
        weights = [SOURCE_WEIGHT if from_vmm(p) else 1 for p in self.primitives]
        primitive = self.random.choices(self.primitives, weights)[0]
        bound = "" if isinstance(primitive.result, Unit | Never) else f"let {self.name()} = "
        return [bound + self.made(primitive, scope)]

    def source(self, scope: Scope) -> list[str]:
        """Something of the VMM's: an answer, or bytes out of shared memory."""
        sources = [p for p in self.primitives if from_vmm(p)]
        shares = [p for p in sources if p.result_provenance == Provenance.SHARED]
        lines = []
        primitive = self.random.choice(sources)
        taken = (Provenance.SHARED, Bytes())
        if any((p.provenance, p.type) == taken for p in primitive.parameters) and shares:
            lines = [f"let {self.name()} = {self.call(shares[0], scope)}?"]
            window = f"{NEW}{self.next}"
            scope = (*scope, (window, Bytes()))
            spanned = {need.parameter: need.minimum for need in primitive.spans}
            arguments = []
            for p in primitive.parameters:
                if p.provenance == Provenance.SHARED:
                    end = spanned.get(p.name) or self.random.choice((8, 64, 256))
                    arguments.append(f"{window}[0 .. {end}]")
                elif p.type == Bytes():
                    region = self.random.choice([m.name for m in self.firmware.memory])
                    arguments.append(region if spanned.get(p.name) else self.part(region, ()))
                else:
                    arguments.append(self.of(p.type, scope))
            call = f"{primitive.name}({', '.join(arguments)})"
        else:
            call = self.call(primitive, scope)
        return [*lines, f"let {self.name()} = {call}{'?' if primitive.fallible else ''}"]

    def let_value(self, scope: Scope, depth: int) -> list[str]:
        """Binds a number or a truth value, a part of some bytes, or one of two."""
        kinds: tuple[Type, ...] = (U64, U64, U64, BOOL, Bytes())
        kind = self.random.choice(kinds)
        if kind == Bytes() and self.chance(0.3):
            return [f"let {self.name()} = {self.choice(scope)}"]
        return [f"let {self.name()} = {self.of(kind, scope)}"]

    def measure(self, scope: Scope, depth: int) -> list[str]:
        """Measures something."""
        primitive = self.random.choice(self.measures)
        kind = primitive.name.removeprefix("measure_")
        first = primitive.parameters[0].type
        subject = self.of(first, scope)
        subject = subject if not subject.startswith(("if ", "match ")) else f"({subject})"
        rtmr = self.random.choice((0, 0, 0, 1, 1, 1, 1, 2))
        line = f'measure {subject} into RTMR[{rtmr}] as {kind}("e{self.random.randrange(9)}")'
        return [f"{line} unless empty" if first == Bytes() and self.chance(0.25) else line]

    def require(self, scope: Scope, depth: int) -> list[str]:
        """Checks something."""
        end = f" else {self.random.choice(self.errors)}" if self.chance(0.2) else ""
        have = [n for n, t in scope if isinstance(t, Scalar) and t != BOOL]
        if have and self.chance(0.7):  # one that an honest VMM can meet
            limit = self.random.choice((1, 8, 33, 256, 4096, 1 << 20))
            name = self.among(have)
            if self.chance(0.2):
                return [f"require {limit} {self.random.choice(('>', '>='))} {name}{end}"]
            return [f"require {name} {self.random.choice(('<', '<='))} {limit}{end}"]
        return [f"require {self.condition(scope)}{end}"]

    def assign(self, scope: Scope, depth: int) -> list[str]:
        """Gives a number another value."""
        name = self.among([n for n, t in scope if t == U64])
        return [f"{name} = {self.number(U64, scope)}"]

    def print(self, scope: Scope, depth: int) -> list[str]:
        """What leaves no trace in the payload."""
        level = self.random.choice(("", "", "", "debug ", "error "))
        numbers = [n for n, t in scope if isinstance(t, Scalar) and t != BOOL]
        if numbers and self.chance(0.3):
            return [f'print {level}"n ", hex({self.among(numbers)}), "\\n"']
        return [f'print {level}"."']

    def accept(self, scope: Scope) -> str:
        """An acceptance: of all RAM, up to a limit, or of ranges."""
        ram = self.of(RecordRef("Ram"), scope)
        pages = " in 4 KiB pages" if self.chance(0.1) else ""
        if self.chance(0.3):
            ends = sorted(self.random.sample((0, 1, 16, 24, 40, 48, 56, 62, 64, 80), 4))
            pairs = [f"{a} MiB to {b} MiB" for a, b in (ends[:2], ends[2:])]
            pairs = pairs if self.chance(0.5) else [f"0 to {ends[3]} MiB"]
            return f"accept {ram} from {', '.join(pairs)}{pages}"
        limit = f" up to {self.number(U64, scope)}" if self.chance(0.4) else ""
        return f"accept {ram}{limit}{pages}"

    def step(self, scope: Scope, depth: int) -> list[str]:
        """A step that has words of its own, once more or in another place."""
        match self.random.randrange(4):
            case 0:
                return [f"separate RTMR[{self.random.randrange(3)}]"]
            case 1:
                return [self.accept(scope)]
            case 2:
                return [f"park aps on {self.bytes(scope, 0)}"]
        return [f"fail {self.random.choice(self.errors)}"]

    def fills(self, primitive: Primitive) -> bool:
        """Whether it writes to bytes that it is given."""
        return bool(primitive.spans) or primitive.name == "start_log"
