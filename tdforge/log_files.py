"""Does an event log have these files? Finds each by the digests that boot firmware makes of it.

Sources: docs/event-log.md; td-shim (whole sections); EDK2 OvmfPkg, whose images are measured as Microsoft's
"Windows Authenticode Portable Executable Signature Format" says; GRUB and Linux's EFI stub for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha384
from pathlib import Path

from formats import bundle, elf, eventlog, linux, pe
from formats.errors import FormatError
from formats.eventlog import Event, EventType
from formats.structs import offset_of, size_of, unpack
from formats.units import MIB, PAGE
from tdforge.log_verify import Finding, name, short

# Names of events by what they measure: tdforge and td-shim, EDK2, systemd-stub, Linux's EFI stub
KERNEL = ("td_payload", ".linux")
ENTRY = "td_entry"
SYSTEM_RTMR = 3  # UEFI 2.10 section 38.4.1: no firmware extends it
INITRD = ("initrd", "Linux initrd", ".initrd")
COMMAND_LINE = (
    "td_payload_info",
    "command_line",
    "cmdline",
    "DirectBoot Command Line",
    ".cmdline",
    "LOADED_IMAGE::LoadOptions",
)
GRUB_COMMAND_LINE = b"kernel_cmdline: "  # then the kernel's path
EDK2_INITRD = " initrd=initrd"  # what OVMF's direct boot adds to the command line
# What a host writes into a bzImage's setup header, docs/event-log.md; what QEMU does for its direct boot
HOST_FIELDS = (
    "vid_mode",
    "type_of_loader",
    "ramdisk_image",
    "ramdisk_size",
    "heap_end_ptr",
    "cmd_line_ptr",
    "setup_data",
)
FIRST_PIECE = PAGE  # bytes of the setup part that Alioth keeps
QEMU_BYTES = {0x210: b"\xb0", 0x211: b"\x81", 0x224: b"\x00\xfe", 0x228: b"\x00\x00\x02\x00"}

MAX_MEASURED = 256 * MIB  # bytes of a section that is looked at with what lies behind the file

Digests = list[tuple[bytes, str]]  # with words for what each covers


@dataclass(frozen=True)
class Given:
    """A file, or a command line (`text`), that the log should have. `fixed`: its digests whatever the event;
    `sized`: those that an event's own address and length make.
    """

    what: str
    label: str
    data: bytes
    names: tuple[str, ...]
    fixed: Digests
    sized: Callable[[Event], Digests]
    text: str | None = None


def kernel(data: bytes, path: Path, both: Digests) -> Given:
    """A bzImage, a vmlinux or an EFI executable; `both`: with the initrd."""
    fixed = [(data, "the file")]
    if linux.is_marked(data):
        fixed += _bzimage(data)
    elif data.startswith(elf.MAGIC):
        fixed += [(data[: end.stop], "the ELF file without what follows") for end in _elf_end(data)]
    hashed = [(sha384(raw).digest(), how) for raw, how in fixed]
    if pe.is_executable(data):
        images = (
            (data, "the image in the file"),
            (_as_qemu(data), "the image as QEMU's direct boot changes it"),
        )
        hashed += [(digest, how) for raw, how in images if (digest := pe.authenticode(raw))]
    return Given("kernel", str(path), data, KERNEL, [*both, *hashed], lambda event: _placed(data, event))


def initrd(data: bytes, path: Path, both: Digests) -> Given:
    """An initrd, whatever is in it; `both`: with the kernel."""
    fixed = [*both, (sha384(data).digest(), "the file")]
    return Given("initrd", str(path), data, INITRD, fixed, lambda event: _padded(data, event))


def both(kernel_file: bytes, initrd_file: bytes) -> Digests:
    """Of kernel and initrd that travel as one payload; none if the kernel is no kernel."""
    try:
        return [(sha384(bundle.write(kernel_file, initrd_file)).digest(), "kernel and initrd in one payload")]
    except FormatError:
        return []


def command_line(text: str) -> Given:
    """The command line without a NUL."""
    fixed = []
    for each, added in ((text, ""), (text + EDK2_INITRD, f" and `{EDK2_INITRD}`")):
        for end, nul in (("", ""), ("\0", ", with a NUL")):
            fixed.append(
                (sha384((each + end).encode("utf-8", "surrogateescape")).digest(), f"the text{added}{nul}")
            )
            wide = (each + end).encode("utf-16-le", "surrogatepass")
            fixed.append((sha384(wide).digest(), f"the text{added} in UTF-16{nul}"))
    raw = text.encode("utf-8", "surrogateescape")
    return Given("command line", "", raw, COMMAND_LINE, fixed, lambda event: _padded(raw, event), text)


def find(events: Sequence[Event], given: Sequence[Given]) -> Iterator[Finding]:
    """For each that was given: the first event of its kind in each register decides, as what follows may be
    the system's. Where none has a name of its kind, any event with a digest of it does.
    """
    matches = [_matches(events, each) for each in given]
    known = {digest for each in given for digest, _ in each.fixed}
    explained = {number for number, event in enumerate(events) if event.digest in known}
    explained |= {number for found in matches for number in found}
    for each, found in zip(given, matches, strict=True):
        firsts, images = _of_its_kind(events, each)
        wrong = [number for number in firsts if number not in found]
        if found and not wrong:
            number = min(found)
            text = f"{name(number, events[number])} has {found[number]}"
            yield Finding(each.what, True, text + _before(events, number, explained))
        elif named := wrong or images[-1:]:
            yield Finding(each.what, False, _differs(named[0], events[named[0]], each), named[0])
        else:
            text = "no event of the log has a digest of it, and none is of its kind"
            yield Finding(each.what, False, text)


def _matches(events: Sequence[Event], given: Given) -> dict[int, str]:
    """The events that decide, by number, of those that have what was given: in which form."""
    firsts, _ = _of_its_kind(events, given)
    found: dict[int, str] = {}
    for number in firsts or [number for number, event in enumerate(events) if _of_firmware(event)]:
        event = events[number]
        for digest, how in (*given.fixed, *(given.sized(event) if firsts else ())):
            if event.digest == digest:
                found.setdefault(number, f"the digest of {how}")
        if given.text is not None and event.consistent and logged_text(event) == _without_image(given.text):
            found.setdefault(number, "this text")
    return found


def _without_image(text: str) -> str:
    """A command line as GRUB logs it: what Linux shows has one more word in front."""
    first, _, rest = text.partition(" ")
    return rest if first.startswith("BOOT_IMAGE=") else text


def _before(events: Sequence[Event], number: int, explained: Container[int]) -> str:
    """What came before it in its register and decides as well what runs."""
    register = events[number].rtmr
    unknown = [
        name(earlier, event)
        for earlier, event in enumerate(events[:number])
        if event.rtmr == register and event.extended and not event.consistent and earlier not in explained
    ]
    return f"; unexplained before it: {unknown[0]}, {len(unknown)} in all" if unknown else ""


def _of_firmware(event: Event) -> bool:
    """RTMR[3] is the system's."""
    return event.extended and event.rtmr != SYSTEM_RTMR


