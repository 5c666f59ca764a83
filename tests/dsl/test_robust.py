"""Is whatever a person may type answered with diagnostics, never with a traceback?"""

import re
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from casefile import read_cases

from dsl.api import check_file, check_source, shipped_flows
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
]


def judged(text: str) -> None:
    """Checks `text`; each diagnostic lies in the file and can be shown."""
    result = check_source(text, "x.tdf")
    assert (result.firmware is None) == bool(result.diagnostics)
    lines = text.split("\n")
    for diagnostic in result.diagnostics:
        assert diagnostic.message
        assert 1 <= diagnostic.span.line <= len(lines)
        assert diagnostic.span.column >= 1
        assert diagnostic.render().startswith(f"x.tdf:{diagnostic.span.line}:")


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.integers(1, 3))
def test_left_out_words(text: str, seed: object, count: int) -> None:
    tokens = TOKENS.findall(text)
    for _ in range(count):
        del tokens[seed.randrange(len(tokens))]  # type: ignore[attr-defined]
    judged("".join(tokens))


@settings(max_examples=150)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False), st.integers(1, 3))
def test_wrong_words(text: str, seed: object, count: int) -> None:
    tokens = TOKENS.findall(text)
    names = [t for t in tokens if t[:1].isalpha()]
    for _ in range(count):
        word = seed.choice([*WORDS, *names])  # type: ignore[attr-defined]
        tokens[seed.randrange(len(tokens))] = f" {word} "  # type: ignore[attr-defined]
    judged("".join(tokens))


@settings(max_examples=100)
@given(st.sampled_from(TEXTS), st.randoms(use_true_random=False))
def test_lines_left_out_or_swapped(text: str, seed: object) -> None:
    lines = text.split("\n")
    a, b = (seed.randrange(len(lines)) for _ in range(2))  # type: ignore[attr-defined]
    lines[a], lines[b] = lines[b], lines[a]
    judged("\n".join(lines))
    del lines[a]
    judged("\n".join(lines))


@settings(max_examples=100)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    judged(text)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.tdf").write_bytes(b"\xff\xfe\x00")
    absent = check_file(tmp_path / "absent.tdf").diagnostics
    binary = check_file(tmp_path / "bytes.tdf").diagnostics
    folder = check_file(tmp_path).diagnostics
    assert [d.message for d in absent] == ["cannot read the flow file: No such file or directory"]
    assert [d.message for d in binary] == ["cannot read the flow file: not UTF-8 text"]
    assert [d.message for d in folder] == ["cannot read the flow file: Is a directory"]
