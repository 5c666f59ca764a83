"""Is the event log found through CCEL and replayed to the registers?"""

from __future__ import annotations

import hashlib

import pytest

from emu import eventlog, handoff
from emu.tdx.launch import build
from emu.tdx.measure import AddedRegion, rtmr_extend
from emu.tdx.params import TdParams
from formats import acpi, linux
from formats import eventlog as format_
from formats.structs import pack

DIGESTS = [hashlib.sha384(text).digest() for text in (b"hob", b"kernel")]


def memory() -> bytearray:
    """RSDP at 0x100, XSDT at 0x200, CCEL at 0x300, log at 0x1000, boot_params at 0x4000."""
    log = format_.spec_id_event()
    log += format_.event(
        1, format_.EventType.PLATFORM_CONFIG_FLAGS, DIGESTS[0], format_.platform_config("td_hob", b"")
    )
    log += format_.event(
        2, format_.EventType.EFI_PLATFORM_FIRMWARE_BLOB2, DIGESTS[1], format_.blob2("td_payload", 1, 2)
    )
    space = bytearray(0x8000)
    space[0x1000:0x2000] = log.ljust(0x1000, b"\xff")
    body = pack(acpi.CCEL, cc_type=2, log_area_length=0x1000, log_area_address=0x1000)[acpi.HEADER.sizeof() :]
    ccel = acpi.table(b"CCEL", 1, body)
    space[0x300 : 0x300 + len(ccel)] = ccel
    xsdt = acpi.xsdt([0x7FF0, 0x300])
    space[0x200 : 0x200 + len(xsdt)] = xsdt
    rsdp = acpi.rsdp(0x200)
    space[0x100 : 0x100 + len(rsdp)] = rsdp
    header = {"header": linux.HEADER_MAGIC}
    table = [{"addr": 0, "size": 0x9F000, "type": 1}, {"addr": 0x100000, "size": 0x1000, "type": 3}]
    page = pack(linux.BOOT_PARAMS, acpi_rsdp_addr=0x100, e820_entries=2, hdr=header, e820_table=table)
    space[0x4000:0x5000] = page
    return space


def reader(space: bytearray) -> eventlog.Read:
    """A guest-physical reader over a small memory."""
    return lambda gpa, size: bytes(space[gpa : gpa + size])


def test_log_is_found_and_described() -> None:
    read = reader(memory())
    assert eventlog.locate(read, 0x100) == (0x1000, 0x1000)
    log = eventlog.fetch(read, 0x100).data
    assert handoff.take(read, 0x1234, 0x4000, (0, 0)).log.data == log
    assert [(e["rtmr"], e["description"], e["digest"]) for e in eventlog.describe(log)] == [
        (0, "td_hob", DIGESTS[0].hex()),
        (1, "td_payload", DIGESTS[1].hex()),
    ]
    replayed = eventlog.replay(log)
    assert replayed[0] == hashlib.sha384(bytes(48) + DIGESTS[0]).digest()
    assert replayed[1] == rtmr_extend(bytes(48), DIGESTS[1])
    assert replayed[2:] == (bytes(48), bytes(48))


def test_e820_is_read() -> None:
    found = handoff.take(reader(memory()), 0x1234, 0x4000, (0, 0))
    assert found.to_json()["e820"] == [[0, 0x9F000, 1], [0x100000, 0x1000, 3]]


@pytest.mark.parametrize("break_at", [0x100, 0x200 + 4, 0x300, 0x300 + 4])
def test_broken_tables_give_no_log(break_at: int) -> None:
    space = memory()
    space[break_at : break_at + 4] = b"\xff" * 4
    log = eventlog.fetch(reader(space), 0x100)
    assert log.data == b""
    assert "no CCEL among the ACPI tables of the RSDP at 0x100" in log.missing


def test_nothing_there() -> None:
    assert eventlog.fetch(reader(bytearray()), 0x100).data == b""
    assert eventlog.fetch(reader(bytearray()), 0).missing == "boot_params contain no RSDP address"
    assert eventlog.describe(b"garbage") == []
    found = handoff.take(reader(bytearray()), 1, 2, (0, 0))
    assert found.to_json() == {"entry": 1, "rsi": 2, "boot_params": None, "e820": []}
    assert "no boot_params at RSI 0x2" in found.log.missing


# By hand from the records: empty TD, unmeasured pages, a measured zero page, two pages in both orders.
PATTERN = bytes(range(256)) * 16


@pytest.mark.parametrize(
    ("regions", "order", "start"),
    [
        ([], "single-pass", "38b060a751ac9638"),
        ([AddedRegion(0, bytes(4096), False)], "single-pass", "8f3e9a8aca6784ea"),
        ([AddedRegion(0xFFFFF000, bytes(4096), False)], "single-pass", "8d411e4377a0da03"),
        ([AddedRegion(0x1000, bytes(4096), True)], "single-pass", "ca76d5541328afef"),
        ([AddedRegion(0x800000, PATTERN + bytes(4096), True)], "single-pass", "c41527c4db3ed59e"),
        ([AddedRegion(0x800000, PATTERN + bytes(4096), True)], "two-pass", "aeed2ba26d77e417"),
    ],
)
def test_mrtd_vectors(regions: list[AddedRegion], order: str, start: str) -> None:
    assert build(TdParams(), regions, 0, order).mrtd.hex().startswith(start)
