"""Does each VMM preset write, load, add and refuse what the VMM that it is named after does?

The lists in `hobs` were rebuilt from the VMMs' sources by another reader, or come from a real TD's event log
(ch-real-1g-1cpu, by Cloud Hypervisor v31 or an older one).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import guest
import pytest
from kernels import bzimage
from vmlinux import vmlinux

from emu.config import RunConfig
from emu.signals import EmuError, End
from emu.tdx.launch import build
from emu.tdx.params import TdParams
from emu.vmm import hob as lists
from emu.vmm.contents import Contents
from emu.vmm.devices.power import PmTimer, Power
from emu.vmm.hosts import libkrun
from emu.vmm.loader import Launch, prepare
from emu.vmm.presets import PRESETS, RENAMED
from formats import acpi, elf, hob
from formats.errors import FormatError
from formats.hob import PayloadImage
from formats.tdvf import Section, SectionType
from formats.vmms import RESERVED
from tdforge.building import build_flow
from tdforge.flows import find_flow

HOBS = Path(__file__).with_name("hobs")
MIB, GIB = 1 << 20, 1 << 30
KINDS = SectionType
TEMPORARY = KINDS.TEMP_MEM


def section(kind: SectionType, address: int, size: int, attributes: int = 0) -> Section:
    return Section(0, 0, address, size, kind, attributes)


def facts(
    vmm: str, memory: int, cpus: int, payload: lists.Payload | None, absent: int = 0, *sections: Section
) -> lists.Facts:
    ids = tuple(range(cpus))
    return lists.Facts(PRESETS[vmm].vmm.ram(memory), sections, 16 * MIB, ids, payload, absent)


def written(vmm: str, given: lists.Facts, base: int = 0x800000) -> bytes:
    return lists.build(given, PRESETS[vmm].hobs, base)


VMLINUX = lists.Payload(PayloadImage.RAW_VMLINUX, 0x1000000)


@pytest.mark.parametrize(
    ("file", "given"),
    [
        ("dragonball-2g-4of6", facts("dragonball", 2 * GIB, 4, VMLINUX, 2)),
        ("dragonball-5g-1", facts("dragonball", 5 * GIB, 1, VMLINUX)),
    ],
)
def test_the_list_of_dragonball(file: str, given: lists.Facts) -> None:
    assert written("dragonball", given) == (HOBS / f"{file}.hob").read_bytes()


def test_the_list_of_qemu() -> None:
    places = [(0x800000, 0x6000, TEMPORARY), (0x809000, 0x2000, KINDS.TD_HOB)]
    places += [(0x80B000, 0x2000, TEMPORARY), (0x810000, 0x10000, TEMPORARY)]
    given = facts("qemu", 2047 * MIB, 1, None, 0, *(section(k, a, s) for a, s, k in places))
    assert written("qemu", given, 0x809000) == (HOBS / "qemu-2047m.hob").read_bytes()


def simplified(data: bytes, but: tuple[bytes, ...]) -> list[hob.Hob | bytes]:
    """The HOBs of a list; of a table that is not the real one only its head, without length and checksum."""
    found: list[hob.Hob | bytes] = []
    for item in hob.read(data).hobs:
        raw = item.data if isinstance(item, hob.GuidExtension) else b""
        found.append(raw[:4] + raw[8:9] + raw[10:36] if raw[:4] in but else item)
    return found


def table_of(item: hob.Hob) -> bytes:
    return item.data if isinstance(item, hob.GuidExtension) else b""


def before_v32(item: hob.Hob) -> hob.Hob:
    """A table of one CPU as v31 and older have it: another creator, the timer's width in bytes, a local APIC
    of type 0. The vendor is an address there, which is not compared.
    """
    raw = table_of(item)
    if raw[:4] not in (b"DSDT", b"FACP", b"APIC", b"MCFG"):
        return item
    body = bytearray(raw[36 : int.from_bytes(raw[4:8], "little")])
    if raw[:4] == b"FACP":
        body[211 - 36] = 4
    if raw[:4] == b"APIC":
        body[8:24] = acpi.madt_entry(acpi.MadtType.LAPIC, flags=3)
    maker = acpi.Maker(raw[10:16], raw[16:24], b"CLDH", 0)
    return hob.acpi_table(acpi.table(raw[:4], raw[8], bytes(body), maker))


@pytest.mark.parametrize(
    ("file", "vmm", "memory", "cpus", "absent", "at", "entry", "but"),
    [
        ("ch-2g-3of4", "cloud-hypervisor", 2 * GIB, 3, 1, 0xFF041000, 0x861000, (b"DSDT",)),
        # made by v31 or an older one: v43 but for its tables
        ("ch-real-1g-1cpu", "cloud-hypervisor:v43", GIB, 1, 0, 0xFF042000, 0x901000, (b"DSDT", b"FACP")),
    ],
)
def test_the_list_of_cloud_hypervisor(
    file: str, vmm: str, memory: int, cpus: int, absent: int, at: int, entry: int, but: tuple[bytes, ...]
) -> None:
    places = [(0xFF040000, 0x1000), (at, 0x20000), (at + 0x20000, 0x20000)]
    payload = lists.Payload(PayloadImage.BZIMAGE, entry)
    sections = (section(TEMPORARY, start, size) for start, size in places)
    hobs = PRESETS[vmm].hobs(facts(vmm, memory, cpus, payload, absent, *sections))
    ours = hob.write(0x800000, [before_v32(item) for item in hobs] if "real" in file else hobs)
    real = (HOBS / f"{file}.hob").read_bytes()
    assert simplified(ours, but) == simplified(real, but)
    (facp,) = (found for found in map(table_of, hob.read(ours).hobs) if found[:4] == b"FACP")
    assert facp[10:268] in real  # all of it but checksum and vendor
    assert b"\x08_S5_\x12\x04\x01\n\x05" in ours


def test_what_v43_has_of_the_release_before_v44() -> None:
    """Its tables are today's (cpu.rs create_madt, acpi.rs create_facp_table, acpi_tables e268627)."""
    old, new = (
        [table_of(item) for item in hob.read(written(vmm, facts(vmm, GIB, 2, None))).hobs]
        for vmm in ("cloud-hypervisor:v43", "cloud-hypervisor")
    )
    assert old == new
    facp, madt = (next(found for found in old if found[:4] == name) for name in (b"FACP", b"APIC"))
    assert (facp[28:32], facp[211], facp[268:276]) == (b"RVAT", 3, b"CLOUDHYP")
    assert [kind for kind, _ in acpi.madt_entries(madt)][:2] == [acpi.MadtType.X2APIC] * 2
    launch = prepare_by("cloud-hypervisor:v43", kernel=bzimage(), vcpus=2, apic_ids="0,255")
    assert launch.topology.ids == (0, 255)


