"""What is each rule of the compiler for? What is taken out with it, and why nobody misses some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsl.rules import RULES

# Rules that another stands behind: what the one lets pass, the other refuses
BEHIND = {
    "recorded size": ("measured argument",),
    "recorded place": ("measured argument",),
    "write rw": ("owned",),
}
# Rules that a check of the running firmware stands behind: of the size and the alignment of what a step fills
CHECKED_AT_RUN_TIME = ("carved", "span")

# Rules whose absence no run shows, and why: they tell an author at once what would otherwise end a boot in an
# error, or come to nothing.
NO_ROOM = "the C core logs no event that does not fit: the boot ends in an error"
UNNOTICED: dict[str, str] = {
    "repeat": "no primitive makes a list of what was not measured, so that each count is recorded",
    "bounded argument": "the number is recorded: the boot is that of a flow with a constant in its place",
    "bounded index": "generated code checks each slice and index: beyond its end the boot ends in an error",
    "read once": "each copy is untrusted until it is measured itself (measured argument)",
    "abandoned step": "no VMM makes a handoff fail; a second one starts the same placement (missing mark)",
    "write loaded": "what was found there is untrusted from then on (measured argument, write over)",
    "log text": "the C core cuts a name to what its event holds, and no digest covers the name",
    "log size": NO_ROOM,
    "log room": NO_ROOM,
    "ends": "the verifier of the model, which stands behind it, refuses the flow: no image is built",
    "unread": "a verdict that nobody reads decides nothing: the boot is that of a flow without it",
    "unreachable": "a statement that is never reached does nothing",
    "calls": "it bounds how long the compiler follows calls; what it refuses could be followed",
}


def without(rule: str) -> frozenset[str]:
    """What is taken out to see what a rule is for: it, and what would refuse the same flows for it."""
    return frozenset({rule, *BEHIND.get(rule, ())}) if rule else frozenset()


@dataclass(frozen=True)
class Proof:
    """What became of the search for a counterexample without a rule: how many flows that this rule refuses
    were built and run, the last of which shows what the rule is for; `found` is empty if none does.
    """

    rule: str
    flows: int
    found: str
    seconds: float = 0

    @property
    def explained(self) -> bool:
        """Whether it was found, or why not is known."""
        return bool(self.found) or self.rule in UNNOTICED

    def figures(self) -> dict[str, object]:
        """For a file."""
        return {
            "flows": self.flows,
            "found": self.found or None,
            "reason": None if self.found else UNNOTICED.get(self.rule),
            "also taken out": also(self.rule) or None,
            "seconds": round(self.seconds, 1),
        }

    def row(self) -> str:
        """For docs/threat-model.md."""
        seen = self.found.replace("|", "-") or UNNOTICED.get(self.rule, "**not explained**")
        flows = str(self.flows) if self.found else f"none of {self.flows}"
        return f"| {self.rule} | {also(self.rule)} | {flows} | {seen} |"


def also(rule: str) -> str:
    """What is taken out with a rule, for a reader."""
    return ", ".join(BEHIND.get(rule, ())) or ("check at run time" if rule in CHECKED_AT_RUN_TIME else "")


# ---- the table for readers

PAGE = "docs/threat-model.md"
BEGIN, END = "<!-- nox -s interference -- --prove --table -->", "<!-- end -->"
HEAD = (
    "| Rule | Taken out with it | Flows until noticed | What is seen then, or why nothing |",
    "|---|---|---|---|",
)


def table(proofs: Iterable[Proof]) -> str:
    """Those that were noticed first."""
    ordered = sorted(proofs, key=lambda p: (not p.found, list(RULES).index(p.rule)))
    return "\n".join([*HEAD, *(p.row() for p in ordered)])


def with_table(page: str, proofs: Iterable[Proof]) -> str:
    """The page with this table in the place of the one that it has."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no `{BEGIN}` and `{END}` in {PAGE}")
    return f"{head}{begin}\n{table(proofs)}\n{end}{tail}"


def rows(page: str) -> Mapping[str, tuple[str, str, str]]:
    """What the table of a page says of each rule: what is taken out with it, flows, and what was seen."""
    lines = page.partition(BEGIN)[2].partition(END)[0].strip().split("\n")[len(HEAD) :]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    return {c[0]: (c[1], c[2], c[3]) for c in cells}
