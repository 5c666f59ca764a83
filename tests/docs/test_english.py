"""Is the text that a person reads plain English? No page, message or docstring has the patterns below."""

import ast
import re
from pathlib import Path

import pytest
from transcript import ROOT

# What is wrong, and what to write instead.
STILTED = {
    r"\bWho (?:has|would|wants|wishes|types|begins)\b[^?]*\.": "a relative clause has its noun",
    r"\bby chance\b|\bof chance\b": "random",
    r"\bfor ever\b": "forever",
    r"\bso many\b": "the number of",
    r"\b(?:come|comes|came) to pass\b": "happen, end",
    r"\b(?:is|are|be) worth\b|\bworth what\b": "has a trust level",
    r"\bno register tells\b|\bno RTMR tells\b|\btold apart\b": "no register records",
    r"\bit is wanted\b|\bthat is wanted\b|\bwhat was asked for\b": "say which",
    r"\bguest of before\b|\bguests before 2\d{3}\b": "a guest from before 2024",
    r"\banew\b": "again, rewrite",
    r"\bin the one way they are written\b": "format",
}
PAGES = [ROOT / "README.md", ROOT / "run", *sorted((ROOT / "docs").rglob("*.md"))]
ROOMS = ("dsl", "gen", "image", "formats", "host", "tdforge", "emu")
SOURCES = [
    path for room in ROOMS for end in ("py", "tdf") for path in sorted((ROOT / room).rglob(f"*.{end}"))
]


def found(text: str) -> list[str]:
    """Each stilted phrase of a text with its better form."""
    flat = " ".join(text.split())
    return [f"{m[0][:60]!r}: {better}" for bad, better in STILTED.items() for m in re.finditer(bad, flat)]


def spoken(path: Path) -> list[str]:
    """A source file's texts: docstrings and messages of Python, and what a capability declares."""
    if path.suffix != ".py":
        return [path.read_text()]
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_in_plain_english(page: Path) -> None:
    assert found(page.read_text()) == []


def test_messages_and_docstrings_are_in_plain_english() -> None:
    assert len(SOURCES) > 100
    wrong = [
        f"{path.relative_to(ROOT)}: {each}" for path in SOURCES for t in spoken(path) for each in found(t)
    ]
    assert wrong == []


def test_the_patterns_find_what_they_name() -> None:
    for text in ("Who has nox types it.", "registers by chance", "waits for ever", "it is worth nothing"):
        assert len(found(text)) == 1


def test_the_glossary_has_the_terms() -> None:
    text = (ROOT / "docs" / "glossary.md").read_text()
    terms = [
        "TD",
        "TDX module",
        "TDVF",
        "BFV",
        "CFV",
        "TD HOB",
        "GPA",
        "GPAW",
        "Secure EPT (SEPT)",
        "MRTD",
        "RTMR",
        "CCEL",
        "SVN",
    ]
    assert [term for term in terms if f"| {term} |" not in text] == []
    assert "](docs/glossary.md)" in (ROOT / "README.md").read_text()
