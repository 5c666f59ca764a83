"""Is the event log what verifiers read, is SHA-384 right, and is nothing written once it is full?"""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from ccore import CORE, LIB, CoreError, check, make_cpus
from debian import tool
from hypothesis import given, settings
from hypothesis import strategies as st

from dsl.capabilities import prelude
from formats import eventlog


class Log:
    """A log over memory that ends at a page nobody may touch; `extends` plays the RTMRs."""

    def __init__(self, size: int = 4096) -> None:
        self.memory = CORE.guarded(size)
        self.area = CORE.span(self.memory.address, size)
        self.log = CORE.new("log")
        self.extends: list[tuple[int, bytes]] = []
        check(LIB.start_log(self.area, self.log))

    def _digest(self, rtmr, call) -> bytes:
        digest = CORE.new("digest")
        check(call(digest))
        value = bytes(CORE.ffi.buffer(digest.bytes))
        self.extends.append((rtmr, value))
        LIB.log_commit(self.log)
        return value

    def config(self, rtmr: int, name: bytes, data: bytes) -> bytes:
        return self._digest(
            rtmr, lambda out: LIB.log_platform_config(self.log, rtmr, CORE.span(name), CORE.span(data), out)
        )

    def blob(self, rtmr: int, name: bytes, span) -> bytes:
        return self._digest(rtmr, lambda out: LIB.log_blob(self.log, rtmr, CORE.span(name), span, out))

    def number(self, rtmr: int, name: bytes, value: int) -> bytes:
        return self._digest(rtmr, lambda out: LIB.log_number(self.log, rtmr, CORE.span(name), value, out))

    def cpus(self, rtmr: int, name: bytes, count: int) -> bytes:
        cpus = make_cpus(count)
        return self._digest(rtmr, lambda out: LIB.log_cpus(self.log, rtmr, CORE.span(name), cpus, out))

    def separator(self, rtmr: int) -> bytes:
        return self._digest(rtmr, lambda out: LIB.log_separator(self.log, rtmr, out))

    def content(self) -> bytes:
        return CORE.content(self.area)

    def registers(self) -> tuple[bytes, ...]:
        values = [bytes(48)] * 4
        for rtmr, digest in self.extends:
            values[rtmr] = hashlib.sha384(values[rtmr] + digest).digest()
        return tuple(values)


def filled() -> tuple[Log, int]:
    log = Log()
    kernel = CORE.span(b"kernel" * 1000)
    assert log.config(0, b"td_hob", b"the list") == hashlib.sha384(b"the list").digest()
    assert log.blob(1, b"td_payload", kernel) == hashlib.sha384(b"kernel" * 1000).digest()
    log.config(1, b"td_payload_info!", b"console=ttyS0")
    assert log.separator(0) == hashlib.sha384(bytes(4)).digest()
    log.separator(1)
    return log, CORE.address(kernel.data)


def test_bytes_are_those_of_the_independent_writer():
    log, address = filled()
    hashed = [b"the list", b"kernel" * 1000, b"console=ttyS0", bytes(4), bytes(4)]
    data = [
        eventlog.platform_config("td_hob", b"the list"),
        eventlog.blob2("td_payload", address, 6000),
        eventlog.platform_config("td_payload_info!", b"console=ttyS0"),
        bytes(4),
        bytes(4),
    ]
    kinds = [0xA, 0x8000000A, 0xA, 4, 4]
    expected = eventlog.spec_id_event() + b"".join(
        eventlog.event(index, kind, hashlib.sha384(of).digest(), body)
        for index, kind, of, body in zip([1, 2, 2, 1, 2], kinds, hashed, data, strict=True)
    )
    assert log.content() == expected.ljust(4096, b"\xff")
    assert log.log.used == len(expected)
    assert log.log.pending == 0


def test_replays_to_the_registers():
    log, _ = filled()
    assert eventlog.replay(eventlog.parse(log.content())) == log.registers()


