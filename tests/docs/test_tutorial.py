"""Does docs/tutorial.md tell the truth? Every block is run in its order, every output compared.

One test for each part of the tutorial, so that several processes share the work.
"""

from pathlib import Path

import pytest
from debian import kernel, tool
from transcript import DIGEST, ROOT, Checkout, Reader, blocks, parts, steps

TUTORIAL = ROOT / "docs" / "tutorial.md"
PARTS = parts(TUTORIAL.read_text())
# Commands that leave a file which later parts need, and the one that makes build/my.bin out of my.tdf.
PREPARING = ("cp dsl/flows/linux.tdf my.tdf", "python -c 'from tdforge.tiny import tiny_payload")
BUILD, BUILT = "tdforge build my.tdf", "build/my.bin"


def prepare(checkout: Checkout, number: int) -> None:
    """Leaves the files as the parts before this one do, without comparing what their commands say."""
    for block in (each for _, part in PARTS[:number] for each in part):
        if block.kind == "console":
            for step in steps(block):
                if step.command.startswith(PREPARING):
                    checkout.shell(step.command)
        else:
            checkout.put(block)
    commands = [step.command for each in PARTS[number][1] if each.kind == "console" for step in steps(each)]
    first = next((command for command in commands if BUILT in command), "")
    if first and BUILD not in first and BUILD not in commands:
        checkout.shell(BUILD)


@pytest.mark.parametrize("number", range(len(PARTS)), ids=[title for title, _ in PARTS])
def test_every_command_prints_what_the_tutorial_shows(number: int, tmp_path: Path) -> None:
    kernel()  # once for all test processes
    checkout = Checkout(tmp_path, {"tpm2_eventlog": tool("tpm2_eventlog", "tpm2-tools")})
    prepare(checkout, number)
    reader = Reader()
    wrong = []
    for block in PARTS[number][1]:
        if block.kind != "console":
            checkout.put(block)
            continue
        for step in steps(block):
            said = checkout.shell(step.command)
            if (lack := reader.missing(step.expected, said)) is not None:
                wrong.append(
                    f"tutorial.md:{block.line}: $ {step.command}\nlacks: {lack}\nsaid:\n" + "\n".join(said)
                )
    assert not wrong, "\n\n".join(wrong)


def test_all_of_the_tutorial_is_run_in_parts_that_share_no_digest() -> None:
    text = TUTORIAL.read_text()
    assert [block for _, part in PARTS for block in part] == list(blocks(text))
    assert len(PARTS) >= 4, "a part of the tutorial that takes long holds up the others"
    shown = [
        {digest for block in part for digest in DIGEST.findall("\n".join(block.lines))} for _, part in PARTS
    ]
    assert sum(map(len, shown)) == len(set().union(*shown))


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
