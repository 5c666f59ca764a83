"""Does the oracle of hand-overs notice each difference and each broken promise? Planted after a hand-over."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace

import oracle
import pefile
import pytest
from elftools.elf.elffile import ELFFile
from payloadcpu import load_elf, load_pe
from tdbox import Firmware, finish, launched

from emu.api import Machine
from emu.oracle import executable as executables
from emu.oracle.chosen import CHANNELS, HONEST, Choice, configuration, run
from emu.oracle.compare import differences
from emu.oracle.contents import INITRDS, pattern
from emu.oracle.shown import OF_EXECUTABLES, PARTS, Shown, gather
from emu.oracle.single import KINDS, judge
from formats import guids
from formats.limits import LEAST_RAM
from formats.registers import RDX, RSP
from formats.units import PAGE
from gen.link.sample import FORMATS, sample

PARKED = {"index": 1, "parked": True, "end": ""}


@contextmanager
def handed_over(firmware: Firmware) -> Iterator[Machine]:
    """A TD with two vCPUs that stands at the payload's first instruction."""
    config = configuration(replace(firmware.config, memory=LEAST_RAM, vcpus=2), Choice(initrd=1))
    with launched(config) as machine:
        assert finish(machine, config).report.met
        yield machine


@pytest.fixture(scope="module")
def machine(linux: Firmware) -> Iterator[Machine]:
    with handed_over(linux) as one:
        yield one


@pytest.fixture(scope="module")
def shown(machine: Machine) -> Shown:
    return gather(machine)


Undo = Callable[[], None]


def put(machine: Machine, gpa: int, data: bytes) -> Undo:
    """Writes over private memory."""
    before = machine.memory.read(gpa, len(data))
    machine.memory.write(gpa, data)
    return lambda: machine.memory.write(gpa, before)


def flipped(machine: Machine, gpa: int) -> Undo:
    """One byte of private memory is another."""
    return put(machine, gpa, bytes([machine.memory.read(gpa, 1)[0] ^ 1]))


def in_table(machine: Machine, shown: Shown, signature: bytes, offset: int, data: bytes) -> Undo:
    """Other bytes in an ACPI table, whose checksum stays right."""
    at, old = next((at, t) for at, t in shown.tables if t[:4] == signature)
    table = bytearray(old)
    table[offset : offset + len(data)] = data
    table[9] = (table[9] - sum(table)) % 256
    return put(machine, at, bytes(table))


def in_register(machine: Machine, number: int) -> Undo:
    regs = machine.vcpus[0].regs
    before = int(regs.gpr[number])
    regs.gpr[number] = before ^ 1

    def undo() -> None:
        regs.gpr[number] = before

    return undo


def at_entry(machine: Machine) -> Undo:
    regs = machine.vcpus[0].regs
    before = int(regs.rip)
    regs.rip = before + 16

    def undo() -> None:
        regs.rip = before

    return undo


def rsdp_reserved(machine: Machine, shown: Shown) -> Undo:
    at = shown.ranges["rsdp"][0]
    checksum, reserved = machine.memory.read(at + 32, 2)
    return put(machine, at + 32, bytes([(checksum - 1) % 256, (reserved + 1) % 256]))


def page(shown: Shown) -> int:
    return shown.ranges["boot_params"][0]


PLANTED: dict[str, Callable[[Machine, Shown], Undo]] = {
    "entry": lambda m, s: at_entry(m),
    "registers": lambda m, s: in_register(m, 0),
    "kernel": lambda m, s: flipped(m, s.ranges["kernel"][1] - 1),
    "initrd": lambda m, s: flipped(m, s.ranges["initrd"][0]),
    "command line": lambda m, s: flipped(m, s.ranges["command line"][0]),
    "rsdp": rsdp_reserved,
    "acpi": lambda m, s: in_table(m, s, b"FACP", 24, b"\x77"),
    "mailbox": lambda m, s: flipped(m, s.ranges["mailbox"][0] + 0x100),
    "e820": lambda m, s: flipped(m, page(s) + 0x2D0 + 16),
    "event log": lambda m, s: flipped(m, s.ranges["event log"][0] + 160),
    "boot_params": lambda m, s: flipped(m, page(s)),
}


