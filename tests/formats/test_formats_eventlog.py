"""Is the event log what other readers take it for, and does it replay to the registers?"""

from __future__ import annotations

import hashlib
import struct
import subprocess
from pathlib import Path

import edk2log
import pytest
from debian import tool
from hypothesis import given
from hypothesis import strategies as st
from refusals import one_line

from formats import eventlog
from formats.errors import FieldError, FormatError, TruncatedError
from formats.eventlog import EventType


def digest(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


HOB, KERNEL, COMMAND_LINE = b"a HOB list", b"a kernel", b"console=ttyS0"
CONFIG, BLOB, SEPARATOR = (
    EventType.PLATFORM_CONFIG_FLAGS,
    EventType.EFI_PLATFORM_FIRMWARE_BLOB2,
    EventType.SEPARATOR,
)
ENTRIES = [
    eventlog.event(1, CONFIG, digest(HOB), eventlog.platform_config("td_hob", HOB)),
    eventlog.event(2, BLOB, digest(KERNEL), eventlog.blob2("td_payload", 0xA0_0000, len(KERNEL))),
    eventlog.event(
        2, CONFIG, digest(COMMAND_LINE), eventlog.platform_config("td_payload_info", COMMAND_LINE)
    ),
    eventlog.event(1, SEPARATOR, digest(bytes(4)), bytes(4)),
    eventlog.event(2, SEPARATOR, digest(bytes(4)), bytes(4)),
]
LOG = eventlog.spec_id_event() + b"".join(ENTRIES)
AREA = LOG.ljust(0x1000, b"\xff")


def by_hand(log: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """Index, type, digest and data of each event behind the first, by the PFP's tables and struct alone."""
    (size,) = struct.unpack_from("<I", log, 28)
    offset, found = 32 + size, []
    while offset < len(log) and log[offset : offset + 4] != b"\xff" * 4:
        index, kind, count, algorithm = struct.unpack_from("<IIIH", log, offset)
        assert (count, algorithm) == (1, 12)
        (length,) = struct.unpack_from("<I", log, offset + 62)
        value, data = log[offset + 14 : offset + 62], log[offset + 66 : offset + 66 + length]
        found.append((index, kind, value, data))
        offset += 66 + length
    return found


def test_first_event_by_the_specification() -> None:
    first = eventlog.spec_id_event()
    expected = struct.pack("<II20sI", 0, 3, bytes(20), 40) + b"Spec ID Event03\0"
    expected += struct.pack("<IBBBBIHHB", 0, 0, 2, 105, 2, 1, 12, 48, 7) + b"tdforge"
    assert first == expected


def test_events_read_by_hand() -> None:
    events = by_hand(AREA)
    assert [(index, kind) for index, kind, _, _ in events] == [
        (1, 0xA),
        (2, 0x8000000A),
        (2, 0xA),
        (1, 4),
        (2, 4),
    ]
    assert events[0][3] == b"td_hob".ljust(16, b"\0") + struct.pack("<I", len(HOB)) + HOB
    assert events[1][3] == b"\x0btd_payload\0" + struct.pack("<QQ", 0xA0_0000, len(KERNEL))


def test_parse_stops_at_the_fill_and_at_the_end() -> None:
    for area in (AREA, LOG, LOG + b"\xff\xff", LOG + bytes(64)):
        events = eventlog.parse(area)
        assert [item.description for item in events] == [
            "Spec ID Event03, tdforge",
            "td_hob",
            "td_payload",
            "td_payload_info",
            "separator 00000000",
            "separator 00000000",
        ]
        assert [item.rtmr for item in events] == [None, 0, 1, 1, 0, 1]
        assert [(e.mr_index, e.type, e.digest, e.data) for e in events[1:]] == by_hand(AREA)
    assert events[1].offset == len(eventlog.spec_id_event())
    assert events[1].type_name == "EV_PLATFORM_CONFIG_FLAGS"


@pytest.mark.parametrize("fill", [b"\xff", b"\0"])
def test_an_area_may_end_with_less_than_an_end_mark(fill: bytes) -> None:
    for size in range(17):
        assert len(eventlog.parse(LOG + fill * size)) == 6, size


def without_digest(index: int, kind: int, data: bytes) -> bytes:
    return struct.pack("<IIII", index, kind, 0, len(data)) + data


@pytest.mark.parametrize("data", [b"", b"data"])
@pytest.mark.parametrize("index", [0, 1])
def test_an_event_without_digests_is_read_and_extends_nothing(index: int, data: bytes) -> None:
    events = eventlog.parse(eventlog.spec_id_event() + without_digest(index, 5, data) + b"".join(ENTRIES))
    assert (events[1].mr_index, events[1].digest, events[1].data) == (index, b"", data)
    assert [e.data for e in events[2:]] == [e.data for e in eventlog.parse(LOG)[1:]]
    assert eventlog.replay(events) == eventlog.replay(eventlog.parse(LOG))
    with pytest.raises(TruncatedError, match="event data of 4 bytes, expected at most 3"):
        eventlog.parse(eventlog.spec_id_event() + without_digest(1, 5, b"data")[:-1])


def test_an_event_that_begins_like_a_fill_of_zeros_is_read() -> None:
    """Index 0, type 0 (EV_PREBOOT_CERT): 8 zero bytes, but not the end."""
    first = eventlog.event(0, 0, digest(b"cert"), b"cert")
    for place in range(6):
        entries = [*ENTRIES[:place], first, *ENTRIES[place:]]
        events = eventlog.parse(eventlog.spec_id_event() + b"".join(entries) + bytes(100))
        assert (events[1 + place].type, events[1 + place].data, len(events)) == (0, b"cert", 7)


def test_an_event_that_says_no_action_is_not_replayed() -> None:
    """Whatever register it names: PFP 10.4.5."""
    event = eventlog.event(1, EventType.NO_ACTION, digest(b"x"), b"StartupLocality\0\3")
    events = eventlog.parse(LOG + event)
    assert (events[-1].rtmr, events[-1].extended) == (0, False)
    assert eventlog.replay(events) == eventlog.replay(events[:-1])


@pytest.mark.parametrize("size", [0, 32, 39, 0x1000])
def test_a_spec_id_event_of_a_wrong_size_is_refused(size: int) -> None:
    """33 bytes and the vendor's 7 are its least."""
    with pytest.raises(TruncatedError, match=f"offset 0x20: found size {size}, expected the Spec ID event"):
        eventlog.parse(LOG[:28] + struct.pack("<I", size) + LOG[32:])


@pytest.mark.parametrize("index", [0, 5, 0xFFFFFFFF])
def test_an_event_of_no_rtmr_is_not_replayed(index: int) -> None:
    events = eventlog.parse(LOG + eventlog.event(index, EventType.ACTION, digest(b"x"), b"x"))
    assert (events[-1].rtmr, events[-1].extended) == (None, False)
    assert eventlog.replay(events) == eventlog.replay(events[:-1])


def test_a_log_of_two_algorithms_is_refused() -> None:
    two = LOG[:56] + struct.pack("<I", 2) + LOG[60:]
    with pytest.raises(FieldError, match="found 2 algorithms, the first 0xc, expected SHA-384 alone"):
        eventlog.parse(two)


def variable(name: str) -> bytes:
    return bytes(16) + struct.pack("<QQ", len(name), 3) + name.encode("utf-16-le") + b"\1\2\3"


@pytest.mark.parametrize(
    ("kind", "data", "text"),
    [
        (CONFIG, eventlog.platform_config("td_hob", b"x" * 4), "td_hob"),
        (CONFIG, eventlog.platform_config("td_payload_info!", b""), "td_payload_info!"),
        (CONFIG, b"ACPI DATA", "ACPI DATA"),
        (CONFIG, b"DirectBoot Command line\0", "DirectBoot Command line"),
        (CONFIG, b"QEMU FW CFG".ljust(16, b"\0") + b"etc/e820".ljust(56, b"\0"), "QEMU FW CFG etc/e820"),
        (BLOB, eventlog.blob2("td_payload", 1, 2), "td_payload"),
        (BLOB, b"", ""),
        (EventType.EFI_HANDOFF_TABLES2, b"\x09TdxTable\0" + bytes(16), "TdxTable"),
        (EventType.EFI_VARIABLE_DRIVER_CONFIG, variable("SecureBoot"), "SecureBoot"),
        (EventType.EFI_VARIABLE_BOOT, variable("BootOrder"), "BootOrder"),
        (EventType.EFI_VARIABLE_AUTHORITY, bytes(31), ""),
        (EventType.EFI_ACTION, b"Exit Boot Services Invocation", "Exit Boot Services Invocation"),
        (EventType.S_CRTM_VERSION, "2025.02-8\0".encode("utf-16-le"), "2025.02-8"),
        (EventType.POST_CODE, struct.pack("<QQ", 0xFF00_0000, 0x1000), ""),
        (EventType.IPL, b"grub_cmd: linux, ; \n\0", "grub_cmd: linux"),
        (EventType.IPL, b"\x1b]0;title\x07", ""),
        (EventType.EFI_GPT_EVENT, b"EFI PART", ""),
        (EventType.EVENT_TAG, struct.pack("<II", 0x8F3B22EC, 13) + b"Linux initrd\0", "Linux initrd"),
        (EventType.EVENT_TAG, struct.pack("<II", 1, 4) + b"four more", "four"),
        (EventType.EVENT_TAG, bytes(7), ""),
        (SEPARATOR, bytes(4), "separator 00000000"),
        (EventType.NO_ACTION, eventlog.spec_id_event(b"")[32:], "Spec ID Event03"),
        (EventType.NO_ACTION, eventlog.spec_id_event(b"\0\0")[32:], "Spec ID Event03"),
        (EventType.NO_ACTION, eventlog.spec_id_event(b"edk2")[32:], "Spec ID Event03, edk2"),
    ],
)  # fmt: skip
def test_a_description_is_what_a_person_can_read(kind: int, data: bytes, text: str) -> None:
    assert eventlog.Event(1, kind, bytes(48), data).description == text


@given(st.sampled_from(EventType), st.binary(max_size=80))
def test_any_event_data_give_a_description_for_a_terminal(kind: EventType, data: bytes) -> None:
    text = eventlog.Event(1, kind, bytes(48), data).description
    assert text.isascii()
    assert text == "" or text.isprintable()


def test_the_file_of_a_device_path() -> None:
    """Among other nodes, one of no length at the end."""
    image = edk2log.image("\\vmlinuz")
    other = struct.pack("<BBHQ", 4, 3, 12, 0x41_0042_0043)
    for data, text in (
        (image, "\\vmlinuz"),
        (image[:32] + other + image[32:], "\\vmlinuz"),
        (image[:32] + bytes(4) + image[32:], "\\vmlinuz"),
        (image[:32] + other, ""),
        (image[:31], ""),
    ):
        kind = EventType.EFI_BOOT_SERVICES_APPLICATION
        assert eventlog.Event(2, kind, bytes(48), data).description == text


VALUE = edk2log.variable("Boot0000", b"an option")


@pytest.mark.parametrize(
    ("kind", "data", "covered"),
    [
        (CONFIG, eventlog.platform_config("td_hob", HOB), (HOB, eventlog.platform_config("td_hob", HOB))),
        (CONFIG, eventlog.platform_config("td_hob", HOB) + b"x", ()),
        (CONFIG, b"ACPI DATA", ()),
        (SEPARATOR, bytes(4), (bytes(4),)),
        (EventType.EFI_VARIABLE_BOOT, VALUE, (b"an option", VALUE)),
        (EventType.EFI_VARIABLE_BOOT, VALUE[:31], ()),
        (EventType.EFI_VARIABLE_DRIVER_CONFIG, VALUE, (VALUE,)),
        (EventType.IPL, b"grub_cmd: set a\0", (b"set a", b"set a\0")),
        (EventType.IPL, b"kernel_cmdline: k ro", (b"k ro", b"k ro")),
        (EventType.IPL, b"MokList\0", ()),
        (BLOB, eventlog.blob2("td_payload", 1, 2), ()),
    ],
)
def test_what_a_digest_covers(kind: int, data: bytes, covered: tuple[bytes, ...]) -> None:
    event = eventlog.Event(1, kind, digest(b"something else"), data)
    assert event.hashed == covered
    assert event.consistent is (False if covered else None)
    for each in covered:
        assert eventlog.Event(1, kind, digest(each), data).consistent is True
    assert eventlog.Event(1, kind, b"", data).consistent is None


def test_replay_equals_extending_by_hand() -> None:
    registers = [bytes(48) for _ in range(4)]
    for index, _, value, _ in by_hand(AREA):
        registers[index - 1] = digest(registers[index - 1] + value)
    assert eventlog.replay(eventlog.parse(AREA)) == tuple(registers)
    separator = eventlog.Event(1, SEPARATOR, digest(bytes(4)), bytes(4))
    known = "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"
    assert eventlog.replay([separator])[0].hex() == known


def test_tpm2_eventlog_reads_it(tmp_path: Path) -> None:
    """It knows no end mark: it gets the log up to the first fill."""
    path = tmp_path / "log"
    path.write_bytes(AREA[: AREA.index(b"\xff" * 8)])
    command = [*tool("tpm2_eventlog", "tpm2-tools"), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    assert done.stdout.count("- EventNum:") == 6
    assert "Spec ID Event03" in done.stdout
    for _, _, value, _ in by_hand(AREA):
        assert f'Digest: "{value.hex()}"' in done.stdout
    assert done.stdout.count("EV_PLATFORM_CONFIG_FLAGS") == 2
    assert "EV_EFI_PLATFORM_FIRMWARE_BLOB2" in done.stdout
    rtmr = eventlog.replay(eventlog.parse(AREA))
    assert f"1  : 0x{rtmr[0].hex()}" in done.stdout
    assert f"2  : 0x{rtmr[1].hex()}" in done.stdout


@given(
    st.lists(
        st.tuples(
            st.integers(1, 4), st.integers(0, 2**32 - 1), st.binary(min_size=48, max_size=48), st.binary()
        ),
        max_size=6,
    )
)
def test_round_trip(items: list[tuple[int, int, bytes, bytes]]) -> None:
    area = eventlog.spec_id_event() + b"".join(eventlog.event(*item) for item in items) + b"\xff" * 8
    assert [(e.mr_index, e.type, e.digest, e.data) for e in eventlog.parse(area)[1:]] == items


@given(st.integers(0, len(LOG) - 1), st.integers(1, 255))
def test_a_changed_byte_gives_a_log_or_one_clear_line(offset: int, change: int) -> None:
    area = bytearray(AREA)
    area[offset] ^= change
    with one_line():
        eventlog.parse(bytes(area))


@given(st.binary(max_size=200))
def test_garbage_gives_one_clear_line(data: bytes) -> None:
    with pytest.raises(FormatError):
        eventlog.parse(data)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(TruncatedError, match=r"bytes, expected 66 bytes of cc_event_header|event data"):
        eventlog.parse(LOG[:-3])
    with pytest.raises(FieldError, match="one SHA-384 digest"):
        eventlog.parse(eventlog.spec_id_event() + struct.pack("<IIIH", 1, 4, 1, 0xB) + bytes(60))
    with pytest.raises(FieldError, match="found 2 digests, the first of algorithm 0xc, expected one SHA-384"):
        eventlog.parse(eventlog.spec_id_event() + struct.pack("<IIIH", 1, 4, 2, 0xC) + bytes(60))
    with pytest.raises(FieldError, match="expected at most 16"):
        eventlog.platform_config("a name of 17 char", b"")


def test_unknown_types_keep_their_number() -> None:
    assert eventlog.Event(1, 0x1234, bytes(48), b"").type_name == "0x1234"
