"""Does an event log fit registers, its own data, and files? Names the first event that does not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha384

from formats.eventlog import DIGEST_SIZE, Event, EventType, Separator, replay
from tdforge.evidence import Evidence

MAX_SEARCH = 512  # events of a register; trying each change of a log takes time with their square
SEPARATORS = {sha384(int(value).to_bytes(4, "little")).digest(): value for value in Separator}


@dataclass(frozen=True)
class Finding:
    """`what` was looked at, whether it fits, and in words why not or how; `event`: the number of the first
    event that does not fit, if there is one.
    """

    what: str
    fits: bool
    text: str
    event: int | None = None


def name(number: int, event: Event) -> str:
    """An event by its number in the log, the Spec ID event being 0, with what can be read of it."""
    return f"event {number} ({', '.join(filter(None, (event.type_name, event.description)))})"


def short(digest: bytes) -> str:
    """Enough of a digest to find it."""
    return f"{digest.hex()[:16]}..."


def own_data(events: Sequence[Event]) -> Iterator[Finding]:
    """Events whose digest is not that of their data, where their type says that it is."""
    for number, event in enumerate(events):
        if event.consistent is False:
            text = f"{name(number, event)}: its digest is {short(event.digest)}, "
            text += f"its data give {short(sha384(event.hashed[0]).digest())}"
            yield Finding("event data", False, text, number)


def registers(
    events: Sequence[Event], evidence: Evidence, numbers: Iterable[int], files: Mapping[int, Sequence[bytes]]
) -> Iterator[Finding]:
    """Each register of `numbers`: the log's replay against what the evidence says. `files`: by the number of
    an event, the digests that the given files would have there.
    """
    replayed = replay(events)
    for register in numbers:
        wanted, what = evidence.registers.rtmr[register], f"RTMR[{register}]"
        mine = [
            (number, each) for number, each in enumerate(events) if each.rtmr == register and each.extended
        ]
        if replayed[register] == wanted:
            count = f"{len(mine)} event{'s' * (len(mine) != 1)}" if mine else "never extended"
            yield Finding(what, True, count)
        else:
            source = evidence.registers.source
            extends = evidence.extends[register] if evidence.extends is not None else None
            number, text = _misfit(mine, wanted, source, extends, files)
            yield Finding(what, False, text, number)


Mine = Sequence[tuple[int, Event]]  # the events of one register with their numbers


def _misfit(
    mine: Mine,
    wanted: bytes,
    source: str,
    extends: Sequence[bytes] | None,
    files: Mapping[int, Sequence[bytes]],
) -> tuple[int | None, str]:
    """The first event that does not fit, and why the register's value is another."""
    if not mine:
        return None, f"the log has no event of it, the {source} has {short(wanted)}"
    if extends is not None and (found := _other(mine, extends, source)):
        return found
    if not any(wanted):
        number, event = mine[0]
        return (
            number,
            f"{name(number, event)} is in the log, but the {source} has no extend of it",
        )
    if found := _missing(mine, wanted, source):
        return found
    if len(mine) <= MAX_SEARCH and (found := _changed(mine, wanted, source, files)):
        return found
    for number, event in mine:
        if event.consistent is False:
            return number, f"{name(number, event)}: its digest is not that of its data"
    text = f"the log gives {short(_extend(bytes(DIGEST_SIZE), _digests(mine)))}, "
    text += f"the {source} has {short(wanted)}: more than one event differs, or others followed the log"
    return None, text


def _digests(mine: Mine) -> list[bytes]:
    return [event.digest for _, event in mine]


def _extend(register: bytes, digests: Iterable[bytes]) -> bytes:
    for digest in digests:
        register = sha384(register + digest).digest()
    return register


def _other(mine: Mine, extends: Sequence[bytes], source: str) -> tuple[int | None, str] | None:
    """Where the evidence lists what was extended: the first event that is another there."""
    for (number, event), digest in zip(mine, extends, strict=False):
        if event.digest != digest:
            text = f"{name(number, event)} has digest {short(event.digest)}, the {source} {short(digest)}"
            return number, text
    if len(mine) > len(extends):
        number, event = mine[len(extends)]
        return number, f"{name(number, event)} is in the log, but not in the {source}"
    if len(mine) < len(extends):
        digest = extends[len(mine)]
        return None, f"the {source} has an event behind the last one of the log, with digest {short(digest)}"
    return None


def _missing(mine: Mine, wanted: bytes, source: str) -> tuple[int | None, str] | None:
    """A register that stands where the log was not yet at its end, or went on behind it."""
    register = bytes(DIGEST_SIZE)
    for number, event in mine:
        if register == wanted:
            text = f"{name(number, event)} is in the log, but the {source} has the register before it"
            return number, text
        register = sha384(register + event.digest).digest()
    for digest, value in SEPARATORS.items():
        if _extend(register, [digest]) == wanted:
            failed = "; the firmware failed after it wrote the log" if value == Separator.ERROR else ""
            return None, f"the {source} has one more separator of value {int(value)} than the log{failed}"
    return None


def _changed(
    mine: Mine, wanted: bytes, source: str, files: Mapping[int, Sequence[bytes]]
) -> tuple[int, str] | None:
    """The event that has to be left out, repeated, moved behind the next or given another digest."""
    digests, before = _digests(mine), bytes(DIGEST_SIZE)
    for index, (number, event) in enumerate(mine):
        rest, this = digests[index + 1 :], event.digest
        if _extend(before, rest) == wanted:
            return number, f"{name(number, event)} is in the log, but not in the {source}"
        if _extend(before, [this, this, *rest]) == wanted:
            return number, f"{name(number, event)} is once in the log, but twice in the {source}"
        if rest and _extend(before, [rest[0], this, *rest[1:]]) == wanted:
            other = name(*mine[index + 1])
            return number, f"{name(number, event)} is before {other} in the log, behind it in the {source}"
        for digest, why in _others(number, event, files):
            if _extend(before, [digest, *rest]) == wanted:
                text = f"{name(number, event)} has digest {short(this)} in the log, "
                return number, text + f"{short(digest)} in the {source}, {why}"
        before = sha384(before + this).digest()
    return None


def _others(number: int, event: Event, files: Mapping[int, Sequence[bytes]]) -> Iterator[tuple[bytes, str]]:
    """Digests that an event may have had instead."""
    for raw in event.hashed:
        yield sha384(raw).digest(), "which is that of the event's data"
    for digest in files.get(number, ()):
        yield digest, "which is that of the given file"
    if event.type == EventType.SEPARATOR:
        for digest, value in SEPARATORS.items():
            yield digest, f"a separator of value {int(value)}"
