"""Does each VMM preset load, tell and answer as the real one?"""

from __future__ import annotations

import random

import guest
import pytest
from tdvfimage import patched

from emu.config import RunConfig
from emu.cpu import pagestate
from emu.cpu.memory import Memory
from emu.signals import EmuError, End
from emu.tdx.launch import build
from emu.tdx.params import TdParams
from emu.vmm import hob as vmm_hob
from emu.vmm.devices.bus import Ports
from emu.vmm.loader import prepare
from emu.vmm.presets import PRESETS
from formats import bundle, hob, tdvf
from formats.registers import R8, R10, R11, R12, R13, R14, R15, RCX
from image.mrtd import mrtd

GIB = 1 << 30
SHARED = 1 << 47
ALL_ONES = (1 << 64) - 1


def told(vmm: str, memory: int, entry: int | None = 0xA00000) -> hob.HobList:
    """The parsed TD HOB of a preset for the test image."""
    preset = PRESETS[vmm]
    payload = vmm_hob.Payload(hob.PayloadImage.BZIMAGE, entry) if entry is not None else None
    machine = vmm_hob.Facts(preset.vmm.ram(memory), tuple(guest.sections()), guest.SIZE, (0, 1), payload)
    return hob.read(vmm_hob.build(machine, preset.hobs, guest.HOB))


@pytest.mark.parametrize(
    ("vmm", "memory", "ram"),
    [
        ("td-shim-spec", 2 * GIB, ((0, 2 * GIB),)),
        ("td-shim-spec", 8 * GIB, ((0, 3 * GIB), (4 * GIB, 9 * GIB))),
        ("cloud-hypervisor", 3 * GIB, ((0, 3 * GIB),)),
        ("dragonball", 5 * GIB, ((0, 3 * GIB), (4 * GIB, 6 * GIB))),
        ("libkrun", 0xD0000000, ((0, 0xD0000000),)),
        ("libkrun", 4 * GIB, ((0, 0xD0000000), (4 * GIB, 4 * GIB + 0x30000000))),
        ("qemu", 2 * GIB, ((0, 2 * GIB),)),
        ("qemu", 0xB0000000 - 4096, ((0, 0xB0000000 - 4096),)),
        ("qemu", 0xB0000000, ((0, 2 * GIB), (4 * GIB, 4 * GIB + 0x30000000))),
    ],
)
def test_ram_layout(vmm: str, memory: int, ram: tuple[tuple[int, int], ...]) -> None:
    assert PRESETS[vmm].vmm.ram(memory) == ram


def test_td_shim_spec_hob() -> None:
    found = told("td-shim-spec", GIB)
    assert [(r.resource_type, r.start, r.length) for r in found.resources] == [
        (7, 0, GIB),
        (0, 4 * GIB - guest.SIZE, guest.SIZE),
        (1, 3 * GIB, GIB - guest.SIZE),
    ]
    kinds = [type(item).__name__ if isinstance(item, hob.Resource) else item.data[:4] for item in found.hobs]
    assert kinds[3:] == [b"\1\0\0\0", b"APIC", b"FACP", b"DSDT"]


@pytest.mark.parametrize(("vmm", "length"), [("cloud-hypervisor", 12), ("cloud-hypervisor:v43", 16)])
def test_cloud_hypervisor_hob(vmm: str, length: int) -> None:
    found = told(vmm, GIB)
    unaccepted = [(r.start, r.start + r.length) for r in found.resources if r.resource_type == 7]
    assert unaccepted == [(0, guest.RESULTS), (guest.RESULTS + 0x8000, GIB)]
    last = found.hobs[-1]
    assert isinstance(last, hob.GuidExtension)
    assert len(last.data) == length


def test_legacy_hob_names_ram_and_reserved() -> None:
    kinds = {r.resource_type for r in told("td-shim-spec:legacy", GIB).resources}
    assert kinds == {0, 1, 5}


def test_qemu_hob_covers_ram_once_by_address() -> None:
    found = told("qemu", GIB)
    assert not any(isinstance(item, hob.GuidExtension) for item in found.hobs)
    at = 0
    for item in found.resources:
        assert item.start == at
        at += item.length
    assert at == GIB
    added = sum(r.length for r in found.resources if r.resource_type == 0)
    assert added == 0x2000 + 0x8000 + 0x1000 + 0x10000


