"""Does firmware that nobody here wrote run: Debian's OVMF.fd from reset, and with it Debian's kernel?"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import initrd
import pytest
from debian import kernel, new_ovmf, ovmf

from emu import eventlog
from emu.api import Report, RunConfig, TdParams, run
from emu.observe import Observer
from emu.vcpu import Vcpu
from formats.registers import Gpr

FEW = 30_000_000  # instructions; OVMF has accepted everything and moved on to its devices long before
IN_PEI = 455_000_000  # 2022.11: PEI has moved to RAM and waits for a TPM; most of it decompresses that code
IN_DXE = 700_000_000  # 2025.02: no PEI, all code in RAM
TO_ROOT = 8_000_000_000  # more than enough for OVMF and a kernel
IO, MMIO, TPM, PM_TIMER = 0x1E, 0x30, 0xFED40000, 0x608
HOST_BRIDGE_ID, FW_CFG = 0xCFE, (0x511, 0x514, 0x518)
RBP = 1 << 5


@pytest.fixture(scope="module")
def image() -> bytes:
    """Debian's image."""
    return ovmf().read_bytes()


class Reads(Observer):
    """What the guest read of ports and of device memory, in order, repetitions left out, and which registers
    it showed to the VMM.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []  # sub-function, port or address, value
        self.shown = 0

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        self.shown |= given[1] if given[0] == 0 else 0
        if given[0] == 0 and given[11] in (IO, MMIO) and given[13] == 0:
            read = (given[11], given[14] & (1 << 47) - 1, result[11])
            if read not in self.seen[-1:]:
                self.seen.append(read)


def boot(image: bytes, observer: Observer | None = None, **settings: object) -> Report:
    """With a module that lets TDVMCALL expose RBP: OVMF of 2022 (Debian 12) does, of 2025 (Debian 13) not."""
    values = {
        "vmm": "qemu",
        "until": "halt",
        "max_instructions": FEW,
        "td": TdParams(config_flags=0),
    } | settings
    config = RunConfig(image=image, image_name="OVMF.fd", **values)  # type: ignore[arg-type]
    return run(config, observer=observer)


def metadata(image: bytes) -> list[tuple[int, ...]]:
    """The sections, found as edk2's reset vector lays them out: by the GUID table's distance from the end."""
    guid = bytes.fromhex("35657ae44a989847865e4685a7bf8ec2")
    at = image.rindex(guid)
    distance = struct.unpack("<I", image[at - 6 : at - 2])[0]
    start = len(image) - distance
    assert image[start : start + 4] == b"TDVF"
    count = struct.unpack("<I", image[start + 12 : start + 16])[0]
    return [struct.unpack("<IIQQII", image[start + 16 + 32 * i : start + 48 + 32 * i]) for i in range(count)]


def expected_mrtd(image: bytes, two_pass: bool) -> str:
    """MRTD from the specification's text alone."""
    digest = hashlib.sha384()
    for offset, raw, address, size, _, attributes in metadata(image):
        content = image[offset : offset + raw].ljust(size, b"\0")
        adds, extends = [], []
        for page in range(0, size, 4096):
            adds.append(
                b"MEM.PAGE.ADD".ljust(16, b"\0") + struct.pack("<Q", address + page).ljust(112, b"\0")
            )
            chunks = b""
            for chunk in range(page, page + 4096 if attributes & 1 else page, 256):
                chunks += b"MR.EXTEND".ljust(16, b"\0") + struct.pack("<Q", address + chunk).ljust(112, b"\0")
                chunks += content[chunk : chunk + 256]
            extends.append(chunks)
        if two_pass:
            digest.update(b"".join(adds) + b"".join(extends))
        else:
            digest.update(b"".join(a + e for a, e in zip(adds, extends, strict=True)))
    return digest.hexdigest()


def in_ram(image: bytes) -> int:
    """Pages of RAM that are added at launch."""
    return sum(size for _, _, address, size, _, _ in metadata(image) if address < 1 << 31) // 4096


@pytest.fixture(scope="module")
def exposes_rbp(image: bytes) -> bool:
    """True of Debian 12's, which is of 2022."""
    reads = Reads()
    boot(image, reads, memory=64 << 20)
    assert reads.shown
    return bool(reads.shown & RBP)


