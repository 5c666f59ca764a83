"""How does a test look into a TD at the moment its run ends, or stops for a look on the way?"""

from __future__ import annotations

import argparse
import json
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from elftools.elf.elffile import ELFFile

from emu.api import Report, RunConfig, prepare, report
from emu.ending import Until
from emu.machine import Machine
from emu.snapshot import file as snapshot
from emu.vmm.presets import TAKE_SECTION
from gen.build import build

MIB, GIB = 1 << 20, 1 << 30
PRESETS = (*TAKE_SECTION, "qemu")  # linux.tdf boots on the first of them, qemu.tdf on the last
HASHING = ("sha384_blocks",)
ASKS = "tour: which end?"  # the last that initrd.asking() prints before it reads a line
LINUX = Path(__file__).resolve().parents[2] / "dsl" / "flows" / "linux.tdf"
QEMU = LINUX.with_name("qemu.tdf")
EXECUTABLE = LINUX.parents[2] / "tests/dsl/flows/executable.tdf"


@dataclass(frozen=True)
class Firmware:
    """A built image, and a configuration that starts it with a payload."""

    image: bytes
    manifest: dict[str, Any]
    elf: Path
    config: RunConfig

    def section(self, name: str) -> tuple[int, int]:
        """GPA and size of a section of the manifest."""
        return next((s["gpa"], s["size"]) for s in self.manifest["sections"] if s["name"] == name)

    def symbols(self) -> dict[str, int]:
        """Addresses by name, of the ELF file beside the image."""
        with self.elf.open("rb") as file:
            table = ELFFile(file).get_section_by_name(".symtab")
            assert table is not None
            return {symbol.name: int(symbol["st_value"]) for symbol in table.iter_symbols() if symbol.name}

    def patched(self, symbol: str, code: bytes) -> RunConfig:
        """A configuration whose image has other code at a symbol: a firmware with a defect."""
        at = len(self.image) - ((1 << 32) - self.symbols()[symbol])
        return replace(self.config, image=self.image[:at] + code + self.image[at + len(code) :])


def made(flow: Path, out: Path, payload: bytes, built_in: Path | None = None) -> Firmware:
    """Builds a flow, around `built_in` if it takes that; the configuration has 256 MiB and one vCPU."""
    result = build(flow, out, payload=built_in)
    image = result.image.read_bytes()
    config = RunConfig(
        image, flow.stem, memory=256 * MIB, kernel=payload, cmdline="console=ttyS0", elf=result.elf
    )
    return Firmware(
        image, json.loads(result.manifest.read_text()), result.elf, replace(config, skip_count=HASHING)
    )


@dataclass(frozen=True)
class Stopped:
    """A TD whose run is over; its memory can still be read."""

    report: Report
    machine: Machine

    def read(self, gpa: int, size: int) -> bytes:
        """Private memory."""
        return self.machine.read_guest(gpa, size)

    @property
    def boot_params(self) -> int:
        """GPA of the zero page."""
        assert self.report.handoff is not None, self.report.end
        return int(str(self.report.handoff["boot_params"]))

    @property
    def cr3(self) -> int:
        """Of vCPU 0."""
        return int(self.machine.vcpus[0].regs.cr3)


@contextmanager
def launched(config: RunConfig) -> Iterator[Machine]:
    """The TD before its first instruction, for a test that changes something or runs it piece by piece."""
    machine = prepare(config)
    try:
        yield machine
    finally:
        machine.close()


@contextmanager
def stopped(config: RunConfig) -> Iterator[Stopped]:
    """Runs to the end of the configuration and keeps the TD for a look."""
    with launched(config) as machine:
        yield finish(machine, config)


def finish(machine: Machine, config: RunConfig) -> Stopped:
    """Runs a launched TD to its end."""
    ending = machine.run(config.max_instructions, None)
    return Stopped(report(machine, ending), machine)


@contextmanager
def asking(config: RunConfig) -> Iterator[Callable[[bytes], Stopped]]:
    """Boots to the end of initrd.asking(). What it hands out types a line there and runs to the end; each
    line is typed into the same TD, which is put back to where it asked.
    """
    with launched(replace(config, until=f"console:{ASKS}")) as machine:
        td = finish(machine, config)
        assert td.report.met, td.report.end
        start = snapshot.save(machine)
        machine.console.until = Until.parse("halt")

        def typed(line: bytes) -> Stopped:
            snapshot.restore(machine, start)
            machine.vmm.ports.uart.feed(line + b"\n")
            return finish(machine, config)

        yield typed


def wanted_runs(command: str, what: str, default: int, words: list[str] | None = None) -> int:
    """How many runs the command line of a campaign asks for. SystemExit if it asks for something else."""
    made = argparse.ArgumentParser(prog=command, description=what, epilog=f"example: {command} -- 50")
    made.add_argument("runs", metavar="N", nargs="?", type=int, default=default, help=f"default: {default}")
    given: int = made.parse_args(words).runs
    if given < 1:
        made.error(f"N is {given}, expected 1 or more")
    return given


def print_counts(**counts: Counter[str]) -> None:
    """What a campaign came to, most frequent first."""
    for what, found in counts.items():
        print(f"by {what}:")
        for name, count in found.most_common():
            print(f"  {count:5} {name}")


def payload_window(payload: bytes, load: int) -> tuple[int, int]:
    """[O, O + init_size) of the 64-bit boot protocol for a bzImage whose setup part lies at `load`."""
    alignment, init_size = (struct.unpack_from("<I", payload, at)[0] for at in (0x230, 0x260))
    start = load + (payload[0x1F1] + 1) * 512
    start = max(-(-start // alignment) * alignment, 0x1000000)
    return start, start + init_size
