"""Does a loader script do nothing but what QEMU's may do?"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from ccore import PAGE, CoreError
from hypothesis import given, settings
from hypothesis import strategies as st
from loaderscript import AREA, FILES, HONEST, Files, Script, plain, run

from emu.vmm.q35.tables import LOADER, RSDP, TABLES
from formats import acpi, table_loader
from formats.table_loader import Command, Zone

Change = Callable[[Script], object]


def test_padding_and_pointers_into_the_host_do_nothing() -> None:
    made = plain()
    write = table_loader.command(
        Command.WRITE_POINTER, dest="etc/vmgenid_addr", src=TABLES, dst_offset=0, src_offset=8, size=8
    )
    made.commands += [bytes(128), write, bytes(256)]
    assert made.run().cpus


def test_a_checksum_makes_the_sum_of_its_range_zero() -> None:
    made = plain()
    made.add(acpi.table(b"TEST", 1, bytes(range(64))))
    at = made.listed[-1]
    sums = {"file": TABLES, "offset": at + 40, "start": at + 36, "length": 64}
    made.commands.append(table_loader.command(Command.ADD_CHECKSUM, **sums))
    body = made.run().one(b"TEST")[36:]
    assert sum(body) & 255 == 0
    assert body[:4] + body[5:] == bytes([*range(4), *range(5, 64)])


def command(kind: Command, **fields: Any) -> Change:
    """One more command, at the end but for the roots."""
    return lambda made: made.commands.append(table_loader.command(kind, **fields))


def pointer(**fields: Any) -> Change:
    whole = {"dest": TABLES, "src": TABLES, "offset": 0, "size": 4}
    return command(Command.ADD_POINTER, **(whole | fields))


def checksum(**fields: Any) -> Change:
    whole = {"file": TABLES, "offset": 0, "start": 0, "length": 16}
    return command(Command.ADD_CHECKSUM, **(whole | fields))


def allocation(at: int, **fields: Any) -> Change:
    def change(made: Script) -> None:
        whole = {"file": (RSDP, TABLES)[at], "align": 16, "zone": Zone.HIGH}
        made.allocations[at] = table_loader.command(Command.ALLOCATE, **(whole | fields))

    return change


def first(number: int, size: int) -> Change:
    """The first bytes of the tables' file are a number, and a pointer is made of it."""

    def change(made: Script) -> None:
        made.tables[:size] = number.to_bytes(size, "little")
        made.commands.append(made.point(0, size))

    return change


@pytest.mark.parametrize("size", [4, 8])
def test_a_pointer_to_the_last_byte_and_one_behind_it(size: int) -> None:
    end = len(plain().files()[TABLES])
    made = plain()
    first(end - 1, size)(made)
    assert made.run().cpus
    made = plain()
    first(end, size)(made)
    with pytest.raises(CoreError, match="acpi_script"):
        made.run()


SCRIPTS: dict[str, Change] = {
    "unknown command": lambda made: made.commands.append(struct.pack("<I", 5).ljust(128, b"\0")),
    "vendor command": lambda made: made.commands.append(struct.pack("<I", 1 << 31).ljust(128, b"\0")),
    "too many commands": lambda made: made.commands.append(bytes(128 * 512)),
    "no allocation": lambda made: made.allocations.pop(),
    "more allocations than files": lambda made: made.allocations.append(made.allocations[0]),
    "allocated after use": lambda made: made.allocations.append(made.point(0, 4, dest="etc/later")),
    "another file": allocation(1, file="etc/other"),
    "alignment 0": allocation(1, align=0),
    "alignment 3": allocation(1, align=3),
    "alignment beyond a page": allocation(1, align=8192),
    "zone 0": allocation(1, zone=0),
    "zone 3": allocation(0, zone=3),
    "pointer beyond the file": pointer(offset=1 << 20),
    "pointer over the end": lambda made: pointer(offset=len(made.tables) + 1 << 16, size=4)(made),
    "pointer whose offset wraps": pointer(offset=0xFFFFFFFC, size=8),
    "pointer of no bytes": pointer(size=0),
    "pointer of 3 bytes": pointer(size=3),
    "pointer of 5 bytes": pointer(size=5),
    "pointer of 6 bytes": pointer(size=6),
    "pointer of 7 bytes": pointer(size=7),
    "pointer of 255 bytes": pointer(size=255),
    "pointer that leaves its file": first(1 << 24, 4),
    "pointer of 1 byte": first(0, 1),
    "pointer of 2 bytes": first(0, 2),
    "pointer to nobody": pointer(src="etc/nobody"),
    "pointer in nobody": pointer(dest="etc/nobody"),
    "checksum of nobody": checksum(file="etc/nobody"),
    "checksum beyond the file": checksum(start=1 << 20),
    "checksum longer than the file": checksum(length=1 << 20),
    "checksum whose range wraps": checksum(start=16, length=0xFFFFFFF8, offset=16),
    "checksum of nothing": checksum(length=0),
    "checksum before its range": checksum(start=8, length=8, offset=7),
    "checksum behind its range": checksum(start=0, length=8, offset=8),
}


