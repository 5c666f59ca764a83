"""Does an unmodified Linux accept what was left to it, and does the firmware's work not grow with memory?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import initrd
import pytest
from tdbox import GIB, MIB, Firmware, Stopped, made, stopped

from emu.api import run
from formats import efi, linux
from tdforge.bench import LAZY_FLOW, LAZY_MEMORY, PAGE_FILE
from tdforge.boot import CMDLINE

LARGE = 2 * MIB
LIMIT = 256 * MIB  # of the flow


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    return made(LAZY_FLOW, tmp_path_factory.mktemp("lazy"), tiny)


def table_of(td: Stopped) -> int:
    """Where the table of unaccepted memory is, by boot_params, which an OS may overwrite."""
    info = linux.BOOT_PARAMS.parse(td.read(td.boot_params, 4096)).efi_info
    tables = efi.TABLES.parse(td.read(info.systab | info.systab_hi << 32, efi.TABLES.sizeof()))
    return int(tables.configuration[1].vendor_table)


def bits(td: Stopped, at: int) -> dict[int, bool]:
    """Units from the first on that was left, and whether each still is, by the table there."""
    table = efi.UNACCEPTED_TABLE.parse(td.read(at, efi.UNACCEPTED_TABLE.sizeof()))
    bitmap = int.from_bytes(td.read(at + efi.UNACCEPTED_TABLE.sizeof(), table.size), "little")
    return {table.phys_base + i * LARGE: bool(bitmap >> i & 1) for i in range(8 * table.size)}


# ---- the firmware


def test_what_is_left_is_not_accepted_and_all_else_is(lazy: Firmware) -> None:
    with stopped(replace(lazy.config, memory=4 * GIB)) as td:
        assert td.report.met, td.report.end
        assert td.machine.handoff
        memory = td.machine.memory
        left = {at for at, unaccepted in bits(td, table_of(td)).items() if unaccepted}
        assert min(left) == LIMIT
        listed: set[int] = set()
        for start, size, kind in td.machine.handoff.e820:
            if kind != linux.E820Type.RAM:
                continue
            units = range(start - start % LARGE, start + size, LARGE)
            listed |= left & set(units)
            for at in units:
                first, end = max(start, at), min(start + size, at + LARGE)
                as_told = memory.is_pending if at in left else memory.is_accepted
                assert as_told(first, end - first), hex(first)
                assert at not in left or end - first == LARGE
        assert listed == left


@dataclass(frozen=True)
class Work:
    """From reset to the hand-over."""

    instructions: int
    tdcalls: int


def work(firmware: Firmware, memory: int, **more: object) -> Work:
    report = run(replace(firmware.config, memory=memory, **more))  # type: ignore[arg-type]
    assert report.met, report.end
    return Work(report.instructions - report.instructions_excluded, sum(report.tdcalls.values()))


def test_work_does_not_grow_with_memory(lazy: Firmware) -> None:
    """Exact counts, which docs/performance.md has."""
    small, middle, large = (work(lazy, memory) for memory in LAZY_MEMORY)
    assert [size // GIB for size in LAZY_MEMORY] == [2, 64, 1024]
    assert large.tdcalls == middle.tdcalls == small.tdcalls
    assert small.instructions <= middle.instructions <= large.instructions <= 1.05 * small.instructions
    lines = PAGE_FILE.read_text().split("## RAM that is left to Linux")[1].split("\n## ")[0].splitlines()
    rows = {cells[1].strip(): cells[2:5] for line in lines if len(cells := line.split("|")) > 2}
    for name, figures in (
        ("instructions, without hashing", (small.instructions, middle.instructions, large.instructions)),
        ("TDCALLs", (small.tdcalls, middle.tdcalls, large.tdcalls)),
    ):
        assert [cell.strip() for cell in rows[name]] == [f"{figure:,}" for figure in figures]


def test_all_vcpus_accept_what_is_not_left(lazy: Firmware, tmp_path: Path, tiny: bytes) -> None:
    flow = tmp_path / "together.tdf"
    flow.write_text(LAZY_FLOW.read_text().replace("rest lazily", "rest lazily on all vcpus"))
    together = made(flow, tmp_path, tiny)
    with stopped(replace(lazy.config, memory=2 * GIB)) as alone:
        expected = alone.report, bits(alone, table_of(alone))
    with stopped(replace(together.config, memory=2 * GIB, vcpus=4)) as td:
        assert td.report.met, td.report.end
        assert bits(td, table_of(td)) == expected[1]
        assert td.report.pages == expected[0].pages | {"added": td.report.pages["added"]}
    assert work(together, 1024 * GIB, vcpus=4).tdcalls <= 1.05 * work(together, 2 * GIB, vcpus=4).tdcalls


def test_more_ram_than_the_region_lists(tmp_path: Path, tiny: bytes) -> None:
    flow = tmp_path / "short.tdf"
    flow.write_text(re.sub(r"efi +128 KiB", "efi 20 KiB", LAZY_FLOW.read_text()))
    short = made(flow, tmp_path, tiny)
    assert run(replace(short.config, memory=60 * GIB)).met
    report = run(replace(short.config, memory=64 * GIB))
    assert (report.end["reason"], report.end["detail"]) == (
        "fatal",
        "tdforge: lazy acceptance: more RAM than the region lists",
    )


# ---- Debian's kernel


@pytest.fixture(scope="module", params=[1, 4])
def booted(
    request: pytest.FixtureRequest, lazy: Firmware, kernel: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stopped]:
    """In user space, with 1 GiB."""
    archive = initrd.archive(initrd.program(tmp_path_factory.mktemp("init")))
    config = replace(lazy.config, kernel=kernel, initrd=archive, memory=GIB, vcpus=request.param)
    line = f"{CMDLINE} efi=noruntime loglevel=5"  # warnings and worse
    until = f"console:init: processors {request.param}"
    with stopped(replace(config, cmdline=line, until=until)) as td:
        yield td


def test_linux_reaches_user_space(booted: Stopped) -> None:
    assert booted.report.met, booted.report.end
    assert "init: hello from user space" in booted.report.console
    assert not re.search(initrd.COMPLAINTS, booted.report.console)


def test_linux_accepts_by_itself(booted: Stopped, lazy: Firmware) -> None:
    """The pages that the report counts as the payload's are the units whose bits Linux cleared, no others."""
    with stopped(replace(lazy.config, memory=GIB)) as before:
        at, firmware = table_of(before), before.report.pages
        given = bits(before, at)
    assert (firmware["accepted_4k_by_payload"], firmware["accepted_2m_by_payload"]) == (0, 0)
    left = {at for at, unaccepted in given.items() if unaccepted}
    now = {at for at, unaccepted in bits(booted, at).items() if unaccepted}
    assert now < left
    assert {at for at in left if booted.machine.memory.is_pending(at, LARGE)} == now
    pages = booted.report.pages
    assert pages["accepted_2m_by_payload"] == len(left - now) > 100
    assert pages["accepted_4k_by_payload"] == 0
    assert len(now) > 100, "Linux accepted nearly all of it before anybody wanted it"
    assert pages["accepted_2m"] - pages["accepted_2m_by_payload"] == firmware["accepted_2m"]
    assert pages["accepted_4k"] == firmware["accepted_4k"]
