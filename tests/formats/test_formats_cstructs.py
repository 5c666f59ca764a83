"""Do the generated C structs compile, and does a compiler refuse a layout that differs?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import construct
import pytest

from formats import acpi, cstructs, eventlog, linux
from formats.structs import pack, spaced, unpack

# Offsets by the specifications, not by our declarations: boot.rst, zero-page.rst, ACPI 6.5, PI 1.7, TCG PFP.
SPECIFIED = {
    "struct boot_params": (
        4096,
        {"acpi_rsdp_addr": 0x70, "ext_ramdisk_image": 0xC0, "efi_info": 0x1C0, "e820_entries": 0x1E8}
        | {"sentinel": 0x1EF, "hdr": 0x1F1, "hdr.type_of_loader": 0x210, "hdr.ramdisk_image": 0x218}
        | {"hdr.cmd_line_ptr": 0x228, "hdr.xloadflags": 0x236, "hdr.setup_data": 0x250}
        | {"hdr.pref_address": 0x258, "hdr.init_size": 0x260, "hdr.kernel_info_offset": 0x268}
        | {"e820_table": 0x2D0},
    ),
    "struct e820_entry": (20, {"size": 8, "type": 16}),
    "struct acpi_rsdp": (36, {"checksum": 8, "revision": 15, "xsdt_address": 24, "extended_checksum": 32}),
    "struct acpi_header": (36, {"length": 4, "checksum": 9, "oem_id": 10, "creator_id": 28}),
    "struct acpi_fadt": (
        276,
        {"dsdt": 40, "sci_int": 46, "iapc_boot_arch": 109, "flags": 112, "reset_reg": 116, "reset_value": 128}
        | {"minor_revision": 131, "x_dsdt": 140, "sleep_control_reg": 244, "sleep_status_reg": 256},
    ),
    "struct acpi_madt": (44, {"lapic_address": 36, "flags": 40}),
    "struct acpi_madt_lapic": (8, {"apic_id": 3, "flags": 4}),
    "struct acpi_madt_ioapic": (12, {"address": 4, "gsi_base": 8}),
    "struct acpi_madt_iso": (10, {"gsi": 4, "flags": 8}),
    "struct acpi_madt_lapic_nmi": (6, {"flags": 3, "lint": 5}),
    "struct acpi_madt_x2apic": (16, {"x2apic_id": 4, "flags": 8, "processor_uid": 12}),
    "struct acpi_madt_x2apic_nmi": (12, {"processor_uid": 4, "lint": 8}),
    "struct acpi_madt_mp_wakeup": (16, {"mailbox_version": 2, "mailbox_address": 8}),
    "struct acpi_madt_mp_wakeup_v1": (24, {"reset_vector": 16}),
    "struct acpi_mp_mailbox": (4096, {"apic_id": 4, "wakeup_vector": 8, "firmware_reserved": 0x800}),
    "struct acpi_ccel": (56, {"cc_type": 36, "log_area_length": 40, "log_area_address": 48}),
    "struct hob_phit": (56, {"boot_mode": 12, "end_of_hob_list": 48}),
    "struct hob_resource": (48, {"owner": 8, "resource_type": 24, "start": 32, "length": 40}),
    "struct hob_guid_ext": (24, {"guid": 8}),
    "struct hob_payload_info": (16, {"entry_point": 8}),
    "struct hob_payload_info_packed": (12, {"entry_point": 4}),
    "struct cc_pcr_event": (32, {"digest": 8, "size": 28}),
    "struct cc_spec_id": (33, {"platform_class": 16, "algorithm_count": 24, "vendor_size": 32}),
    "struct cc_event_header": (66, {"digest_count": 8, "algorithm_id": 12, "digest": 14, "size": 62}),
    "struct cc_platform_config": (20, {"length": 16}),
    "struct tdvf_descriptor": (16, {"section_count": 12}),
    "struct tdvf_section": (32, {"memory_address": 8, "memory_size": 16, "type": 24, "attributes": 28}),
    "struct layout": (16, {"carved_count": 4, "carve_limit": 8, "entries": 16, "entries[1]": 40}),
    "struct layout_entry": (24, {"end": 8, "kind": 16, "e820": 20}),
    "struct ghci_quote_header": (24, {"status": 8, "in_size": 16, "out_size": 20}),
}


def compile_c(folder: Path, header: str, body: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "formats.h").write_text(header)
    (folder / "test.c").write_text(f'#include "formats.h"\n{body}\nextern int unused;\n')
    flags = ["-std=c17", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-c"]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-freestanding-none", *flags]
    return subprocess.run(
        [*command, str(folder / "test.c"), "-o", str(folder / "test.o")],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_compiler_agrees_with_every_offset(tmp_path: Path) -> None:
    asserts = [
        f'_Static_assert(offsetof({tag}, {field}) == {offset}, "{tag} {field}");'
        for tag, (_, fields) in SPECIFIED.items()
        for field, offset in fields.items()
    ]
    asserts += [f'_Static_assert(sizeof({tag}) == {size}, "{tag}");' for tag, (size, _) in SPECIFIED.items()]
    done = compile_c(tmp_path, cstructs.c_header(), "\n".join(asserts))
    assert done.returncode == 0, done.stderr


def test_another_layout_does_not_compile(tmp_path: Path) -> None:
    header = cstructs.c_header().replace("uint64_t start;", "uint32_t start;")
    done = compile_c(tmp_path, header)
    assert done.returncode != 0
    assert "hob_resource" in done.stderr


def test_one_struct_in_full() -> None:
    assert """/* Confidential computing event log, 5.2.34 */
