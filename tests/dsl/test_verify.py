"""Does the verifier accept every model that the compiler makes, and name what is wrong with a spoilt one?"""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from casefile import read_cases

from dsl import model
from dsl.api import check_file, check_source, shipped_flows
from dsl.model import Binary, Bytes, Call, Firmware, Literal, Never, Scalar, Span, Unary, Unit, Variable
from dsl.tree import walk
from dsl.verify import verify
from dsl.verify_expression import ModelError
from gen.build import generate
from gen.errors import BuildError

TOUR = Path(__file__).parents[1] / "system/tour.tdf"
U8, U32, U64, BOOL = Scalar("u8", 8), Scalar("u32", 32), Scalar("u64", 64), Scalar("bool", 8)
FLOWS = """
uses linux, acpi
enum Colour { red = 1, green = 2 }
flow sum(a: u64, b: u32) -> u64 fails { return a + b }
flow pure(a: u64) -> u64 { return a / 3 % 5 << 2 >> 1 & 0xFF | 8 ^ ~a }
flow pick(c: Colour) -> u8 {
    match c {
        red -> { return 1 }
        green -> { return 2 }
    }
}
flow last(vmm: Vmm) -> u64 fails { return vmm.resources[vmm.resources.count - 1].size }
const ZERO = hex"@ZEROS"
flow picked(n: u64) -> u64 { return match n { 1 -> { 2 } _ -> { n } } }
flow among(n: u64, d: digest) -> bool { return n in [1, 2] or d == ZERO or d in [ZERO] }
flow boot(td: VpInfo) -> never {
    on error fatal
    start_log(event_log)?
    measure hob into RTMR[0] as blob("hob")
    let part = payload[0 .. 4096]
    let n = 7
    n = n + 1
    if n == 8 and not (n > 9) { print "eight" }
    try let got = sum(1, 2) { n = got } on arithmetic_overflow { fail requirement_failed } on _ { n = 2 }
    print hex(n)
    try let all = hob_extent(hob) { n = all.size } on hob_truncated { n = 3 } on hob_malformed { n = 4 }
    let vmm = parse_hob(hob)?
    for r in vmm.resources { n = r.size }
    let ram = plan_memory(vmm, td)?
    accept ram
    let room = tables
    fail requirement_failed
}
firmware small {
    version 1.0.0
    image below 4 GiB {
        code       BFV
        hob        TD_HOB       64 KiB at 0x0080_0000
        paging     TempMem      48 KiB
        stack      TempMem      32 KiB guarded
        event_log  TempMem      64 KiB nvs
        payload    Payload      64 KiB
        parameters PayloadParam  4 KiB
    }
    memory below 4 GiB, top down { tables 64 KiB acpi }
}
"""


def small() -> Firmware:
    return check_source(FLOWS.replace("@ZEROS", bytes(48).hex()), "small.tdf").require()


def test_every_model_the_compiler_makes_is_accepted() -> None:
    models = [c.check().firmware for c in read_cases()]
    models += [check_file(path).firmware for path in (*shipped_flows().values(), TOUR)]
    accepted = [m for m in models if m is not None]
    assert len(accepted) > 15
    for each in accepted:
        verify(each)
    verify(small())


Change = Callable[[Any], Any]


def spoilt(flow: str, kind: type, change: Change, number: int = 0) -> Firmware:
    """The model with `change` made to the node of that kind and number in a flow's body."""
    firmware = small()
    chosen = [n for n in walk(firmware.flows[flow].body) if isinstance(n, kind)][number]

    def rebuilt(node: Any) -> Any:
        if node is chosen:
            return change(node)
        if isinstance(node, tuple):
            return tuple(rebuilt(each) for each in node)
        if dataclasses.is_dataclass(node) and not isinstance(node, Span | type):
            return replace(node, **{f.name: rebuilt(getattr(node, f.name)) for f in dataclasses.fields(node)})
        return node

    body = rebuilt(firmware.flows[flow].body)
    return replace(firmware, flows=firmware.flows | {flow: replace(firmware.flows[flow], body=body)})