Interleaved = list[tuple[int, int, bool]]  # where, how much, whether it is RAM
AROUND_RAM = [(0, 0x1000, False), (0x1000, 0x1000, False), (0x4000, 0x1000_0000, True)]


@pytest.mark.parametrize(
    ("temporary", "ram", "expected"),
    [
        (
            [(0xC000, 0x1000), (0x1000, 0x4000)],
            [(0, 0x1000_0000)],
            [
                (0, 0x1000, True),
                (0x1000, 0x4000, False),
                (0x5000, 0x7000, True),
                (0xC000, 0x1000, False),
                (0xD000, 0x0FFF_3000, True),
            ],
        ),
        (
            [(0x1000_1000, 0x1000), (0, 0x1000)],
            [(0x1000, 0x1000_0000)],
            [(0, 0x1000, False), (0x1000, 0x1000_0000, True), (0x1000_1000, 0x1000, False)],
        ),
        (
            [(0x1000_0000, 0x2000), (0, 0x2000)],
            [(0x1000, 0x1000_0000)],
            [(0, 0x2000, False), (0x2000, 0x0FFF_E000, True), (0x1000_0000, 0x2000, False)],
        ),
        (
            [(0x2000_1000, 0x1000), (0x2000_0000, 0x1000), (0x1000, 0x1000), (0, 0x1000)],
            [(0x4000, 0x1000_0000)],
            [*AROUND_RAM, (0x2000_0000, 0x1000, False), (0x2000_1000, 0x1000, False)],
        ),
        ([(0, 0x2000_0000)], [(0x1000, 0x1000_0000)], [(0, 0x2000_0000, False)]),
        (
            [(0x1000_2000, 0x2000), (0, 0x2000)],
            [(0x2000, 0x1000_0000), (0x1000_4000, 0x1000_0000)],
            [
                (0, 0x2000, False),
                (0x2000, 0x1000_0000, True),
                (0x1000_2000, 0x2000, False),
                (0x1000_4000, 0x1000_0000, True),
            ],
        ),
        (
            [(0x1000_0000, 0x4000), (0, 0x4000)],
            [(0x1000, 0x1000_0000), (0x1000_3000, 0x1000_0000)],
            [
                (0, 0x4000, False),
                (0x4000, 0x0FFF_C000, True),
                (0x1000_0000, 0x4000, False),
                (0x1000_4000, 0x0FFF_F000, True),
            ],
        ),
    ],
)
def test_cloud_hypervisor_lists_memory_by_address(
    temporary: list[tuple[int, int]], ram: list[tuple[int, int]], expected: Interleaved
) -> None:
    """The cases of its own test (vm.rs test_hob_memory_resources)."""
    sections = tuple(section(TEMPORARY, start, size) for start, size in temporary)
    ranges = tuple((start, start + size) for start, size in ram)
    given = lists.Facts(ranges, sections, 16 * MIB, (0,), None)
    for vmm, of_ram, of_temporary in (
        ("cloud-hypervisor", 7, 0),
        ("cloud-hypervisor:v43", 7, 0),
        ("td-shim-spec:legacy", 0, 5),
    ):
        rows = hob.read(written(vmm, given)).resources
        kinds = {True: of_ram, False: of_temporary}
        assert [(row.start, row.length, row.resource_type) for row in rows[:-2]] == [
            (start, size, kinds[is_ram]) for start, size, is_ram in expected
        ]
        assert [row.resource_type for row in rows[-2:]] == [1, 1]


