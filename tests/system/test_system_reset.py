"""How does an AP come back to the firmware? By the reset vector of mailbox version 1, whatever the OS made of
the vCPU, to the park loop, where it is woken again. Debian's kernel does it: offline, online, kexec.

Source: ACPI specification 6.6, 5.2.12.19; Linux arch/x86/kernel/acpi/madt_wakeup.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import initrd
import oracle
import pytest
from tdbox import MIB, Firmware, Stopped, made, stopped

from emu.api import run
from emu.oracle.shown import gather
from emu.view import Vcpu
from tdforge.boot import CMDLINE

KEXEC = Path(__file__).parents[1] / "dsl" / "flows" / "kexec.tdf"
PAGE, BLOCK = 0x1000, 2 * MIB
IDS = (2, 9, 0, 300)
NVS = 4
# Where the OS of these tests has its way out, its page tables, and where it is when it is awake.
WAY_OUT, TABLES, AWAKE = 0x9000, 0x1000_0000, 0x1_0000
# PAE, MCE, PGE, OSFXSR, OSXMMEXCPT, PCIDE; the loop's are PAE, MCE, OSFXSR, OSXMMEXCPT
OS_CR4, OUR_CR4, OUR_CR0 = 0x2_06E0, 0x660, 0x8001_0033
RBP, RDX = 5, 2  # in encoding order
CLEARED = (3, 6, 7, *range(8, 16))  # RBX, RSI, RDI, R8 to R15


@pytest.fixture(scope="module")
def kexec(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    """linux.tdf, whose APs can come back."""
    return made(KEXEC, tmp_path_factory.mktemp("kexec"), tiny)


@dataclass
class Os:
    """What an OS knows of the mailbox, and what it does with it."""

    td: Stopped
    mailbox: int
    vector: int

    def write(self, command: int, apic_id: int, target: int = 0) -> None:
        self.td.machine.memory.write(self.mailbox, struct.pack("<HHIQ", command, 0, apic_id, target))

    @property
    def command(self) -> int:
        return int.from_bytes(self.td.read(self.mailbox, 2), "little")

    def tables(self, *blocks: int) -> None:
        """Page tables that map these blocks of 2 MiB one to one, and nothing else."""
        pages = {0: {0: TABLES + PAGE}, 1: {}}
        directories: dict[int, dict[int, int]] = {}
        for block in blocks:
            directories.setdefault(block >> 30, {})[block >> 21 & 511] = block | 0x83
        for number, (gib, entries) in enumerate(directories.items(), 2):
            pages[1][gib] = TABLES + number * PAGE | 3
            pages[number] = entries
        pages[0][0] |= 3
        for number, entries in pages.items():
            content = b"".join(entries.get(index, 0).to_bytes(8, "little") for index in range(512))
            self.td.machine.memory.write(TABLES + number * PAGE, content)

    def way_out(self) -> None:
        """Code that leaves for the vector as Linux does, but with more bits of CR4."""
        code = b"\xfb\xb8" + struct.pack("<I", OS_CR4) + b"\x0f\x22\xe0"  # sti; mov eax, CR4; mov cr4, rax
        code += b"\x48\xb8" + struct.pack("<Q", TABLES) + b"\x0f\x22\xd8"  # mov rax, TABLES; mov cr3, rax
        code += b"\x48\xb8" + struct.pack("<Q", self.vector) + b"\xff\xe0"  # mov rax, vector; jmp rax
        self.td.machine.memory.write(WAY_OUT, code)
        self.td.machine.memory.write(AWAKE, b"\xeb\xfe")  # jmp to itself

    def wake(self, vcpu: Vcpu, apic_id: int, target: int) -> None:
        self.write(1, apic_id, target)
        vcpu.run_alone(1000)
        assert self.command == 0


@pytest.fixture
def os(kexec: Firmware) -> Iterator[Os]:
    """A TD whose payload has it, four vCPUs with odd ids, and all three APs on their way out."""
    config = replace(kexec.config, vcpus=4, apic_ids=",".join(map(str, IDS)), memory=512 * MIB)
    with stopped(config) as td:
        (version, _, mailbox, vector) = wakeup_of(td)
        assert version == 1
        system = Os(td, mailbox, vector)
        system.tables(0, TABLES & -BLOCK, vector & -BLOCK)
        system.way_out()
        yield system


def wakeup_of(td: Stopped) -> tuple[int, int, int, int]:
    """Version, length, mailbox and reset vector of the MADT's one wakeup structure."""
    rsdp = oracle.boot_params(td.read, td.boot_params).rsdp
    (madt,) = [table for _, table in oracle.acpi_tables(td.read, rsdp) if table[:4] == b"APIC"]
    (entry,) = [entry for entry in oracle.madt_entries(madt) if entry[0] == 0x10]
    version, _, mailbox, vector = struct.unpack_from("<HIQQ", entry.ljust(24, b"\0"), 2)
    return version, len(entry), mailbox, vector


