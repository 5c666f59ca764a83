"""What does the payload find at the handoff, for every VMM, memory size and number of vCPUs?"""

from __future__ import annotations

import struct
import subprocess
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import oracle
import pytest
from debian import tool
from tdbox import GIB, LINUX, MIB, PRESETS, Firmware, Stopped, launched, made, payload_window, stopped

from emu.api import run
from emu.cpu import pagestate
from emu.signals import End
from formats.registers import R8, R15, RBX, RDI, RSI

SIZES = {
    "128M": 128 * MIB,
    "257M": 257 * MIB,
    "2047M": 2047 * MIB,
    "2G": 2 * GIB,
    "3G": 3 * GIB,
    "8G": 8 * GIB,
    "64G": 64 * GIB,
}
ECAM = (0xE0000000, 0xF0000000)  # where qemu.tdf puts PCIe configuration space: reserved
MAX_INSTRUCTIONS, MAX_MEASURED_PAGES = 40_000, 16  # the bars of the first milestone


def ram_of(vmm: str, size: int) -> list[tuple[int, int]]:
    """Where each VMM puts RAM: QEMU's q35 splits at 2 GiB from 2816 MiB on, the others at 3 GiB."""
    most, split = (0xB0000000 - 1, 2 * GIB) if vmm == "qemu" else (3 * GIB, 3 * GIB)
    return [(0, size)] if size <= most else [(0, split), (4 * GIB, 4 * GIB + size - split)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("vmm", PRESETS)
def test_the_e820_covers_every_byte_once(shipped: Firmware, vmm: str, size: str) -> None:
    pages = "2M" if SIZES[size] > GIB else None  # in 4 KiB: a TDCALL for each, up to millions
    with stopped(replace(shipped.config, memory=SIZES[size], host_page_size=pages)) as td:
        assert td.report.met, td.report.end
        table = oracle.boot_params(td.read, td.boot_params).e820
        assert all(before[1] <= after[0] for before, after in pairwise(table))
        assert all(start < end for start, end, _ in table)
        ram = ram_of(vmm, SIZES[size])
        assert tuple(ram) == td.machine.launch.ram
        for low, high in ram:
            inside = [(start, end) for start, end, _ in table if start < high and low < end]
            assert inside[0][0] == low
            assert inside[-1][1] == high
            assert all(before[1] == after[0] for before, after in pairwise(inside))
        rest = [(s, e, kind) for s, e, kind in table if not any(low <= s and e <= high for low, high in ram)]
        ecam = [(s, e, kind) for s, e, kind in rest if vmm == "qemu" and (s, e) == ECAM]
        rest = [entry for entry in rest if entry not in ecam]
        assert all(kind == 2 and shipped.section("code")[0] <= s < e <= 4 * GIB for s, e, kind in rest)
        for start, end, kind in table:
            if kind in (1, 3, 4):  # the kernel touches these without a word to anyone
                states = set(td.machine.memory.states(start, end - start))
                assert {s & pagestate.STATE for s in states} == {pagestate.MAPPED}


def tables_of(td: Stopped) -> dict[str, tuple[int, bytes]]:
    """Address and bytes of each ACPI table by signature; each signature occurs once."""
    found = oracle.acpi_tables(td.read, oracle.boot_params(td.read, td.boot_params).rsdp)
    by_name = {table[:4].decode(): (place, table) for place, table in found}
    assert len(by_name) == len(found)
    return by_name


def mailbox_of(td: Stopped) -> int:
    """GPA of the multiprocessor wakeup mailbox, by the MADT."""
    (wakeup,) = [entry for entry in oracle.madt_entries(tables_of(td)["APIC"][1]) if entry[0] == 0x10]
    (mailbox,) = struct.unpack_from("<Q", wakeup, 8)
    return int(mailbox)


@pytest.mark.parametrize("vmm", PRESETS)
def test_what_must_survive_is_not_called_free(shipped: Firmware, vmm: str) -> None:
    with stopped(shipped.config) as td:
        given, tables = oracle.boot_params(td.read, td.boot_params), tables_of(td)
        mailbox = mailbox_of(td)

    def kinds(start: int, size: int) -> set[int]:
        return {kind for low, high, kind in given.e820 if low < start + size and start < high}

    length, log = struct.unpack_from("<QQ", tables["CCEL"][1], 40)
    assert (log, length) == shipped.section("event_log")
    assert kinds(log, length) == {4}
    assert kinds(mailbox, 4096) == {4}
    assert kinds(given.rsdp, 36) == {3}
    for name, (place, table) in tables.items():
        assert kinds(place, len(table)) == {3}, name
    assert kinds(0x10000, 0x8F000) == {1}  # Linux puts its real-mode trampoline there


@pytest.mark.parametrize("vmm", PRESETS)
def test_iasl_disassembles_each_acpi_table(shipped: Firmware, vmm: str, tmp_path: Path) -> None:
    with stopped(replace(shipped.config, vcpus=3)) as td:
        tables = tables_of(td)
    more = ["MCFG"] if vmm == "qemu" or vmm.startswith("cloud-hypervisor") else []
    assert sorted(tables) == sorted(["APIC", "CCEL", "DSDT", "FACP", "XSDT", *more])
    for name, (_, table) in tables.items():
        (tmp_path / f"{name}.dat").write_bytes(table)
        command = [*tool("iasl", "acpica-tools"), "-d", f"{name}.dat"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout + done.stderr + (tmp_path / f"{name}.dsl").read_text()
        for complaint in ("Error", "Warning", "Invalid", "Incorrect checksum"):
            assert complaint not in said, said


@pytest.mark.parametrize(
    ("vmm", "vcpus"), [("td-shim-spec", 4), ("qemu", 4), ("td-shim-spec", 300), ("qemu", 300)]
)
def test_every_ap_is_parked_and_listed(shipped: Firmware, vcpus: int) -> None:
    with stopped(replace(shipped.config, vcpus=vcpus)) as td:
        assert td.report.met, td.report.end
        assert len(td.report.aps) == vcpus - 1
        where = {(ap["parked"], ap["end"], str(ap["symbol"]).split("+")[0]) for ap in td.report.aps}
        assert where == {(True, "", "ap_park")}
        parked = [vcpu.regs.gpr for vcpu in td.machine.vcpus[1:]]
        assert not [n for gpr in parked for n in (RBX, RSI, RDI, *range(R8, R15 + 1)) if gpr[n]]
        entries = oracle.madt_entries(tables_of(td)["APIC"][1])
        assert td.read(mailbox_of(td), 8) == bytes(8)  # no command, no APIC id
    small = [struct.unpack("<BBBBI", entry) for entry in entries if entry[0] == 0]
    large = [struct.unpack("<BBHIII", entry) for entry in entries if entry[0] == 9]
    listed = [(apic, flags) for _, _, _, apic, flags in small]
    listed += [(apic, flags) for _, _, _, apic, flags, _ in large]
    assert listed == [(index, 1) for index in range(vcpus)]
    assert all(apic < 255 for _, _, _, apic, _ in small)


@pytest.mark.parametrize("target", [0x9000, 0x3000_0000, 0x1_4000_1000], ids=hex)
def test_an_ap_leaves_the_park_loop_by_the_mailbox(linux: Firmware, target: int) -> None:
    """As an operating system does it (ACPI 6.5, 5.2.12.19): command 1, APIC id, any vector."""
    with stopped(replace(linux.config, vcpus=3, memory=6 << 30)) as td:
        mailbox = mailbox_of(td)
        td.machine.memory.write(target, b"\xeb\xfe")  # jmp to itself
        td.machine.memory.write(mailbox, struct.pack("<HHIQ", 1, 0, 2, target))
        first, second = td.machine.vcpus[1:]
        for vcpu in (first, second):
            vcpu.run_alone(5000)
        assert int(second.regs.rip) == target
        assert int(first.regs.rip) != target
        assert td.read(mailbox, 2) == bytes(2)  # taken


def test_memory_is_never_both_writable_and_executable_before_the_handoff(linux: Firmware) -> None:
    """Looks at the page tables every 200 instructions, from the first in force to the last separator."""
    seen = 0
    symbols = linux.symbols()
    parser = range(symbols["parse_hob"], symbols["parse_hob"] + 0x400)
    at_parse = False
    with launched(linux.config) as machine:
        boot = machine.vcpus[0]
        machine.lib.td_arm_handoff(boot.handle, True)
        try:
            while machine.module.tdcalls["TDG.MR.RTMR.EXTEND"] < 5:
                boot.run(boot.count + 200)
                at_parse |= int(boot.regs.rip) in parser
                if boot.regs.mode != 64:
                    continue
                seen += 1
                both = [
                    m for m in oracle.mappings(machine.read_guest, int(boot.regs.cr3)) if m.rights == "rwx"
                ]
                assert not both, machine.symbols.name(int(boot.regs.rip))
        except End as end:
            pytest.fail(f"{end.reason} before the last separator")
    assert seen > 50
    assert at_parse


def test_the_page_tables_of_the_handoff(linux: Firmware, kernel: bytes) -> None:
    with stopped(replace(linux.config, kernel=kernel)) as td:
        found = oracle.mappings(td.read, td.cr3)
        entry = int(str(td.report.handoff["entry"])) if td.report.handoff else 0
    symbols = linux.symbols()
    payload, _ = linux.section("payload")
    load = payload + (kernel[0x1F1] + 1) * 512
    window = payload_window(kernel, payload)
    assert entry == load + 0x200
    both = [(m.start, m.end) for m in found if m.rights == "rwx"]
    assert both == [(0, 2 * MIB), (load // 4096 * 4096, window[1])]
    assert oracle.rights(found, symbols["__text_start"], symbols["__text_end"]) == "rx"
    assert oracle.rights(found, symbols["__rodata_start"], symbols["__rodata_end"]) == "r"
    assert oracle.rights(found, symbols["__data_start"], symbols["__data_end"]) == "rw"
    stack, size = linux.section("stack")
    assert oracle.rights(found, stack, stack + 4096) == "none"
    assert oracle.rights(found, stack + 4096, stack + size) == "rw"
    executable = [m for m in found if m.executable and not m.writable]
    assert [(m.start, m.end) for m in executable] == [(symbols["__text_start"], symbols["__text_end"])]


@pytest.mark.parametrize("memory", [256 * MIB, 2 * GIB])
def test_the_bars_hold(linux: Firmware, memory: int, kernel: bytes) -> None:
    report = run(replace(linux.config, memory=memory, kernel=kernel))
    assert report.instructions_excluded > 10**6  # SHA-384 of the kernel
    assert report.instructions - report.instructions_excluded <= MAX_INSTRUCTIONS
    assert report.pages["extended"] <= MAX_MEASURED_PAGES
    assert len(linux.image) <= 64 << 10


def test_a_firmware_far_larger_than_what_16_bit_code_reaches(tiny: bytes, tmp_path: Path) -> None:
    """What has to lie in the last 64 KiB does, and an exception in the rest still finds its handler."""
    flow = tmp_path / "large.tdf"
    line = '    if td.vcpu_index == {0} {{ print "never said, number {0}, only there to be large" }}\n'
    more = "".join(map(line.format, range(100_000, 102_500)))
    text = LINUX.read_text().replace("up to 64 KiB", "up to 512 KiB")
    flow.write_text(text.replace("    start_log(event_log)?\n", f"    start_log(event_log)?\n{more}"))
    firmware = made(flow, tmp_path / "out", tiny)
    bfv = next(s for s in oracle.sections(firmware.image) if s.type == 0)
    assert bfv.size > 256 << 10
    assert run(replace(firmware.config, vcpus=2)).met
    report = run(firmware.patched("parse_hob", b"\x0f\x0b"))  # UD2
    assert report.end["reason"] == "fatal"
    assert "#UD" in str(report.end["detail"])