def interleaved(temporary: list[tuple[int, int]], ram: tuple[tuple[int, int], ...]) -> Interleaved:
    """What vm.rs hob_memory_resources does: walks through RAM, and past each section that it meets."""
    left, found, at = sorted(temporary), [], 0
    for low, end in ram:
        at = max(at, low)
        while at < end:
            if left and left[0][0] <= at:
                start, size = left.pop(0)
                found.append((start, size, False))
                at = max(start + size, low)
            else:
                stop = min(left[0][0], end) if left else end
                found.append((at, stop - at, True))
                at = stop
    return found + [(start, size, False) for start, size in left]


@pytest.mark.parametrize("vmm", ["cloud-hypervisor", "cloud-hypervisor:v43"])
@pytest.mark.parametrize("memory", [GIB, 5 * GIB])
def test_cloud_hypervisors_list_for_the_shipped_image(tmp_path: Path, vmm: str, memory: int) -> None:
    """Its temporary memory lies in RAM, in more than one piece."""
    whole = build_flow(find_flow("linux"), tmp_path).image.read_bytes()
    launch = prepare(RunConfig(whole, "linux.bin", memory), PRESETS[vmm])
    temporary = [(each.address, each.memory_size) for each in launch.sections if each.type == TEMPORARY]
    rows = hob.read(launch.hob).resources[:-2]
    found = [(row.start, row.length, row.resource_type == 7) for row in rows]
    assert found == interleaved(temporary, PRESETS[vmm].vmm.ram(memory))
    assert not found[1][2]
    assert found[-1][2]  # RAM, behind temporary memory


def test_the_list_of_libkrun() -> None:
    found = hob.read(written("libkrun", facts("libkrun", 4 * GIB, 2, VMLINUX)))
    rows = [(row.resource_type, row.start, row.length, row.attributes) for row in found.resources]
    assert rows == [(0, 0, 0xD0000000, 7), (0, 4 * GIB, 0x30000000, 7)]
    assert [type(item) for item in found.hobs[2:]] == [hob.GuidExtension]
    assert found.hobs[2] == hob.payload_info(2, 0x1000000)


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_name_of_before_is_answered_with_the_new_one(old: str, new: str) -> None:
    assert new in PRESETS
    with pytest.raises(EmuError, match=rf"^vmm '{old}': it is called {new} now$"):
        prepare_by(old)