@pytest.mark.parametrize("megabytes", [256, 257, 2047])
def test_all_memory_is_accepted(image: bytes, megabytes: int) -> None:
    report = boot(image, memory=megabytes << 20, host_page_size="2M")
    assert report.end["reason"] == "limit", report.end
    accepted = report.pages["accepted_4k"] + 512 * report.pages["accepted_2m"]
    assert accepted == megabytes * 256 - in_ram(image)
    assert report.pages["added"] == sum(size for _, _, _, size, _, _ in metadata(image)) // 4096
    assert report.vmcalls["Instruction.IO"] > 0


def test_one_neighbourhood_is_split_by_the_sections(image: bytes) -> None:
    report = boot(image, memory=256 << 20, host_page_size="2M")
    assert (report.pages["accepted_2m"], report.pages["accepted_4k"]) == (127, 512 - in_ram(image))


def test_how_far_it_gets_without_a_kernel(image: bytes, exposes_rbp: bool) -> None:
    """It finds host bridge, fw_cfg and timer. 2022.11 then waits for a TPM: where no device is, memory reads
    zero, which looks like one that is busy.
    """
    reads, megabytes = Reads(), 256
    budget = IN_PEI if exposes_rbp else IN_DXE
    report = boot(image, reads, memory=megabytes << 20, max_instructions=budget)
    assert report.end["reason"] == "limit", report.end
    assert (megabytes - 16) << 20 < int(str(report.end["rip"])) < megabytes << 20
    assert (IO, HOST_BRIDGE_ID, 0x29C0) in reads.seen
    assert {port for _, port, _ in reads.seen} & set(FW_CFG)
    assert any(port == PM_TIMER and value for _, port, value in reads.seen)
    if exposes_rbp:
        assert (MMIO, TPM, 0) in reads.seen
        assert reads.seen[-1][:2] == (IO, PM_TIMER)
    else:
        assert report.vmcalls["MapGPA"] > 0
        assert report.tdcalls["TDG.MR.RTMR.EXTEND"] > 2


def test_it_boots_debians_kernel_by_fw_cfg_to_user_space(tmp_path: Path) -> None:
    """OVMF 2025.02 takes kernel and initrd from fw_cfg, starts the kernel's EFI stub, and has measured what
    it did; the kernel finds the host's tables, `_S5` and PM1a_CNT among what they say.
    """
    report = boot(
        new_ovmf().read_bytes(),
        td=TdParams(),
        memory=256 << 20,
        kernel=kernel().read_bytes(),
        initrd=initrd.archive(initrd.program(tmp_path)),
        cmdline="console=ttyS0 printk.devkmsg=on",
        stdin=b"hello there\n",
        until="shutdown",
        max_instructions=TO_ROOT,
    )
    assert report.met, report.end
    for text in (
        "by Debian distribution of EDK II",
        "Command line: console=ttyS0",
        "ACPI: PM-Timer IO Port: 0x608",
        "PCI host bridge to bus 0000:00",
        "00:00: ttyS0 at I/O 0x3f8 (irq = 4, base_baud = 115200) is a 16550A",
        "Memory Encryption Features active: Intel TDX",
        "you said: hello there",
        "init: done",
    ):
        assert text in report.console, text
    assert report.end["detail"] == "the guest powered off through port 0x604"
    assert report.tdcalls["TDG.MR.RTMR.EXTEND"] == len(report.events) == 20
    assert [register.hex() for register in eventlog.replay(report.event_log)] == list(report.rtmr)


def test_mrtd_in_both_orders(image: bytes) -> None:
    for order in ("single-pass", "two-pass"):
        report = boot(image, memory=64 << 20, mrtd_order=order, max_instructions=1000)
        assert report.mrtd == expected_mrtd(image, order == "two-pass")


def test_same_run_twice(image: bytes) -> None:
    first, second = (boot(image, memory=128 << 20).to_json() for _ in range(2))
    assert first == second


def test_a_current_module_refuses_a_register_mask_with_rbp(image: bytes, exposes_rbp: bool) -> None:
    report = boot(image, memory=128 << 20, td=TdParams())
    assert report.end["reason"] == ("illegal" if exposes_rbp else "limit")
    assert ("0xffec" in str(report.end["detail"])) == exposes_rbp


def test_a_host_that_maps_4k_only(image: bytes) -> None:
    report = boot(image, memory=64 << 20)  # as KVM does
    assert report.pages["accepted_2m"] == 0
    assert report.pages["accepted_4k"] == 64 * 256 - in_ram(image)
