"""Does each TDCALL leaf check in the module's order and answer with its status words?"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import guest
import pytest

from emu.machine import Machine
from emu.signals import End, Fault, VirtualizationException
from emu.tdx import leaves
from emu.tdx.module import VcpuModel
from emu.tdx.params import Choices
from formats.registers import R8, R9, R10, R11, RAX, RCX, RDX

OPERAND, BUSY = 0xC000010000000000, 0x8000020000000000
SHARED = 1 << 47
NO_FIELD = (1 << 64) - 1
PENDING_RAM = 0x2000000  # a 2 MiB chunk that holds no section
SPLIT_RAM = 0xA00000  # its 2 MiB chunk holds the Payload section


@pytest.fixture
def td() -> Iterator[Machine]:
    """A launched TD that does not run."""
    with guest.machine(guest.build("main: halt\n").image, vcpus=1) as made:
        yield made


def call(td: Machine, *, index: int = 0, cpl: int = 0, mode64: bool = True, **registers: int) -> list[int]:
    """One TDCALL; registers by name; returns all of them."""
    numbers = {"rax": RAX, "rcx": RCX, "rdx": RDX, "r8": R8, "r9": R9, "r10": R10, "r11": R11}
    r = [0] * 16
    for name, value in registers.items():
        r[numbers[name]] = value
    leaves.tdcall(td.module, VcpuModel(index), r, mode64, cpl)
    return r


@pytest.mark.parametrize("rax", [13, 0x10006, 1 << 24 | 1, 1 << 63, 0x20007, 64, 254])
def test_unknown_leaf_version_or_reserved_bits(td: Machine, rax: int) -> None:
    assert call(td, rax=rax)[RAX] == OPERAND


@pytest.mark.parametrize(("cpl", "mode64"), [(3, True), (0, False)])
def test_outside_64_bit_supervisor_mode_it_is_gp(td: Machine, cpl: int, mode64: bool) -> None:
    with pytest.raises(Fault) as fault:
        call(td, rax=1, cpl=cpl, mode64=mode64)
    assert (fault.value.vector, fault.value.error_code) == (13, 0)


def test_vp_info(td: Machine) -> None:
    r = call(td, rax=1)
    assert r[RAX] == 0
    assert (r[RCX], r[RDX], r[R8], r[R9], r[R10], r[R11]) == (48, 1 << 28, 1 | 1 << 32, 0, 1, 0)


@pytest.mark.parametrize(
    ("rcx", "rdx", "status"),
    [
        (guest.RESULTS + 8, 0, OPERAND | 1),
        (guest.RESULTS | SHARED, 0, OPERAND | 1),
        (1 << 50, 0, OPERAND | 1),
        (guest.RESULTS, 4, OPERAND | 2),
        (guest.RESULTS + 64, 3, 0),
    ],
)
def test_rtmr_extend_checks(td: Machine, rcx: int, rdx: int, status: int) -> None:
    assert call(td, rax=2, rcx=rcx, rdx=rdx)[RAX] == status


def test_rtmr_extend_value(td: Machine) -> None:
    digest = hashlib.sha384(bytes(4)).digest()
    td.memory.write(guest.RESULTS, digest)
    assert call(td, rax=2, rcx=guest.RESULTS, rdx=0)[RAX] == 0
    # reference value of one separator extended from zero
    assert td.module.rtmr[0].hex() == (
        "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"
    )
    assert td.module.rtmr[1:] == [bytes(48)] * 3


def test_rtmr_extend_walks_before_it_checks_the_index(td: Machine) -> None:
    with pytest.raises(End, match="sept-violation"):
        call(td, rax=2, rcx=PENDING_RAM, rdx=9)


def test_veinfo_is_given_once(td: Machine) -> None:
    model = VcpuModel(0, ve=VirtualizationException(30, 0x3F80008, 1, 2, 3, 4))
    r = [0] * 16
    r[RAX] = 3
    leaves.tdcall(td.module, model, r, True, 0)
    assert (r[RAX], r[RCX], r[RDX], r[R8], r[R9], r[R10]) == (0, 30, 0x3F80008, 1, 2, 3 | 4 << 32)
    r[RAX] = 3
    leaves.tdcall(td.module, model, r, True, 0)
    assert (r[RAX], r[RCX], r[RDX], r[R8], r[R9], r[R10]) == (0xC000070400000000, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("rcx", "rdx", "r8", "status"),
    [
        (guest.RESULTS + 512, guest.RESULTS, 0, OPERAND | 1),
        (guest.RESULTS, guest.RESULTS + 4, 0, OPERAND | 2),
        (1 << 50, 1 << 50, 1, OPERAND | 2),
        (1 << 50, guest.RESULTS, 1, OPERAND | 8),
        (1 << 50, guest.RESULTS, 0, OPERAND | 1),
    ],
)
def test_report_checks(td: Machine, rcx: int, rdx: int, r8: int, status: int) -> None:
    assert call(td, rax=4, rcx=rcx, rdx=rdx, r8=r8)[RAX] == status


def test_report_reaches_its_data_before_it_checks_the_type(td: Machine) -> None:
    with pytest.raises(End, match="sept-violation"):
        call(td, rax=4, rcx=guest.RESULTS, rdx=PENDING_RAM, r8=1)


def test_report_takes_the_lock_behind_the_type_and_before_the_address_of_the_report(td: Machine) -> None:
    td.module.params = dataclasses.replace(td.module.params, choices=Choices(rtmr_busy=1))
    statuses = [call(td, rax=4, rcx=1 << 50, rdx=guest.RESULTS, r8=r8)[RAX] for r8 in (1, 0, 0)]
    assert statuses == [OPERAND | 8, BUSY | 168, OPERAND | 1]


@pytest.mark.parametrize(("rdx", "status"), [(0, OPERAND | 1), (128, OPERAND | 2), (1 << 48, OPERAND | 2)])
def test_vp_enter_checks_the_state_before_the_vm(td: Machine, rdx: int, status: int) -> None:
    assert call(td, rax=25, rcx=1 << 52, rdx=guest.RESULTS + rdx)[RAX] == status


@pytest.mark.parametrize(("leaf", "following"), [(18, (1 << 64) - 1), (20, 7)])
def test_no_service_td_is_bound(td: Machine, leaf: int, following: int) -> None:
    """SERVTD.RD also gives no next field."""
    r = call(td, rax=leaf, rcx=1, rdx=7, r8=9)
    assert (r[RAX], r[RDX], r[R8]) == (OPERAND | 1, following, 0)


def test_sys_rdall_writes_whole_pages(td: Machine) -> None:
    for first in (NO_FIELD, 0x777):  # the page is checked before the field
        assert call(td, rax=12, rdx=guest.RESULTS + 2048, r8=first)[RAX] == OPERAND | 2


def test_report_content(td: Machine) -> None:
    td.memory.write(guest.RESULTS + 0x1000, bytes(range(64)))
    assert call(td, rax=4, rcx=guest.RESULTS, rdx=guest.RESULTS + 0x1000)[RAX] == 0
    report = td.memory.read(guest.RESULTS, 1024)
    assert report[:4] == bytes((0x81, 0, 0, 0))
    assert report[128:192] == bytes(range(64))
    assert report[80:128] == hashlib.sha384(report[512:]).digest()
    assert report[528:576] == td.module.mrtd
    assert int.from_bytes(report[512:520], "little") == 1 << 28
    assert b"EMULATED" in report[224:256]


def test_cpuidve_set(td: Machine) -> None:
    assert call(td, rax=5, rcx=4)[RAX] == OPERAND | 1
    assert call(td, rax=5, rcx=3)[RAX] == 0


@pytest.mark.parametrize(
    "rcx",
    [
        PENDING_RAM | 2,
        PENDING_RAM | 3,
        PENDING_RAM | 8,
        PENDING_RAM + 4096 | 1,
        PENDING_RAM | SHARED,
        1 << 50,
    ],
)
def test_accept_operand(td: Machine, rcx: int) -> None:
    assert call(td, rax=6, rcx=rcx)[RAX] == OPERAND | 1


def test_accept_outcomes(td: Machine) -> None:
    accepted, mismatch = 0x00000B0A00000000, 0xC0000B0B00000000
    assert call(td, rax=6, rcx=PENDING_RAM | 1)[RAX] == 0  # (f)
    assert call(td, rax=6, rcx=PENDING_RAM | 1)[RAX] == accepted | 1  # (d) 2 MiB
    assert call(td, rax=6, rcx=PENDING_RAM + 4096)[RAX] == accepted | 1  # (a)
    assert call(td, rax=6, rcx=SPLIT_RAM | 1)[RAX] == mismatch | 1  # (c)
    assert call(td, rax=6, rcx=SPLIT_RAM)[RAX] == accepted  # (d) 4 KiB: added at launch
    assert call(td, rax=6, rcx=SPLIT_RAM + 0x10000)[RAX] == 0  # (f) 4 KiB
    other = PENDING_RAM + (2 << 20)
    assert call(td, rax=6, rcx=other + 4096)[RAX] == 0  # (b): the VMM demotes, then (f)
    assert call(td, rax=6, rcx=other | 1)[RAX] == mismatch | 1
    assert (td.module.accepted_4k, td.module.accepted_2m) == (2, 1)
    with pytest.raises(End, match="sept-violation"):
        call(td, rax=6, rcx=0x10000000)  # beyond RAM: the VMM never resolves it


def test_accept_with_a_host_that_maps_4k_only() -> None:
    with guest.machine(guest.build("main: halt\n").image, host_page_size="4K") as td:
        assert call(td, rax=6, rcx=PENDING_RAM | 1)[RAX] == 0xC0000B0B00000001
        assert call(td, rax=6, rcx=PENDING_RAM)[RAX] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0x9010000200000001, 1),  # NUM_VCPUS
        (0x1110000300000000, 1 << 28),  # ATTRIBUTES
        (0x1110000300000001, 3),  # XFAM
        (0x111000010000000C, 40),  # TSC_FREQUENCY, 25 MHz units
        (0x1110000300000016, 4),  # CONFIG_FLAGS: NO_RBP_MOD
        (0x9100000000000010, 0),  # NOTIFY_ENABLES as Linux spells it
    ],
)
def test_vm_rd(td: Machine, field: int, value: int) -> None:
    r = call(td, rax=7, rdx=field)
    assert (r[RAX], r[R8], r[RDX]) == (0, value, field)


def test_vm_rd_digests(td: Machine) -> None:
    words = [call(td, rax=7, rdx=0x1310000300000000 + e)[R8] for e in range(6)]
    assert b"".join(word.to_bytes(8, "little") for word in words) == td.module.mrtd
    td.module.rtmr[2] = bytes(range(48))
    assert call(td, rax=7, rdx=0x1310000300000040 + 6 * 2 + 5)[R8] == int.from_bytes(
        bytes(range(40, 48)), "little"
    )


def test_vm_rd_errors_zero_r8(td: Machine) -> None:
    r = call(td, rax=7, rcx=1, rdx=0x1110000300000000, r8=5)
    assert (r[RAX], r[R8]) == (OPERAND | 1, 0)
    r = call(td, rax=7, rdx=0x1110000300000777, r8=5)
    assert (r[RAX], r[R8]) == (0xC0000C0000000000, 0)


@pytest.mark.parametrize(
    ("rax", "rdx", "status"),
    [(0x20007, NO_FIELD, OPERAND), (0x10007, NO_FIELD, OPERAND | 1), (0x10007, 0x777, OPERAND | 1)],
)
def test_vm_rd_checks_its_version_then_rcx_then_the_field(
    td: Machine, rax: int, rdx: int, status: int
) -> None:
    assert call(td, rax=rax, rcx=1, rdx=rdx)[RAX] == status


@pytest.mark.parametrize("leaf", [8, 10])
def test_a_write_checks_rcx_before_the_field(td: Machine, leaf: int) -> None:
    assert call(td, rax=leaf, rcx=1, rdx=0x777)[RAX] == OPERAND | 1


@pytest.mark.parametrize(
    ("attributes", "flags", "status"),
    [(1, 1, OPERAND | 2), (1 << 16, 1, OPERAND | 8), (1, 1 << 16, OPERAND | 2), (0, 0, OPERAND | 1)],
)
def test_attr_wr_checks_attributes_and_flags_vm_by_vm(
    td: Machine, attributes: int, flags: int, status: int
) -> None:
    """The page comes last (tdg_mem_page_attr_wr.c)."""
    assert call(td, rax=24, rcx=1 << 50, rdx=attributes, r8=flags)[RAX] == status


def test_vm_rd_version_1_lists_the_fields(td: Machine) -> None:
    r = call(td, rax=0x10007, rdx=(1 << 64) - 1)
    assert r[RAX] == 0x00000C0B00000000
    seen = []
    while r[RDX] != (1 << 64) - 1:
        seen.append(r[RDX])
        r = call(td, rax=0x10007, rdx=r[RDX])
        assert r[RAX] == 0
    assert 0x1110000300000001 in seen
    assert len(seen) == len(set(seen))


def test_vm_wr(td: Machine) -> None:
    notify, td_ctls, xfam = 0x9100000000000010, 0x1110000300000017, 0x1110000300000001
    assert call(td, rax=8, rdx=notify, r8=1, r9=(1 << 64) - 1)[RAX] == 0
    assert call(td, rax=8, rdx=notify, r8=0, r9=0)[RAX] == 0xC0000C0100000000  # nothing to write
    r = call(td, rax=8, rdx=notify, r8=0, r9=1)
    assert (r[RAX], r[R8]) == (0, 1)
    assert call(td, rax=8, rdx=xfam, r8=0, r9=1)[RAX] == 0xC0000C0100000000
    assert call(td, rax=8, rdx=td_ctls, r8=0, r9=1)[RAX] == 0xC0000C0300000000  # no FLEXIBLE_PENDING_VE


def test_vp_rd_and_sys_rd(td: Machine) -> None:
    assert call(td, rax=9, rdx=0xA020000200000002, index=5)[R8] == 5
    assert call(td, rax=11, rdx=0x0800000200000000)[R8] == 0x8086


@pytest.mark.parametrize("mask", [1, 2, 1 << 4, 1 << 5, 1 << 32])
def test_vmcall_mask(td: Machine, mask: int) -> None:
    assert call(td, rax=0, rcx=0xFC00 | mask)[RAX] == OPERAND | 1


def test_pending_page_without_sept_ve_disable_raises_ve(td: Machine) -> None:
    td.module.set_td_ctls(0)
    with pytest.raises(VirtualizationException) as ve:
        call(td, rax=2, rcx=PENDING_RAM, rdx=0)
    assert (ve.value.reason, ve.value.gpa) == (48, PENDING_RAM)


def test_accept_inside_an_accepted_large_page_takes_no_lock(td: Machine) -> None:
    """The walk ends above the level asked for, before the entry would be locked (tdg_mem_page_accept.c)."""
    assert call(td, rax=6, rcx=PENDING_RAM | 1)[RAX] == 0
    td.module.params = dataclasses.replace(td.module.params, choices=Choices(accept_busy=1))
    assert call(td, rax=6, rcx=PENDING_RAM)[RAX] == 0x00000B0A00000001
    assert call(td, rax=6, rcx=PENDING_RAM | 1)[RAX] == 0x8000020000000001
