"""Does firmware that nobody here wrote run: Debian's OVMF.fd from reset until it misses a PCI host bridge?"""

from __future__ import annotations

import hashlib
import struct

import pytest
from debian import ovmf

from emu.api import Report, RunConfig, TdParams, run
from emu.observe import Observer
from emu.tdx.module import Gpr
from emu.vcpu import Vcpu

FEW = 3_000_000  # instructions; OVMF has accepted everything and moved on to its devices long before
IN_PEI = 449_000_000  # PEI has moved to RAM and waits for a timer; most of it decompresses that code
IO, MMIO, CMOS, TPM, PM_TIMER = 0x1E, 0x30, 0x71, 0xFED40000, 0


@pytest.fixture(scope="module")
def image() -> bytes:
    """Debian's image."""
    return ovmf().read_bytes()


class Reads(Observer):
    """What the guest read of ports and of device memory, in order, repetitions left out."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []  # sub-function, port or address, value

    def on_tdcall(self, vcpu: Vcpu, given: Gpr, result: Gpr) -> None:
        if given[0] == 0 and given[11] in (IO, MMIO) and given[13] == 0:
            read = (given[11], given[14] & (1 << 47) - 1, result[11])
            if read not in self.seen[-1:]:
                self.seen.append(read)


def boot(image: bytes, observer: Observer | None = None, **settings: object) -> Report:
    """OVMF of 2022 exposes RBP in TDVMCALL, which only older modules allow."""
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


@pytest.mark.parametrize("megabytes", [256, 257, 2047])
def test_all_memory_is_accepted(image: bytes, megabytes: int) -> None:
    report = boot(image, memory=megabytes << 20)
    assert report.end["reason"] == "limit", report.end
    in_ram = sum(size for _, _, address, size, _, _ in metadata(image) if address < 1 << 31) // 4096
    accepted = report.pages["accepted_4k"] + 512 * report.pages["accepted_2m"]
    assert accepted == megabytes * 256 - in_ram
    assert report.pages["added"] == sum(size for _, _, _, size, _, _ in metadata(image)) // 4096
    assert report.vmcalls["Instruction.IO"] > 0


def test_one_neighbourhood_is_split_by_the_sections(image: bytes) -> None:
    report = boot(image, memory=256 << 20)
    assert (report.pages["accepted_2m"], report.pages["accepted_4k"]) == (127, 512 - 26)


def test_what_stops_it(image: bytes) -> None:
    """As docs/emulator.md tells: it finds its RAM, runs there, and waits for a timer behind the PCI bus."""
    reads = Reads()
    report = boot(image, reads, memory=256 << 20, max_instructions=IN_PEI)
    assert report.end["reason"] == "limit", report.end
    megabytes = 256
    units = (megabytes - 16) * 16  # of 64 KiB
    assert [value for _, port, value in reads.seen if port == CMOS][-2:] == [units & 0xFF, units >> 8]
    assert (megabytes - 16) << 20 < int(str(report.end["rip"])) < megabytes << 20
    assert (MMIO, TPM, 0) in reads.seen
    assert reads.seen[-1] == (IO, PM_TIMER, 0xFFFFFFFF)


def test_mrtd_in_both_orders(image: bytes) -> None:
    for order in ("single-pass", "two-pass"):
        report = boot(image, memory=64 << 20, mrtd_order=order, max_instructions=1000)
        assert report.mrtd == expected_mrtd(image, order == "two-pass")


def test_same_run_twice(image: bytes) -> None:
    first, second = (boot(image, memory=128 << 20).to_json() for _ in range(2))
    assert first == second


def test_a_current_module_refuses_its_register_mask(image: bytes) -> None:
    report = boot(image, memory=128 << 20, td=TdParams())
    assert report.end["reason"] == "illegal"
    assert "0xffec" in str(report.end["detail"])


def test_a_host_that_maps_4k_only(image: bytes) -> None:
    report = boot(image, memory=64 << 20, host_page_size="4K", max_instructions=20_000_000)
    assert report.pages["accepted_2m"] == 0
    assert report.pages["accepted_4k"] == 64 * 256 - 26
