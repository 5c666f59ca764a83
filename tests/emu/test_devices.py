"""What do the VMM's devices and its quoting service answer?"""

from __future__ import annotations

import guest
import pytest

from emu.api import RunConfig, run
from emu.cpu.apic import Message
from emu.signals import EmuError, End
from emu.vmm import aml
from emu.vmm.devices.bus import Ports
from emu.vmm.devices.clock import cmos_memory, parse_time
from emu.vmm.devices.ioapic import BASE, IoApic
from formats.registers import R10, R11, R12, R13, RCX

SHARED = 1 << 47


def test_clock_starts_where_it_is_told_and_runs() -> None:
    elapsed = [0.0]
    ports = Ports(lambda _: None, elapsed=lambda: elapsed[0], epoch="2031-12-31T23:59:58")

    def clock() -> list[int]:
        def register(number: int) -> int:
            ports.write(0x70, 1, number)
            return ports.read(0x71, 1)

        return [register(number) for number in (0x32, 9, 8, 7, 4, 2, 0, 6)]

    assert clock() == [0x20, 0x31, 0x12, 0x31, 0x23, 0x59, 0x58, 4]  # a Wednesday
    elapsed[0] = 3.5
    assert clock() == [0x20, 0x32, 0x01, 0x01, 0, 0, 0x01, 5]


def test_the_clock_stops_at_the_end_of_time() -> None:
    ports = Ports(lambda _: None, elapsed=lambda: 1e6, epoch="9999-12-31T23:59:58")
    assert [ports.clock.register(register) for register in (0x32, 9, 4, 0)] == [0x99, 0x99, 0x23, 0x59]


@pytest.mark.parametrize(
    ("ram", "base", "extended", "above_16m", "above_4g"),
    [
        ([(0, 256 << 20)], 640, 0xFFFF, 240 << 4, 0),
        ([(0, 16 << 20)], 640, 15 << 10, 0, 0),
        ([(0, 3 << 30), (4 << 30, 5 << 30)], 640, 0xFFFF, (3072 - 16) << 4, 1024 << 4),
        ([(1 << 20, 2 << 20)], 0, 0, 0, 0),
    ],
)
def test_cmos_tells_how_much_memory_there_is(
    ram: list[tuple[int, int]], base: int, extended: int, above_16m: int, above_4g: int
) -> None:
    ports = Ports(lambda _: None, cmos=cmos_memory(ram))

    def number(*registers: int) -> int:
        return sum(ports.clock.register(register) << 8 * place for place, register in enumerate(registers))

    assert number(0x15, 0x16) == base
    assert number(0x17, 0x18) == number(0x30, 0x31) == extended
    assert number(0x34, 0x35) == above_16m
    assert number(0x5B, 0x5C, 0x5D) == above_4g
    assert ports.clock.register(0x0B) == 2


def test_time_that_is_none() -> None:
    assert parse_time("2026-02-03 04:05:06").hour == 4
    assert parse_time("2026-02-03T04:05:06+02:00").hour == 2
    with pytest.raises(EmuError, match="expected a date and time"):
        parse_time("noon")
    with pytest.raises(EmuError, match="expected a date and time"):
        parse_time("0001-01-01T00:00:00+02:00")


@pytest.mark.parametrize(
    ("port", "size", "value", "reason"),
    [
        (0x604, 2, 0x3401, "shutdown"),
        (0x64, 1, 0xFE, "reset"),
        (0xCF9, 1, 6, "reset"),
        (0xF4, 4, 0x10, "debug-exit"),
    ],
)
def test_ports_that_end_the_run(port: int, size: int, value: int, reason: str) -> None:
    ports = Ports(lambda _: None)
    with pytest.raises(End) as end:
        ports.write(port, size, value)
    assert end.value.reason == reason
    ports.write(0x604, 2, 0x1400)  # a sleep type without the enable bit
    ports.write(0x64, 1, 0xAA)


