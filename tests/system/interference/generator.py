"""Which flows does the adversary try? Shipped ones with typed changes, and fresh ones made backwards from the
hand-over, both kept acceptable by following the compiler's hints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from random import Random

from dsl import api
from dsl.api import CheckResult
from dsl.capabilities import capabilities
from dsl.model import Bytes, Firmware, Never, Parameter, Provenance, RecordRef, Type
from interference.expressions import SUGAR, Impossible, from_vmm
from interference.hints import Hints
from interference.maker import Maker
from interference.moves import AIMED, MOVES, Moves, moved
from interference.proof import without
from interference.scope import Site, block_of, inserted, replaced, survey

CHANGES = (1, 2, 2, 3, 3, 4, 5)  # accepted changes of a flow
BREAKING = (1, 2, 2, 3, 4)  # where one of them has to break a rule
TRIES = 12  # for one accepted change
ROUNDS = 5  # of hints in a try
ENTRY = "boot"
FILLED = ("TD_HOB", "Payload", "PayloadParam")  # by the VMM
FRESH_ROUNDS = 80  # of hints for a flow that is made from nothing
FRESH_SHARE = 0.1
SOURCE_SHARE = 0.6

# What every flow of the campaign has beside what the shipped one needs: memory of each kind to go wrong with
SECTIONS = ("scratch TempMem 64 KiB", "settings CFV 4 KiB at 0xFFDF_F000")
REGIONS = (
    "mailbox 4 KiB nvs",  # too small for one: what is written behind it lies in the region above
    "bounce 64 KiB",
    "private 64 KiB nvs",
    "other_page 8 KiB ram",
    "more_tables 64 KiB acpi",
)
OWN_ABOVE = 2  # regions of the shipped flow that lie above these
MAX_REGIONS = 8  # that a RAM plan carves: rule T10
SIZES = {"code": "up to 192 KiB", "stack": "64 KiB", "event_log": "256 KiB", "payload": "256 KiB"}
SIZES |= {"initrd_window": "64 KiB", "main": "16 MiB", "anchors": "64 KiB"}
SHRUNK = ("BFV", "TempMem", "Payload", "PermMem", "CFV")
REST = "        rest TempMem 6080 KiB"  # of where a vmlinux may look for an initrd
MOVED = (*SIZES, "paging")  # what shares 2 MiB with other sections is accepted page by page
REGION = re.compile(r" {8}\w+ +\d+ [KM]iB")


# No host of a trial gives a memory map, and a signed file only where a flow begins with one: what wants more
# ends in an error.
NOT_GIVEN, SIGNED = "memory_map", "secure_boot"


def prepared(text: str) -> str:
    """A shipped flow with room to change: more memory and capabilities, small where size only costs time."""
    without = (NOT_GIVEN,) if "signed_payload(" in text else (NOT_GIVEN, SIGNED)
    text = re.sub(r"^uses .*\n", "", text, flags=re.M)
    lines = [f"uses {', '.join(name for name in capabilities() if name not in without)}"]
    memory = re.search(r"memory below[^{]*\{([^}]*)\}", text)
    own = len(REGION.findall(memory[1])) if memory else MAX_REGIONS
    fetched = "fw_cfg" in text  # files take a region each time that they come
    able = [r for r in REGIONS if not fetched or r.split()[0] in ("bounce", "private")]
    most = MAX_REGIONS - fetched
    fixed = "vmlinux" in text or "PermMem" in text  # one lies where it is linked to, the other begins there
    seen = 0
    for line in text.split("\n"):
        words = line.split()
        if words and words[0] in SIZES and len(words) > 1 and words[1] in SHRUNK:
            line = re.sub(r"(up to )?\d+ [KM]iB", SIZES[words[0]], line, count=1)
        if words[:1] and words[0] in MOVED and "CFV" not in words and not fixed:
            line = re.sub(r" at 0x[0-9A-Fa-f_]+", "", line)
        lines.append(line)
        if words[:1] == ["initrd_window"]:
            lines.append(REST)
        if words[:1] == ["event_log"] and "TempMem" in words:
            lines += [f"        {each}" for each in SECTIONS]
        seen += bool(REGION.match(line))
        if REGION.match(line) and seen == min(own, OWN_ABOVE):
            lines += [f"        {each}" for each in able[: most - own]]
    return "\n".join(lines)


@lru_cache(maxsize=512)  # a third of what a campaign asks for was asked before
def check(text: str, disabled: frozenset[str]) -> CheckResult:
    """What the compiler says of it."""
    return api.check_source(text, "x.tdf", disabled)


class Generator:
    """Flows from a seed; the same seed and number give the same flow for the same compiler. `rule`: one that
    is taken out, for flows that break it.
    """

    def __init__(self, seed: str, rule: str = "") -> None:
        self.random, self.disabled = Random(seed), without(rule)
        self.checks = 0
        self.begin = False  # the next change brings something of the VMM's
        self.changes = (self._insert, self._replace, self._aimed, self._remove)
        self.weights = (2, 2, 20, 1) if rule else (5, 5, 16, 2)
        self.moves = AIMED.get(rule, MOVES)
        self.types: dict[str, Type] = {}

    def accepted(self, text: str) -> Firmware | None:
        """The model of a flow, if the compiler takes it."""
        self.checks += 1
        return check(text, self.disabled).firmware

    def flows(self, base: str) -> Iterator[tuple[str, Firmware]]:
        """Accepted flows, each a change of the one before, that begin with a shipped one or a fresh one."""
        text = prepared(base)
        firmware = self.accepted(text)
        if firmware is None:
            raise ValueError("the shipped flow is not accepted once it is prepared")
        if self.random.random() < FRESH_SHARE and not self.disabled:
            made = self.fresh(firmware, text)
            if made is None:
                return
            text, firmware = made
            yield text, firmware
        seen = {text}
        self.begin = self.random.random() < SOURCE_SHARE and not self.disabled
        for _ in range(self.random.choice(BREAKING if self.disabled else CHANGES)):
            for _ in range(TRIES):
                changed = self.change(text, firmware)
                if changed is not None and changed[0] not in seen:  # a hint may have taken the change back
                    seen.add(changed[0])
                    text, firmware = changed
                    self.begin = False
                    yield text, firmware
                    break

    # ---- one change

    def change(self, text: str, firmware: Firmware) -> tuple[str, Firmware] | None:
        """One typed change, and what the hints then ask for; None if that was not accepted."""
        maker = Maker(self.random, firmware, text)
        literals = {int(n, 0) for n in re.findall(r"\b\d+\b", text)}
        maker.literals = (*maker.literals, *sorted(n for n in literals if n < 1 << 20))
        places, sites = survey(firmware)
        self.types = {n: t for p in places for n, t in p.scope} | {n: t for s in sites for n, t in s.scope}
        make = self._insert if self.begin else self.random.choices(self.changes, self.weights)[0]
        try:
            new = make(text, maker, places, sites)
        except Impossible:
            return None
        if maker.flows:
            new = new.rstrip("\n") + "\n" + "\n".join(maker.flows) + "\n"
        return self.settled(new, maker, ROUNDS) if new != text else None

    def settled(
        self, text: str, maker: Maker, rounds: int, give_up: bool = False
    ) -> tuple[str, Firmware] | None:
        """The text after hints were followed until it is accepted. `give_up` if one gives no advice; if not,
        the statement goes.
        """
        hints = Hints(self.random, maker, self.types)
        for _ in range(rounds):
            self.checks += 1
            result = check(text, self.disabled)
            if result.firmware is not None:
                return text, result.firmware
            changed = hints.follow(text, result.diagnostics[0], give_up)
            if changed is None or changed == text:
                return None
            text = changed
        firmware = self.accepted(text)
        return (text, firmware) if firmware is not None else None

    def _aimed(self, text: str, maker: Maker, places: list, sites: list) -> str:  # type: ignore[type-arg]
        """A change that is aimed at a rule: the one that is taken out, or any."""
        return moved(Moves(self.random, maker, text, places, sites), self.random.choice(self.moves))

    def _insert(self, text: str, maker: Maker, places: list, sites: list) -> str:  # type: ignore[type-arg]
        place = self.random.choice(places)
        new = maker.source(place.scope) if self.begin else maker.statement(place.scope)
        return inserted(text, place.line, new)

    def _replace(self, text: str, maker: Maker, places: list, sites: list) -> str:  # type: ignore[type-arg]
        mine = [s for s in sites if s.argument and any(n.startswith("v") for n, _ in s.scope)]
        among: list[Site] = mine if mine and self.random.random() < 0.7 else sites
        site = self.random.choice(among)
        line = text.split("\n")[site.span.line - 1]
        old = line[site.span.column - 1 : site.span.end_column - 1]
        if site.type == Bytes() and self.random.random() < 0.4:
            return replaced(text, site.span, maker.part(old, site.scope))
        return replaced(text, site.span, maker.of(site.type, site.scope))

    def _remove(self, text: str, maker: Maker, places: list, sites: list) -> str:  # type: ignore[type-arg]
        """A statement goes, or goes elsewhere in its flow."""
        lines = text.split("\n")
        place = self.random.choice(places)
        block = block_of(lines, place.line - 1)
        moved = [line.strip() for line in lines[block.start : block.stop]]
        left = "\n".join(lines[: block.start] + lines[block.stop :])
        if self.random.random() < 0.3:
            return left
        target = self.random.choice([p.line for p in places if p.flow.name == place.flow.name])
        target -= len(block) if target > block.start else 0
        return inserted(left, target, moved)

    # ---- from nothing

    def fresh(self, firmware: Firmware, text: str) -> tuple[str, Firmware] | None:
        """A flow that makes what a hand-over takes, from signatures alone; the hints say in which order."""
        maker = Maker(self.random, firmware, text)
        head = text[: text.index("\nflow ")]
        lines = ["    on error fatal"]
        self.types = {"td": RecordRef("VpInfo")}
        makers = [p for p in firmware.primitives.values() if not p.internal and p.name not in SUGAR]
        if all(s.kind != "PermMem" for s in firmware.image):
            makers = [p for p in makers if p.name != "image_memory"]  # which then has no memory to tell of

        own = [r.name for r in firmware.memory]
        filled = [s.name for s in firmware.image if s.kind in FILLED or s.built_in] or own

        def need(p: Parameter, depth: int) -> str:
            """Something for a parameter: what is there, what a primitive makes, or memory of its kind."""
            have = [n for n, t in self.types.items() if t == p.type]
            if have and self.random.random() < 0.8:
                return self.random.choice(have)
            if p.type == Bytes() and (p.provenance == Provenance.TRUSTED or p.mutable):
                return self.random.choice(own)
            able = [q for q in makers if q.result == p.type and not from_vmm(q)]
            if p.type == Bytes() and (depth <= 1 or self.random.random() < 0.3):
                return self.random.choice(filled)
            if not able or depth <= 0:
                return maker.of(p.type, tuple(self.types.items()))
            primitive = self.random.choice(able)
            given = [need(q, depth - 1) for q in primitive.parameters if not q.state]
            name = maker.name()
            call = f"{primitive.name}({', '.join(given)}){'?' if primitive.fallible else ''}"
            lines.append(f"    let {name} = {call}")
            self.types[name] = p.type
            return name

        handoffs = [p for p in firmware.primitives.values() if isinstance(p.result, Never)]
        handoff = self.random.choice(handoffs)
        try:
            need(Parameter("ram", RecordRef("Ram"), Provenance.TRUSTED), 5)  # what most steps wait for
            asked = [p for p in handoff.parameters if not p.state]
            given = [self.random.choice(own) if p.type == Bytes() else need(p, 5) for p in asked]
        except Impossible:
            return None
        lines.append(f"    handoff {handoff.name.removeprefix('handoff_')}({', '.join(given)})")
        body = "\n".join(["", "flow boot(td: VpInfo) -> never {", *lines, "}", ""])
        return self.settled(head + body, maker, FRESH_ROUNDS, give_up=True)