def test_tpm2_eventlog_reads_it(tmp_path):
    log, _ = filled()
    (tmp_path / "log").write_bytes(log.content()[: log.log.used])
    said = subprocess.run(
        [*tool("tpm2_eventlog", "tpm2-tools"), str(tmp_path / "log")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for text in ("EV_PLATFORM_CONFIG_FLAGS", "EV_EFI_PLATFORM_FIRMWARE_BLOB2", "EV_SEPARATOR", "sha384"):
        assert text in said


def test_an_event_that_was_not_committed_leaves_no_trace():
    log = Log()
    log.separator(0)
    before = log.log.used
    out = CORE.new("digest")
    check(LIB.log_platform_config(log.log, 0, CORE.span(b"x"), CORE.span(bytes(500)), out))
    assert log.log.used == before
    log.separator(1)
    used = log.log.used
    assert used == before + 70
    assert log.content()[used:] == b"\xff" * (4096 - used)


def test_keeps_eight_bytes_of_fill_and_writes_nothing_when_full():
    spec = len(eventlog.spec_id_event())
    with pytest.raises(CoreError, match="log_full"):
        Log(spec + 7)
    log = Log(spec + 8 + 70)
    log.separator(0)
    assert log.content()[-8:] == b"\xff" * 8
    smaller = Log(spec + 7 + 70)
    before = smaller.content()
    for call in (
        lambda: smaller.separator(0),
        lambda: smaller.config(0, b"a", b""),
        lambda: smaller.blob(0, b"a", CORE.span(b"")),
    ):
        with pytest.raises(CoreError, match="log_full"):
            call()
    assert smaller.content() == before
    assert smaller.extends == []


def test_nothing_is_written_where_an_event_does_not_fit():
    spec = len(eventlog.spec_id_event())
    for size in range(spec + 8, spec + 8 + 70):
        log = Log(size)
        with pytest.raises(CoreError, match="log_full"):
            log.separator(0)
        assert log.content() == eventlog.spec_id_event().ljust(size, b"\xff")


def test_books_that_are_wrong_lead_nowhere():
    log = Log()
    before, used = log.content(), log.log.used
    log.log.used = 4097
    with pytest.raises(CoreError, match="log_full"):
        log.separator(0)
    log.log.used, log.log.pending = used, 4097 - used
    LIB.log_commit(log.log)
    assert (log.log.used, log.log.pending, log.content()) == (used, 0, before)
    log.log.pending = 1 << 40
    log.separator(0)
    assert log.log.used == used + 70


@pytest.mark.parametrize("size", [15, 16, 17, 300])
def test_a_descriptor_is_cut_to_its_field(size):
    log = Log()
    assert log.config(0, b"n" * size, b"data") == hashlib.sha384(b"data").digest()
    (_, event) = eventlog.parse(log.content())
    assert event.data == eventlog.platform_config("n" * min(size, 16), b"data")


def test_more_cpus_than_a_list_holds_are_refused():
    log = Log(1 << 14)
    most = prelude().constants["MAX_CPUS"].value
    log.cpus(0, b"td_cpus", most)
    with pytest.raises(CoreError, match="cpus_too_many"):
        log.cpus(0, b"td_cpus", most + 1)


@pytest.mark.parametrize("size", [253, 254, 255, 300])
def test_a_name_is_cut_to_what_its_length_byte_can_say(size):
    """The byte counts the NUL as well: UEFI_PLATFORM_FIRMWARE_BLOB2, PFP 10.2.5."""
    log = Log()
    log.blob(1, b"n" * size, CORE.span(b"data"))
    (_, event) = eventlog.parse(log.content())
    kept = min(size, 254)
    assert event.data[: kept + 2] == bytes([kept + 1]) + b"n" * kept + b"\0"
    assert len(event.data) == 1 + kept + 1 + 16


def test_size_beyond_32_bits_is_refused_before_it_is_hashed():
    log = Log()
    for size in ((1 << 32) - 10, 1 << 32, (1 << 64) - 1):
        with pytest.raises(CoreError, match="log_full"):
            check(
                LIB.log_platform_config(log.log, 0, CORE.span(b"x"), CORE.span(0, size), CORE.new("digest"))
            )


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=16), st.binary(max_size=300)), max_size=20))
def test_any_events_parse_and_replay(events):
    log = Log(2048)
    logged = 0
    for rtmr, name, data in events:
        try:
            log.config(rtmr, name, data)
        except CoreError:
            assert log.log.used + 86 + len(data) + 8 > 2048
            continue
        logged += 1
    parsed = eventlog.parse(log.content())
    assert len(parsed) == logged + 1
    assert eventlog.replay(parsed) == log.registers()


def sha384(data: bytes) -> bytes:
    out = CORE.ffi.new("uint8_t[48]")
    LIB.sha384(CORE.span(data), out)
    return bytes(out)


def test_sha384_at_all_short_lengths():
    for size in range(301):
        data = bytes((i * 37 + size) & 255 for i in range(size))
        assert sha384(data) == hashlib.sha384(data).digest(), size


@pytest.mark.parametrize(
    "sizes", [(100, 28), (64, 64, 1), (128, 128), (1, 127, 5), (0, 128), (111, 1), (1, 400)]
)
def test_sha384_of_pieces_that_end_a_block(sizes):
    in_pieces([bytes((i * 7 + size) & 255 for i in range(size)) for size in sizes])


@given(st.lists(st.binary(max_size=400), max_size=8))
def test_sha384_in_pieces(pieces):
    in_pieces(pieces)


def in_pieces(pieces):
    state, out = CORE.new("sha384"), CORE.ffi.new("uint8_t[48]")
    LIB.sha384_start(state)
    for piece in pieces:
        LIB.sha384_update(state, CORE.span(piece))
    LIB.sha384_finish(state, out)
    assert bytes(out) == hashlib.sha384(b"".join(pieces)).digest()


def test_a_number_is_eight_bytes_with_the_low_byte_first():
    log, value = Log(), 0x1122334455667788
    content = value.to_bytes(8, "little")
    digest = hashlib.sha384(content).digest()
    assert log.number(0, b"cpus", value) == digest
    (event,) = eventlog.parse(log.content())[1:]
    assert event.data == eventlog.platform_config("cpus", content)
    assert event.digest == digest


@pytest.mark.parametrize("count", [0, 1, 2, 300])
def test_cpus_are_a_count_and_their_ids(count):
    log = Log()
    assert log.number(0, b"before", 1)
    content = b"".join(number.to_bytes(4, "little") for number in (count, *range(count)))
    digest = hashlib.sha384(content).digest()
    assert log.cpus(0, b"td_cpus", count) == digest
    event = eventlog.parse(log.content())[2]
    assert event.data == eventlog.platform_config("td_cpus", content)
    assert event.digest == digest


@pytest.mark.parametrize("content", [b"", b"abc", bytes(range(256)) * 9])
def test_a_digest_of_bytes(content):
    out = CORE.new("digest")
    LIB.digest(CORE.span(content), out)
    assert bytes(CORE.ffi.buffer(out.bytes)) == hashlib.sha384(content).digest()