# ---- what the VMM's memory holds


def test_later_writes_lie_over_earlier_ones() -> None:
    memory = Contents()
    memory.write(0x1004, b"abcd")
    memory.write(0x1006, b"X")
    assert memory.read(0x1000, 0x1000) == b"\0\0\0\0abXd"
    assert memory.read(0x1005, 2) == b"bX"
    assert memory.read(0x2000, 0x1000) == b""


# ---- launches


def image(*more: Section) -> bytes:
    """A guest with a Payload section where a vmlinux begins, and these."""
    plain = [s for s in guest.sections() if s.type not in (KINDS.PAYLOAD, KINDS.PAYLOAD_PARAM)]
    parameters = section(KINDS.PAYLOAD_PARAM, 0x900000, 0x1000)
    window = section(KINDS.PAYLOAD, 0x1000000, 0x20000, attributes=1)
    return guest.dress(guest.build("main: halt\n").image, [*plain, parameters, window, *more])


TEXT, DATA = b"T" * 0x1800, b"D" * 0x900
KERNEL = vmlinux(
    [(0xFFFFFFFF81000000, 0x1000000, TEXT), (0xFFFFFFFF8A003000, 0x1003000, DATA)], entry=0x1000B53
)


def prepare_by(vmm: str, **settings: object) -> Launch:
    from emu.vmm.choose import parse

    preset, _ = parse(vmm)
    given = {"kernel": KERNEL, "cmdline": "ro", "vcpus": 1, "memory": 64 * MIB} | settings
    return prepare(RunConfig(image(), "guest.bin", vmm=vmm, **given), preset)  # type: ignore[arg-type]


def section_of(launch: Launch, kind: SectionType) -> bytes:
    return launch.content(next(s for s in launch.sections if s.type == kind))


def test_dragonball_loads_segments_at_their_physical_addresses() -> None:
    launch = prepare_by("dragonball")
    assert section_of(launch, KINDS.PAYLOAD) == TEXT.ljust(0x3000, b"\0") + DATA
    assert section_of(launch, KINDS.PAYLOAD_PARAM) == b"ro\0"
    assert hob.payload_info(2, 0x1000B53) in hob.read(launch.hob).hobs
    assert [region.gpa for region in launch.regions] == [s.address for s in launch.sections]
    assert [region.measured for region in launch.regions] == [bool(s.attributes & 1) for s in launch.sections]


def test_what_dragonball_puts_outside_the_sections_is_not_there() -> None:
    beyond = vmlinux([(0, 0x1000000, TEXT), (0, 0x1020000, DATA)], entry=0x1000000)
    launch = prepare_by("dragonball", kernel=beyond)
    assert not any(DATA in region.content for region in launch.regions)


INITRD = b"initrd" * 100


def test_libkrun_adds_all_ram_unmeasured_and_then_what_lies_above() -> None:
    launch = prepare_by("libkrun", initrd=INITRD, vcpus=3)
    low, high = launch.regions
    assert (low.gpa, low.length, low.measured) == (0, 64 * MIB, False)
    assert (high.gpa, high.length, high.measured) == (4 * GIB - guest.SIZE, guest.SIZE, True)
    window = section_of(launch, KINDS.PAYLOAD)
    assert len(window) == 0x10000  # the bundle ends on 64 KiB
    code = libkrun.trampoline(len(INITRD))
    assert len(code) == 38
    kept = TEXT[: 0xB53 - 38] + code + TEXT[0xB53:]
    assert window[: len(TEXT)] == kept
    assert window[0x3000:].rstrip(b"\0") == DATA
    assert low.content[0xA00000:].startswith(INITRD)
    assert low.content[0x20000:0x20003] == b"ro\0"
    assert section_of(launch, KINDS.PAYLOAD_PARAM) == b"".ljust(0x1000, b"\0")
    assert hob.payload_info(2, 0x1000B53 - 38) in hob.read(launch.hob).hobs


def test_the_trampoline_sets_three_fields_and_goes_on() -> None:
    expected = "b8 0000a000 8986 18020000 b8 58020000 8986 1c020000 b8 00000200 8986 28020000 e9 00000000"
    assert libkrun.trampoline(600) == bytes.fromhex(expected)