def test_qemu_lists_only_what_lies_in_ram() -> None:
    """A section in the image's window below 4 GiB is added at launch, but is no RAM."""
    outside = tdvf.Section(0, 0, 4 * GIB - guest.SIZE, 0x1000, tdvf.SectionType.TEMP_MEM, 0)
    facts = vmm_hob.Facts(
        PRESETS["qemu"].vmm.ram(GIB), (*guest.sections(), outside), guest.SIZE, (0, 1), None
    )
    found = hob.read(vmm_hob.build(facts, PRESETS["qemu"].hobs, guest.HOB))
    assert [r.start for r in found.resources] == [r.start for r in told("qemu", GIB).resources]
    assert max(r.start + r.length for r in found.resources) == GIB


def test_payload_and_command_line_arrive() -> None:
    header = bytearray(0x800)
    header[0x1F1] = 1  # setup_sects
    header[0x1F4:0x1F8] = (0x40).to_bytes(4, "little")
    header[0x1FE:0x200] = b"\x55\xaa"
    header[0x202:0x206] = b"HdrS"
    header[0x206:0x208] = (0x20F).to_bytes(2, "little")
    header[0x211] = header[0x236] = 1
    kernel = bytes(header) + b"signature"
    image = guest.build("main: halt\n").image
    with guest.machine(image, kernel=kernel, cmdline="quiet") as td:
        assert td.memory.read(0xA00000, len(kernel)) == kernel
        assert td.memory.read(0x81A000, 7) == b"quiet\0\0"
    with guest.machine(image, kernel=kernel, initrd=b"cpio" * 3) as td:
        section = td.memory.read(0xA00000, 0x10000)
        assert bundle.read(section) == (kernel[:0x800], b"cpio" * 3)


@pytest.fixture
def calls() -> object:
    """A VMM over a launched TD, and a function that makes one TDVMCALL."""
    with guest.machine(guest.build("main: halt\n").image) as td:

        def call(function: int, **registers: int) -> list[int]:
            numbers = {"r12": R12, "r13": R13, "r14": R14, "r15": R15}
            r = [0] * 16
            r[RCX], r[R11] = 0xFC00, function
            for name, value in registers.items():
                r[numbers[name]] = value
            td.vmm.handle(0, r)
            return r

        yield td.memory, call


def test_a_port_without_a_device_reads_as_its_vmm_says() -> None:
    """KVM's answer is zero if the VMM leaves it (x86.c emulator_pio_in_out): Dragonball vcpu_impl.rs, libkrun
    vstate.rs, Cloud Hypervisor before v53. QEMU, Cloud Hypervisor (vm.rs pio_read) and Alioth (emulated.rs
    read) write ones.
    """
    zeros = {name for name, preset in PRESETS.items() if preset.zeros}
    spec = {"td-shim-spec", "td-shim-spec:legacy"}
    assert zeros == {*spec, "cloud-hypervisor", "cloud-hypervisor:v43", "dragonball", "libkrun"}
    image = guest.build("main: halt\n").image
    for vmm, its, expected in (("td-shim-spec", image, 0), ("alioth", guest.for_qemu(image), 0xFFFF)):
        with guest.machine(its, vmm=vmm) as td:
            assert td.vmm.ports.read(0x42, 2) == expected


def test_an_address_without_a_device_reads_as_its_vmm_says() -> None:
    """Alioth writes ones (emulated.rs read), QEMU zeros (system/memory.c unassigned_mem_read). The others
    leave what KVM's buffer held, Cloud Hypervisor up to v52; zero stands for it.
    """
    assert {name for name, preset in PRESETS.items() if preset.memory_ones} == {"alioth"}
    image = guest.build("main: halt\n").image
    for vmm, its, expected in (("cloud-hypervisor", image, 0), ("alioth", guest.for_qemu(image), 0xFFFF)):
        with guest.machine(its, vmm=vmm) as td:
            assert td.vmm.ports.read_memory(0xD0000000, 2) == expected
            assert td.vmm.ports.read_memory(0xFEC00000, 2) == 0  # the I/O APIC