@pytest.mark.parametrize("change", SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_that_leaves_its_files_is_refused(change: Change) -> None:
    made = plain()
    change(made)
    with pytest.raises(CoreError, match="acpi_script"):
        made.run()


def test_a_pointer_has_to_lie_in_its_file_to_the_last_byte() -> None:
    size = len(plain().files()[TABLES])
    for past, fits in ((4, True), (3, False), (1, False), (0, False)):
        made = plain()
        pointer(offset=size - past)(made)
        if fits:
            assert made.run().cpus
        else:
            with pytest.raises(CoreError, match="acpi_script"):
                made.run()


@pytest.mark.parametrize("rest", [1, 8, 64, 127])
def test_a_script_that_ends_in_half_a_command(rest: int) -> None:
    files = plain().files()
    files[LOADER] += bytes(rest)
    with pytest.raises(CoreError, match="acpi_script"):
        run(table_loader.stored(files), 1)


@pytest.mark.parametrize("cut", [1, 63, 64, 65, 200, -1, -8, -100])
def test_measured_bytes_that_are_no_files(cut: int) -> None:
    with pytest.raises(CoreError, match="acpi_script"):
        run(table_loader.stored(HONEST)[:cut])


@pytest.mark.parametrize("past", [1, 7])
def test_a_size_whose_padding_wraps(past: int) -> None:
    """Rounded up to whole padding, it is 0."""
    whole = bytearray(table_loader.stored(HONEST))
    size = 64 + len(HONEST[LOADER]) + 56
    whole[size : size + 8] = (2**64 - past).to_bytes(8, "little")
    with pytest.raises(CoreError, match="acpi_script"):
        run(bytes(whole))


def test_padding_that_is_cut() -> None:
    """The measured bytes are checked first: the file has no room either."""
    whole = more(("etc/more", bytes(AREA + 1)))
    for cut, error in ((0, "acpi_no_room"), (1, "acpi_script"), (7, "acpi_script")):
        with pytest.raises(CoreError, match=error):
            run(whole[: len(whole) - cut], 1)


def named(script: str) -> Files:
    return {script: HONEST[LOADER], RSDP: HONEST[RSDP], TABLES: HONEST[TABLES]}


@pytest.mark.parametrize(
    "files",
    [
        {},
        {RSDP: b"x"},
        {LOADER: b""},
        HONEST | {"etc/more": b"x"},
        named("etc/other"),
        named(LOADER + "2"),
    ],
)
def test_measured_files_that_are_not_those_of_the_script(files: Files) -> None:
    with pytest.raises(CoreError, match="acpi_script"):
        run(table_loader.stored(files))


def more(*files: tuple[str, bytes]) -> bytes:
    """The files of a plain script, which allocates these as well; nothing points to them."""
    made = plain()
    made.allocations += [made.allocate(name) for name, _ in files]
    return table_loader.stored(made.files()) + b"".join(table_loader.stored({n: data}) for n, data in files)


@pytest.mark.parametrize(
    ("files", "fits"),
    [
        ([("etc/a", b"x"), ("etc/b", b"x")], True),
        ([("etc/a", b"x"), ("etc/a", b"x")], False),
        ([("etc/a", b"")], False),
        ([("x" * 55, b"x")], True),
        ([("x" * 56, b"x")], False),
        ([("", b"x")], False),
    ],
    ids=["two", "one twice", "no bytes", "a long name", "a name without NUL", "an empty name"],
)
def test_which_files_may_be_allocated(files: list[tuple[str, bytes]], fits: bool) -> None:
    if fits:
        assert run(more(*files), 1).cpus
    else:
        with pytest.raises(CoreError, match="acpi_script"):
            run(more(*files), 1)


def many(count: int) -> bytes:
    return more(*((f"etc/{n}", b"x") for n in range(count)))


def test_how_many_files_there_may_be() -> None:
    assert run(many(14), 1).cpus
    with pytest.raises(CoreError, match="acpi_script"):
        run(many(15), 1)


def test_files_lie_as_the_script_aligns_them() -> None:
    made = plain()
    made.allocations[1] = made.allocate(TABLES, PAGE)
    found = made.run()
    dsdt = acpi.FADT.parse(found.one(b"FACP")).x_dsdt
    assert (dsdt - 16) % PAGE == 0


def test_an_area_that_is_too_small() -> None:
    for size in (256, PAGE, 32 * PAGE, 32 * PAGE + 600):
        with pytest.raises(CoreError, match="acpi_no_room"):
            run(table_loader.stored(HONEST), size=size)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_give_tables_or_an_error(data: st.DataObject) -> None:
    """Honest files with some bytes changed: sanitizers watch every access, and what comes out is valid."""
    whole = bytearray(table_loader.stored(HONEST))
    start = len(FILES[LOADER]) + 128
    used = len(FILES[TABLES].rstrip(b"\0"))
    places = st.one_of(st.integers(0, 128 * 24), st.integers(start, start + 128 + used))
    for at in data.draw(st.lists(places, min_size=1, max_size=6)):
        whole[at] = data.draw(st.sampled_from((0, 1, 2, 4, 8, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
    try:
        found = run(bytes(whole))
    except CoreError:
        return
    assert [cpu for _, cpu in found.cpus] == [0, 1]
