"""How do two hand-overs with equal registers differ? Which differences are documented?"""

from __future__ import annotations

from dataclasses import dataclass

from emu.oracle.shown import PARTS, Shown

Evidence = tuple[str, tuple[str, ...]]  # MRTD and the RTMRs: all that a verifier sees of a TD


@dataclass(frozen=True)
class Difference:
    """One part of a hand-over that two VMMs could choose without a trace."""

    part: str
    one: object
    other: object

    def text(self, width: int = 160) -> str:
        """Both values, from where they differ if they are long."""
        one, other = repr(self.one), repr(self.other)
        same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), 0)
        start = max(0, same - 40) if max(len(one), len(other)) > width else 0
        lead = "..." if start else ""
        return " / ".join(lead + each[start : start + width] for each in (one, other))


@dataclass(frozen=True)
class Exemption:
    """A difference that is documented: what the VMM chooses, what it changes, and why that is accepted."""

    channel: str  # a field of emu.oracle.chosen.Choice
    part: str  # one of PARTS
    reason: str


# docs/threat-model.md has the same table for readers; a test holds the two together.
EXEMPTIONS: tuple[Exemption, ...] = ()


def differences(one: Shown, other: Shown) -> list[Difference]:
    """Every part that is not the same, in the order of PARTS."""
    pairs = ((part, one.parts.get(part), other.parts.get(part)) for part in PARTS)
    return [Difference(part, a, b) for part, a, b in pairs if a != b]


def is_exempt(channels: set[str], part: str) -> bool:
    """Whether each of the choices that make the difference is documented for this part."""
    named = {e.channel for e in EXEMPTIONS if e.part == part}
    return bool(channels) and channels <= named