def test_calls(calls: tuple[Memory, object]) -> None:
    memory, call = calls
    assert callable(call)
    r = call(0x1F, r12=0x1B)
    assert (r[R10], r[R11]) == (0, 0xFEE00D00)
    assert call(0x1F, r12=0x12345)[R10] == 1 << 63
    assert call(0x1E, r12=3, r14=0x3F8)[R10] == 1 << 63
    assert call(0x1E, r12=1, r14=0x3FD)[R11] == 0x60
    assert call(0x1E, r12=4, r14=0xCFC)[R11] == 0
    assert call(0x0A, r12=0x40000000)[R12:16] == [0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D]
    assert call(0x0A, r12=0x40000001)[R12:16] == [1 << 15, 0, 0, 0]
    assert call(0x10000)[R10] == 0
    assert call(0x10001, r12=0x900000 | SHARED, r13=0x1800)[R10] == 0x8000000000000002
    assert call(0x10001, r12=0x900000 | SHARED, r13=0x2000)[R10] == 0
    assert memory.state(0x900000) & 3 == pagestate.SHARED
    assert call(0x10002, r12=0x900000 | SHARED, r13=0x1000)[R10] == 1 << 63  # no request is in the buffer
    memory.write(0x900000, b"\1", shared=True)
    assert call(0x10002, r12=0x900000 | SHARED, r13=0x1000)[R10] == 0
    assert memory.read(0x900008, 8, shared=True) == (0x8000000000000000).to_bytes(8, "little")
    assert call(0x10002, r12=0x900000, r13=0x1000)[R10] == 1 << 63
    assert call(0x10001, r12=0x900000, r13=0x2000)[R10] == 0
    assert memory.state(0x900000) & 3 == pagestate.PENDING
    assert call(0x10001, r12=0xF0000000 | SHARED, r13=0x1000)[R10] == 0
    r = call(0x10001, r12=0xF0000000, r13=0x1000)
    assert (r[R10], r[R11]) == (1 << 63, 0xF0000000)
    assert call(0x10004, r12=31)[R10] == 1 << 63
    assert call(0x10004, r12=32)[R10] == 0
    assert call(0x30, r12=4, r14=0xFEC00000 | SHARED)[R11] == 0
    assert call(0x30, r12=4, r14=0xFEC00000)[R10] == 1 << 63  # the shared bit is forgotten
    assert call(0x30, r12=4, r14=0xFEC00000 | 1 << 48)[R10] == 1 << 63
    assert call(0x7777)[R10] == 0x8000000000000003


def test_map_gpa_stops_for_a_waiting_interrupt() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:

        def convert(start: int, size: int) -> tuple[int, int]:
            r = [0] * 16
            r[RCX], r[R11], r[R12], r[R13] = 0xFC00, 0x10001, start | SHARED, size
            td.vmm.handle(0, r)
            return r[R10], r[R11]

        apic = td.vcpus[0].apic
        apic.svr |= 0x100
        apic.post(0x40)
        assert convert(0x900000, 0x200000) == (0, 0x10001)  # R11 stays as it was
        assert convert(0xA00000, 0x300000) == (1, 0xC00000 | SHARED)
        assert td.memory.state(0xBFF000) & 3 == pagestate.SHARED
        assert td.memory.state(0xC00000) & 3 == pagestate.PENDING
        apic.take(0x40)
        assert convert(0xC00000, 0x100000) == (0, 0x10001)
        assert convert(0, SHARED) == (0, 0x10001)  # all there is and much more, at once


