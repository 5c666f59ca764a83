"""Does the firmware survive a lying fw_cfg device? `python tests/system/fwcfgcampaign.py 1000 --json OUT`

Each seed boots qemu.tdf, or host_acpi.tdf, under a host whose device lies; every fourth host attacks in all
other ways too. The boot must end in a handoff, with registers that stand for the bytes that were really used,
or in `fatal` with registers that stand for no others; never otherwise.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2])]

import hostilecampaign
import oracle
from hostilecampaign import CALLS, GOOD, Given, Ledger, Outcome, Told, judge, mrtd, refused
from tdbox import LINUX, Firmware, Stopped, finish, launched, made

from emu.api import RunConfig
from emu.machine import Machine
from emu.vmm.hostile.fw_cfg import RESTLESS, HostileFwCfg, LyingFwCfg
from emu.vmm.hostile.policy import Hostile
from tdforge.tiny import tiny_payload

QEMU = LINUX.with_name("qemu.tdf")
HOST_ACPI = Path(__file__).parents[1] / "dsl" / "flows" / "host_acpi.tdf"
BLOB = 0x8000000A  # EV_EFI_PLATFORM_FIRMWARE_BLOB2
SEEDS, EVERY = 1000, 4
NONE = bytes(48).hex()
ECAM = 0xE0000000, 0xF0000000  # where the firmware puts PCIe configuration space (docs/decisions/0019)
# QEMU docs/specs/fw_cfg.rst and include/standard-headers/linux/qemu_fw_cfg.h
DIRECTORY, SETUP_SIZE, SETUP, KERNEL_SIZE, KERNEL = 0x19, 0x17, 0x18, 0x08, 0x11
INITRD_SIZE, INITRD, LINE_SIZE, LINE = 0x0B, 0x12, 0x14, 0x15
HEADER_END = 0x268  # of a setup header


@dataclass(frozen=True)
class Files:
    """Kernel, command line with its NUL, initrd."""

    kernel: bytes
    line: bytes
    initrd: bytes


def files(device: LyingFwCfg) -> Files:
    """By the device's own record of what lay at the address of each transfer when it was over."""

    def number(key: int) -> int:
        return int.from_bytes(device.given.get(key, b"")[:4], "little")

    def content(key: int, size: int) -> bytes:
        return device.given.get(key, b"")[:size] if size else b""

    listed = device.given.get(DIRECTORY, b"").ljust(4, b"\0")
    rows = (listed[4 + 64 * at : 68 + 64 * at] for at in range(min(int.from_bytes(listed[:4], "big"), 63)))
    found = next((row for row in rows if row[8:24] == b"etc/boot/kernel\0"), None)
    if found:
        size, key = struct.unpack_from(">IH", found)
        kernel = content(key, size)
    else:
        kernel = content(SETUP, number(SETUP_SIZE))
        if rest := content(KERNEL, number(KERNEL_SIZE)):
            at = oracle.setup_size(kernel.ljust(HEADER_END, b"\0"))
            kernel = kernel[:at].ljust(at, b"\0") + rest + kernel[at + len(rest) :]
        if number(KERNEL_SIZE) and len(kernel) >= HEADER_END:
            kernel = oracle.unwritten(kernel)
    return Files(kernel, content(LINE, number(LINE_SIZE)), content(INITRD, number(INITRD_SIZE)))


def handed_over(td: Stopped) -> Files:
    """As the payload gets them: the kernel where its event says, the others where boot_params say."""
    log = oracle.events(td.report.event_log.rstrip(b"\xff"))
    blobs = [e.blob() for e in log if e.type == BLOB]
    kernel = next((td.read(at, size) for name, at, size in blobs if name == "td_payload"), b"")
    page = oracle.boot_params(td.read, td.boot_params)
    line = td.read(page.command_line, 4096).split(b"\0", 1)[0] + b"\0"
    return Files(kernel, line, td.read(*page.initrd))


def loader(firmware: Firmware, td: Stopped) -> tuple[bytes, ...]:
    """What was measured as acpi_loader, where its event says; nothing if there is no such event."""
    try:
        log = oracle.events(td.read(*firmware.section("event_log")).rstrip(b"\xff"))
    except (AssertionError, struct.error):
        return ()  # refused before the log was started
    blobs = [event.blob() for event in log if event.type == BLOB]
    return tuple(td.read(at, size) for name, at, size in blobs if name == "acpi_loader")


