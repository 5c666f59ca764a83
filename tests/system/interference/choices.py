"""Which VMMs is a flow tried under? Some differ in what nobody asks, others answer what it decides by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from emu.oracle import files
from emu.oracle.chosen import Choice, Outcome
from emu.oracle.contents import INITRDS, LINES, SAME

BASE = Choice(initrd=1)
SAME_LINE, SAME_INITRD = LINES.index(SAME), INITRDS.index(SAME.encode())
NUMBER = re.compile(r"\b(?:0x[0-9A-Fa-f_]+|\d[\d_]*)\b")
SELECTS = re.compile(r"\b(if|match|require)\b|^[\d, ]+->|[=!]= ")
DECIDES = re.compile(r"\b(if|match|require|while)\b|->|[-<>=]=? ")


def numbers_of(text: str) -> tuple[list[int], list[int]]:
    """The flow's own literals and what lies beside them: of lines that may decide by one, and all others."""
    code = text[text.index("\nflow ") :] if "\nflow " in text else text
    found: tuple[set[int], set[int]] = ({0, 1, 5}, set())
    for line in code.split("\n"):
        for number in NUMBER.findall(line):
            digits = number.replace("_", "")
            value = int(digits, 16 if digits.startswith("0x") else 10)  # as the language reads it: 007 is 7
            kind = 0 if DECIDES.search(line) and "measure" not in line else 1
            found[kind].update(value + d for d in (-1, 0, 1) if 0 <= value + d < 1 << 64)
    return sorted(found[0]), sorted(found[1] - found[0])


def answers_of(text: str, random: Random, count: int) -> list[int]:
    """Numbers to answer with, those that the flow may decide by first."""
    first, rest = numbers_of(text)
    random.shuffle(first)
    random.shuffle(rest)
    return (first[: count - 2] + rest)[:count]


def obliging_choices(random: Random, text: str, first: Outcome) -> Iterator[Choice]:
    """VMMs that give a firmware what it may wait for: a kernel or a text where none was, an answer."""
    base = first.choice
    yield replace(base, tempmem=4, behind_kernel=4, shared=4, behind_hob=4)
    yield replace(base, tempmem=2, shared=2, behind_hob=2)
    if first.asked:
        yield from (replace(base, answers=(n,)) for n in answers_of(text, random, 6))
        yield replace(base, refuse=-1)


def file_choices(random: Random, base: Choice) -> Iterator[Choice]:
    """VMMs whose fw_cfg device answers otherwise."""
    lies = [replace(base, sizes=n) for n in range(1, len(files.SIZES))]
    lies += [replace(base, directory=n) for n in range(1, len(files.DIRECTORIES))]
    lies += [replace(base, transfers=n) for n in range(1, len(files.TRANSFERS))]
    yield from random.sample(lies, 6)
    yield from (replace(base, chipset=which) for which in (-1, random.randrange(1, 12)))
    yield replace(base, shared=random.randrange(8), unsteady=1, order=random.choice((2, 3)))


def quiet_choices(random: Random, base: Choice, by_files: bool) -> Iterator[Choice]:
    """VMMs that differ from one in what a firmware does not ask for."""

    def some() -> int:
        return random.choice((1, 2, 3, 4, 5, 7))

    for _ in range(2):
        noise = replace(base, tempmem=some(), behind_hob=some(), behind_line=some(), behind_kernel=some())
        noise = replace(noise, settings=some(), order=random.choice((1, 2)), seed=random.randrange(99))
        yield replace(noise, entry=random.choice((0, 1 << 23)))
    yield replace(base, initrd=2)
    yield replace(base, line=random.choice((1, 2, 3)))
    yield replace(base, line=1, initrd=SAME_INITRD)  # the same bytes in one place or in another
    yield replace(base, line=SAME_LINE, initrd=0)
    yield replace(base, initrd=len(INITRDS) - 1)  # as long as the first one
    yield replace(base, kernel=random.choice((1, 2)))
    yield replace(base, vcpus=random.choice((-1, 1)))
    extra = [replace(base, initrd=0), replace(base, memory=16), replace(base, gpaw=1)]
    if by_files:
        yield from file_choices(random, base)
    else:
        yield replace(base, preset=random.choice((1, 2, 3)), vcpus=random.choice((0, 1)))
    yield from random.sample(extra, 2)
    yield replace(base, locked=random.randrange(1, 8))
    if random.random() < 0.1:
        yield replace(base, small=1, busy=3)


def literals_of(text: str) -> list[int]:
    """Numbers that a branch, an arm or a requirement of the flow names."""
    code = text[text.index("\nflow ") :] if "\nflow " in text else text
    lines = (line for line in code.split("\n") if SELECTS.search(line))
    found = {number.replace("_", "") for line in lines for number in NUMBER.findall(line)}
    return sorted({int(n, 16 if n.startswith("0x") else 10) for n in found} & set(range(1 << 16)))


def active_choices(random: Random, text: str, first: Outcome) -> Iterator[Choice]:
    """VMMs that answer differently, for a firmware that asks."""
    base = first.choice
    if "signed_payload(" in text:
        yield from (replace(base, signed=n) for n in range(1, 6))
        yield replace(base, signed=1, settings=random.choice((1, 2, 5)))
    if re.search(r"\bCFV\b.* from ", text):
        yield replace(base, volume=1)
    if "host_tables(" in text:
        yield from (replace(base, tables=random.randrange(1, 1 << 16)) for _ in range(6))
    if first.asked:
        numbers = answers_of(text, random, 9)
        exact = literals_of(text) or numbers
        for number in numbers:
            yield replace(base, answers=(number,))
        for number in random.sample(exact, min(len(exact), 3)):  # then another, if it asks again
            yield replace(base, answers=(number, random.choice(numbers), random.choice(numbers)))
        yield from (replace(base, refuse=which) for which in (1, 2, 3, -1))
        for number in random.sample(exact, min(len(exact), 5)):
            yield replace(base, refuse=random.choice((1, 2, 2, 3)), answers=(number,))
        yield replace(base, refuse=1, line=SAME_LINE, initrd=SAME_INITRD)
    if first.shares:
        for number in (6, *random.sample((1, 2, 3, 4, 5, 7), 3)):
            yield replace(base, shared=number)
        yield replace(base, shared=random.randrange(8), unsteady=1)