def of(name: str, /, **changes: Any) -> Change:
    """Changes fields of the node; of a part of it, named `part.field`."""

    def change(node: Any) -> Any:
        part = getattr(node, name) if name else None
        return replace(node, **({name: replace(part, **changes)} if name else changes))

    return change


SPAN = Span("x", 1, 1, 1, 2)
LITERAL = Literal(1, U64, SPAN)
TRUE = Literal(True, BOOL, SPAN)
STRANGER = Variable(99, "stranger", U64, SPAN)
PART = Variable(1, "part", Bytes(), SPAN)
SUM = Call("sum", True, (LITERAL, Literal(1, U32, SPAN)), True, U64, SPAN)


def nothing(s: Any) -> Any:
    """Binds a call that gives nothing."""
    call = Call("print", False, (Literal("x", model.Text(), SPAN),), False, Unit(), SPAN)
    return replace(s, value=call, variable=replace(s.variable, type=Unit()))


SPOILT: list[tuple[str, type, int, Change, str]] = [
    ("boot", Literal, 0, of("", type=U8, value=256), "256 is out of range"),
    ("boot", Literal, 0, of("", type=BOOL, value=2), "2 is out of range"),
    ("boot", Literal, 0, of("", type=U64, value=-1), "-1 is out of range"),
    ("boot", Literal, 0, of("", type=model.Text()), "a number is no word"),
    ("boot", Literal, 0, of("", type=Bytes(), value="x"), "a text is no text"),
    ("boot", Literal, 0, of("", type=model.EnumRef("Colour"), value=3), "no member has this number"),
    ("boot", model.If, 0, of("", condition=replace(STRANGER, type=BOOL)), "`stranger` is not defined here"),
    ("last", Variable, 0, of("", type=model.RecordRef("Ram")), "`vmm` has two types"),
    ("last", model.FieldOf, 0, of("", record="Ram"), "this is no Ram"),
    ("last", model.FieldOf, 0, of("", field="sise"), "Resource has no such field `sise`"),
    ("last", model.FieldOf, 0, of("", offset=4), "Resource has no such field `size`"),
    ("last", model.FieldOf, 0, of("", type=U32), "Resource has no such field `size`"),
    ("last", model.Length, 0, of("", base=LITERAL), "this has no length"),
    ("last", model.Length, 0, of("", base=replace(PART, id=99)), "`part` is not defined here"),
    ("last", model.Length, 0, of("", type=U32), "this has no length"),
    ("last", model.Index, 0, of("", base=LITERAL), "an index into no list"),
    ("last", model.Index, 0, of("", index=TRUE), "an index into no list"),
    ("last", model.Index, 0, of("", error=999), "no error has the number 999"),
    ("boot", model.RegionOf, 0, of("", name="lost"), "there is no region `lost`"),
    ("boot", model.RegionOf, 0, of("", carved=True), "there is no region `event_log`"),
    ("boot", model.Slice, 0, of("", base=LITERAL), "a slice of no bytes"),
    ("boot", model.Slice, 0, of("", end=TRUE), "a slice of no bytes"),
    ("boot", model.Slice, 0, of("", start=STRANGER), "`stranger` is not defined here"),
    ("boot", model.Slice, 0, of("", error=0), "no error has the number 0"),
    ("boot", Unary, 0, of("", op="~"), "`~` of no word for it"),
    ("pure", Unary, 0, of("", operand=STRANGER), "`stranger` is not defined here"),
    ("pure", Unary, 0, of("", type=U8), "`~` of no word for it"),
    ("pure", Unary, 0, of("", op="-"), "`-` of no word for it"),
    ("sum", Binary, 0, of("", left=TRUE), "`+` of no number"),
    ("sum", Binary, 0, of("", type=U32), "`+` is narrower than 64 bits"),
    ("sum", Binary, 0, of("", error=0), "no error has the number 0"),
    ("sum", Binary, 0, of("", op="**", error=0), "there is no operator `**`"),
    ("sum", Binary, 0, of("", op="/", error=0), "a divisor is no constant other than 0"),
    ("sum", Binary, 0, of("", op="%", error=0), "a divisor is no constant other than 0"),
    ("sum", Binary, 0, of("", op=">>", error=0), "a shift count is no constant below 64"),
    ("sum", Binary, 0, of("", op="&"), "`&` cannot fail"),
    ("sum", Binary, 0, of("", op="|", error=0, type=U32), "`|` is narrower than what comes of it"),
    ("boot", Binary, 1, of("", op="<", left=TRUE, right=TRUE), "`<` of what has no order"),
    ("boot", Binary, 2, of("", right=TRUE), "`==` of what has no order"),
    ("boot", Binary, 1, of("", type=U64), "`and` of no bool"),
    ("boot", Binary, 2, of("", op="and"), "`and` of no bool"),
    ("boot", Call, 0, of("", callee="strat_log"), "there is no primitive `strat_log`"),
    ("boot", Call, 0, of("", is_flow=True), "there is no flow `start_log`"),
    ("boot", Call, 0, of("", callee="log_commit"), "`log_commit` is for generated code"),
    ("boot", Call, 0, of("", arguments=()), "`start_log` takes 1 arguments"),
    ("boot", Call, 0, of("", arguments=(LITERAL,)), "stands where Bytes() is expected"),
    ("boot", Call, 0, of("", type=U64), "`start_log` gives another type"),
    ("boot", Call, 0, of("", propagate=False), "an error of `start_log` is dropped"),
    ("boot", Call, 2, of("", propagate=True), "`print` cannot fail"),
    ("boot", model.Let, 0, of("variable", type=U64), "stands where Scalar(name='u64', bits=64) is expected"),
    ("boot", model.Let, 0, of("variable", id=0), "`part` is defined twice"),
    ("boot", model.Let, 2, of("", value=Call("print", False, (), False, Unit(), SPAN)), "`print` takes 1"),
    ("boot", model.Let, 2, lambda s: nothing(s), "`vmm` is nothing"),
    ("boot", model.Assign, 0, of("", value=TRUE), "is expected"),
    ("boot", model.Assign, 0, of("", value=STRANGER), "`stranger` is not defined here"),
    ("boot", model.Assign, 0, lambda s: model.Assign(PART, PART, SPAN), "only a word can be assigned"),
    ("boot", model.Assign, 0, of("variable", id=99), "`n` is not defined here"),
    ("boot", model.If, 0, of("", condition=LITERAL), "a condition is no bool"),
    ("pick", model.Match, 0, of("", subject=Literal("x", model.Text(), SPAN)), "only words are matched"),
    ("pick", model.Match, 0, of("", subject=STRANGER), "`stranger` is not defined here"),
    ("pick", model.Match, 0, lambda m: replace(m, arms=m.arms[:1]), "a value has no arm"),
    ("pick", model.Match, 0, lambda m: replace(m, arms=(*m.arms, m.arms[0])), "a value has two arms"),
    ("pick", model.Arm, 0, of("", values=()), "an arm stands behind `_`"),
    ("pick", model.Arm, 0, of("", values=(7,)), "no member has this number"),
    ("pick", model.Return, 0, of("", value=None), "nothing is returned"),
    ("pick", model.Arm, 1, of("", body=()), "a path ends without a result"),
    ("boot", model.Try, 0, of("call", propagate=True), "the error of a `try` goes elsewhere, too"),
    ("boot", model.Try, 0, of("call", callee="pure", arguments=(LITERAL,)), "what is tried cannot fail"),
    ("boot", model.Try, 0, of("variable", type=BOOL), "the variable is not what the call gives"),
    ("boot", model.Try, 0, lambda t: replace(t, handlers=t.handlers[:1]), "an error has no handler"),
    ("boot", model.Try, 1, lambda t: replace(t, handlers=t.handlers[:1]), "an error has no handler"),
    ("boot", model.Handler, 0, of("", errors=(999,)), "no error has the number 999"),
    ("boot", model.For, 0, of("variable", type=U64), "the loop variable is no element of the list"),
    ("boot", model.For, 0, of("items", base=STRANGER), "`stranger` is not defined here"),
    ("boot", model.For, 0, of("", items=LITERAL), "the loop variable is no element of the list"),
    ("boot", model.Fail, 0, of("", error=999), "no error has the number 999"),
    ("boot", model.Fail, 1, lambda s: model.Do(LITERAL, SPAN), "a path ends without a result"),
    ("boot", model.Fail, 1, lambda s: model.Return(None, SPAN), "a flow that never returns does"),
    ("pure", model.Return, 0, lambda s: model.Fail(1, SPAN), "an error in `pure` has no target"),
    ("sum", model.Return, 0, of("", value=TRUE), "is expected"),
    ("pure", model.Return, 0, of("", value=SUM), "an error in `pure` has no target"),
    ("sum", Variable, 1, of("", type=U64), "`b` has two types"),
    ("picked", model.Choice, 0, of("", subject=Literal("x", model.Text(), SPAN)), "only words select"),
    ("picked", model.Choice, 0, of("", type=model.RecordRef("Ram")), "this is no value to choose"),
    ("picked", model.Choice, 0, lambda c: replace(c, arms=c.arms[::-1]), "behind the one for all others"),
    ("picked", model.Choice, 0, lambda c: replace(c, arms=()), "a value selects two arms or none"),
    ("picked", model.Choice, 0, lambda c: replace(c, arms=(c.arms[0], *c.arms)), "two arms or none"),
    ("picked", model.ChoiceArm, 0, of("", value=TRUE), "is expected"),
    ("picked", model.ChoiceArm, 0, of("", values=(-1,)), "-1 is out of range"),
    ("boot", Call, 0, of("", attempts=0), "only what propagates is retried"),
    ("boot", Call, 2, of("", attempts=2), "only what propagates is retried"),
    ("boot", Call, 2, of("", unless_empty=True), "only a step on bytes is left out"),
    ("among", Binary, 2, of("", left=TRUE), "`in` of no list for it"),
    ("among", Binary, 2, of("", right=LITERAL), "`in` of no list for it"),
    ("among", Binary, 2, of("", type=U64), "`in` gives a bool"),
    ("among", Binary, 3, of("", op="<"), "`<` of what has no order"),
    ("among", Binary, 3, of("", right=LITERAL), "`==` of what has no order"),
    ("among", Literal, 0, of("", value=(1,)), "a list is no list"),
    ("among", Literal, 0, of("", value=(1, -1)), "-1 is out of range"),
    ("among", Literal, 1, of("", value=b""), "constant bytes are neither bytes nor a digest"),
    ("among", Literal, 2, of("", value=(b"",)), "constant bytes are neither bytes nor a digest"),
    (
        "boot",
        model.Let,
        0,
        of("", value=Literal((1,), model.ListOf(U64, 1), SPAN)),
        "elsewhere than behind `in`",
    ),
]


