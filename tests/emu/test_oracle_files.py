"""Does a fw_cfg device of the oracle answer as its choice says, and honestly without one?"""

from __future__ import annotations

import pytest
from kernels import bzimage
from qemuguest import BUFFER, KERNEL, LINE, device, dma, launched

from emu.machine import Machine
from emu.oracle.files import BEYOND, DIRECTORIES, FAR, NEW_KEY, SIZES, TRANSFERS, Files, Transfers, lie
from emu.vmm.q35.kernel import KERNEL_FILE
from formats.errors import FormatError
from formats.fw_cfg import FILE, NAME_SIZE, Control, Key, read_directory
from formats.units import PAGE

OTHER, INITRD = bzimage(0x1B00), b"initrd" * 100
LINE_BYTES = LINE.encode() + b"\0"


def chosen(machine: Machine, choice: Files) -> Transfers:
    """The machine's device made that of a choice."""
    made = lie(machine.vmm.ports.board, choice, OTHER)
    assert made is not None
    return made


def read(machine: Machine, key: int, size: int) -> tuple[int, bytes]:
    """One transfer: the control field afterwards, and the buffer, which was empty."""
    machine.memory.write(BUFFER, bytes(PAGE), shared=True)
    status = dma(machine, key << 16 | Control.SELECT | Control.READ, size, BUFFER)
    return status, machine.memory.read(BUFFER, size, shared=True)


def number(machine: Machine, key: Key) -> int:
    return int.from_bytes(device(machine).items[key], "little")


def test_every_size_is_changed_as_it_says() -> None:
    for at, (key, more) in enumerate(SIZES):
        with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE) as machine:
            chosen(machine, Files(sizes=at))
            sizes = {Key.INITRD_SIZE: len(INITRD), Key.CMDLINE_SIZE: len(LINE_BYTES)}
            sizes[Key.FILE_DIR] = len(KERNEL)
            sizes[key] += more
            listed = read_directory(device(machine).items[Key.FILE_DIR])
            assert number(machine, Key.INITRD_SIZE) == sizes[Key.INITRD_SIZE] & 0xFFFF_FFFF
            assert number(machine, Key.CMDLINE_SIZE) == sizes[Key.CMDLINE_SIZE]
            assert listed[KERNEL_FILE][1] == sizes[Key.FILE_DIR]
    assert SIZES[0] == (Key.INITRD_SIZE, 0)
    assert (Key.INITRD_SIZE, BEYOND) in SIZES


@pytest.mark.parametrize("kind", DIRECTORIES)
def test_every_directory_is_what_its_name_says(kind: str) -> None:
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE) as machine:
        honest = device(machine).items[Key.FILE_DIR]
        chosen(machine, Files(directory=DIRECTORIES.index(kind)))
        data, items = device(machine).items[Key.FILE_DIR], device(machine).items
    entries = [FILE.parse(data[at:]) for at in range(4, len(data), FILE.sizeof())]
    names = [entry.name.rstrip(b"\0").decode() for entry in entries]
    match kind:
        case "honest":
            assert data == honest
        case "reversed":
            assert names == [*reversed(read_directory(honest))]
        case "no kernel":
            assert set(read_directory(honest)) - set(names) == {KERNEL_FILE}
        case "another first":
            assert (names[0], entries[0].select, items[NEW_KEY]) == (KERNEL_FILE, NEW_KEY, OTHER)
        case "another last":
            assert names.count(KERNEL_FILE) == 2
            assert entries[-1].select == NEW_KEY
        case "long names":
            assert {len(name) for name in names[:-1]} == {NAME_SIZE}
            assert names[-1] == KERNEL_FILE
        case "count":
            assert int.from_bytes(data[:4], "big") == FAR
            with pytest.raises(FormatError):
                read_directory(data)


@pytest.mark.parametrize("kind", TRANSFERS)
def test_every_transfer_goes_as_its_name_says(kind: str) -> None:
    """Five of them: the third and the fourth have bytes of the initrd, the last has the command line."""
    asked = (Key.SIGNATURE, Key.INITRD_SIZE, Key.INITRD_DATA, Key.INITRD_DATA, Key.CMDLINE_DATA)
    whole = (b"QEMU", len(INITRD).to_bytes(4, "little"), INITRD, INITRD, LINE_BYTES)
    other = INITRD.replace(b"i", b"h", 1)
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE) as machine:
        seen = chosen(machine, Files(transfers=TRANSFERS.index(kind)))
        got = [read(machine, key, len(data)) for key, data in zip(asked, whole, strict=True)]
        assert len(seen.descriptors) == len(asked)
    failed = [status != 0 for status, _ in got]
    assert {status for status, _ in got} <= {0, Control.ERROR}
    wrong = {"the first fails": 0, "the fifth fails": 4, "the last fails": 4}.get(kind, -1)
    assert failed == [at == wrong for at in range(5)]
    data = [data for _, data in got]
    assert data[:2] == [*whole[:2]]
    match kind:
        case "half is given":
            assert data[4] == LINE_BYTES[: len(LINE_BYTES) // 2].ljust(len(LINE_BYTES), b"\0")
        case "other bytes the second time":
            assert data[2:] == [INITRD, other, LINE_BYTES]
        case "other bytes each time":
            assert data[2:4] == [other, other]
        case _:
            assert data[2:] == [*whole[2:]]


def test_a_machine_without_the_device_is_left_alone() -> None:
    assert lie((), Files(sizes=1), OTHER) is None


def test_what_is_transferred_lands_in_the_buffer() -> None:
    """And nowhere else in it."""
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE) as machine:
        chosen(machine, Files())
        assert read(machine, Key.CMDLINE_DATA, len(LINE_BYTES)) == (0, LINE_BYTES)
        assert not any(machine.memory.read(BUFFER + len(LINE_BYTES), PAGE - len(LINE_BYTES), shared=True))