@pytest.mark.parametrize(
    ("vmm", "large", "mcg_cap"),
    [
        ("td-shim-spec", True, 0x20),
        ("td-shim-spec:legacy", True, 0x20),
        ("cloud-hypervisor", False, 0x20),
        ("cloud-hypervisor:v43", False, 0x20),
        ("qemu", False, 0x100010A),
    ],
)
def test_what_the_host_of_a_preset_does(vmm: str, large: bool, mcg_cap: int) -> None:
    """KVM maps private memory at 4 KiB only; QEMU sets up machine check banks, others leave KVM's."""
    image = guest.build("main: halt\n").image
    if vmm == "qemu":
        image = guest.for_qemu(image)
    for chosen, expected in ((None, large), ("2M", True), ("4K", False)):
        with guest.machine(image, vmm=vmm, host_page_size=chosen) as td:
            assert td.memory.is_large(32 << 20) == expected
    with guest.machine(image, vmm=vmm) as td:
        r = [0] * 16
        r[RCX], r[R11], r[R12] = 0xFC00, 0x1F, 0x179
        td.vmm.handle(0, r)
        assert (r[R10], r[R11]) == (0, mcg_cap)
        r[R10], r[R11], r[R12] = 0, 0x1F, 0x17B  # MCG_CTL
        td.vmm.handle(0, r)
        assert (r[R10], r[R11]) == ((0, ALL_ONES) if mcg_cap >> 8 & 1 else (1 << 63, 0x1F))
        r[R10], r[R11], r[R12] = 0, 0x1F, 0x400 + 4 * (mcg_cap & 0xFF)  # a bank behind the last
        td.vmm.handle(0, r)
        assert r[R10] == 1 << 63


def test_unselected_registers_stay_with_the_guest() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:
        r = list(range(100, 116))
        r[RCX], r[R10], r[R11], r[R12], r[R13], r[R14] = 1 << R10 | 1 << R11, 0, 0x1E, 1, 0, 0x3FD
        td.vmm.handle(0, r)
        # size and port were not selected, so the VMM saw zeros
        assert r[R10] == 1 << 63
        assert r[R12:16] == [1, 0, 0x3FD, 115]


def test_uart_as_linux_probes_it() -> None:
    sent: list[int] = []
    ports = Ports(sent.append)
    ports.write(0x3F9, 1, 0x0F)
    assert ports.read(0x3F9, 1) == 0x0F
    ports.write(0x3FC, 1, 0x1A)
    assert ports.read(0x3FE, 1) & 0xF0 == 0x90
    ports.write(0x3F8, 1, ord("x"))
    assert sent == []
    ports.write(0x3FC, 1, 3)
    ports.write(0x3FB, 1, 0x83)
    ports.write(0x3F8, 1, 1)
    ports.write(0x3FB, 1, 3)
    ports.write(0x3FF, 1, 0x5A)
    assert ports.read(0x3FF, 1) == 0x5A
    ports.write(0x3FA, 1, 1)
    assert [ports.read(0x3FA, 1), ports.read(0x3FA, 1)] == [0xC2, 0xC1]
    for byte in b"ok":
        ports.write(0x3F8, 1, byte)
    ports.write(0x402, 1, ord("!"))
    assert bytes(sent) == b"ok!"
    assert ports.read(0x71, 1) == 0


def test_power_off() -> None:
    with guest.machine(guest.build("main: halt\n").image) as td:
        r = [0] * 16
        r[RCX], r[R11], r[R12], r[R13], r[R14], r[R15] = 0xFC00, 0x1E, 2, 1, 0x604, 0x3400
        with pytest.raises(End, match="shutdown"):
            td.vmm.handle(0, r)


def test_subtract_ranges() -> None:
    source = random.Random(1)
    for _ in range(200):
        holes = [
            (start, start + source.randrange(1, 9)) for start in (source.randrange(64) for _ in range(4))
        ]
        pieces = vmm_hob.subtract([(0, 20), (30, 60)], holes)
        left = {n for start, end in pieces for n in range(start, end)}
        gone = {n for start, end in holes for n in range(start, end)}
        assert left == (set(range(20)) | set(range(30, 60))) - gone


def test_sections_are_where_the_metadata_says() -> None:
    image = guest.build("main: halt\n").image
    assert tdvf.metadata(image).sections == tuple(guest.sections())