@pytest.mark.parametrize("megabytes", [128, 256, 511, 3000])
def test_all_of_it_lies_in_2_mib_that_the_os_leaves_alone(kexec: Firmware, megabytes: int) -> None:
    with stopped(replace(kexec.config, vcpus=3, memory=megabytes * MIB, host_page_size="2M")) as td:
        version, length, mailbox, vector = wakeup_of(td)
        table = oracle.boot_params(td.read, td.boot_params).e820
        assert td.read(vector, 4) == bytes.fromhex("f30f1efa")  # ENDBR64, for an OS that tracks its jumps
    assert (version, length, mailbox % PAGE) == (1, 24, 0)
    assert mailbox // BLOCK == vector // BLOCK
    (around,) = [(start, end, kind) for start, end, kind in table if start <= mailbox < end]
    assert around[0] // BLOCK == (around[1] - 1) // BLOCK
    assert around[2] == NVS
    assert mailbox < vector < around[1]


def test_without_the_flows_word_there_is_no_vector(linux: Firmware) -> None:
    with stopped(replace(linux.config, vcpus=2)) as td:
        assert wakeup_of(td)[:2] == (0, 16)
        assert "ap_reset_vector" not in linux.symbols()


def test_the_oracle_sees_the_reset_code(os: Os) -> None:
    before = gather(os.td.machine)
    start, end = before.ranges["reset code"]
    assert (start, end) == (os.vector, os.vector + PAGE - os.vector % PAGE)
    os.td.machine.memory.write(start, b"\xf4")
    after = gather(os.td.machine)
    assert [name for name in before.parts if before.parts[name] != after.parts[name]] == ["mailbox"]


def back(os: Os, vcpu: Vcpu, index: int, symbols: dict[str, int]) -> None:
    """Where it was at first, and as it was."""
    regs = vcpu.regs
    assert symbols["ap_park"] <= regs.rip < symbols["ap_park"] + 0x80
    assert (regs.cr0, regs.cr3, regs.cr4) == (OUR_CR0, os.mailbox + PAGE, OUR_CR4)
    assert (regs.gpr[RDX], regs.gpr[RBP]) == (os.mailbox, IDS[index])
    assert not any(regs.gpr[number] for number in CLEARED)
    assert (regs.rflags >> 9 & 1, regs.idt_limit, regs.mode, regs.cpl) == (0, 0, 64, 0)


def test_aps_come_back_at_once_and_are_woken_by_their_ids(os: Os, kexec: Firmware) -> None:
    symbols, aps = kexec.symbols(), os.td.machine.vcpus[1:]
    for index, vcpu in enumerate(aps, 1):
        os.wake(vcpu, IDS[index], WAY_OUT)
    for _ in range(200):  # in the middle of each other
        for vcpu in aps:
            vcpu.run_alone(1)
    for index, vcpu in enumerate(aps, 1):
        back(os, vcpu, index, symbols)
    for asked in IDS[1:]:
        os.write(2, asked)
        for index, vcpu in enumerate(aps, 1):
            assert os.command == 2
            if IDS[index] != asked:
                vcpu.run_alone(100)
        aps[IDS.index(asked) - 1].run_alone(100)
        assert os.command == 0
    for index in (3, 1, 2):
        os.wake(aps[index - 1], IDS[index], AWAKE)
        assert aps[index - 1].regs.rip == AWAKE


def test_the_boot_cpu_comes_back_too(os: Os, kexec: Firmware) -> None:
    first = os.td.machine.vcpus[0]
    os.td.machine.lib.td_arm_handoff(first.handle, False)
    first.regs.rip = WAY_OUT
    first.run_alone(1000)
    back(os, first, 0, kexec.symbols())
    os.wake(first, IDS[0], AWAKE)
    assert first.regs.rip == AWAKE


def test_again_and_again(os: Os, kexec: Firmware) -> None:
    vcpu = os.td.machine.vcpus[2]
    for _ in range(3):
        os.wake(vcpu, IDS[2], WAY_OUT)
        vcpu.run_alone(1000)
        back(os, vcpu, 2, kexec.symbols())


# ---- Debian's kernel


def test_cpus_go_offline_and_online_and_kexec_keeps_all(
    kexec: Firmware, kernel: bytes, tmp_path: Path
) -> None:
    """tests/system/kexec.c: CPUs go and come, one stays away, then kexec into the same kernel, which runs it
    once more, without the files for a third.
    """
    program = initrd.program(tmp_path, initrd.SOURCE.with_name("kexec.c"))
    files = {"kernel": kernel, "initrd": initrd.archive(program)}
    config = replace(
        kexec.config,
        kernel=kernel,
        initrd=initrd.archive(program, files),
        cmdline=CMDLINE,
        memory=256 * MIB,
        vcpus=4,
        until="halt",
    )
    report = run(config)
    text = report.console.replace("\r", "")
    assert report.end["reason"] == "shutdown", report.end
    first, again, *more = text.split("Linux version ")[1:]
    assert not more
    for boot in (first, again):
        assert "Brought up 1 node, 4 CPUs" in boot
        assert [line[-1] for line in boot.splitlines() if "init: processors " in line] == list("434343")
        assert "hand over" not in boot
        assert not re.search(initrd.COMPLAINTS, boot)
    assert "init: kexec" in first
    assert "Command line: console=ttyS0 again" in again
