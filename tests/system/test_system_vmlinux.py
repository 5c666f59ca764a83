"""Does vmlinux.tdf boot what Dragonball and libkrun load, measure it all, and leave nothing else?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import initrd as initrds
import oracle
import pytest
from debian import vmlinux as debian_vmlinux
from tdbox import LINUX, MIB, Firmware, asking, made, stopped
from vmlinux import vmlinux, with_segment

from emu.api import Report, RunConfig, run
from emu.tdx.measure import AddedRegion
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy
from image.hosts import verdicts

WINDOW, INITRDS, ENTRY = 0x1000000, 0xA00000, 0x1000B53
PAGE, LINE = 4096, b"console=ttyS0 ro"
HOSTS = ("dragonball", "libkrun")
TEXT, DATA = bytes(range(1, 256)) * 48, b"data" * 700  # 0x2FD0 and 0xAF0 bytes
KERNEL = vmlinux([(0xFFFFFFFF81000000, WINDOW, TEXT), (0xFFFFFFFF81005000, WINDOW + 0x5000, DATA)], ENTRY)
INITRD = b"an initrd of more than a page " * 200
TRAMPOLINE = 38


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    return made(LINUX.with_name("vmlinux.tdf"), tmp_path_factory.mktemp("vmlinux"), KERNEL)


@pytest.fixture
def config(image: Firmware, vmm: str) -> RunConfig:
    """128 MiB, and what the host wants: libkrun an initrd, Dragonball none."""
    given = replace(image.config, vmm=vmm, cmdline=LINE.decode(), memory=128 * MIB)
    return replace(given, initrd=INITRD) if vmm == "libkrun" else given


def pages(data: bytes) -> bytes:
    """Without trailing zeros, to the end of the page."""
    used = data.rstrip(b"\0")
    return used.ljust(-(-len(used) // PAGE) * PAGE, b"\0")


def loaded(vmm: str, kernel: tuple[bytes, bytes] = (TEXT, DATA), initrd: bytes = INITRD) -> bytes:
    """What lies in the window. libkrun's code there sets ramdisk_image, ramdisk_size, cmd_line_ptr."""
    text, data = kernel
    whole = bytearray(text.ljust(0x5000, b"\0") + data)
    if vmm == "libkrun":
        code = b""
        for at, value in ((0x218, INITRDS), (0x21C, len(initrd)), (0x228, 0x20000)):
            code += b"\xb8" + value.to_bytes(4, "little") + b"\x89\x86" + at.to_bytes(4, "little")
        at = ENTRY - WINDOW
        whole[at - TRAMPOLINE : at] = code + b"\xe9" + bytes(4)
    return pages(bytes(whole))


def expected(vmm: str) -> str:
    """RTMR[1]."""
    entry = ENTRY if vmm == "dragonball" else ENTRY - TRAMPOLINE
    line, more = (LINE, []) if vmm == "dragonball" else (b"", [pages(INITRD)])
    return oracle.extended(loaded(vmm), entry.to_bytes(8, "little"), line, *more, bytes(4))


def test_both_hosts_load_the_image(image: Firmware) -> None:
    assert all(verdict.accepts for verdict in verdicts(image.image, HOSTS))


@pytest.mark.parametrize("vmm", HOSTS)
def test_what_lies_in_the_windows_is_measured_and_entered(config: RunConfig, vmm: str) -> None:
    with stopped(replace(config, vcpus=3)) as td:
        assert td.report.met, td.report.end
        assert td.report.rtmr[1] == expected(vmm)
        found = oracle.events(oracle.cut(td.report.event_log))
        assert oracle.replay(found) == td.report.rtmr
        assert td.report.handoff is not None
        assert td.report.handoff["entry"] == (ENTRY if vmm == "dragonball" else ENTRY - TRAMPOLINE)
        assert td.read(WINDOW, len(loaded(vmm))) == loaded(vmm)
        given = oracle.boot_params(td.read, td.boot_params)
        # libkrun's code will point the kernel to 0x20000: that is where the measured line is
        assert given.command_line == 0x20000
        line = LINE if vmm == "dragonball" else b"console=ttyS0"
        assert td.read(0x20000, PAGE) == line.ljust(PAGE, b"\0")
        assert given.initrd == ((INITRDS, len(pages(INITRD))) if vmm == "libkrun" else (0, 0))
        assert all(ap["parked"] for ap in td.report.aps)


def in_what_is_entered(vmm: str) -> Iterator[tuple[str, int]]:
    """A byte of each page of each part, and the first and last of all, but those that libkrun overwrites."""
    for place in (0, 0x1000, 0x2000, len(TEXT) - 1, ENTRY - WINDOW, ENTRY - WINDOW + 15):
        yield "text", place
    yield from (("data", place) for place in (0, len(DATA) - 1))
    if vmm == "libkrun":
        yield from (("initrd", place) for place in (0, PAGE, len(INITRD) - 1))


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes((data[place] ^ 0x80,)) + data[place + 1 :]


