"""How does somebody break a rule on memory on purpose? Steps write where they should not."""

from __future__ import annotations

import re

from dsl.model import Bytes, RecordRef
from interference.expressions import OWNED, Impossible
from interference.scene import ENTRY
from interference.scope import inserted, replaced
from interference.trust_moves import TrustMoves

CONSTANT_BYTES = ('""', '"initrd"')
ACCEPTED = (RecordRef("Linux"), RecordRef("Executable"))  # in scope only after RAM was accepted, as shipped
FILLS = ("zero_page", "acpi_tables", "payload_hobs")


class MemoryMoves(TrustMoves):
    """Changes of a flow that break a rule of T05 or T06 unless a hint is followed."""

    def targets(self, what: str) -> list[str]:
        """Memory that is written over, by why it should not be."""
        image = self.maker.firmware.image
        match what:
            case "owned":
                return [s.name for s in image if s.name in OWNED]
            case "image":
                return [s.name for s in image if s.kind == "BFV"] + [*CONSTANT_BYTES]
            case "loaded":
                return [s.name for s in image if s.kind not in ("BFV", "TempMem")]
        return [*self.maker.sizes]

    def fill(self, what: str = "") -> str:
        """A step writes somewhere else."""
        able = self.arguments(self.is_filled)
        if not able:
            raise Impossible
        site = self.random.choice(able)
        old, new = self.written(site), self.random.choice(self.targets(what))
        if self.maker.chance(0.4):
            new = (
                f"{new}[{self.random.choice((0, 0, 16, 4096))} .. {self.random.choice((4096, 8192, 16400))}]"
            )
        if self.maker.chance(0.7) and old.isidentifier():
            return everywhere(self.kept(new.partition("[")[0]), old, new)
        return replaced(self.text, site.span, new)

    def kept(self, region: str) -> str:
        """The text with a region that the OS leaves alone, in some cases."""
        if self.maker.chance(0.4):
            return self.text
        line = re.compile(rf"^( {{8}}{region} [^/\n]*?)(?: (?:ram|acpi|reserved))?( *(?://.*)?)$", re.M)
        return line.sub(r"\1 nvs\2", self.text, count=1)

    def copy_over(self, what: str = "") -> str:
        """Bytes of the VMM's are copied over something."""
        able = [p for p in self.places if p.flow.name == ENTRY and any(t in ACCEPTED for _, t in p.scope)]
        if not able:
            raise Impossible
        place = self.random.choice(able)
        window, size = self.maker.name(), self.random.choice((8, 64, 256, 4096))
        names = [n for n, t in place.scope if t == Bytes()] if not what else []
        target = self.random.choice([*self.targets(what), *names * 3])
        start = self.random.choice((0, 0, 0, 64, 4096))
        part = target if self.maker.chance(0.3) else f"{target}[{start} .. {start + size}]"
        share = f"let {window} = share(bounce, td)?"
        copy = f"let {self.maker.name()} = copy_in({part}, {window}[0 .. {size}])?"
        return inserted(self.text, place.line, [share, copy])

    def overlap(self) -> str:
        """What a step reads lies where it writes."""
        able = [s for s in self.arguments(lambda s: s.type == Bytes()) if s.callee in FILLS]
        read = [s for s in able if not self.is_filled(s)]
        if not read:
            raise Impossible
        site = self.random.choice(read)
        filled = [s for s in able if self.is_filled(s) and s.callee == site.callee]
        window, copy = self.maker.name(), self.maker.name()
        start, size = self.random.choice((0, 64, 496, 512, 4096)), self.random.choice((16, 64, 4096))
        part = f"{self.written(filled[0])}[{start} .. {start + size}]"
        lines = [
            f"let {window} = share(bounce, td)?",
            f"let {copy} = copy_in({part}, {window}[0 .. {size}])?",
            f'measure {copy} into RTMR[1] as blob("e4")',
        ]
        return inserted(replaced(self.text, site.span, copy), site.span.line, lines)

    def small(self) -> str:
        """A step is given less memory than it fills, or memory that begins anywhere."""
        able = self.arguments(self.is_filled)
        if not able:
            raise Impossible
        old = self.written(self.random.choice(able))
        size = self.maker.sizes.get(old)
        if size is None:
            raise Impossible
        parts = [f"{old}[{self.random.choice((16, 2048))} .. {size}]"]
        parts += [f"{old}[0 .. {end}]" for end in (16, 4096) if end < size]
        parts += [n for n, less in self.maker.sizes.items() if less < size][:1]
        lines = self.text.split("\n")
        first, new = (
            next(i for i, line in enumerate(lines) if line.startswith("flow boot")),
            self.random.choice(parts),
        )
        lines[first:] = [re.sub(rf"\b{old}\b", new, line) for line in lines[first:]]
        return "\n".join(lines)

    def share_any(self) -> str:
        """Any memory is shared with the VMM."""
        place = self.place()
        own = [m.name for m in self.maker.firmware.memory] + ["scratch"]
        name = self.random.choice(own)
        part = name if self.maker.chance(0.7) else f"{name}[0 .. 4096]"
        return inserted(self.text, place.line, [f"let {self.maker.name()} = share({part}, td)?"])

    def declare(self) -> str:
        """Another E820 type or size of a region."""
        lines = self.text.split("\n")
        able = [i for i, line in enumerate(lines) if re.match(r" {8}\w+ .*\d+ [KM]iB", line)]
        index = self.random.choice(able)
        line = lines[index]
        if self.maker.chance(0.6):
            line = re.sub(r" (nvs|acpi|ram|reserved)\b", "", line.split("//")[0].rstrip())
            line += " " + self.random.choice(("nvs", "acpi", "ram", "reserved"))
        else:
            line = re.sub(r"\d+ [KM]iB", f"{self.random.choice((4, 8, 12, 16, 64))} KiB", line, count=1)
        lines[index] = line
        return "\n".join(lines)


def everywhere(text: str, old: str, new: str) -> str:
    """The flows with another region in the place of one, so that all steps are given the same."""
    lines = text.split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith(f"flow {ENTRY}"))
    lines[start:] = [re.sub(rf"\b{old}\b", new, line) for line in lines[start:]]
    return "\n".join(lines)