@pytest.mark.parametrize(
    ("flow", "kind", "number", "change", "says"), SPOILT, ids=[f"{s[1].__name__}: {s[4]}" for s in SPOILT]
)
def test_a_spoilt_flow(flow: str, kind: type, number: int, change: Change, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        verify(spoilt(flow, kind, change, number))
    assert says in caught.value.message


def record(firmware: Firmware, **changes: Any) -> dict[str, model.Record]:
    return firmware.records | {"Ram": replace(firmware.records["Ram"], **changes)}


def flow(firmware: Firmware, name: str, **changes: Any) -> Firmware:
    return replace(firmware, flows=firmware.flows | {name: replace(firmware.flows[name], **changes)})


def primitive(firmware: Firmware, name: str, **changes: Any) -> Firmware:
    changed = replace(firmware.primitives[name], **changes)
    return replace(firmware, primitives=firmware.primitives | {name: changed})


def need(firmware: Firmware, **changes: Any) -> Firmware:
    """`start_log` with a wrong need of its area."""
    right = model.SpanNeed("area", 1, None, 4096, 0, firmware.errors[0].number)
    verify(primitive(firmware, "start_log", spans=(right,)))
    return primitive(firmware, "start_log", spans=(replace(right, **changes),))


def section(firmware: Firmware, name: str, /, **changes: Any) -> Firmware:
    image = tuple(replace(s, **changes) if s.name == name else s for s in firmware.image)
    return replace(firmware, image=image)


def recursive(firmware: Firmware) -> Firmware:
    return flow(firmware, "sum", body=(model.Return(SUM, SPAN),))


WHOLE: list[tuple[Callable[[Firmware], Firmware], str]] = [
    (lambda f: replace(f, flows={}), "there is no flow `boot`"),
    (lambda f: flow(f, "boot", parameters=()), "`boot` takes one VpInfo"),
    (lambda f: flow(f, "boot", result=Unit()), "`boot` never returns"),
    (lambda f: flow(f, "boot", on_error_fatal=False), "`boot` never returns"),
    (lambda f: flow(f, "boot", fallible=True), "errors have two targets"),
    (lambda f: flow(f, "sum", fallible=False), "an error in `sum` has no target"),
    (lambda f: flow(f, "pure", result=Never()), "a flow that never returns does"),
    (lambda f: flow(f, "sum", parameters=f.flows["sum"].parameters * 3), "more than six arguments"),
    (lambda f: flow(f, "sum", parameters=f.flows["sum"].parameters * 2), "`a` is defined twice"),
    (recursive, "`sum` calls itself"),
    (lambda f: replace(f, errors=(f.errors[0], f.errors[0])), "two errors have one number"),
    (lambda f: replace(f, errors=(replace(f.errors[0], number=0),)), "is no status"),
    (lambda f: replace(f, errors=(replace(f.errors[0], text="x" * 48),)), "is not what a VMM is sent"),
    (lambda f: replace(f, errors=f.errors[:5]), "which has no number"),
    (lambda f: replace(f, memory=f.memory * 2), "two regions have one name"),
    (lambda f: section(f, "paging", name="pages"), "no TempMem section `paging`"),
    (lambda f: section(f, "stack", kind="CFV"), "no TempMem section `stack`"),
    (lambda f: section(f, "hob", size=None), "all but BFV and its parts have an address and a size"),
    (
        lambda f: replace(f, memory=(*f.memory, replace(f.memory[0], name="b", limit=1 << 20))),
        "the regions of `memory` have different limits",
    ),
    (lambda f: replace(f, records=record(f, size=8)), "`Ram` is not as large as in C"),
    (
        lambda f: replace(f, records=record(f, fields=f.records["Ram"].fields[::-1])),
        "`Ram.carved` is not where C has it",
    ),
    (lambda f: replace(f, states=()), "which nobody keeps"),
    (lambda f: primitive(f, "print", home="nowhere"), "`print` has no home"),
    (lambda f: need(f, parameter="log"), "`start_log` has no bytes `log`"),
    (lambda f: need(f, other="more"), "`start_log` has no bytes `area`"),
    (lambda f: need(f, align=3), "`area` fits nowhere"),
    (lambda f: need(f, minimum=-1), "`area` fits nowhere"),
    (lambda f: need(f, within=4096), "`area` fits nowhere"),
    (lambda f: need(f, within=2 << 20, minimum=(2 << 20) + 1), "`area` fits nowhere"),
    (lambda f: need(f, error=999), "a span has no error"),
    (lambda f: primitive(f, "print", parameters=f.primitives["print"].parameters * 7), "more than six"),
]


@pytest.mark.parametrize(("change", "says"), WHOLE, ids=[w[1] for w in WHOLE])
def test_a_spoilt_firmware(change: Callable[[Firmware], Firmware], says: str) -> None:
    with pytest.raises(ModelError) as caught:
        verify(change(small()))
    assert says in caught.value.message


def test_what_is_written_to_is_kept_by_somebody() -> None:
    def change(call: Any) -> Any:
        made = Call("plan_memory", False, (), False, model.RecordRef("Ram"), SPAN)
        return replace(call, arguments=(made, *call.arguments[1:])) if call.callee == "accept" else call

    calls = [n for n in walk(small().flows["boot"].body) if isinstance(n, Call)]
    number = next(i for i, c in enumerate(calls) if c.callee == "accept")
    with pytest.raises(ModelError, match="writes to what nobody keeps"):
        verify(spoilt("boot", Call, change, number))


def test_nothing_is_generated_from_a_spoilt_model() -> None:
    with pytest.raises(BuildError, match="internal error of the compiler: a divisor is no constant"):
        generate(spoilt("sum", Binary, of("", op="/", error=0)))