def test_the_mp_table_lists_cpus_and_pins() -> None:
    """Intel MultiProcessor Specification 1.4: both parts sum to zero, entries fill the length."""
    whole = libkrun.mp_table(3)
    pointer, table = whole[:16], whole[16:]
    assert pointer[:4] == b"_MP_"
    assert sum(pointer) % 256 == sum(table) % 256 == 0
    assert struct.unpack_from("<I", pointer, 4)[0] == 0x9FC10
    assert struct.unpack_from("<4sH", table) == (b"PCMP", len(table))
    at, kinds = 44, []
    while at < len(table):
        kinds.append(table[at])
        at += 20 if table[at] == 0 else 8
    assert (at, kinds) == (len(table), [0] * 3 + [1, 2] + [3] * 16 + [4] * 2)


def test_mrtd_under_libkrun_depends_on_how_much_ram_there_is() -> None:
    small = prepare_by("libkrun", initrd=INITRD)
    large = prepare(
        RunConfig(image(), "guest.bin", 65 * MIB, kernel=KERNEL, initrd=INITRD), PRESETS["libkrun"]
    )
    first, second = (build(TdParams(vcpus=1), one.regions, one.hob_address) for one in (small, large))
    assert len(first.pages) == (64 * MIB + guest.SIZE) // 4096
    assert first.mrtd != second.mrtd


def test_bytes_that_qemu_adds_behind_the_data_are_the_files() -> None:
    whole = guest.for_qemu(guest.build("main: halt\n").image)
    plain = [replace(guest.sections()[0], raw_size=0x1000), *guest.sections()[1:3]]
    cut = guest.dress(whole, plain)
    shown = prepare(RunConfig(cut, "guest.bin", 64 * MIB), PRESETS["qemu"])
    assert shown.regions[0].content == cut
    other = prepare(RunConfig(cut, "guest.bin", 64 * MIB), PRESETS["td-shim-spec"])
    assert other.regions[0].content == cut[:0x1000]


@pytest.mark.parametrize(("vmm", "measured"), [("cloud-hypervisor", False), ("td-shim-spec", True)])
def test_attributes_that_cloud_hypervisor_compares_as_a_whole(vmm: str, measured: bool) -> None:
    """1 is measured, 1 with another bit is not."""
    odd = section(KINDS.CFV, 0xB00000, 0x1000, attributes=1 | 4)
    launch = prepare(RunConfig(image(odd), "guest.bin", 64 * MIB), PRESETS[vmm])
    assert launch.regions[launch.holder(odd)[0]].measured == measured


@pytest.mark.parametrize(("vmm", "last"), [("qemu", False), ("dragonball", True), ("cloud-hypervisor", True)])
def test_which_of_two_lists_counts(vmm: str, last: bool) -> None:
    second = section(KINDS.TD_HOB, 0x700000, 0x1000)
    plain = guest.sections()[:3] if vmm == "qemu" else guest.sections()
    twice = guest.dress(guest.build("main: halt\n").image, [*plain, second])
    kernel = {"dragonball": KERNEL}.get(vmm)
    launch = prepare(RunConfig(twice, "guest.bin", 64 * MIB, kernel=kernel), PRESETS[vmm])
    assert launch.hob_address == (0x700000 if last else guest.HOB)


# ---- refusals

SMALL = {"kernel": vmlinux([(0, 0x1000, TEXT)], entry=0x1000)}
OUTSIDE = {"kernel": vmlinux([(0, 64 * MIB - 0x1000, TEXT)], entry=0x1000000)}
TWO = {"initrd": INITRD, "vcpus": 2, "apic_ids": "1,0"}


