"""What do foreign words and signs stand for? A table of them, with the right one for each; asked only where
a file does not parse."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')


@dataclass(frozen=True)
class Habit:
    """What is foreign: a sign, or the group `at` of its surroundings.

    `repair`: what parsing goes on with instead, or None if the line is left out. `everywhere`: it is never
    right outside of texts, so that one report is enough for a file. {found} is what was written, {keep} the
    group of that name.
    """

    pattern: re.Pattern[str]
    hint: str
    repair: str | None
    message: str
    everywhere: bool = False


def _sign(pattern: str, hint: str, repair: str, message: str = "") -> Habit:
    return Habit(re.compile(pattern), hint, repair, message or "the language has no `{found}`", True)


def _near(pattern: str, hint: str, repair: str | None = None, message: str = "") -> Habit:
    return Habit(re.compile(pattern), hint, repair, message or "the language has no `{found}`")


def _word(words: str, hint: str, repair: str | None = None) -> Habit:
    """Words where a statement or declaration begins."""
    return _near(rf"(?:^|[{{}}])\s*(?P<at>{words})\b(?!\s*[=,)\].])", hint, repair)


_OUT = "leave it out"
_LET = "write `let NAME = ...`"
_BLOCK = "a block is written between `{{` and `}}`"
_LOOP = "a loop runs over a list: `for x in LIST {{ }}`"
_TRIED = "put `retry N times CALL?` into a flow that `fails`, and `try` that flow"
_RETRIED = "put the block into a flow that `fails`, and write `retry N times FLOW(...)?`"
_UNIT = ("write `{unit}`, which is 1024 {below}", "{unit}")
# A unit may be read as the name of what follows (`16 MB at 0`), so this is asked of every file.
UNITS = _near(
    r"(?<![.\w])\d[\d_]*(?P<at>\s*(?![KMG]iB\b)[KkMmGg][iI]?[Bb]|[KkMmGg])\b",
    *_UNIT,
)
TABLE = (
    _sign(
        r"/\*.*?(?:\*/|$)", "a comment runs from `//` to the end of the line", "", "the language has no `/*`"
    ),
    _sign(r"#.*", "a comment begins with `//`", "", "the language has no `#`"),
    _sign(r"'[^']*'?", "a text is written in double quotes", '"text"', "the language has no `'`"),
    _near(r"\benum\b.*(?P<at>;)", "write `,` between members", ","),
    _sign(r";", f"{_OUT}, a statement needs no end", " "),
    _sign(r"&&", "write `and`", " and "),
    _sign(r"\|\|", "write `or`", " or "),
    _sign(r"===", "write `==`", "=="),
    _sign(r"!==", "write `!=`", "!="),
    _sign(r"!(?!=)", "write `not`", " not "),
    _sign(r"=>", "write `->`", "->"),
    _sign(r"<>", "write `!=`", "!="),
    _sign(r"\*\*", "there is `*`, and `<<` for powers of two", "*"),
    # assignment and comparison
    _near(r"\blet\s+\w+\s*(?P<at>:=)", "write `=`", "="),
    _near(r"(?:^|[{}])\s*(?P<at>\w+\s*:=)", _LET),
    _near(r"\w\s*(?P<at>(?:[-+*/%&|^]|<<|>>)=)", "write `NAME = NAME + ...`", "="),
    _near(r"\w\s*(?P<at>\+\+|--)", "write `NAME = NAME + 1`", "= 0"),
    _near(r"\b(?:let|const)\s+\w+\s*(?P<at>==)", "write `=`", "=", "`==` compares"),
    _near(
        r"\b(?:if|require|and|or|not|elif)\b[^={]*[^=!<>{](?P<at>=)(?![=>])",
        "a comparison is written `==`",
        "==",
        "`=` gives a name its value",
    ),
    _near(r"\b(?:if|require|and|or)\b[^{]*\b(?P<at>is)\b", "a comparison is written `==`", "=="),
    # names and numbers
    _near(
        r"\bversion\s+(?P<at>\d+(?:\.\d+)?)\s*$",
        "write `version {found}.0`",
        "1.0.0",
        "a version has three parts",
    ),
    _near(r"(?<=\w)(?P<at>->)(?=[a-z_])", "a field is written `RECORD.FIELD`", "."),
    _near(r"(?<=\w)(?P<at>::)(?=\w)", "a member is written `ENUM.MEMBER`", "."),
    _near(r"(?<=\d) (?P<at>[KMG])\b", *_UNIT),
    _near(r"(?<=\d)(?P<at>[uUlL]\d*)\b", f"{_OUT}, a number takes the type that it needs", ""),
    _near(r"(?<![.\w])\d+\.\d+\b(?!\.)", "numbers are whole", "1", "the language has no fractions"),
    _near(
        r"(?<![.\w])(?!\d+[KMG]iB\b)(?P<at>0[xX]\w*[G-Zg-z]\w*|0[bB]\w*[2-9A-Za-z]\w*|[1-9]\w*[A-Za-z]\w*)",
        "decimal, `0x` or `0b`, with `_` between digits if you like",
        "0",
        "`{found}` is not a number",
    ),
    _near(
        r"(?P<at>\bas\s+u\d+|\(\s*u\d+\s*\)\s*\w+)",
        "numbers widen by themselves; to narrow, mask: `x & 0xFF`",
    ),
    _near(
        r"(?P<at>\?)[^?]*:",
        "write `if CONDITION {{ ... }} else {{ ... }}`",
        None,
        "the language has no `? :`",
    ),
    # statements
    _near(r"\b(?P<at>RTMR_?[0-3])\b", "write `RTMR[{last}]`", "RTMR[{last}]"),
    _near(r"\b(?P<at>rtmr|Rtmr)\s*\[", "write `RTMR`", "RTMR"),
    _near(
        r"\bmeasure\b.*\b(?P<at>(?:in|to|onto)\s+RTMR\s*\[[^\]]*\])",
        "write `measure X into RTMR[n]`",
        None,
        "expected `into`",
    ),
    _near(r"\]\s*(?P<at>RTMR)\b", "write `separate RTMR[0], RTMR[1]`", ",RTMR", "expected `,` before `RTMR`"),
    _near(r"\brequire\b[^,(]*(?P<at>,)", "write `require CONDITION else ERROR`", " else ", "expected `else`"),
    _near(
        r"\btry\b[^{]*?(?P<at>\bretry\s+\w+\s+times\s+(?P<keep>[^{?]*)\??)",
        _TRIED,
        "{keep}",
        "`try` takes a call, not a retry",
    ),
    _near(r"\bretry\s+\w+\s+times\s+(?P<at>try)\b", _TRIED, "", "`retry` takes a call, not a `try`"),
    _near(r"\b(?P<at>retry\s+\w+\s+times\s*\{)", _RETRIED, None, "`retry` takes a call, not a block"),
    _near(r"\b(?P<at>try\s*\{)", "write `try CALL {{ }} on ERROR {{ }}`", None, "`try` takes a call"),
    _near(r"\btry\b[^{]*\)\s*(?P<at>\?)", _OUT, "", "`try` handles the error that `?` would pass on"),
    _near(
        r"(?P<at>\blet\s+\w+\s*=\s*try\b[^{]*\{)",
        "write `try let NAME = CALL {{ }}`",
        None,
        "`try` is a statement",
    ),
    _near(r"\blet\s+(?P<at>mut|mutable|var)\b", f"{_OUT}, any number can be assigned", ""),
    _near(
        r"^\s+(?P<at>const)\b",
        "write `let`, or declare it outside of the flow",
        "let",
        "a flow has no constants",
    ),
    _near(r"^(?P<at>let)\b", "write `const`", "const", "`let` belongs in a flow"),
    _near(r"\bif\b[^{]*\b(?P<at>then)\b", f"{_OUT}, {_BLOCK}", ""),
    _near(r"\b(?:if|else|for|match)\b[^{]*(?P<at>:)", _BLOCK),
    _near(r"\blet\b[^({]*(?P<at>,)", "write a `let` for each name"),
    _near(r"\bfor\s+\w+\s+in\s+\w+\s*(?P<at>\.\.)", _LOOP),
    _word(r"elif|elsif|elseif", "write `else if`", "else if"),
    _word(r"while|loop|until|do|foreach|for\s*\(", _LOOP),
    _word(r"break|continue|goto", "put the loop into a flow and `return` out of it"),
    _word(r"switch|case|select", "write `match VALUE {{ PATTERN -> {{ }} }}`"),
    _word(r"catch|except|rescue", "write `on ERROR {{ }}`", "on"),
    _word(r"throw|raise|panic|abort|exit", "write `fail ERROR`", "fail"),
    _word(r"assert|ensure|expect|check|verify", "write `require CONDITION else ERROR`", "require"),
    _word(r"println|printf|echo|puts|log", 'write `print "TEXT"`', "print"),
    _word(r"extend", "write `measure X into RTMR[n] as KIND(...)`"),
    _word(r"unless", "write `if not`", "if not"),
    _word(r"var|mut|auto|define|static|int|u8|u16|u32|u64", _LET),
    # declarations
    _word(r"fn|func|fun|function|def|sub|proc|void", "write `flow`", "flow"),
    _word(r"import|include|use|using|from", "write `uses CAPABILITY`"),
    _word(r"struct|class|type|typedef|union", "a file declares constants, errors, enumerations and flows"),
    _near(
        r"\bconst\s+\w+\s*(?P<at>:\s*\w+)", f"{_OUT}, a constant is a number", "", "a constant has no type"
    ),
    _near(r"\bflow\b.*\)\s*(?P<at>:)", "write `->` before the result", "->", "expected `->`"),
    _near(r"\bflow\b.*\b(?P<at>throws|raises)\b", "write `fails`", "fails"),
    _near(
        r"\bflow\b.*[(,]\s*(?P<at>(?:u\d+|bytes|bool|text)\s+\w+)",
        "write `NAME: TYPE`",
        None,
        "a parameter's name stands before its type",
    ),
    _near(r"\berror\s+\w+\s*(?P<at>[:(])", 'write `error NAME "TEXT"`', None, "expected a text"),
    _near(r"\berror\s+\w+\s*(?P<at>=)\s*\"", 'write `error NAME "TEXT"`', "", "expected a text"),
)


# Names that other languages have, and what is written here.
NAMES = {
    **dict.fromkeys(("True", "TRUE", "yes"), "write `true`"),
    **dict.fromkeys(("False", "FALSE", "no"), "write `false`"),
    **dict.fromkeys(("null", "NULL", "nil", "None", "nullptr"), "every name needs a value"),
    **dict.fromkeys(("int", "uint", "long", "usize", "size_t", "number", "uint64_t", "i64"), "write `u64`"),
    **dict.fromkeys(("uint32_t", "i32", "unsigned"), "write `u32`"),
    **dict.fromkeys(("uint16_t", "i16", "short"), "write `u16`"),
    **dict.fromkeys(("uint8_t", "i8", "byte", "char"), "write `u8`, or `bytes` for many"),
    **dict.fromkeys(("string", "str", "String"), "write `text`"),
    **dict.fromkeys(("void", "unit"), "leave the result out"),
    "boolean": "write `bool`",
}


def mask(line: str) -> str:
    """The line with its texts blanked and its comment cut off; columns stay."""
    blank = _STRING.sub(lambda m: '"' + " " * (len(m[0]) - 2) + '"', line)
    return blank.split("//", 1)[0]


@dataclass(frozen=True)
class Found:
    """A habit in a line: 0-based columns, end exclusive."""

    habit: Habit
    start: int
    end: int
    text: str
    keep: str = ""

    def _filled(self, template: str) -> str:
        size = self.text[:1].upper()
        below = {"K": "bytes", "M": "KiB", "G": "MiB"}.get(size, "")
        return template.format(
            found=self.text, keep=self.keep, last=self.text[-1:], unit=f"{size}iB", below=below
        )

    @property
    def message(self) -> str:
        return self._filled(self.habit.message)

    @property
    def hint(self) -> str:
        return self._filled(self.habit.hint)

    @property
    def repair(self) -> str | None:
        return None if self.habit.repair is None else self._filled(self.habit.repair)


def found_in(line: str, habits: tuple[Habit, ...] = TABLE) -> list[Found]:
    """Every habit in a line."""
    masked = mask(line)
    found = []
    for habit in habits:
        for match in habit.pattern.finditer(masked):
            start, end = match.span("at" if "at" in habit.pattern.groupindex else 0)
            first, last = match.span("keep") if "keep" in habit.pattern.groupindex else (0, 0)
            found.append(Found(habit, start, end, masked[start:end].strip(), line[first:last]))
    return found


def touching(line: str, start: int, end: int) -> Found | None:
    """The first habit of the table that has a column in [start, end) of a line."""
    return next((f for f in found_in(line) if f.start < end and start < f.end), None)