def entries(events: Sequence[Event], data: bytes, path: Path) -> Iterator[Finding]:
    """Where a vmlinux is entered, if the log says so: its bytes alone do not decide what runs."""
    if not data.startswith(elf.MAGIC):
        return
    with suppress(FormatError):
        own = elf.executable(data).entry
        for number, event in enumerate(events):
            if event.description == ENTRY and event.extended and event.information is not None:
                logged = int.from_bytes(event.information, "little")
                text = f"{name(number, event)} has {logged:#x}, {path} {own:#x}"
                fits = logged == own and event.consistent is True
                yield Finding("entry", fits, text, None if fits else number)


def alternatives(events: Sequence[Event], given: Iterable[Given]) -> dict[int, list[bytes]]:
    """For each event that could be one of what was given: the digests it would have."""
    found: dict[int, list[bytes]] = {}
    for each in given:
        firsts, images = _of_its_kind(events, each)
        for number in firsts:
            digests = [digest for digest, _ in (*each.fixed, *each.sized(events[number]))]
            found.setdefault(number, []).extend(digests)
        for number in images:
            found.setdefault(number, []).extend(digest for digest, _ in each.fixed)
    return found


def _of_its_kind(events: Sequence[Event], given: Given) -> tuple[list[int], list[int]]:
    """The first event in each register that has its name, or carries a command line; then all images that
    firmware started, if it may be one.
    """
    firsts: dict[int | None, int] = {}
    images = []
    for number, event in enumerate(events):
        if not _of_firmware(event):
            continue
        if event.type == EventType.EFI_BOOT_SERVICES_APPLICATION:
            images += [number] * (given.names is KERNEL)
        elif event.digest == sha384(event.description.encode() + b"\0").digest():
            continue  # systemd-stub measures the name of a section, then the section
        elif event.description in given.names or (given.text is not None and logged_text(event) is not None):
            firsts.setdefault(event.rtmr, number)
    return list(firsts.values()), images