def test_every_part_has_a_plant() -> None:
    assert tuple(PLANTED) == tuple(part for part in PARTS if part not in OF_EXECUTABLES)


@pytest.mark.parametrize("part", PLANTED)
def test_a_planted_difference_is_reported_as_its_part(part: str, machine: Machine, shown: Shown) -> None:
    undo = PLANTED[part](machine, shown)
    found = [d.part for d in differences(shown, gather(machine))]
    undo()
    assert found[0] == part
    assert differences(shown, gather(machine)) == []


def to_ram(machine: Machine, shown: Shown) -> Undo:
    """The memory map calls RAM what holds the mailbox."""
    mailbox = shown.ranges["mailbox"][0]
    index = next(i for i, (start, end, _) in enumerate(shown.e820) if start <= mailbox < end)
    return put(machine, page(shown) + 0x2D0 + 20 * index + 16, struct.pack("<I", 1))


BROKEN: dict[str, Callable[[Machine, Shown], Undo]] = {
    "log": lambda m, s: flipped(m, s.ranges["event log"][0] + 100),
    "separator": lambda m, s: flipped(m, s.ranges["event log"][0] + len(s.log.rstrip(b"\xff")) - 20),
    "pointers": lambda m, s: put(m, page(s) + 0x70, struct.pack("<Q", 0x1000)),
    "place": to_ram,
    "overlap": lambda m, s: put(m, page(s) + 0x218, struct.pack("<I", s.ranges["kernel"][0])),
    "e820": lambda m, s: put(m, page(s) + 0x2D0 + 8, struct.pack("<Q", LEAST_RAM)),
    "unasked": lambda m, s: flipped(m, 0xF_0000),
    "cpus": lambda m, s: in_table(m, s, b"APIC", 44 + 3, b"\x07"),
    "attribution": lambda m, s: flipped(m, s.ranges["command line"][0]),
}


def test_every_promise_is_broken_once() -> None:
    assert KINDS.keys() - BROKEN.keys() == {"end", "aps", "passed on", "registers"}  # the tests below


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_promise_is_reported(kind: str, machine: Machine, shown: Shown) -> None:
    undo = BROKEN[kind](machine, shown)
    found = {f.kind for f in judge(machine, gather(machine), [PARKED])}
    undo()
    assert kind in found
    assert judge(machine, gather(machine), [PARKED]) == []


def test_an_application_processor_astray_is_reported(machine: Machine, shown: Shown) -> None:
    astray = {"index": 1, "parked": False, "end": "triple-fault"}
    assert [f.kind for f in judge(machine, shown, [astray])] == ["aps"]


def test_what_was_given_and_is_not_handed_over_is_reported(machine: Machine, shown: Shown) -> None:
    found = judge(machine, shown, [PARKED], {"command line": [shown.line[:-1]]})
    assert [f.kind for f in found] == ["passed on"]
    assert (
        judge(machine, shown, [PARKED], {"command line": [shown.line + b"\0behind"]})[0].kind == "attribution"
    )
    assert judge(machine, shown, [PARKED], {"initrd": [shown.initrd]}) == []
    assert judge(machine, shown, [PARKED], {"initrd": [shown.initrd, b"another"]}) == []


def test_a_register_of_the_os_that_was_extended_is_reported(machine: Machine, shown: Shown) -> None:
    before = machine.module.rtmr[3]
    machine.module.rtmr[3] = b"\1" * 48
    found = [f.kind for f in judge(machine, shown, [PARKED])]
    machine.module.rtmr[3] = before
    assert "registers" in found