@pytest.mark.parametrize(
    ("port", "size", "value", "wish"),
    [(0x604, 2, 0x3400, "shutdown"), (0xF4, 1, 3, "debug-exit"), (0x64, 1, 0xFE, "reset")],
)
def test_such_an_end_may_be_the_wish(port: int, size: int, value: int, wish: str) -> None:
    registers = f"movl ${size}, %r12d; movl $1, %r13d; movl ${port}, %r14d; movl ${value}, %r15d"
    image = guest.build(f"main: {registers}\n vmcall 0x1E\n halt\n").image
    for until in (wish, "halt"):
        report = run(RunConfig(image, "guest.bin", memory=guest.MEMORY, until=until))
        assert report.end["reason"] == wish
        assert report.met == (until == wish)


def test_io_apic_sends_on_rising_edges_unless_masked() -> None:
    sent: list[Message] = []
    chip = IoApic(sent.append)

    def register(number: int, value: int) -> None:
        chip.write(0, number)
        chip.write(0x10, value)

    register(0x18, 0x10044)
    register(0x19, 0x03000000)
    chip.set_line(4, True)
    assert sent == []
    register(0x18, 0x44)
    chip.set_line(4, True)
    assert sent == []
    chip.set_line(4, False)
    chip.set_line(4, True)
    assert sent == [Message(0x44, 0, 3, logical=False)]
    assert (chip.read(0x10), chip.read(0)) == (0x44, 0x18)
    register(0x19, 0x03020000)  # bit 8 of the APIC id
    chip.set_line(4, False)
    chip.set_line(4, True)
    assert sent[1:] == [Message(0x44, 0, 0x103, logical=False)]
    chip.write(0, 1)
    assert chip.read(0x10) == 0x00170011
    register(0x40, 0xFFFFFFFF)  # behind the last pin
    assert chip.read(0x10) == 0


def test_device_memory_elsewhere_is_empty() -> None:
    ports = Ports(lambda _: None)
    ports.write_memory(0xD0000000, 4, 1)
    assert ports.read_memory(0xD0000000, 8) == 0
    ports.write_memory(BASE, 4, 1)
    assert ports.read_memory(BASE + 0x10, 4) == 0x00170011


def test_quote_is_plainly_none_and_is_notified() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:

        def call(function: int, r12: int, r13: int = 0) -> list[int]:
            r = [0] * 16
            r[RCX], r[R11], r[R12], r[R13] = 0xFC00, function, r12, r13
            td.vmm.handle(0, r)
            return r

        td.vcpus[0].apic.write(0x80F, 0x1FF)
        assert call(0x10000, 1)[R10 : R12 + 1] == [0, 2, 0]
        assert call(0x10000, 2)[R10] == 1 << 63
        assert call(0x10004, 0x51)[R10] == 0
        assert call(0x10001, 0x900000 | SHARED, 0x2000)[R10] == 0
        report = bytes(range(256)) * 4
        request = (1).to_bytes(8, "little") + bytes(8) + (1024).to_bytes(4, "little") + bytes(4) + report
        td.memory.write(0x900000, request, shared=True)
        assert call(0x10002, 0x900000 | SHARED, 0x3000)[R10] == 1 << 63  # its end is not shared
        assert call(0x10002, 0x900000 | SHARED, 0x2000)[R10] == 0
        answer = td.memory.read(0x900000, 0x2000, shared=True)
        size = int.from_bytes(answer[20:24], "little")
        text = answer[24 : 24 + size]
        assert answer[8:16] == bytes(8)
        assert text.startswith(b"EMULATED, NOT A QUOTE")
        assert report[128:192].hex().encode() in text
        assert not any(answer[24 + size :])
        assert td.vcpus[0].apic.irr == 1 << 0x51


def test_package_lengths() -> None:
    assert aml.package_length(0x3E) == b"\x3f"
    assert aml.package_length(0x3F) == b"\x41\x04"
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c41d00501")
