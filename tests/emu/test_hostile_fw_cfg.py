"""Does a lying fw_cfg device lie as its seed says, in items, transfers, memory and chipset?"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from qemuguest import BUFFER, DESCRIPTOR, INITRD, KERNEL, LINE, device, image, launched

from emu.api import RunConfig, prepare
from emu.machine import Machine
from emu.vmm.hostile import acpi_files, items
from emu.vmm.hostile.fw_cfg import MANNERS, PCI_LIES, LyingFwCfg, LyingPci, meddled
from emu.vmm.q35 import items as honest_items
from emu.vmm.q35 import tables
from emu.vmm.q35.items import Q35, DirectBoot
from emu.vmm.q35.tables import Facts
from formats.fw_cfg import Control, Key
from formats.units import MIB, PAGE

ACPI_FILES = dict(enumerate(tables.build(Facts((0, 1), ((0, 64 * MIB),), None, 0x600)).values()))
HONEST = honest_items.build(
    Q35(((0, 64 * MIB),), DirectBoot(KERNEL, INITRD, LINE.encode())), (0,), {}
).content
READ = struct.pack(">IIQ", Control.READ, 64, BUFFER)
DONE, UNTOUCHED = bytes(4), READ[:4]


@pytest.mark.parametrize("lie", [lie for lie, _ in items.LIES], ids=lambda lie: lie.__name__)
def test_each_lie_about_items_changes_them_and_survives_any(lie: items.Lie) -> None:
    changed = 0
    for seed in range(40):
        rng, content = Random(seed), dict(HONEST)
        text = lie(rng, content)
        changed += content != HONEST
        assert text
        for _ in range(6):  # on what other lies left
            other = rng.choice(items.LIES)[0]
            assert other(rng, content)
            assert lie(rng, content)
        assert all(isinstance(data, bytes) for data in content.values())
        assert lie(rng, {})
    assert changed >= 20


@pytest.mark.parametrize("lie", [lie for lie, _ in acpi_files.SCRIPT_LIES], ids=lambda lie: lie.__name__)
def test_each_lie_about_the_loader_script_changes_it_and_survives_any(lie: acpi_files.Script) -> None:
    honest = acpi_files.rows(ACPI_FILES[2])
    changed = 0
    for seed in range(40):
        rng, script = Random(seed), [bytearray(row) for row in honest]
        assert lie(rng, script).startswith("loader script: ")
        changed += script != honest
        for _ in range(6):
            assert rng.choice(acpi_files.SCRIPT_LIES)[0](rng, script)
            assert lie(rng, script)
    assert changed >= 20


def test_acpi_files_lie_by_their_seed() -> None:
    made = [acpi_files.lied(Random(seed), ACPI_FILES) for seed in range(60)]
    assert made == [acpi_files.lied(Random(seed), ACPI_FILES) for seed in range(60)]
    assert sum(files != ACPI_FILES for files, _ in made) > 30
    assert all(files == ACPI_FILES for files, texts in made if not texts)
    said = {text.split(":")[0] for _, texts in made for text in texts}
    assert said == {"loader script", "ACPI tables"}
    assert acpi_files.tables_lie(Random(1), bytearray(9)) == "ACPI tables: none"


@pytest.fixture
def td() -> Iterator[Machine]:
    with launched(kernel=KERNEL, initrd=INITRD, cmdline=LINE) as machine:
        yield machine


def lying(td: Machine, **settings: Any) -> LyingFwCfg:
    """The device of a machine, but for these settings honest."""
    honest = device(td)
    made = LyingFwCfg(honest.dma, honest.items, honest.late, honest.build, honest.writable, **settings)
    made.random = Random(1)
    return made


def transfer(td: Machine, lie: str, key: int = Key.INITRD_DATA) -> tuple[bytes, bytes, LyingFwCfg]:
    """Control word and data after one transfer of 64 bytes into a buffer of 0xEE, in this manner."""
    made = lying(td, lies={0: lie})
    td.memory.write(BUFFER, b"\xee" * PAGE, shared=True)
    td.memory.write(DESCRIPTOR, READ, shared=True)
    made.select(key)
    made.transfer(DESCRIPTOR)
    data = td.memory.read(BUFFER, 128, shared=True)
    assert made.given[key] == data[:64]
    assert made.done == ([f"fw_cfg: transfer 0: {lie}"] if lie else [])
    return td.memory.read(DESCRIPTOR, 4, shared=True), data, made


KEPT = b"\xee" * 64


def test_a_transfer_without_a_lie(td: Machine) -> None:
    assert transfer(td, "")[:2] == (DONE, INITRD[:64] + KEPT)


def test_transfers_that_do_not_end_well(td: Machine) -> None:
    control, data, _ = transfer(td, "no answer")
    assert control == UNTOUCHED
    assert data in (INITRD[:64] + KEPT, KEPT + KEPT)
    control, data, _ = transfer(td, "an error")
    assert control != DONE
    assert data == INITRD[:64] + KEPT


def test_transfers_of_other_bytes(td: Machine) -> None:
    assert transfer(td, "no data")[:2] == (DONE, KEPT + KEPT)
    control, data, _ = transfer(td, "only a part of the data")
    short = data.index(b"\xee")
    assert (control, data) == (DONE, INITRD[:short] + data[short:])
    assert set(data[short:]) == {0xEE}
    assert short < 64
    control, data, _ = transfer(td, "random data")
    assert control == DONE
    assert data[:64] not in (INITRD[:64], KEPT)
    assert data[64:] == KEPT


def test_transfers_to_other_places(td: Machine) -> None:
    assert transfer(td, "the data goes elsewhere")[:2] == (DONE, KEPT + KEPT)
    control, data, _ = transfer(td, "more than was asked for")
    assert (control, data[:64]) == (DONE, INITRD[:64])
    assert data[64:] != KEPT
    assert td.memory.read(DESCRIPTOR, 16, shared=True)[4:] != READ[4:]


def test_the_next_transfer_begins_elsewhere(td: Machine) -> None:
    made = transfer(td, "the next one begins elsewhere")[2]
    assert made.offset != 64


def test_each_manner_has_a_test() -> None:
    assert len(MANNERS) == 9


def test_a_fickle_item_is_not_the_same_again(td: Machine) -> None:
    made = lying(td, fickle=True)
    seen = []
    for _ in range(3):
        made.select(Key.INITRD_DATA)
        seen.append(made.take(64))
    assert seen[0] == INITRD[:64]
    assert len(set(seen)) == 3


def test_a_shifting_item_changes_behind_its_start(td: Machine) -> None:
    made = lying(td, shifting=True)
    made.select(Key.INITRD_DATA)
    assert made.take(64) == INITRD[:64]
    assert made.take(64) != INITRD[64:128]


def test_memory_changes_between_two_turns_once_there_is_a_transfer(td: Machine) -> None:
    made = lying(td, restless=2)
    assert meddled(made, 20_000) == 5000
    td.memory.write(DESCRIPTOR, READ, shared=True)
    made.select(Key.INITRD_DATA)
    made.transfer(DESCRIPTOR)
    assert made.restless == 2
    assert [meddled(made, 20_000) < 5000 for _ in range(3)] == [True, True, False]
    assert meddled(None, 20_000) == 20_000
    after = td.memory.read(DESCRIPTOR, 16, shared=True) + td.memory.read(BUFFER, 64, shared=True)
    assert after != DONE + READ[4:] + INITRD[:64]


@pytest.mark.parametrize("lie", PCI_LIES)
def test_a_chipset_that_does_not_obey(lie: str) -> None:
    made = LyingPci(lie=lie, random=Random(1))
    made.write_config(0, 0x60, 4, 0xE0000001)
    read = [made.read_config(0, at, 4) for at in (0, 0x60) * 8]
    honest = [0x29C08086, 0xE0000001] * 8
    assert read != honest


def test_a_seed_is_the_same_device_again() -> None:
    def drawn(seed: int) -> tuple[object, ...]:
        config = RunConfig(image(), "guest.bin", vmm=f"hostile-fw_cfg:{seed}", kernel=KERNEL, until="halt")
        machine = prepare(config)
        try:
            found = device(machine)
            assert isinstance(found, LyingFwCfg)
            return dict(found.items), found.lies, found.fickle, found.restless, machine.vmm.policy.done
        finally:
            machine.close()

    assert drawn(3) == drawn(3)
    assert len({repr(drawn(seed)) for seed in range(12)}) > 6
