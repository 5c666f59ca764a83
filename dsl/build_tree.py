"""How does lark's parse tree become the frozen syntax tree? One method for each rule of grammar.lark."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lark import Token, Transformer, v_args
from lark.tree import Meta

from dsl import tree
from dsl.model import Span
from formats.units import GIB, KIB, MIB

UNITS = {"KiB": KIB, "MiB": MIB, "GiB": GIB}
ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\"}
MAX_DIGITS = 4300  # of what Python converts; any number of 20 is too large for the language


def integer(text: str) -> int:
    """The value of a NUMBER; of one with thousands of digits, another that is too large as well."""
    body = text.replace("_", "")
    for prefix, base in (("0x", 16), ("0b", 2)):
        if body.lower().startswith(prefix):
            return int(body, base) if len(body) < MAX_DIGITS else 1 << 128
    return int(body) if len(body) < MAX_DIGITS else 1 << 128


def unquote(text: str) -> str:
    """The text between the quotes of a token; an unknown escape sequence stays as it is."""
    out, chars = [], iter(text[1:-1])
    for char in chars:
        if char == "\\":
            after = next(chars)
            out.append(ESCAPES.get(after, "\\" + after))
        else:
            out.append(char)
    return "".join(out)


def unknown_escape(text: str) -> str:
    """The first escape sequence of a token that the language lacks, or nothing."""
    return next((e for e in re.findall(r"\\.", text[1:-1]) if e[1] not in ESCAPES), "")


@v_args(meta=True)
class TreeBuilder(Transformer[Token, Any]):
    """`docs`: text of the `///` comment that ends on the line before, by line number. `column`: the author's,
    of a line and column."""

    def __init__(self, path: str, docs: dict[int, str], column: Callable[[int, int], int]) -> None:
        super().__init__(visit_tokens=True)
        self._path = path
        self._docs = docs
        self._column = column

    def __default__(self, data: Any, children: list[Any], meta: Meta) -> Any:
        raise TypeError(f"no syntax node for rule {data}")

    def _span(self, meta: Meta) -> Span:
        start, end = self._column(meta.line, meta.column), self._column(meta.end_line, meta.end_column)
        return Span(self._path, meta.line, start, meta.end_line, end)

    def NAME(self, token: Token) -> tree.Name:
        line, column = token.line or 1, token.column or 1
        start, end = self._column(line, column), self._column(line, column + len(token))
        return tree.Name(str(token), Span(self._path, line, start, line, end))

    KIND = NAME

    # ---- leaves

    def unit(self, meta: Meta, c: list[Any]) -> int:
        return UNITS[str(c[0])]

    def size(self, meta: Meta, c: list[Any]) -> tree.Number:
        return tree.Number(integer(c[0]) * (c[1] or 1), self._span(meta))

    def number(self, meta: Meta, c: list[Any]) -> tree.Number:
        return c[0]  # type: ignore[no-any-return]

    pattern_number = pattern_name = name = group = number

    def string(self, meta: Meta, c: list[Any]) -> tree.String:
        return tree.String(unquote(c[0]), self._span(meta), unknown_escape(c[0]))

    def hex(self, meta: Meta, c: list[Any]) -> tree.Hex:
        return tree.Hex(str(c[0])[4:-1], self._span(meta))

    def items(self, meta: Meta, c: list[Any]) -> tree.List:
        return tree.List(tuple(x for x in c if x is not None), self._span(meta))

    def true(self, meta: Meta, c: list[Any]) -> tree.Boolean:
        return tree.Boolean(True, self._span(meta))

    def false(self, meta: Meta, c: list[Any]) -> tree.Boolean:
        return tree.Boolean(False, self._span(meta))

    def attribute(self, meta: Meta, c: list[Any]) -> tree.Name:
        return tree.Name(str(c[0]), self._span(meta))

    def provenance(self, meta: Meta, c: list[Any]) -> str:
        return str(c[0])

    # ---- expressions

    def call(self, meta: Meta, c: list[Any]) -> tree.Call:
        return tree.Call(c[0], tuple(x for x in c[1:] if x is not None), self._span(meta))

    def field(self, meta: Meta, c: list[Any]) -> tree.Field:
        return tree.Field(c[0], c[1], self._span(meta))

    def index(self, meta: Meta, c: list[Any]) -> tree.Index:
        return tree.Index(c[0], c[1], self._span(meta))

    def slice(self, meta: Meta, c: list[Any]) -> tree.Slice:
        return tree.Slice(c[0], c[1], c[2], self._span(meta))

    def propagate(self, meta: Meta, c: list[Any]) -> tree.Propagate:
        return tree.Propagate(c[0], self._span(meta))

    def retry(self, meta: Meta, c: list[Any]) -> tree.Retry:
        return tree.Retry(integer(c[0]), c[1], self._span(meta))

    def choice(self, meta: Meta, c: list[Any]) -> tree.Choice:
        condition, then, otherwise = c
        true = tree.Boolean(True, condition.span)
        arms = (tree.ChoiceArm((true,), then, then.span), tree.ChoiceArm((), otherwise, otherwise.span))
        return tree.Choice(condition, arms, True, self._span(meta))

    def choice_match(self, meta: Meta, c: list[Any]) -> tree.Choice:
        return tree.Choice(c[0], tuple(c[1:]), False, self._span(meta))

    def choice_arm(self, meta: Meta, c: list[Any]) -> tree.ChoiceArm:
        patterns = () if None in c[:-1] else tuple(c[:-1])
        return tree.ChoiceArm(patterns, c[-1], self._span(meta))

    def complement(self, meta: Meta, c: list[Any]) -> tree.Unary:
        return tree.Unary("~", c[0], self._span(meta))

    def inversion(self, meta: Meta, c: list[Any]) -> tree.Unary:
        return tree.Unary("not", c[0], self._span(meta))

    def expression(self, meta: Meta, c: list[Any]) -> tree.Expression:
        result: tree.Expression = c[0]
        for op, right in zip(c[1::2], c[2::2], strict=True):
            left, end = result.span, right.span
            span = Span(self._path, left.line, left.column, end.end_line, end.end_column)
            result = tree.Binary(str(op), result, right, span)
        return result

    def membership(self, meta: Meta, c: list[Any]) -> tree.Binary:
        return tree.Binary("in", c[0], c[1], self._span(meta))

    either = conjunction = comparison = union = difference = intersection = shift = sum = product = expression

    # ---- statements

    def type(self, meta: Meta, c: list[Any]) -> tree.TypeName:
        return tree.TypeName(c[0], c[1], integer(c[2]) if c[2] else 0, self._span(meta))

    def block(self, meta: Meta, c: list[Any]) -> tree.Block:
        return tree.Block(tuple(c), self._span(meta))

    def let(self, meta: Meta, c: list[Any]) -> tree.Let:
        return tree.Let(c[0], c[1], c[2], self._span(meta))

    def assign(self, meta: Meta, c: list[Any]) -> tree.Assign:
        return tree.Assign(c[0], c[1], self._span(meta))

    def do(self, meta: Meta, c: list[Any]) -> tree.Do:
        return tree.Do(c[0], False, None, self._span(meta))

    def do_propagate(self, meta: Meta, c: list[Any]) -> tree.Do:
        return tree.Do(c[0], True, None, self._span(meta))

    def do_retry(self, meta: Meta, c: list[Any]) -> tree.Do:
        return tree.Do(c[0].call, True, c[0].times, self._span(meta))

    def if_(self, meta: Meta, c: list[Any]) -> tree.If:
        return tree.If(c[0], c[1], c[2], self._span(meta))

    def pattern_any(self, meta: Meta, c: list[Any]) -> None:
        return None

    any_error = pattern_any

    def arm(self, meta: Meta, c: list[Any]) -> tree.Arm:
        patterns = () if None in c[:-1] else tuple(c[:-1])
        return tree.Arm(patterns, c[-1], self._span(meta))

    def match(self, meta: Meta, c: list[Any]) -> tree.Match:
        return tree.Match(c[0], tuple(c[1:]), self._span(meta))

    def for_each(self, meta: Meta, c: list[Any]) -> tree.For:
        return tree.For(c[0], c[1], c[2], self._span(meta))

    def handler(self, meta: Meta, c: list[Any]) -> tree.Handler:
        errors = () if None in c[:-1] else tuple(c[:-1])
        return tree.Handler(errors, c[-1], self._span(meta))

    def try_call(self, meta: Meta, c: list[Any]) -> tree.Try:
        return tree.Try(c[0], c[1], c[2], tuple(c[3:]), self._span(meta))

    def return_(self, meta: Meta, c: list[Any]) -> tree.Return:
        return tree.Return(c[0], self._span(meta))

    def fail(self, meta: Meta, c: list[Any]) -> tree.Fail:
        return tree.Fail(c[0], self._span(meta))

    def require(self, meta: Meta, c: list[Any]) -> tree.Require:
        return tree.Require(c[0], c[1], self._span(meta))

    def rtmr(self, meta: Meta, c: list[Any]) -> tree.Expression:
        return c[0]  # type: ignore[no-any-return]

    def empty(self, meta: Meta, c: list[Any]) -> bool:
        return True

    def measure(self, meta: Meta, c: list[Any]) -> tree.Measure:
        return tree.Measure(c[0], c[1], c[2], c[3] is not None, self._span(meta))

    def separate(self, meta: Meta, c: list[Any]) -> tree.Separate:
        return tree.Separate(tuple(c), self._span(meta))

    def accept(self, meta: Meta, c: list[Any]) -> tree.Accept:
        return tree.Accept(c[0], c[1], c[2], c[3] is not None, self._span(meta))

    def all_vcpus(self, meta: Meta, c: list[Any]) -> bool:
        return True

    def lazily(self, meta: Meta, c: list[Any]) -> tree.Lazily:
        return tree.Lazily(c[0], self._span(meta))

    def ranges(self, meta: Meta, c: list[Any]) -> tree.Ranges:
        return tree.Ranges(tuple(c), self._span(meta))

    def park(self, meta: Meta, c: list[Any]) -> tree.Park:
        return tree.Park(c[0], bool(c[1]), self._span(meta))

    def with_reset(self, meta: Meta, c: list[Any]) -> bool:
        return True

    def handoff(self, meta: Meta, c: list[Any]) -> tree.Handoff:
        return tree.Handoff(c[0], self._span(meta))

    def print(self, meta: Meta, c: list[Any]) -> tree.Print:
        return tree.Print(c[0] or "", tuple(c[1:]), self._span(meta))

    def hexadecimal(self, meta: Meta, c: list[Any]) -> tree.Hexadecimal:
        return tree.Hexadecimal(c[0], self._span(meta))

    def level(self, meta: Meta, c: list[Any]) -> str:
        return str(c[0])

    def log_level(self, meta: Meta, c: list[Any]) -> tree.LogLevel:
        return tree.LogLevel(c[0], self._span(meta))

    def without_tdx(self, meta: Meta, c: list[Any]) -> tree.WithoutTdx:
        del c
        return tree.WithoutTdx(self._span(meta))

    # ---- declarations

    def version(self, meta: Meta, c: list[Any]) -> tree.Version:
        major, minor, patch = (integer(n) for n in c[0].split("."))
        return tree.Version((major, minor, patch), self._span(meta))

    def svn(self, meta: Meta, c: list[Any]) -> tree.Svn:
        return tree.Svn(integer(c[0]), self._span(meta))

    def section_size(self, meta: Meta, c: list[Any]) -> tuple[tree.Number, bool]:
        return c[0], False

    def size_limit(self, meta: Meta, c: list[Any]) -> tuple[tree.Number, bool]:
        return c[0], True

    def section(self, meta: Meta, c: list[Any]) -> tree.Section:
        size, up_to = c[2] or (None, False)
        guid, file = self._quoted(c[3]), c[5] if isinstance(c[5], tree.Chosen) else self._quoted(c[5])
        return tree.Section(c[0], c[1], size, up_to, guid, c[4], file, tuple(c[6:]), self._span(meta))

    def chosen(self, meta: Meta, c: list[Any]) -> tree.Chosen:
        return tree.Chosen(self._span(meta))

    def _quoted(self, token: Token | None) -> tree.String | None:
        if token is None:
            return None
        line, column = token.line or 1, token.column or 1
        return tree.String(unquote(token), Span(self._path, line, column, line, column + len(token)))

    def region(self, meta: Meta, c: list[Any]) -> tree.Region:
        return tree.Region(c[0], c[1], tuple(c[2:]), self._span(meta))

    def image(self, meta: Meta, c: list[Any]) -> tree.Image:
        return tree.Image(c[0], tuple(c[1:]), self._span(meta))

    def memory(self, meta: Meta, c: list[Any]) -> tree.Memory:
        return tree.Memory(c[0], tuple(c[1:]), self._span(meta))

    def firmware(self, meta: Meta, c: list[Any]) -> tree.Firmware:
        return tree.Firmware(c[0], tuple(c[1:]), self._span(meta))

    def parameter(self, meta: Meta, c: list[Any]) -> tree.Parameter:
        return tree.Parameter(c[0], c[1] is not None, c[2] is not None, c[3], c[4], self._span(meta))

    def parameters(self, meta: Meta, c: list[Any]) -> tuple[tree.Parameter, ...]:
        return tuple(c)

    def result(self, meta: Meta, c: list[Any]) -> tree.Result:
        return tree.Result(c[0], c[1], c[2], self._span(meta))

    def extent(self, meta: Meta, c: list[Any]) -> tree.Extent:
        return tree.Extent(c[0], c[1].value if c[1] else None, self._span(meta))

    def on_error(self, meta: Meta, c: list[Any]) -> str:
        return "on error fatal"

    def flow_body(self, meta: Meta, c: list[Any]) -> tuple[bool, tree.Block]:
        return c[0] is not None, tree.Block(tuple(c[1:]), self._span(meta))

    def flow(self, meta: Meta, c: list[Any]) -> tree.Flow:
        fatal, body = c[4]
        return tree.Flow(
            c[0], c[1] or (), c[2], c[3] is not None, fatal, body, self._span(meta), self._doc(meta)
        )

    def uses(self, meta: Meta, c: list[Any]) -> tree.Uses:
        return tree.Uses(tuple(c), self._span(meta))

    def constant(self, meta: Meta, c: list[Any]) -> tree.Constant:
        return tree.Constant(c[0], c[1], self._span(meta))

    def error(self, meta: Meta, c: list[Any]) -> tree.Error:
        number = integer(c[2]) if c[2] else None
        return tree.Error(c[1], number, self._text(c[3]), self._span(meta), untrusted=c[0] is not None)

    def _text(self, token: Token) -> tree.String:
        assert token.line is not None
        assert token.column is not None
        end = token.column + len(token)
        return tree.String(unquote(token), Span(self._path, token.line, token.column, token.line, end))

    def handle(self, meta: Meta, c: list[Any]) -> tree.Handle:
        return tree.Handle(c[0], self._span(meta))

    def step_text(self, meta: Meta, c: list[Any]) -> tuple[tree.Name, tree.String, tree.String]:
        return c[0], self._text(c[1]), self._text(c[2])

    def step(self, meta: Meta, c: list[Any]) -> tree.Step:
        return tree.Step(c[0], c[2], c[1] is not None, tuple(c[3:]), self._span(meta))

    def member(self, meta: Meta, c: list[Any]) -> tuple[tree.Name, int]:
        return c[0], integer(c[1])

    def enumeration(self, meta: Meta, c: list[Any]) -> tree.Enumeration:
        members = tuple(m for m in c[1:] if m is not None)
        return tree.Enumeration(c[0], members, self._span(meta), self._doc(meta))

    def record_field(self, meta: Meta, c: list[Any]) -> tree.RecordField:
        return tree.RecordField(c[1], c[2], c[3], c[0] is not None, self._span(meta))

    def record(self, meta: Meta, c: list[Any]) -> tree.Record:
        align = integer(c[1]) if c[1] else 0
        fields = tuple(f for f in c[2:] if f is not None)
        return tree.Record(c[0], align, fields, self._span(meta), self._doc(meta))

    def failures(self, meta: Meta, c: list[Any]) -> tuple[tree.Name, ...]:
        return tuple(c[1:])

    def primitive(self, meta: Meta, c: list[Any]) -> tree.Primitive:
        effects = tuple(e for e in c[5:-1] if e is not None)
        return tree.Primitive(
            name=c[1],
            internal=c[0] is not None,
            parameters=c[2] or (),
            result=c[3],
            errors=c[4] or (),
            effects=effects,
            home=c[-1],
            span=self._span(meta),
            doc=self._doc(meta),
        )

    # ---- effects

    def _effect(self, word: str, meta: Meta, names: list[Any], number: int = 0) -> tree.Effect:
        return tree.Effect(word, tuple(names), number, self._span(meta))

    def measures(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("measures", meta, c)

    def makes(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("makes", meta, [x for x in c if x is not None])

    def gives(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("gives", meta, [x for x in c if x is not None])

    def logs_into(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("logs into", meta, c)

    def needs(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("needs", meta, [x for x in c if x is not None])

    def before(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("before", meta, c)

    def authorises(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("authorises", meta, c)

    def runs(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("runs", meta, c)

    def writes(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("writes", meta, c)

    def keeps(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("keeps", meta, c)

    def span_size(self, meta: Meta, c: list[Any]) -> tree.Number | tree.Name:
        return c[0]  # type: ignore[no-any-return]

    def spans(self, meta: Meta, c: list[Any]) -> tree.Effect:
        name, least, align, block = c
        names = (name, least) if isinstance(least, tree.Name) else (name,)
        number = 0 if isinstance(least, tree.Name) else least.value
        units = (align.value if align else 1, block.value if block else 0)
        return tree.Effect("spans", names, number, self._span(meta), *units)

    def limits(self, meta: Meta, c: list[Any]) -> tree.Effect:
        return self._effect("limits", meta, c[:1], integer(c[1]))

    def log_bytes(self, meta: Meta, c: list[Any]) -> int:
        return integer(c[0])

    def log_size(self, meta: Meta, c: list[Any]) -> tree.Name:
        return c[0]  # type: ignore[no-any-return]

    def logs(self, meta: Meta, c: list[Any]) -> tree.Effect:
        numbers = sum(x for x in c if isinstance(x, int))
        return self._effect("logs", meta, [x for x in c if not isinstance(x, int)], numbers)

    def _doc(self, meta: Meta) -> str:
        return self._docs.get(meta.line, "")

    def start(self, meta: Meta, c: list[Any]) -> tuple[tree.Declaration, ...]:
        return tuple(c)


setattr(TreeBuilder, "if", TreeBuilder.if_)  # the rule is called as the word it begins with