def came(data: bytes, device: LyingFwCfg) -> bool:
    """Whether each file in an acpi_loader is what the device gave."""
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at + 56 : at + 64], "little")
        content = data[at + 64 : at + 64 + size]
        if not any(given[:size] == content for given in device.given.values()):
            return False
        at += 64 + -(-size // 8) * 8
    return True


@dataclass(frozen=True)
class GivenByFwCfg(Given):
    """The same, with files from the device."""

    files: Files = Files(b"", b"", b"")

    @property
    def initrd(self) -> bytes:
        return self.files.initrd

    def measured(self) -> list[bytes]:
        """What RTMR[2] stands for: an initrd is measured even if it is empty."""
        return [self.line, self.initrd]

    def registers(self) -> tuple[str, ...]:
        kernel = oracle.extended(oracle.kernel_extent(self.payload), GOOD)
        return self.machine(), kernel, oracle.extended(*self.measured()), NONE


def configuration(firmware: Firmware, seed: int) -> RunConfig:
    """The run of a seed: a hostile one with other hosts, and with small and large initrds."""
    initrd = (None, b"initrd" * 1000, b"large!" * 800_000)[(0, 1, 1, 1, 1, 1, 1, 2)[seed % 8]]
    vmm = f"hostile:{seed}:qemu" if seed % EVERY == EVERY - 1 else f"hostile-fw_cfg:{seed}"
    return replace(hostilecampaign.configuration(firmware, seed), vmm=vmm, initrd=initrd)


def what_is_given(firmware: Firmware, machine: Machine) -> GivenByFwCfg:
    """Read from the TD's memory before its first instruction; the files come later."""
    told = Told(len(machine.vcpus))
    machine.observe(told)
    base, size = firmware.section("hob")
    pages = mrtd(machine.launch.regions)
    calls = CALLS | {"MapGPA", "Instruction.IO"}
    return GivenByFwCfg(base, machine.read_guest(base, size), b"", b"", told, pages, calls, (ECAM,))


def judge_fw_cfg(firmware: Firmware, td: Stopped, given: GivenByFwCfg, seen: Ledger) -> None:
    """As any boot. One that was refused has measured nothing, or the files in their order."""
    policy = td.machine.vmm.policy
    assert isinstance(policy, HostileFwCfg | Hostile)
    assert policy.device
    found: Files | None = files(policy.device)
    if RESTLESS in policy.done:  # bytes changed behind a transfer: only the hand-over tells what was used
        found = handed_over(td) if td.report.handoff else None
    if td.report.handoff:
        assert found
        assert len(found.kernel) > HEADER_END, "no such kernel was given"
    given = replace(given, more=loader(firmware, td))
    if RESTLESS not in policy.done:
        assert all(came(data, policy.device) for data in given.more), "other files than were given"
    if found is not None:
        given = replace(given, files=found, payload=found.kernel, parameters=found.line)
    judge(firmware, td, given, seen)
    if td.report.handoff or found is None:
        return
    kernel = oracle.kernel_extent(found.kernel) if len(found.kernel) > 0x1F8 else b""
    assert td.report.rtmr[1] in (*refused(td), *refused(td, kernel)), "another kernel"
    ways = [given.measured()[:count] for count in range(3)]
    assert td.report.rtmr[2] in (NONE, *(oracle.extended(*way) for way in ways if way)), "another file"


def campaign(
    firmware: Firmware, seeds: Iterable[int], progress: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """A run for each seed; `progress` hears of each."""
    outcome = Outcome()
    for seed in seeds:
        config = configuration(firmware, seed)
        with launched(config) as machine:
            given = what_is_given(firmware, machine)
            td = finish(machine, config)
            outcome.note(config.vmm, td, partial(judge_fw_cfg, firmware, td, given, outcome.seen))
        progress(outcome)
    return outcome


class Progress:
    """Lines on stderr: each failure at once, the counts after every hundred runs."""

    def __init__(self) -> None:
        self.failures = 0

    def __call__(self, outcome: Outcome) -> None:
        for failure in outcome.failures[self.failures :]:
            print(f"WRONG {failure}", file=sys.stderr, flush=True)
        self.failures = len(outcome.failures)
        if outcome.runs % 100 == 0:
            ends = ", ".join(f"{count} {reason}" for reason, count in outcome.by_reason.most_common())
            print(f"... {outcome.runs}: {ends}, {self.failures} wrong", file=sys.stderr, flush=True)


def main(words: list[str]) -> int:
    """Prints the counts; returns 1 when a run ended otherwise than it may."""
    parser = argparse.ArgumentParser(prog="./run fw_cfg --", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seeds", metavar="N", nargs="?", type=int, default=SEEDS, help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="default: %(default)s")
    parser.add_argument("--host-acpi", action="store_true", help="a flow that takes the host's tables")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args(words)
    if given.seeds < 1 or given.first < 0:
        parser.error(f"{given.seeds} seeds from {given.first}: expected 1 or more, from 0 or more")
    seeds = range(given.first, given.first + given.seeds)
    flow = HOST_ACPI if given.host_acpi else QEMU
    outcome = campaign(made(flow, Path("build"), tiny_payload()), seeds, Progress())
    outcome.tell()
    if given.json:
        figures = {name: value for name, value in vars(outcome).items() if name != "seen"}
        given.json.write_text(json.dumps({"first": given.first} | figures, indent=1) + "\n")
    return 1 if outcome.failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