def test_a_run_that_ends_otherwise_is_reported(linux: Firmware) -> None:
    outcome = run(replace(linux.config, memory=LEAST_RAM, max_instructions=1000), HONEST)
    assert [f.kind for f in outcome.findings] == ["end"]
    assert outcome.shown is None


@pytest.mark.parametrize("at", range(1, 7))
def test_registers_held_at_any_event_end_the_boot(at: int, linux: Firmware) -> None:
    outcome = run(replace(linux.config, memory=LEAST_RAM), Choice(locked=at))
    assert (outcome.reason, outcome.findings) == ("fatal", ())
    assert outcome.detail == "tdforge: TDG.MR.RTMR.EXTEND failed"


@pytest.mark.parametrize("which", [-1, 1, 2, 5])
def test_a_refused_access_to_the_chipset_ends_the_boot(which: int, qemu: Firmware) -> None:
    outcome = run(replace(qemu.config, memory=LEAST_RAM), Choice(chipset=which))
    assert (outcome.reason, outcome.findings) == ("fatal", ())


def test_the_oracle_reads_what_an_independent_reader_reads(machine: Machine, shown: Shown) -> None:
    params = oracle.boot_params(machine.read_guest, page(shown))
    assert list(shown.e820) == params.e820
    assert shown.line.decode() == oracle.text_at(machine.read_guest, params.command_line)
    assert shown.initrd == INITRDS[1]
    assert dict(shown.tables) == dict(oracle.acpi_tables(machine.read_guest, params.rsdp))


# ---- an executable


@pytest.fixture(scope="module")
def entered(executable: Firmware) -> Iterator[Machine]:
    with handed_over(executable) as one:
        assert executables.is_entered(one)
        yield one


def hob_at(shown: Shown, guid: bytes) -> int:
    """Where the data of a GUID extension in the HOB list begins."""
    start, listed = shown.parts["HOB list"]  # type: ignore[misc]
    return int(start) + bytes(listed).index(guid) + 16


IN_EXECUTABLE: dict[str, Callable[[Machine, Shown], Undo]] = {
    "entry": lambda m, s: at_entry(m),
    "registers": lambda m, s: in_register(m, 0),
    "image": lambda m, s: flipped(m, s.ranges["image"][0] + 0x100),
    "acpi": lambda m, s: in_table(m, s, b"FACP", 24, b"\x77"),
    "mailbox": lambda m, s: flipped(m, s.ranges["mailbox"][0] + 0x100),
    "e820": lambda m, s: flipped(m, hob_at(s, guids.HOB_E820_TABLE.bytes_le) + 16),
    "event log": lambda m, s: flipped(m, s.ranges["event log"][0] + 160),
    "HOB list": lambda m, s: flipped(m, s.ranges["HOB list"][0] + 12),
}


@pytest.mark.parametrize("part", IN_EXECUTABLE)
def test_a_difference_in_what_an_executable_gets_is_reported(part: str, entered: Machine) -> None:
    shown = executables.gather(entered)
    assert set(IN_EXECUTABLE) == set(shown.parts)
    undo = IN_EXECUTABLE[part](entered, shown)
    found = [d.part for d in differences(shown, executables.gather(entered))]
    undo()
    assert found[0] == part
    assert differences(shown, executables.gather(entered)) == []


def with_e820_of(machine: Machine, shown: Shown, piece: str, kind: int) -> Undo:
    """The memory map calls what holds a part of the hand-over something else."""
    start = shown.ranges[piece][0]
    index = next(i for i, (low, high, _) in enumerate(shown.e820) if low <= start < high)
    return put(machine, hob_at(shown, guids.HOB_E820_TABLE.bytes_le) + 20 * index + 16, bytes([kind]))


