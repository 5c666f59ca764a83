"""Is whatever a person may type answered with diagnostics, never with a traceback?"""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from casefile import read_cases

from dsl.api import check_file, check_source, format_source, shipped_flows
from dsl.diagnostics import CODES
from dsl.parse import keywords

TOKENS = re.compile(r'\s+|//[^\n]*|"(?:[^"\\\n]|\\.)*"|\w+|->|\.\.|==|!=|<=|>=|<<|>>|\S')
TEXTS = [shipped_flows()["linux"].read_text(), *(c.text for c in read_cases())]
WORDS = [
    *sorted(keywords()),
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "?",
    "..",
    ".",
    ",",
    "=",
    "<",
    "hob",
    "td",
    "9",
    '"x"',
    *(
        "&&",
        "||",
        "!",
        ";",
        "#",
        "'",
        "=>",
        "/*",
        "*/",
        "+=",
        "++",
        "::",
        "KB",
        "64K",
        "1.5",
        "elif",
        "while",
        "fn",
    ),
]


def judged(text: str) -> int:
    """How many mistakes `text` has. Each lies in the file, has a code and can be shown; a file without one is
    formatted word by word."""
    result = check_source(text, "x.tdf")
    assert (result.firmware is None) == bool(result.diagnostics)
    lines = text.split("\n")
    for diagnostic in result.diagnostics:
        span = diagnostic.span
        assert diagnostic.message
        assert diagnostic.code in CODES
        assert 1 <= span.line <= span.end_line <= len(lines)
        assert 1 <= span.column <= max(1, len(lines[span.line - 1]) + 1)
        assert diagnostic.render().startswith(f"x.tdf:{span.line}:{span.column}: error[{diagnostic.code}]: ")
    if result.firmware is not None:
        written = format_source(text)
        assert "".join(written.split()) == "".join(text.split())
        assert format_source(written) == written
    return len(result.diagnostics)


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.integers(1, 3))
def test_left_out_words(text: str, seed: object, count: int) -> None:
    tokens = TOKENS.findall(text)
    gone = [tokens.pop(seed.randrange(len(tokens))) for _ in range(count)]  # type: ignore[attr-defined]
    balanced = "\n" in "".join(gone) or all(gone.count(a) == gone.count(b) for a, b in ("{}", "()", "[]"))
    mistakes = judged("".join(tokens))
    assert mistakes or balanced


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.integers(1, 3))
def test_wrong_words(text: str, seed: object, count: int) -> None:
    tokens = TOKENS.findall(text)
    names = [t for t in tokens if t[:1].isalpha()]
    for _ in range(count):
        word = seed.choice([*WORDS, *names])  # type: ignore[attr-defined]
        tokens[seed.randrange(len(tokens))] = f" {word} "  # type: ignore[attr-defined]
    before = judged("".join(tokens))
    tokens[seed.randrange(len(tokens))] = "\n;\n"  # type: ignore[attr-defined]
    assert before + judged("".join(tokens)) > 0


@settings(max_examples=100)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_lines_left_out_or_swapped(text: str, seed: object) -> None:
    lines = text.split("\n")
    a, b = (seed.randrange(len(lines)) for _ in range(2))  # type: ignore[attr-defined]
    lines[a], lines[b] = lines[b], lines[a]
    swapped = judged("\n".join(lines))
    lost = lines.pop(a)
    left_out = judged("\n".join(lines))
    code = TOKENS.sub(lambda m: "" if m[0].startswith(("//", '"')) else m[0], lost)
    assert swapped + left_out or code.count("{") == code.count("}")


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    assert judged(text)


MINIMAL = shipped_flows()["linux"].read_text()
IFS = 45


def chain(count: int, body: str) -> str:
    """Flows that each call the next one, `{}` in `body`, and one at the end."""
    flows = [f"flow f{i}(td: VpInfo) {{ {body.replace('{}', f'f{i + 1}(td)')} }}" for i in range(count)]
    return "\n".join([*flows, f"flow f{count}(td: VpInfo) {{ }}"])


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("accept ram", "if td.gpaw == 1 { " * 3000 + "}" * 3000, "S01", "more than 100 levels deep"),
        ("accept ram", "if true { }" + " else if true { }" * 2000, "S01", "more than 100 levels deep"),
        ("require td", "require " + "(" * 5000 + "true" + ")" * 5000, "S01", "more than 100 levels deep"),
        ("require td", "require " + "not " * 5000 + "true require td", "S01", "more than 100 levels deep"),
        ("require td", "require " + "1 + " * 5000 + "1 == 1 require td", "S01", "more than 100 levels deep"),
        ("0 else sept", "9" * 5000 + " else sept", "E06", "does not fit in 64 bits"),
        ("0 else sept", "0x" + "F" * 5000 + " else sept", "E06", "does not fit in 64 bits"),
        ("0 else sept", "0x_ else sept", "S01", "found `else`"),
        ("48 MiB", "9" * 5000 + " MiB", "T06", "reaches into BFV"),
        ("svn 1", "svn " + "9" * 5000, "E06", "an svn is at most 4294967295"),
        ("1.0.0", "9" * 5000 + ".0.0", "E06", "a part of a version is at most 4294967295"),
        ("start_log", "s" * 100_000, "N01", "there is no flow or primitive `sss"),
        ("accept ram", 'print "\\q"', "E07", "`\\q` is not an escape sequence"),
        ("accept ram", "accept ram\0", "S01", "character U+0000 has no meaning here"),
        ("firmware linux {", "firmware linux ; {", "S01", "the language has no `;`"),
    ],
)
def test_one_short_message_for_what_is_too_much(old: str, new: str, code: str, says: str) -> None:
    text = MINIMAL.replace(old, f"accept ram {new}" if old == "accept ram" else new, 1)
    (diagnostic,) = check_source(text, "x.tdf").diagnostics
    assert (diagnostic.code, says in diagnostic.message) == (code, True)
    assert max(len(line) for line in diagnostic.render().splitlines()) < 200


@pytest.mark.parametrize(
    ("flows", "says"),
    [
        (chain(300, "{}"), "flows call each other more than 32 deep"),
        (chain(12, "{} {}"), "more than 2000 calls of flows have to be followed"),
        (chain(30, "if td.gpaw == 48 { " * IFS + "{}" + "}" * IFS), "too deeply to be followed"),
    ],
)
def test_flows_that_call_too_many(flows: str, says: str) -> None:
    (diagnostic,) = check_source(f"{MINIMAL.replace('accept ram', 'accept ram f0(td)')}\n{flows}").diagnostics
    assert (diagnostic.code, says in diagnostic.message) == ("T10", True)


def test_what_editors_do_to_a_file_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.tdf"
    for changed in (MINIMAL.replace("\n", "\r\n"), "\ufeff" + MINIMAL, MINIMAL.replace("    ", "\t")):
        path.write_bytes(changed.encode())
        assert check_file(path).diagnostics == ()
        assert format_source(changed) == MINIMAL


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.tdf").write_bytes(b"\xff\xfe\x00")
    absent = check_file(tmp_path / "absent.tdf").diagnostics
    binary = check_file(tmp_path / "bytes.tdf").diagnostics
    folder = check_file(tmp_path).diagnostics
    assert [d.message for d in absent] == ["cannot read the flow file: No such file or directory"]
    assert [d.message for d in binary] == ["cannot read the flow file: not UTF-8 text"]
    assert [d.message for d in folder] == ["cannot read the flow file: Is a directory"]