def logged_text(event: Event) -> str | None:
    """The command line that an event carries itself."""
    if event.information is not None and event.description in COMMAND_LINE:
        return event.information.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    if event.type == EventType.IPL and event.data.startswith(GRUB_COMMAND_LINE):
        words = event.data[len(GRUB_COMMAND_LINE) :].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        return words.partition(" ")[2]
    return None


def _differs(number: int, event: Event, given: Given) -> str:
    """Why the event that should have it does not, in words."""
    where = name(number, event)
    if given.text is not None:
        logged = logged_text(event)
        if logged is not None:
            return f'{where} has "{logged}", given is "{given.text}"'
        return f'{where} has digest {short(event.digest)}, which "{given.text}" does not give in any encoding'
    text = f"{where} has digest {short(event.digest)}"
    if event.type == EventType.EFI_PLATFORM_FIRMWARE_BLOB2 and (span := _span(event)):
        text += f" of {span[1]:,} bytes"
    file = f"{given.label} of {len(given.data):,} bytes (SHA-384 {short(sha384(given.data).digest())})"
    return f"{text}, which {file} does not give"


def _span(event: Event) -> tuple[int, int] | None:
    """Address and length that an EV_EFI_PLATFORM_FIRMWARE_BLOB2 event names."""
    start = 1 + event.data[0] if event.data else 0
    if event.type != EventType.EFI_PLATFORM_FIRMWARE_BLOB2:
        return None
    if not event.data or len(event.data) != start + eventlog.BLOB2_RANGE.sizeof():
        return None
    found = unpack(eventlog.BLOB2_RANGE, event.data, start)
    return int(found.base), int(found.length)


def _length(event: Event) -> int | None:
    """How many bytes an event says were measured."""
    if event.information is not None:
        return len(event.information)
    span = _span(event)
    return span[1] if span else None


def _padded(data: bytes, event: Event) -> Digests:
    """Of a section or a run of pages that begins with it and holds zeros behind."""
    length = _length(event)
    if length is None or length == len(data) or length > MAX_MEASURED or any(data[length:]):
        return []
    return [(_resized(data, length), f"it in {length:,} bytes, zeros behind")]


@lru_cache(16)
def _resized(data: bytes, length: int) -> bytes:
    total = sha384(data[:length])
    total.update(bytes(max(0, length - len(data))))
    return total.digest()


def _placed(data: bytes, event: Event) -> Digests:
    """As the file lies in its section, or a vmlinux's segments where they are loaded."""
    found, span = _padded(data, event), _span(event)
    if span and data.startswith(elf.MAGIC) and span[1] <= MAX_MEASURED:
        try:
            segments = elf.executable(data).segments
        except FormatError:
            return found
        memory = bytearray(span[1])
        for segment in segments:
            start = segment.physical - span[0]
            if start < 0 or (segment.data and start + len(segment.data.rstrip(b"\0")) > len(memory)):
                return found
            piece = segment.data[: len(memory) - start]
            memory[start : start + len(piece)] = piece
        found.append((sha384(memory).digest(), "its segments where they are loaded"))
    return found


def _elf_end(data: bytes) -> Iterator[slice]:
    try:
        yield slice(elf.true_length(data))
    except FormatError:
        return


def _bzimage(data: bytes) -> Iterator[tuple[bytes, str]]:
    """What hosts give of a bzImage."""
    try:
        known = linux.kernel(data)
    except FormatError:
        return
    yield data[: known.true_length], "the file up to its true length"
    host = bytearray(data[: known.true_length])
    start = linux.SETUP_HEADER_OFFSET
    for each in HOST_FIELDS:
        at, size = start + offset_of(linux.SETUP_HEADER, each), size_of(linux.SETUP_HEADER, each)
        host[at : at + size] = bytes(size)
    host[start + offset_of(linux.SETUP_HEADER, "loadflags")] &= ~linux.LoadFlags.CAN_USE_HEAP & 0xFF
    yield bytes(host), "the file without what a host writes into it"
    gap = max(0, known.setup_size - FIRST_PIECE)
    host[FIRST_PIECE : FIRST_PIECE + gap] = bytes(gap)
    yield bytes(host), "the file as Alioth gives it"


def _as_qemu(data: bytes) -> bytes:
    changed = bytearray(data)
    for at, raw in QEMU_BYTES.items():
        changed[at : at + len(raw)] = raw
    return bytes(changed)
