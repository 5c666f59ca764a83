"""Does the emulated q35 configure, tell the time, power off and reset as QEMU's does?"""

from __future__ import annotations

import guest
import pytest

from emu.signals import End
from emu.vmm.devices.bus import Host, Ports
from emu.vmm.devices.ich9 import Pm, Reset
from emu.vmm.devices.pci import Pci
from emu.vmm.devices.power import TIMER_HZ
from formats.registers import R10, R11, R12, R13, R14, R15, RCX

HOST_BRIDGE, LPC, OTHER = 0x00 << 8, 0x1F << 11, 0x02 << 11
PCIEXBAR, PMBASE, ACPI_CNTL = 0x60, 0x40, 0x44
ECAM, ABSENT = 0xE0000000, 0xFFFFFFFF
EVENT, ENABLE, CONTROL, TIMER = 0x600, 0x602, 0x604, 0x608


class Board:
    """The devices of a q35 without its memory; `now` is the time in seconds."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sci: list[bool] = []
        self.pci = Pci()
        self.pm = Pm(self.pci, lambda: self.now, self.sci.append)
        self.ports = Ports(
            lambda _: None, host=Host(lambda _: (Reset(), self.pci, self.pm), aligned_only=True)
        )

    def out(self, port: int, size: int, value: int) -> None:
        """OUT."""
        self.ports.write(port, size, value)

    def inp(self, port: int, size: int) -> int:
        """IN."""
        return self.ports.read(port, size)

    def select(self, where: int, at: int) -> int:
        """Writes the address port; the data port to use."""
        self.out(0xCF8, 4, 1 << 31 | where | at & ~3)
        return 0xCFC + (at & 3)

    def get(self, where: int, at: int, size: int = 4) -> int:
        """A read of configuration space."""
        return self.inp(self.select(where, at), size)

    def put(self, where: int, at: int, size: int, value: int) -> None:
        """A write."""
        self.out(self.select(where, at), size, value)

    def bring_up(self) -> None:
        """As firmware does: ECAM, then the power-management block."""
        self.put(HOST_BRIDGE, PCIEXBAR, 4, 0)
        self.put(HOST_BRIDGE, PCIEXBAR + 4, 4, 0)
        self.put(HOST_BRIDGE, PCIEXBAR, 4, ECAM | 1)
        self.put(LPC, PMBASE, 4, EVENT | 1)
        self.put(LPC, ACPI_CNTL, 1, 0x80)


@pytest.fixture
def board() -> Board:
    """After a reset."""
    return Board()


@pytest.fixture
def up(board: Board) -> Board:
    """Programmed."""
    board.bring_up()
    return board


# -- configuration space


def test_two_functions_are_there(board: Board) -> None:
    found = {
        (bus, device, function): board.get(bus << 16 | device << 11 | function << 8, 0)
        for bus in (0, 1, 255)
        for device in range(32)
        for function in range(8)
    }
    present = {where: value for where, value in found.items() if value != ABSENT}
    assert present == {(0, 0, 0): 0x29C08086, (0, 31, 0): 0x29188086}


def test_registers_after_a_reset(board: Board) -> None:
    assert (board.get(HOST_BRIDGE, PCIEXBAR), board.get(HOST_BRIDGE, PCIEXBAR + 4)) == (0xB0000000, 0)
    assert [board.get(HOST_BRIDGE, at) for at in (0x04, 0x08, 0x2C)] == [0, 0x06000000, 0x11001AF4]
    assert [board.get(HOST_BRIDGE, at) for at in (0x90, 0x94, 0x9C)] == [0, 0, 0]  # PAM, SMRAM
    assert (board.get(LPC, PMBASE), board.get(LPC, ACPI_CNTL)) == (1, 0)
    assert [board.get(LPC, at) for at in (0x04, 0x08, 0x0C)] == [0, 0x06010002, 0x00800000]
    assert [board.get(LPC, at) for at in (0x60, 0x64, 0x68, 0x80)] == [0x80808080, 0, 0x80808080, 0x10000]


def test_what_can_be_written(board: Board) -> None:
    for where, at, expected in (
        (HOST_BRIDGE, 0x00, 0x29C08086),
        (HOST_BRIDGE, 0x04, 0x0507),
        (HOST_BRIDGE, 0x0C, 0xFF),
        (HOST_BRIDGE, 0x10, 0),
        (HOST_BRIDGE, 0x3C, 0xFF),
        (HOST_BRIDGE, 0x9C, ABSENT),
        (LPC, 0x04, 0x0507),
        (LPC, 0x0C, 0x008000FF),
        (LPC, PMBASE, 0xFF87),
        (LPC, ACPI_CNTL, ABSENT),
    ):
        board.put(where, at, 4, ABSENT)
        assert board.get(where, at) == expected, (where, at)


def test_bytes_of_a_register(board: Board) -> None:
    assert [board.get(HOST_BRIDGE, at, 1) for at in range(4)] == [0x86, 0x80, 0xC0, 0x29]
    assert [board.get(HOST_BRIDGE, at, 2) for at in (0, 2)] == [0x8086, 0x29C0]
    board.put(HOST_BRIDGE, 0x52, 1, 0x5A)
    assert board.get(HOST_BRIDGE, 0x50) == 0x5A0000


def test_the_address_port_takes_four_bytes_only(board: Board) -> None:
    board.out(0xCF8, 4, 0x80000000)
    for port, size in ((0xCF8, 1), (0xCF8, 2), (0xCFA, 2)):
        board.out(port, size, 0xF8)
    assert board.inp(0xCF8, 4) == 0x80000000
    assert board.inp(0xCFE, 2) == 0x29C0


def test_without_the_enable_bit_nobody_answers(board: Board) -> None:
    board.out(0xCF8, 4, PCIEXBAR)
    board.out(0xCFC, 4, 0)
    assert [board.inp(0xCFC, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, ABSENT]
    assert board.get(HOST_BRIDGE, PCIEXBAR) == 0xB0000000


# -- ECAM


def ecam(board: Board, where: int, at: int, size: int = 4) -> int:
    """A read through memory."""
    return board.ports.read_memory(ECAM + (where << 4) + at, size)


def test_ecam_answers_once_it_is_enabled(board: Board) -> None:
    assert board.ports.read_memory(0xB0000000, 4) == 0
    board.put(HOST_BRIDGE, PCIEXBAR, 4, ECAM)
    assert ecam(board, HOST_BRIDGE, 0) == 0
    board.bring_up()
    assert (ecam(board, HOST_BRIDGE, 0), ecam(board, LPC, 0)) == (0x29C08086, 0x29188086)
    assert (ecam(board, OTHER, 0), ecam(board, OTHER, 0, 8)) == (ABSENT, (1 << 64) - 1)
    assert ecam(board, HOST_BRIDGE, 0x100) == ABSENT  # a conventional function ends there
    assert ecam(board, HOST_BRIDGE, 2, 2) == 0x29C0
    assert board.ports.read_memory(ECAM + (1 << 28), 4) == 0


def test_a_write_through_ecam_is_one_of_configuration_space(up: Board) -> None:
    up.ports.write_memory(ECAM + 0x50, 4, 0x12345678)
    up.ports.write_memory(ECAM + (OTHER << 4), 4, 0)
    assert up.get(HOST_BRIDGE, 0x50) == 0x12345678
    up.ports.write_memory(ECAM + PCIEXBAR, 4, 0)
    assert up.ports.read_memory(ECAM, 4) == 0


@pytest.mark.parametrize(
    ("value", "window"),
    [
        (0xE0000001, (0xE0000000, 0xF0000000)),
        (0xE8000001, (0xE0000000, 0xF0000000)),  # the base is a multiple of the length
        (0xE8000003, (0xE8000000, 0xF0000000)),
        (0xE4000005, (0xE4000000, 0xE8000000)),
        (0x1_C0000001, (0x1_C0000000, 0x1_D0000000)),
        (0xE0000000, None),
    ],
)
def test_windows(board: Board, value: int, window: tuple[int, int] | None) -> None:
    board.put(HOST_BRIDGE, PCIEXBAR + 4, 4, value >> 32)
    board.put(HOST_BRIDGE, PCIEXBAR, 4, value & ABSENT)
    assert board.pci.ecam == window


def test_the_reserved_length_leaves_the_window_where_it_is(up: Board) -> None:
    up.put(HOST_BRIDGE, PCIEXBAR, 4, 0xC0000007)
    assert up.pci.ecam == (ECAM, ECAM + (1 << 28))
    assert up.get(HOST_BRIDGE, PCIEXBAR) == 0xC0000007


# -- power management


def test_the_block_needs_base_and_enable(board: Board) -> None:
    assert board.inp(CONTROL, 2) == 0xFFFF
    board.put(LPC, PMBASE, 4, EVENT | 1)
    assert board.inp(CONTROL, 2) == 0xFFFF
    board.put(LPC, ACPI_CNTL, 1, 0x80)
    assert board.inp(CONTROL, 2) == 1
    board.put(LPC, PMBASE, 4, 0xB001)
    assert (board.inp(CONTROL, 2), board.inp(0xB004, 2)) == (0xFFFF, 1)
    board.put(LPC, PMBASE, 4, 1)
    assert board.pm.ports == range(0)


def test_registers_of_the_block(up: Board) -> None:
    assert [up.inp(port, 2) for port in (EVENT, ENABLE, CONTROL)] == [1, 0, 1]
    assert [up.inp(port, 2) for port in (0x606, 0x60C, 0x61E, 0x638, 0x65E)] == [0xFFFF] * 5
    assert [up.inp(port, 4) for port in (0x620, 0x628, 0x630, 0x634)] == [0, 0, 0x20, 0]
    assert [up.inp(0x630, size) for size in (1, 2)] == [0, 0]
    assert [up.inp(port, 2) for port in (0x660, 0x66A, 0x670, 0x672)] == [0, 8, 3, 4]
    assert (up.inp(EVENT, 4), up.inp(CONTROL, 4)) == (0, 0)  # too wide
    up.out(ENABLE, 2, 0x0100)
    up.out(0x628, 4, 0x12345678)
    assert (up.inp(ENABLE, 2), up.inp(0x628, 4), up.inp(0x629, 1)) == (0x100, 0x12345678, 0x56)
    assert [up.inp(port, size) for port, size in ((0x60E, 4), (0x61, 2), (0x61C, 4))] == [0, 0, ABSENT]
    up.out(EVENT, 4, 0x0020_0000)
    up.out(CONTROL, 4, 0x2000)
    up.out(ENABLE + 1, 1, 0x01)
    assert up.inp(ENABLE, 2) == 0x100
    up.out(ENABLE, 1, 0x21)
    assert up.inp(ENABLE, 2) == 0x21
    up.out(0x62A, 1, 0xFF)
    assert up.inp(0x628, 4) == 0x12FF5678


def test_control_register(up: Board) -> None:
    up.out(CONTROL, 2, 0xDFFF)
    assert up.inp(CONTROL, 2) == 0xDFFF
    up.out(CONTROL, 2, 0)
    assert up.inp(CONTROL, 2) == 0
    up.out(CONTROL, 2, 0x1C01)
    up.out(CONTROL + 1, 1, 0x04)
    assert up.inp(CONTROL, 2) == 0x0401
    up.out(CONTROL, 1, 0xFF)
    assert up.inp(CONTROL, 2) == 0xFF


@pytest.mark.parametrize(
    ("port", "size", "value"), [(CONTROL, 2, 0x2000), (CONTROL + 1, 1, 0x20), (CONTROL, 2, 0x2801)]
)
def test_power_off(up: Board, port: int, size: int, value: int) -> None:
    with pytest.raises(End) as end:
        up.out(port, size, value)
    assert end.value == End("shutdown", "the guest powered off through port 0x604")


def test_other_sleep_types(up: Board) -> None:
    up.out(CONTROL, 2, 0x3C00)
    assert up.inp(CONTROL, 2) == 0x1C00
    with pytest.raises(End, match="halt"):
        up.out(CONTROL, 2, 0x2400)


def test_timer(up: Board) -> None:
    up.now = 1.0
    assert up.inp(TIMER, 4) == 3579545
    up.now = 5.0
    assert up.inp(TIMER, 4) == 5 * 3579545 % (1 << 24)
    assert up.inp(TIMER + 2, 1) == 5 * 3579545 >> 16 & 0xFF
    up.now = 4.9  # of a vCPU that is behind
    assert up.inp(TIMER, 4) == 5 * 3579545 % (1 << 24)
    assert (up.inp(TIMER + 2, 4), up.inp(TIMER + 1, 2)) == (0, 0)  # not aligned
    up.out(TIMER, 4, 0)
    assert up.inp(TIMER, 4) == 5 * 3579545 % (1 << 24)


def test_timer_status_comes_back_when_the_top_bit_changes(up: Board) -> None:
    assert up.inp(EVENT, 2) == 1
    up.out(EVENT, 2, 0xFFFE)
    assert up.inp(EVENT, 2) == 1
    up.out(EVENT, 2, 1)
    assert up.inp(EVENT, 2) == 0
    up.now = ((1 << 23) - 1) / TIMER_HZ
    assert up.inp(EVENT, 2) == 0
    up.now = ((1 << 23) + 1) / TIMER_HZ
    assert up.inp(EVENT, 2) == 1
    up.out(EVENT, 1, 1)
    assert up.inp(EVENT, 2) == 0
    up.now = ((1 << 24) + 1) / TIMER_HZ
    assert up.inp(EVENT, 2) == 1


def test_the_system_control_interrupt(up: Board) -> None:
    up.out(ENABLE, 2, 0x100)  # the timer's status is set, but not enabled
    assert up.sci == []
    up.out(ENABLE, 2, 1)
    assert up.sci == [True]
    up.out(ENABLE, 2, 1)
    assert up.sci == [True]
    up.out(EVENT, 2, 1)
    assert up.sci == [True, False]


# -- reset


def test_reset_register(board: Board) -> None:
    for value in (0x02, 0xF9, 0x0A):
        board.out(0xCF9, 1, value)
        assert board.inp(0xCF9, 1) == value & 0x0A
    for value in (0x04, 0x06, 0x0E, 0x0F):
        with pytest.raises(End) as end:
            board.out(0xCF9, 1, value)
        assert end.value == End("reset", "the guest requested a reset through port 0xcf9")


def test_ports_of_other_hosts_are_not_there(up: Board) -> None:
    up.out(0x600, 1, 0x34)  # Cloud Hypervisor's power-off
    up.out(0x64, 1, 0xFE)  # i8042=off
    up.out(0xB004, 2, 0x2000)  # i440fx
    assert [up.inp(port, 1) for port in (0x60, 0x64, 0x92, 0x20, 0x40, 0x61)] == [0xFF] * 6


@pytest.mark.parametrize(
    ("port", "size", "value", "reason"), [(0x604, 2, 0x2000, "shutdown"), (0xCF9, 1, 0x0E, "reset")]
)
def test_the_report_says_how_it_ended(port: int, size: int, value: int, reason: str) -> None:
    def out(port: int, size: int, value: int) -> str:
        registers = f"movl ${size}, %r12d; movl $1, %r13d; movl ${port}, %r14d; movl ${value}, %r15d"
        return f"{registers}\n vmcall 0x1E\n"

    program = [(0xCF8, 4, 0x8000F840), (0xCFC, 4, 0x601), (0xCF8, 4, 0x8000F844), (0xCFC, 1, 0x80)]
    body = "main:\n" + "".join(out(*each) for each in (*program, (port, size, value))) + "halt\n"
    image = guest.for_qemu(guest.build(body).image)
    with guest.machine(image, vmm="qemu", until=reason) as td:
        ending = td.run(10_000, None)
        assert ending.end.reason == reason
        assert hex(port) in ending.end.detail
        assert ending.meets(td.console.until)


def test_time_of_a_run_is_that_of_the_vcpu() -> None:
    """The timer advances inside a turn: firmware waits by reading it again and again."""
    with guest.machine(guest.for_qemu(guest.build("main: 1: pause\n jmp 1b\n").image), vmm="qemu") as td:
        pm = next(part for part in td.vmm.ports.board if isinstance(part, Pm))
        td.schedule.next()
        before = pm.ticks
        td.vcpus[0].run_alone(100_000)
        assert 300 <= pm.ticks - before <= 400  # 0.1 ms


def test_the_registers_by_tdvmcall() -> None:
    """Through the whole path: ports and device memory."""
    with guest.machine(guest.for_qemu(guest.build("main: halt\n").image), vmm="qemu") as td:

        def call(function: int, *registers: int) -> int:
            r = [0] * 16
            r[RCX], r[R11] = 0xFC00, function
            for number, value in zip((R12, R13, R14, R15), registers, strict=False):
                r[number] = value
            td.vmm.handle(0, r)
            assert r[R10] == 0
            return r[R11]

        call(0x1E, 4, 1, 0xCF8, 0x80000060)
        call(0x1E, 4, 1, 0xCFC, ECAM | 1)
        assert call(0x30, 4, 0, 1 << 47 | ECAM) == 0x29C08086
        call(0x30, 4, 1, 1 << 47 | ECAM | 0x50, 0x77)
        assert call(0x30, 2, 0, 1 << 47 | ECAM | 0x50) == 0x77
