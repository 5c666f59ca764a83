"""Does each VMM's verdict follow its own loader? Every row of the table is broken by some image."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from debian import ovmf
from hypothesis import given
from hypothesis import strategies as st
from tdvfimage import (
    TDX_GUID,
    image_for_direct_boot,
    image_for_qemu,
    overwritten,
    patched,
    without_last_section,
)

from formats.vmms import RESERVED
from image.hosts import RULES, VMMS, verdicts

BFV, CFV, HOB, TEMP, PARAM, PAYLOAD = range(6)  # sections of the samples; those for QEMU end with TEMP
SHIM, QEMU = image_for_direct_boot(), image_for_qemu()
TABLE_ONLY, POINTER_ONLY = {"qemu", "alioth", "libkrun"}, {"dragonball", "td-shim-spec"}
ALL = set(VMMS)


def refusing(image: bytes, expected: str = "") -> set[str]:
    """Who refuses it; with `expected`, who does so for that reason among others."""
    return {
        verdict.vmm
        for verdict in verdicts(image)
        if any(expected in refusal.expected for refusal in verdict.refusals)
    }


def test_what_is_made_for_a_host_is_loaded_by_it() -> None:
    assert refusing(QEMU) == {"dragonball"}  # it wants a place for the command line
    assert refusing(SHIM) == {"qemu", "alioth"}  # they know no payload sections


IN_RAM, SIZED = "RAM of one machine", {"qemu", "td-shim-spec"}


def described(kind: int, **fields: int) -> bytes:
    """The sample with TD_INFO or TD_PARAMS in place of its TempMem: 1 KiB of the BFV."""
    wanted = {"address": 0, "memory_size": 0, "data_offset": 0xE000, "raw_size": 0x400}
    return patched(SHIM, TEMP, type=kind, **wanted | fields)


def moved(image: bytes) -> bytes:
    """The sample with its descriptor 4 bytes further down."""
    block = image[-0x400:-0x300]
    raw = overwritten(image, 0x404, block + bytes(4))
    at = raw.rindex(TDX_GUID)
    raw = overwritten(raw, len(raw) - at + 6, struct.pack("<I", 0x3F4))
    return overwritten(raw, 0x20, struct.pack("<I", len(raw) - 0x3F4))


OWN_RAM = ALL - {"libkrun"}  # libkrun adds low RAM as one region
Case = tuple[str, Callable[[], bytes], str, set[str]]
CASES: tuple[Case, ...] = (
    ("half a unit", lambda: bytes(0x8000) + QEMU, "a multiple of 64 KiB", {"qemu"}),
    ("one section", lambda: without_last_section(QEMU, 3), "at least 2 sections", {"qemu"}),
    ("type 4", lambda: patched(QEMU, TEMP, type=4, attributes=2), "or TempMem", {"qemu", "alioth"}),
    ("type 7", lambda: patched(SHIM, TEMP, type=7), "BFV to", {"cloud-hypervisor", "dragonball", "libkrun"}),
    ("type 9", lambda: patched(SHIM, TEMP, type=9), "from 0 to 8", {"td-shim-spec"}),
    (
        "too much data",
        lambda: patched(SHIM, CFV, raw_size=0x3000),
        "at most the memory",
        {"qemu", "td-shim-spec"},
    ),
    ("no data", lambda: patched(SHIM, CFV, raw_size=0), "data in the file", {"qemu", "td-shim-spec"}),
    ("data of a list", lambda: patched(SHIM, HOB, raw_size=0x1000), "no data", {"qemu", "td-shim-spec"}),
    (
        "offset of nothing",
        lambda: patched(SHIM, PAYLOAD, data_offset=0x1000),
        "as there is no data",
        {"td-shim-spec"},
    ),
    ("large payload", lambda: patched(SHIM, PAYLOAD, raw_size=0x2_1000), "at most the memory", SIZED),
    ("large line", lambda: patched(SHIM, PARAM, raw_size=0x2000), "at most the memory", SIZED),
    ("address of TD_INFO", lambda: described(7, address=0x1000), "0 and 0", {"td-shim-spec"}),
    ("memory of TD_PARAMS", lambda: described(8, memory_size=0x1000), "0 and 0", {"td-shim-spec"}),
    ("TD_INFO elsewhere", lambda: described(7, data_offset=0xCFFF), "last BFV", {"td-shim-spec"}),
    ("TD_PARAMS too long", lambda: described(8, raw_size=0x2001), "last BFV", {"td-shim-spec"}),
    ("stack in the file", lambda: patched(QEMU, TEMP, address=0xFFFF_0000), IN_RAM, {"qemu", "alioth"}),
    (
        "list in no memory",
        lambda: patched(SHIM, HOB, address=0xF000_0000),
        IN_RAM,
        {"qemu", "alioth", "dragonball"},
    ),
    (
        "list across a border",
        lambda: patched(SHIM, HOB, address=0xCFFF_8000),
        IN_RAM,
        {"qemu", "alioth", "dragonball", "libkrun"},
    ),
    ("list above 2 GiB", lambda: patched(SHIM, HOB, address=0x9000_0000), IN_RAM, {"alioth"}),
    (
        "no such machine",
        lambda: patched(patched(SHIM, HOB, address=0x9000_0000), TEMP, address=1 << 32),
        IN_RAM,
        {"qemu", "alioth"},
    ),
    (
        "data in no memory",
        lambda: patched(SHIM, CFV, address=0xE000_0000),
        IN_RAM,
        {"qemu", "alioth", "dragonball"},
    ),
    ("half a page more", lambda: bytes(0x800) + QEMU, "a multiple of 0x1000", {"alioth"}),
    ("odd data", lambda: patched(QEMU, CFV, data_offset=0xA800), "multiple of 0x1000", {"qemu", "alioth"}),
    ("shared", lambda: patched(QEMU, TEMP, address=1 << 51), "private memory", ALL),
    ("odd address", lambda: patched(QEMU, TEMP, address=0x81_0800), "a multiple of 0x1000", OWN_RAM),
    ("odd high address", lambda: patched(QEMU, CFV, address=0xFFF0_0800), "a multiple of 0x1000", ALL),
    ("odd size", lambda: patched(QEMU, TEMP, memory_size=0x7800), "a multiple of 0x1000", SIZED),
    (
        "odd high size",
        lambda: patched(QEMU, CFV, memory_size=0x1800),
        "a multiple of 0x1000",
        SIZED | {"libkrun", "cloud-hypervisor"},
    ),
    ("half a page", lambda: patched(QEMU, TEMP, memory_size=0x800), "at least one page", OWN_RAM - SIZED),
    ("empty", lambda: patched(QEMU, TEMP, memory_size=0), "at least one page", OWN_RAM),
    ("empty high", lambda: patched(QEMU, CFV, memory_size=0), "at least one page", ALL),
    ("overlap", lambda: patched(QEMU, TEMP, address=0x80_F000), "memory of their own", OWN_RAM),
    ("high overlap", lambda: patched(QEMU, CFV, address=0xFFFF_D000), "memory of their own", ALL),
    ("small list", lambda: patched(QEMU, HOB, memory_size=0xCF), "room for the list", {"qemu", "alioth"}),
    ("no room", lambda: patched(QEMU, HOB, memory_size=0x97), "at least 0x98 bytes", {"libkrun"}),
    (
        "padding in front",
        lambda: b"\xff" * 0xF_0000 + QEMU,
        "instructions at the reset vector",
        {"qemu", "alioth", "cloud-hypervisor", "libkrun"},
    ),
    (
        "short code",
        lambda: patched(QEMU, BFV, raw_size=0x1000),
        "instructions at the reset vector",
        ALL - {"qemu", "alioth"},
    ),
    ("at the APIC", lambda: patched(QEMU, CFV, address=0xFEE0_0000), "not the local APIC", {"qemu"}),
    ("large file", lambda: bytes(20 << 20) + QEMU, "at most 0x13ff000", {"alioth"}),
    ("a bit more", lambda: patched(SHIM, TEMP, memory_size=0x1_0010), "memory of their own", SIZED),
    ("odd descriptor", lambda: moved(QEMU), "at a multiple of 8", {"alioth"}),
    ("unmeasured", lambda: patched(QEMU, BFV, attributes=0), "at the reset vector", ALL),
    ("no code", lambda: overwritten(QEMU, 0x10, bytes(16)), "at the reset vector", ALL),
    ("attributes of BFV", lambda: patched(QEMU, BFV, attributes=3), "0x1", {"td-shim-spec"}),
    ("attributes of CFV", lambda: patched(QEMU, CFV, attributes=1), "0x0", {"td-shim-spec"}),
    ("attributes of Payload", lambda: patched(SHIM, PAYLOAD, attributes=2), "0x0 or 0x1", {"td-shim-spec"}),
    (
        "payload in the image",
        lambda: patched(SHIM, PAYLOAD, raw_size=0x1000),
        "copies none from the image",
        {"cloud-hypervisor", "dragonball"},
    ),
    ("payload in MRTD", lambda: patched(SHIM, PAYLOAD, attributes=1), "it measures nothing", {"libkrun"}),
    ("attributes of PermMem", lambda: patched(SHIM, TEMP, type=4), "0x2", {"td-shim-spec"}),
    ("two lists", lambda: patched(QEMU, TEMP, type=2), "at most one", {"td-shim-spec"}),
    ("parameters alone", lambda: without_last_section(SHIM), "Payload too", {"td-shim-spec"}),
    ("no GUID", lambda: overwritten(QEMU, 0x400, b"\0"), "GUID e9eaf9f3", {"td-shim-spec"}),
    ("no RAM", lambda: patched(QEMU, HOB, type=3), "or PermMem sections", {"td-shim-spec"}),
    (
        "data outside",
        lambda: patched(SHIM, CFV, data_offset=0xF000),
        "data inside the file",
        {"qemu", "alioth", "libkrun"},
    ),
    ("nothing outside", lambda: patched(SHIM, TEMP, data_offset=0xFFFF_FFF0), "inside the file", {"libkrun"}),
    (
        "no BFV",
        lambda: patched(SHIM, BFV, type=1, attributes=0),
        "a measured BFV",
        ALL,
    ),
    (
        "no list",
        lambda: patched(SHIM, HOB, type=3),
        "one",
        {"qemu", "alioth", "cloud-hypervisor", "dragonball", "libkrun"},
    ),
)


@pytest.mark.parametrize(
    ("image", "expected", "vmms"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_broken_rule_is_named_by_those_who_have_it(
    image: Callable[[], bytes], expected: str, vmms: set[str]
) -> None:
    assert refusing(image(), expected) == vmms


def test_every_row_is_broken_by_some_case() -> None:
    broken = {
        (verdict.vmm, refusal.expected, refusal.source)
        for _, image, _, _ in CASES
        for verdict in verdicts(image())
        for refusal in verdict.refusals
    }
    lacking = {(rule.vmm, rule.expected, rule.source) for rule in RULES} - broken
    assert lacking <= {("dragonball", "one", "src/dragonball/src/vm/x86_64.rs load_kernel_with_tdshim")}


@pytest.mark.parametrize(
    ("image", "vmms"),
    [
        (lambda: patched(QEMU, HOB, address=0x1000_0000), ALL - {"dragonball"}),  # from 257 MiB of memory on
        (
            lambda: patched(QEMU, HOB, address=1 << 32),
            ALL - {"dragonball"},
        ),  # where memory reaches above 4 GiB
        (lambda: patched(QEMU, CFV, address=0xFFFF_9000), ALL - {"dragonball"}),  # not where the file has it
        (lambda: patched(SHIM, HOB, address=0xFF00_0000), ALL - {"qemu", "alioth"}),  # Dragonball's window
        (lambda: patched(SHIM, HOB, address=0xF000_0000), {"cloud-hypervisor", "libkrun", "td-shim-spec"}),
        (lambda: patched(SHIM, HOB, address=0xBFFF_8000), ALL - {"qemu", "alioth", "dragonball"}),
        (lambda: patched(SHIM, TEMP, type=RESERVED), {"cloud-hypervisor", "dragonball", "libkrun"}),
        (lambda: overwritten(QEMU, 0x3EC, struct.pack("<I", 1)), {"alioth"}),  # the descriptor's Length
        (lambda: patched(SHIM, CFV, data_offset=0xF000), {"cloud-hypervisor", "dragonball", "td-shim-spec"}),
        (lambda: patched(SHIM, TEMP, address=0x80_F000), {"libkrun"}),
        (lambda: patched(QEMU, HOB, memory_size=0x1000), ALL - {"dragonball"}),
        (lambda: described(7), {"td-shim-spec"}),
        (lambda: described(8, data_offset=0xFC00), {"td-shim-spec"}),
    ],
)
def test_a_vmm_refuses_nothing_that_it_takes(image: Callable[[], bytes], vmms: set[str]) -> None:
    assert ALL - refusing(image()) == vmms


@pytest.mark.parametrize(
    ("distance", "data", "source"),
    [
        (0x30, bytes(16), "pc_sysfw_ovmf.c"),
        (0x3F0, b"XDVF", "tdvf.c"),
        (0x3EC, b"\x01", "tdvf.c"),
        (0x3E8, b"\x02", "tdvf.c"),
    ],
    ids=["table", "signature", "length", "version"],
)
def test_qemu_reads_the_descriptor_in_another_file(distance: int, data: bytes, source: str) -> None:
    (verdict,) = verdicts(overwritten(QEMU, distance, data), ["qemu"])
    assert [f"hw/i386/{source}" in refusal.source for refusal in verdict.refusals] == [True]


def test_each_vmm_finds_the_metadata_in_its_own_way() -> None:
    no_table = overwritten(SHIM, 0x30, bytes(16))
    wrong_pointer = overwritten(SHIM, 0x20, struct.pack("<I", 0))
    assert {v.vmm for v in verdicts(no_table) if "GUID table" in v.refusals[:1].__repr__()} == TABLE_ONLY
    assert refusing(wrong_pointer) >= POINTER_ONLY
    assert "cloud-hypervisor" not in refusing(no_table) | refusing(wrong_pointer)


FOOTER = bytes.fromhex("de82b596b21ff745baeaa366c55a082d")
FOUND, LARGE = b"\xf0\3\0\0\x16\0" + TDX_GUID, b"\xf0\3\0\0" + bytes(4) + b"\x1a\0" + TDX_GUID
NO_LENGTH = bytes(2) + bytes(range(16))


@pytest.mark.parametrize(
    ("table", "takers"),
    [
        (FOUND, ALL - {"dragonball"}),
        (LARGE, {"qemu", "cloud-hypervisor", "td-shim-spec"}),  # any length, passed over, not looked at
        (NO_LENGTH + FOUND, ALL - {"dragonball"}),  # below what is looked for
        (FOUND + NO_LENGTH, {"cloud-hypervisor", "td-shim-spec"}),  # by the pointer
    ],
    ids=["usual", "longer entry", "nothing below", "nothing above"],
)
def test_each_vmm_walks_the_table_in_its_own_way(table: bytes, takers: set[str]) -> None:
    whole = table + struct.pack("<H", len(table) + 18) + FOOTER
    assert ALL - refusing(overwritten(QEMU, 0x20 + len(whole), whole)) == takers


def test_stock_ovmf_is_for_qemu() -> None:
    image = ovmf().read_bytes()
    assert "qemu" not in refusing(image)
    assert refusing(image) >= POINTER_ONLY  # nothing usable lies where they look


def test_a_row_names_its_source() -> None:
    assert all(rule.source and rule.expected for rule in RULES)
    assert {rule.vmm for rule in RULES} == ALL


@given(st.data())
def test_a_mutated_image_gives_verdicts_never_a_traceback(data: st.DataObject) -> None:
    image = bytearray(data.draw(st.sampled_from([SHIM, QEMU])))
    for _ in range(data.draw(st.integers(1, 6))):
        image[-data.draw(st.integers(1, 0x400))] = data.draw(st.integers(0, 255))
    for verdict in verdicts(bytes(image)):
        assert all("\n" not in refusal.text for refusal in verdict.refusals)


@given(st.binary(max_size=0x200))
def test_garbage_is_refused_by_all(data: bytes) -> None:
    assert refusing(data) == ALL