@pytest.mark.parametrize(
    ("vmm", "settings", "said"),
    [
        ("dragonball", {"kernel": None}, "no kernel"),
        ("dragonball", {"kernel": bzimage()}, "expected an ELF file .7f454c46.; Dragonball takes a vmlinux"),
        ("dragonball", {"initrd": b"x"}, "takes no initrd"),
        ("dragonball", SMALL, "kernel entry 0x1000, expected 0x100000 or above"),
        ("dragonball", OUTSIDE, "segment 0x3fff000 to 0x4000800 does not lie in RAM"),
        ("dragonball", {"memory": 65 * MIB}, "68157440 bytes of memory, expected an even number of MiB"),
        ("dragonball", {"vcpus": 255}, "255 vCPUs, at most 254"),
        ("dragonball", {"vcpus": 2, "apic_ids": "1,0"}, "apic ids cannot be chosen"),
        ("cloud-hypervisor", {"vcpus": 256, "kernel": bzimage()}, "256 vCPUs, at most 255"),
        ("cloud-hypervisor:v43", {"vcpus": 2, "apic_ids": "0,256"}, "APIC id 256, at most 255"),
        ("libkrun", {"kernel": None}, "no kernel"),
        ("libkrun", {}, "no initrd"),
        ("libkrun", {"kernel": bzimage(), "initrd": INITRD}, "libkrunfw is made of a vmlinux"),
        ("libkrun", SMALL | {"initrd": INITRD}, "segment at 0x1000, expected 0x0"),
        ("libkrun", {"initrd": bytes(55 * MIB)}, "initrd 0xa00000 to 0x4100000 does not lie in RAM"),
        ("libkrun", {"initrd": INITRD, "cmdline": "x" * 0x10000}, "a command line of 65536 bytes"),
        ("libkrun", TWO, "apic ids cannot be chosen"),
        ("qemu", {}, "PayloadParam section at 0x900000: qemu does not know this type"),
    ],
)
def test_what_a_vmm_refuses(vmm: str, settings: dict[str, object], said: str) -> None:
    with pytest.raises(EmuError, match=said):
        prepare_by(vmm, **settings)


def moved(vmm: str, kind: SectionType, address: int, memory: int) -> Launch:
    """A launch with the first section of this type somewhere else."""
    places = guest.sections() if vmm in ("cloud-hypervisor", "dragonball", "td-shim-spec") else PLAIN
    at = next(number for number, each in enumerate(places) if each.type == kind)
    there = [replace(each, address=address) if number == at else each for number, each in enumerate(places)]
    files = {"kernel": KERNEL} if vmm in ("dragonball", "libkrun") else {}
    files |= {"initrd": INITRD} if vmm == "libkrun" else {}
    dressed = guest.dress(guest.build("main: halt\n").image, there)
    return prepare(RunConfig(dressed, "guest.bin", memory, **files), PRESETS[vmm])  # type: ignore[arg-type]


PLAIN = guest.sections()[:3]
LIST = KINDS.TD_HOB
HIGH = 5 * GIB  # memory that reaches above 4 GiB with each VMM


@pytest.mark.parametrize(
    ("vmm", "kind", "address", "memory"),
    [
        ("qemu", LIST, 256 * MIB, 2 * GIB),
        ("qemu", LIST, 4 * GIB, HIGH),
        ("qemu", KINDS.BFV, 0x1000000, 64 * MIB),
        ("alioth", LIST, 256 * MIB, 2 * GIB),
        ("cloud-hypervisor", LIST, 0xF0000000, 64 * MIB),
        ("cloud-hypervisor", LIST, 256 * MIB, 64 * MIB),
        ("dragonball", LIST, 0xFF000000, 64 * MIB),
        ("dragonball", KINDS.TEMP_MEM, 0xFFFE0000, 64 * MIB),
        ("libkrun", LIST, 0xF0000000, 64 * MIB),
        ("td-shim-spec", KINDS.TEMP_MEM, 4 * GIB - guest.SIZE, 64 * MIB),
    ],
)
def test_where_a_vmm_has_memory_for_a_section(vmm: str, kind: SectionType, address: int, memory: int) -> None:
    launch = moved(vmm, kind, address, memory)
    there = next(each for each in launch.sections if each.type == kind)
    assert launch.holder(there)[0] < len(launch.regions)
    assert (launch.hob_address == address) == (kind == LIST)
    assert kind != LIST or hob.read(launch.content(there)).resources


