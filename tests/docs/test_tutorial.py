"""Does docs/tutorial.md tell the truth? Every block is run in its order, every output compared."""

from pathlib import Path

import pytest
from debian import kernel, tool
from transcript import ROOT, Checkout, Reader, blocks, steps

TUTORIAL = ROOT / "docs" / "tutorial.md"


def test_every_command_prints_what_the_tutorial_shows(tmp_path: Path) -> None:
    kernel()  # once for all test processes
    checkout = Checkout(tmp_path, {"tpm2_eventlog": tool("tpm2_eventlog", "tpm2-tools")})
    reader = Reader()
    wrong = []
    for block in blocks(TUTORIAL.read_text()):
        if block.kind == "python":
            checkout.write(block)
        elif block.kind == "diff":
            checkout.change(block)
        elif block.kind == "console":
            for step in steps(block):
                said = checkout.shell(step.command)
                if (lack := reader.missing(step.expected, said)) is not None:
                    wrong.append(
                        f"tutorial.md:{block.line}: $ {step.command}\nlacks: {lack}\nsaid:\n"
                        + "\n".join(said)
                    )
        else:
            wrong.append(f"tutorial.md:{block.line}: a block of kind {block.kind!r} is not run")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        (["a"], ["b"]),
        (["a"], ["a", "b"]),
        (["a", "b"], ["a"]),
        (["a", "...", "c"], ["a", "b"]),
        (["b"], ["a", "b"]),
    ],
)
def test_a_difference_is_seen(expected: list[str], actual: list[str]) -> None:
    assert Reader().missing(expected, actual) is not None


def test_dots_stand_for_any_lines() -> None:
    assert Reader().missing(["...", "b", "..."], ["a", "b", "c"]) is None
    assert Reader().missing(["a", "...", "c"], ["a", "c"]) is None
    assert Reader().missing(["instructions    12,345"], ["instructions    7"]) is None


def test_a_digest_stands_for_one_digest() -> None:
    a, b, c = ("a" * 96, "b" * 96, "c" * 96)
    reader = Reader()
    assert reader.missing([a, b], [b, c]) is None
    assert reader.missing([a], [b]) is None
    assert reader.missing([a], [a]) is not None
    assert reader.missing([c], [b]) is not None