@pytest.mark.parametrize("vmm", HOSTS)
def test_a_flipped_byte_anywhere_changes_the_register(config: RunConfig, vmm: str) -> None:
    plain = run(config).rtmr
    for part, place in in_what_is_entered(vmm):
        parts = {"text": TEXT, "data": DATA, "initrd": INITRD}
        parts[part] = flipped(parts[part], place)
        segments = [(0xFFFFFFFF81000000, WINDOW, parts["text"]), (0, WINDOW + 0x5000, parts["data"])]
        initrd = parts["initrd"] if vmm == "libkrun" else None
        report = run(replace(config, kernel=vmlinux(segments, ENTRY), initrd=initrd))
        assert report.met
        assert report.rtmr[1] != plain[1], (part, place)
        assert report.rtmr[0] == plain[0]


@pytest.mark.parametrize("vmm", ["dragonball"])
def test_another_entry_changes_the_register(config: RunConfig) -> None:
    segments = [(0, WINDOW, TEXT), (0, WINDOW + 0x5000, DATA)]
    other = run(replace(config, kernel=vmlinux(segments, ENTRY + 1)))
    assert other.met
    assert other.rtmr[1] != run(config).rtmr[1]


@pytest.mark.parametrize("vmm", HOSTS)
def test_the_digest_does_not_depend_on_the_machine(config: RunConfig, vmm: str) -> None:
    large = run(replace(config, memory=160 * MIB, vcpus=2))
    assert large.rtmr[1] == expected(vmm)


class Dirty(Policy):
    """Pages of the VMM's all over RAM where no section is, and what it says it added."""

    def launch(self, launch: Launch) -> Launch:
        places = (0x9F000, 0x7000, 0x600000, WINDOW + 64 * MIB, WINDOW + 64 * MIB + PAGE, 0x7FFF000)
        taken = {
            page for region in launch.regions for page in range(region.gpa, region.gpa + region.length, PAGE)
        }
        more = [AddedRegion(place, b"dirt" * 1024, False) for place in places if place not in taken]
        return replace(launch, regions=(*launch.regions, *more))


def known(td_firmware: Firmware) -> list[tuple[int, int]]:
    """Sections of the image."""
    return [(s["gpa"], s["gpa"] + s["size"]) for s in td_firmware.manifest["sections"]]


@pytest.mark.parametrize("vmm", HOSTS)
def test_nothing_else_of_the_hosts_is_left(config: RunConfig, image: Firmware, vmm: str) -> None:
    """All of RAM but sections and what the firmware carved for its tables is zero, however it came."""
    from tdbox import finish

    from emu.api import prepare

    machine = prepare(config, policy=Dirty())
    try:
        td = finish(machine, config)
        assert td.report.met, td.report.end
        carved = 128 * MIB - (32 + 64) * 1024
        dirty = [
            hex(page)
            for start, content in machine.memory.used()
            for page in range(start, start + len(content), PAGE)
            if any(content[page - start : page - start + PAGE])
            and page < carved
            and not any(low <= page < high for low, high in known(image))
        ]
        assert dirty == []
        assert td.report.rtmr[1] == expected(vmm)
    finally:
        machine.close()


@pytest.mark.parametrize("vmm", ["libkrun"])
def test_what_a_flow_does_not_hand_over_is_cleared(config: RunConfig, tmp_path: Path) -> None:
    """libkrun's code leads the kernel to an initrd and a line that this flow neither measured nor wants."""
    text = LINUX.with_name("vmlinux.tdf").read_text()
    changes = (
        ("let initrd = used_extent(initrd_window)", "let initrd = kernel[0 .. 0]"),
        ("boot_params    TempMem         8 KiB  at 0x0001_F000", "unused TempMem 8 KiB at 0x0001_F000"),
        ("        wakeup  32 KiB  nvs", "        boot_params 8 KiB ram\n        wakeup  32 KiB  nvs"),
    )
    for line, other in changes:
        assert line in text
        text = text.replace(line, other)
    flow = tmp_path / "without.tdf"
    flow.write_text(text)
    other = made(flow, tmp_path, KERNEL)
    given = replace(config, image=other.config.image, image_name=other.config.image_name)
    with stopped(given) as td:
        assert td.report.met, td.report.end
        assert oracle.boot_params(td.read, td.boot_params).initrd == (0, 0)
        assert td.read(INITRDS, len(INITRD)) == bytes(len(INITRD))
        assert td.read(0x1F000, 2 * PAGE) == bytes(2 * PAGE)
        assert td.read(WINDOW, len(loaded("libkrun"))) == loaded("libkrun")