FOR_EXECUTABLE: dict[str, tuple[str, Callable[[Machine, Shown], Undo]]] = {
    "the code is another": ("attribution", lambda m, s: flipped(m, s.image[0] + 0x1100)),
    "a zero is none": ("attribution", lambda m, s: flipped(m, s.ranges["image"][1] - PAGE)),
    "the list has no end": ("pointers", lambda m, s: put(m, s.ranges["HOB list"][1] - 8, b"\7")),
    "a table is none": ("pointers", lambda m, s: flipped(m, hob_at(s, guids.HOB_ACPI_TABLE.bytes_le))),
    "two load addresses": ("pointers", lambda m, s: in_register(m, RDX)),
    "a stack that is not aligned": ("pointers", lambda m, s: in_register(m, RSP)),
    "the image is free RAM": ("pointers", lambda m, s: with_e820_of(m, s, "image", 1)),
    "the list is free RAM": ("place", lambda m, s: with_e820_of(m, s, "HOB list", 1)),
    "the stack is reserved": ("place", lambda m, s: with_e820_of(m, s, "stack", 2)),
    "other CPUs": ("cpus", lambda m, s: in_table(m, s, b"APIC", 44 + 3, b"\x07")),
    "the log": ("log", lambda m, s: flipped(m, s.ranges["event log"][0] + 100)),
}


@pytest.mark.parametrize("name", FOR_EXECUTABLE)
def test_a_broken_promise_to_an_executable_is_reported(name: str, entered: Machine) -> None:
    kind, plant = FOR_EXECUTABLE[name]
    undo = plant(entered, executables.gather(entered))
    found = {f.kind for f in judge(entered, executables.gather(entered), [PARKED])}
    undo()
    assert kind in found
    assert judge(entered, executables.gather(entered), [PARKED]) == []


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_file_becomes_is_what_other_readers_say(name: str) -> None:
    """pyelftools and pefile: parts, zeros and relocations."""
    file, load = sample(name), 0x1234_5000
    made = executables.loaded(file, load)
    other = (load_pe if name == "pe" else load_elf)(file, load)
    assert len(made) == len(other.content)
    pieces = [(0, len(made))]
    if name == "pe":  # of which pefile has what lies behind a section's size in the file, too
        pieces = [(s.VirtualAddress, s.Misc_VirtualSize) for s in pefile.PE(data=file).sections]
    for at, size in pieces:
        assert made[at : at + size] == other.content[at : at + size]
    assert executables.loaded(file[: len(file) // 2], load) == b""
    assert executables.loaded(b"a text", load) == b""


def test_a_relocation_may_name_a_symbol_and_what_follows_the_end_of_the_table_is_no_entry() -> None:
    """As the firmware reads them, which mutated files showed."""
    file, load = sample("elf"), 0x1234_5000
    (dynamic,) = ELFFile(io.BytesIO(file)).iter_segments("PT_DYNAMIC")
    made, place = executables.loaded(file, load), dynamic["p_offset"]
    tags = {tag["d_tag"]: tag["d_val"] for tag in dynamic.iter_tags()}
    symbol = tags["DT_RELA"] + 8 + 5  # of the first entry; the table lies in the first part, as in the file
    named = file[:symbol] + b"\1" + file[symbol + 1 :]
    part = executables.loaded(named, load)
    assert part[:symbol] == made[:symbol]
    assert part[symbol + 1 :] == made[symbol + 1 :]
    ended = file[:place] + bytes(16) + file[place + 16 :]
    assert executables.loaded(file, load) != executables.loaded(file, load + PAGE)
    assert executables.loaded(ended, load) == executables.loaded(ended, load + PAGE) != b""


@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_is_a_choice_of_its_own(channel: str) -> None:
    kind = next(f.type for f in fields(Choice) if f.name == channel)
    choice = replace(HONEST, **{channel: 1 if kind == "int" else (1,)})
    assert choice.channels(HONEST) == {channel}
    assert str(choice).startswith(f"{channel}=")


def test_patterns_have_the_size_that_is_asked_for() -> None:
    kernel = b"k" * 2000
    assert all(len(pattern(n, size, kernel)) == size for n in range(9) for size in (0, 1, 4096, 70_000))