@pytest.mark.parametrize(
    ("vmm", "kind", "address", "memory"),
    [
        ("qemu", LIST, 256 * MIB, 256 * MIB),
        ("qemu", LIST, 0xF0000000, HIGH),
        ("qemu", KINDS.TEMP_MEM, 4 * GIB - guest.SIZE, 64 * MIB),
        ("qemu", KINDS.BFV, 0xE0000000, 64 * MIB),
        ("alioth", LIST, 0xF0000000, HIGH),
        ("alioth", KINDS.TEMP_MEM, 4 * GIB - guest.SIZE, HIGH),
        ("alioth", LIST, 0x90000000, HIGH),
        ("cloud-hypervisor", LIST, 64 * MIB - 0x1000, 64 * MIB),
        ("cloud-hypervisor", KINDS.TEMP_MEM, 4 * GIB - 0x1000, HIGH),
        ("dragonball", LIST, 0xF0000000, HIGH),
        ("dragonball", LIST, 0xFEFFF000, HIGH),
        ("libkrun", LIST, 0xCFFFF000, 4 * GIB),
        ("libkrun", LIST, 4 * GIB - 0x1000, 4 * GIB),
        ("libkrun", LIST, 64 * MIB, 64 * MIB),
        ("td-shim-spec", LIST, 4 * GIB - guest.SIZE, 64 * MIB),
    ],
)
def test_where_a_vmm_has_no_memory_for_a_section(
    vmm: str, kind: SectionType, address: int, memory: int
) -> None:
    with pytest.raises(EmuError, match=f"section {address:#x} to .* does not lie in the .* MiB of RAM"):
        moved(vmm, kind, address, memory)


def prepare_plain(vmm: str, changed: bytes) -> Launch:
    kernel = KERNEL if vmm == "dragonball" else None
    return prepare(RunConfig(changed, "guest.bin", 64 * MIB, kernel=kernel), PRESETS[vmm])