REFUSED = "tdforge: kernel: entry outside the measured window"
OUTSIDE = [(0, WINDOW, TEXT), (0, 0x6000000, b"\x90" * 64)]


@pytest.mark.parametrize("vmm", ["dragonball"])
@pytest.mark.parametrize("entry", [WINDOW + len(pages(TEXT)) - 15, 0x6000000, 0x100000, 0xA00000])
def test_an_entry_outside_of_what_was_measured_is_refused(config: RunConfig, entry: int) -> None:
    report = run(replace(config, kernel=vmlinux(OUTSIDE, entry)))
    assert (report.end["reason"], report.end["detail"]) == ("fatal", REFUSED)


def test_a_bzimage_is_refused(image: Firmware, tiny: bytes) -> None:
    report = run(replace(image.config, vmm="td-shim-spec", kernel=tiny))
    assert report.end["detail"] == "tdforge: kernel: the VMM loaded no vmlinux"


# ---- Debian's kernel


@pytest.fixture(scope="session")
def kernel_file() -> bytes:
    """Debian's TDX-enabled kernel without its bzImage."""
    return debian_vmlinux()


def of_debian(config: RunConfig, kernel_file: bytes) -> RunConfig:
    return replace(config, kernel=kernel_file, memory=192 * MIB, vcpus=2)


def debian(config: RunConfig, kernel_file: bytes, until: str) -> Report:
    return run(replace(of_debian(config, kernel_file), until=until))


@pytest.mark.parametrize("vmm", ["dragonball"])
def test_dragonball_boots_debians_kernel_to_the_root_mount(config: RunConfig, kernel_file: bytes) -> None:
    report = debian(config, kernel_file, "console:Unable to mount root fs")
    assert report.met, report.end
    for said in ("Command line: console=ttyS0 ro", "tdx: Guest detected", "smp: Brought up 1 node, 2 CPUs"):
        assert said in report.console
    payload = (e for e in report.events if str(e["description"]).startswith("td_payload"))
    digest = next(payload)["digest"]
    assert len(kernel_file) > 32 * MIB
    assert digest == window_digest(kernel_file)


def window_digest(kernel_file: bytes) -> str:
    """SHA-384 of the segments where they lie, to the end of the last page that is not zero."""
    from formats import elf

    file = elf.executable(kernel_file)
    whole = bytearray(64 * MIB)
    for part in file.segments:
        at = part.physical - WINDOW
        whole[at : at + len(part.data)] = part.data
    return hashlib.sha384(pages(bytes(whole))).hexdigest()


@pytest.mark.parametrize("vmm", ["libkrun"])
def test_libkrun_boots_debians_kernel_to_user_space(
    config: RunConfig, kernel_file: bytes, tmp_path: Path
) -> None:
    """The command line is the firmware's own: libkrun's does not reach it. Its MP table is gone. The serial
    port has its interrupt, so one can type.
    """
    archive = initrds.archive(initrds.program(tmp_path))
    given = replace(config, initrd=archive, stdin=b"hello there\n")
    report = debian(given, kernel_file, "console:you said: hello there")
    assert report.met, report.end
    for said in ("Command line: console=ttyS0\r\n", "init: processors 2", "init: works: page fault"):
        assert said in report.console
    assert "MPTABLE" not in report.console


FREE, FREE_SIZE = 0x4200000, 2 * MIB  # in the window, behind Debian's kernel


def with_initrd(config: RunConfig, kernel_file: bytes, archive: bytes) -> tuple[RunConfig, bytes]:
    """Dragonball takes no initrd, but loads any segment of the file. Linux finds it by the command line, and
    keeps it if its memory is reserved.
    """
    if config.vmm == "libkrun":
        return replace(config, initrd=archive), kernel_file
    assert len(archive) <= FREE_SIZE
    line = f"console=ttyS0 initrdmem={FREE:#x},{len(archive)} memmap={FREE_SIZE:#x}${FREE:#x}"
    return replace(config, cmdline=line), with_segment(kernel_file, FREE, archive)


@pytest.mark.parametrize("vmm", HOSTS)
def test_a_host_without_power_control(config: RunConfig, kernel_file: bytes) -> None:
    """Linux knows of no soft off and halts; it resets by the keyboard controller."""
    given, file = with_initrd(config, kernel_file, initrds.asking())
    with asking(of_debian(given, file)) as typed:
        for last, reason, said in (
            (b"poweroff -f", "halt", "Power off not available: System halted instead"),
            (b"reboot -f", "reset", "machine restart"),
        ):
            report = typed(last).report
            text = report.console.replace("\r", "")
            assert "tour: ACPI tables: APIC CCEL DSDT FACP \n" in text
            assert text.count("tour: done\n") == 1
            assert f"reboot: {said}\n" in text
            assert report.end["reason"] == reason, report.end