struct acpi_ccel {
    struct acpi_header header;
    uint8_t cc_type;
    uint8_t cc_subtype;
    uint16_t reserved;
    uint64_t log_area_length;
    uint64_t log_area_address;
} __attribute__((packed));
_Static_assert(offsetof(struct acpi_ccel, header) == 0, "acpi_ccel.header");
_Static_assert(offsetof(struct acpi_ccel, cc_type) == 36, "acpi_ccel.cc_type");
_Static_assert(offsetof(struct acpi_ccel, cc_subtype) == 37, "acpi_ccel.cc_subtype");
_Static_assert(offsetof(struct acpi_ccel, reserved) == 38, "acpi_ccel.reserved");
_Static_assert(offsetof(struct acpi_ccel, log_area_length) == 40, "acpi_ccel.log_area_length");
_Static_assert(offsetof(struct acpi_ccel, log_area_address) == 48, "acpi_ccel.log_area_address");
_Static_assert(sizeof(struct acpi_ccel) == 56, "acpi_ccel");
""" in cstructs.c_header()


def test_numbers_reach_c() -> None:
    header = cstructs.c_header()
    for line in (
        "#define EV_EFI_PLATFORM_FIRMWARE_BLOB2 0x8000000Au",
        "#define HOB_RESOURCE_UNACCEPTED 7u",
        "#define E820_NVS 4u",
        "#define LINUX_HEADER_MAGIC 0x53726448u",
        "#define ACPI_MADT_MP_WAKEUP 0x10u",
        "#define ACPI_FADT_FLAG_HW_REDUCED 0x100000u",
    ):
        assert line + "\n" in header
    guid = "{0x70, 0x58, 0x0C, 0x6A, 0xED, 0xD4, 0xF4, 0x44, 0xA1, 0x35, 0xDD, 0x23, 0x8B, 0x6F, 0x0C, 0x8D}"
    assert f"#define GUID_HOB_ACPI_TABLE {guid}" in header


def test_every_name_is_defined_once() -> None:
    names = [line.split()[1] for line in cstructs.c_header().splitlines() if line.startswith("#define")]
    assert sorted(names) == sorted(set(names))


def test_the_header_is_the_same_each_time() -> None:
    command = [sys.executable, "-m", "formats.cstructs"]
    root = Path(__file__).parents[2]
    again = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert again == cstructs.c_header()


@pytest.mark.parametrize("layout", cstructs.STRUCTS, ids=lambda layout: str(layout.name))
def test_every_structure_survives_a_round_trip(layout: construct.Construct) -> None:
    raw = bytes(i * 7 & 0xFF for i in range(layout.sizeof()))
    assert layout.build(unpack(layout, raw)) == raw
    assert pack(layout) == bytes(layout.sizeof())


def test_fields_that_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="second at 0x2 overlaps"):
        spaced(8, {0: "first" / construct.Int32ul, 2: "second" / construct.Int8ul})
    with pytest.raises(ValueError, match="beyond the structure's size"):
        spaced(2, {0: "first" / construct.Int32ul})


def test_a_field_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="no field lenght"):
        pack(eventlog.PLATFORM_CONFIG, lenght=4)
    assert len(pack(acpi.FADT, x_dsdt=1, header={"length": 276})) == 276
    assert pack(linux.E820_ENTRY, addr=1, size=2, type=1) == bytes([1, *[0] * 7, 2, *[0] * 7, 1, 0, 0, 0])