def guests_image(**fields: int) -> bytes:
    """A guest for QEMU whose BFV says something else of itself."""
    return guest.dress(
        guest.build("main: halt\n").image,
        [replace(PLAIN[0], **fields), *PLAIN[1:]],  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("vmm", ["qemu", "alioth"])
def test_the_data_are_whole_pages_of_the_file(vmm: str) -> None:
    with pytest.raises(EmuError, match="data from 0x800 on, which is not a multiple of 0x1000"):
        prepare_plain(vmm, guests_image(data_offset=0x800, raw_size=0x1000, memory_size=0x1000))
    with pytest.raises(EmuError, match="data up to 0x11000, but the image ends at 0x10000"):
        prepare_plain(vmm, guests_image(data_offset=0x1000, raw_size=0x1000))
    odd = guests_image(data_offset=0x800, raw_size=0x1000, memory_size=0x1000)
    assert prepare_plain("cloud-hypervisor", odd).regions[0].content == odd[0x800:0x1800]


@pytest.mark.parametrize(
    ("vmm", "loaded"), [("cloud-hypervisor", False), ("dragonball", False), ("td-shim-spec", True)]
)
def test_whose_data_come_from_the_file(vmm: str, loaded: bool) -> None:
    """Cloud Hypervisor and Dragonball read those of BFV and CFV alone."""
    plain = guest.build("main: halt\n").image
    more = Section(len(plain) - 0x1000, 0x1000, 0xB00000, 0x2000, KINDS.TEMP_MEM, 0)
    shown = prepare_plain(vmm, guest.dress(plain, [*guest.sections(), more]))
    assert any(shown.content(more)) == loaded


@pytest.mark.parametrize("vmm", ["cloud-hypervisor", "dragonball"])
def test_the_reserved_type_is_memory_without_content(vmm: str) -> None:
    more = Section(0, 0, 0xB00000, 0x2000, RESERVED, 0)
    shown = prepare_plain(vmm, guest.dress(guest.build("main: halt\n").image, [*guest.sections(), more]))
    index, _ = shown.holder(more)
    assert not any(shown.regions[index].content)
    with pytest.raises(EmuError, match=r"type 0xffffffff section .* does not know this type"):
        prepare_plain("alioth", guest.dress(guest.build("main: halt\n").image, [*PLAIN, more]))


def test_each_vmm_finds_the_metadata_in_its_own_way() -> None:
    good = guest.build("main: halt\n").image
    by_pointer = good[:-0x30] + bytes(16) + good[-0x20:]
    by_table = good[:-0x20] + bytes(4) + good[-0x1C:]
    plain = guest.for_qemu(good)
    length = plain[:-0x3EC] + b"\1" + plain[-0x3EB:]
    for vmm, image_ in (
        ("dragonball", by_pointer),
        ("cloud-hypervisor", by_pointer),
        ("cloud-hypervisor", by_table),
        ("alioth", length),
    ):
        assert prepare_plain(vmm, image_).hob_address == guest.HOB
    for vmm, image_, said in (
        ("dragonball", by_table, "signature"),
        ("qemu", guest.for_qemu(good)[:-0x30] + bytes(16) + good[-0x20:], "no GUID table"),
        ("qemu", length, "length 1"),
    ):
        with pytest.raises(EmuError, match=said):
            prepare_plain(vmm, image_)


def test_segments_out_of_order_make_no_bundle() -> None:
    back = vmlinux([(0x1003000, 0x1003000, DATA), (0x1000000, 0x1000000, TEXT)], entry=0x1000000)
    with pytest.raises(EmuError, match="segment at 0x1000000, expected 0x1003900"):
        libkrun.flatten(back)


def test_what_is_no_executable_for_this_machine() -> None:
    for file, said in (
        (b"", "found nothing, expected an ELF file"),
        (KERNEL[:40], "found 40 bytes, expected 64 bytes of elf64_header"),
        (vmlinux([], 0, machine=183), "machine: found 0xb7, expected 0x3e"),
        (KERNEL[:100], "program header 0"),
        (KERNEL[:-1], "program header 2: found data to offset"),
    ):
        with pytest.raises(FormatError, match=said):
            elf.executable(file)
    short = KERNEL.replace(struct.pack("<QQ", len(DATA), len(DATA) + 0x100), struct.pack("<QQ", len(DATA), 1))
    with pytest.raises(FormatError, match="memory size 0x1, expected at least the file size 0x900"):
        elf.executable(short)


# ---- power

WRITES = {
    (0x600, 0x34): {"cloud-hypervisor": "shutdown"},
    (0x600, 0x20): {},
    (0x604, 0x3401): {"td-shim-spec": "shutdown"},
    (0x604, 0x1400): {},
    (0x600, 0x01): {"cloud-hypervisor": "reset"},
    (0xCF9, 0x06): {"td-shim-spec": "reset"},
    (0x604, 0x72): {},
    (0x604, 0x2000): {},
    (0x64, 0xFE): dict.fromkeys(("td-shim-spec", "cloud-hypervisor", "dragonball", "libkrun"), "reset"),
}


@pytest.mark.parametrize("vmm", ["td-shim-spec", "cloud-hypervisor", "dragonball", "libkrun"])
def test_ports_that_end_a_run_are_those_of_the_host(vmm: str) -> None:
    power = Power(PRESETS[vmm].power)
    for (port, value), ends in WRITES.items():
        found = None
        try:
            if port in power.ports:
                power.write(port, 1, value)
        except End as end:
            found = end.reason
        assert found == ends.get(vmm), (hex(port), hex(value))
    assert 0x600 not in power.ports or power.read(0x600, 1) == 0


def test_events_can_be_enabled_and_never_happen() -> None:
    """Status and enable register of the specification's host (ACPI 6.5, 4.8.3.1)."""
    power = Power(PRESETS["td-shim-spec"].power)
    power.write(0x602, 2, 0x420)
    assert (power.read(0x602, 2), power.read(0x600, 2)) == (0x420, 0)
    power.write(0x602, 2, 0)
    assert power.read(0x602, 2) == 0


def test_the_timer_of_power_management() -> None:
    """3.579545 MHz, 32 bits (ACPI 6.5, 4.8.3.3)."""
    timer = PmTimer(PRESETS["cloud-hypervisor"].pm_timer, lambda: 2.0)
    assert 0x608 in timer.ports
    assert timer.read(0x608, 4) == 2 * 3579545
    assert timer.read(0x609, 1) == 2 * 3579545 >> 8 & 0xFF
    assert not PRESETS["dragonball"].pm_timer