@pytest.mark.parametrize(("kind", "changes"), [(5, {"attributes": 2}), (7, {}), (8, {"memory_size": 0})])
def test_what_is_added_at_launch_is_what_the_image_tools_say(kind: int, changes: dict[str, int]) -> None:
    """PAGE.AUG: left for the TD to accept. TD_PARAMS without memory: nothing to add."""
    plain = guest.build("main: halt\n").image
    index = next(i for i, s in enumerate(guest.sections()) if s.type == tdvf.SectionType.PAYLOAD)
    image = patched(plain, index, type=kind, **changes)
    launch = prepare(RunConfig(image, "image", GIB), PRESETS["td-shim-spec"])
    td = build(TdParams(vcpus=1), launch.regions, launch.hob_address)
    expected = mrtd(image)
    assert (td.mrtd, len(td.pages)) == (expected.digest, expected.pages_added)
    assert (0xA00000 in td.pages) == (kind == 7)


TD_HOB_INDEX = next(i for i, s in enumerate(guest.sections()) if s.type == tdvf.SectionType.TD_HOB)


def without_list(vmm: str = "td-shim-spec") -> bytes:
    """An image with PermMem in place of its TD_HOB."""
    image = guest.build("main: halt\n").image
    image = guest.for_qemu(image) if vmm in ("qemu", "alioth") else image
    return patched(image, TD_HOB_INDEX, type=4, attributes=2)


def test_an_image_that_says_what_its_memory_is_gets_no_list() -> None:
    config = RunConfig(without_list(), "image", GIB)
    launch = prepare(config, PRESETS["td-shim-spec"])
    assert (launch.hob_address, launch.hob, launch.ram) == (0, b"", ((0, GIB),))
    assert guest.HOB not in build(TdParams(vcpus=1), launch.regions, launch.hob_address).pages
    with guest.machine(config.image) as td:
        assert td.memory.state(guest.HOB) & pagestate.STATE == pagestate.PENDING
        assert (td.vcpus[0].regs.gpr[RCX], td.vcpus[0].regs.gpr[R8]) == (0, 0)


@pytest.mark.parametrize("vmm", ["cloud-hypervisor", "dragonball", "libkrun", "qemu", "alioth"])
def test_other_vmms_refuse_it(vmm: str) -> None:
    says = "does not know this type of section" if vmm in ("qemu", "alioth") else "image: no TD_HOB section"
    with pytest.raises(EmuError, match=says):
        prepare(RunConfig(without_list(vmm), "image", GIB), PRESETS[vmm])


def test_a_list_has_no_place_there() -> None:
    with pytest.raises(EmuError, match="image: no TD_HOB section"):
        prepare(RunConfig(without_list(), "image", GIB, hob=b"list"), PRESETS["td-shim-spec"])


def test_neither_a_list_nor_permmem() -> None:
    image = patched(guest.build("main: halt\n").image, TD_HOB_INDEX, type=3)
    with pytest.raises(EmuError, match="image: no TD_HOB section"):
        prepare(RunConfig(image, "image", GIB), PRESETS["td-shim-spec"])


PAYLOAD, TEMP_MEM = tdvf.SectionType.PAYLOAD, tdvf.SectionType.TEMP_MEM
RAM_END = 16 << 20


@pytest.mark.parametrize(
    ("kind", "address", "fits"),
    [
        (PAYLOAD, RAM_END - 0x1000, True),
        (PAYLOAD, RAM_END, False),
        (PAYLOAD, 0xFFFF_0000, False),  # in the image's own place, where there is no RAM
        (TEMP_MEM, 0xFFFF_0000, True),
        (TEMP_MEM, 0xFFFE_F000, False),
        (TEMP_MEM, 0x1_0000_0000, False),
    ],
)
def test_a_section_lies_in_ram_or_in_the_place_of_the_image(kind: int, address: int, fits: bool) -> None:
    plain = guest.build("main: halt\n").image
    assert len(plain) == 0x1_0000
    index = next(i for i, s in enumerate(guest.sections()) if s.type == PAYLOAD)
    image = patched(plain, index, type=kind, address=address, memory_size=0x1000)
    config = RunConfig(image, "image", RAM_END)
    if fits:
        assert address in {section.address for section in prepare(config, PRESETS["td-shim-spec"]).sections}
    else:
        with pytest.raises(EmuError, match=f"{address:#x} to .* does not lie in the 16 MiB of RAM"):
            prepare(config, PRESETS["td-shim-spec"])
