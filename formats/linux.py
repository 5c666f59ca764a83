"""What does the Linux x86 boot protocol lay down, and what does a bzImage say of itself?

Source: Linux Documentation/arch/x86/boot.rst and zero-page.rst, arch/x86/include/uapi/asm/bootparam.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, IntFlag

import construct as c
from construct import Bytes, Int8ul, Int16ul, Int32ul, Int64ul

from formats.errors import FieldError, TruncatedError
from formats.structs import offset_of, spaced, unpack
from formats.units import PAGE

SETUP_HEADER_OFFSET = 0x1F1  # boot.rst: the same in the file and in boot_params
SETUP_HEADER_END_MAX = 0x290  # bootparam.h: edd_mbr_sig_buffer follows, however long the header gets
BOOT_FLAG = 0xAA55
HEADER_MAGIC = 0x5372_6448  # "HdrS"
MIN_PROTOCOL = 0x020C  # boot.rst: 2.12 brought xloadflags and the 64-bit entry
PROTOCOL = 0x020F  # boot.rst: the newest
INITRD_MAX = 0x7FFF_FFFF  # header.S initrd_addr_max
SECTOR_SIZE = 512
DEFAULT_SETUP_SECTS = 4  # boot.rst: what a setup_sects of 0 means
SYSSIZE_UNIT = 16
ENTRY64_OFFSET = 0x200  # boot.rst, "64-bit boot protocol"
LOADER_UNDEFINED = 0xFF  # boot.rst: type_of_loader for a loader without an assigned id
E820_MAX_ENTRIES = 128  # E820_MAX_ENTRIES_ZEROPAGE
MIN_PREFERRED_ADDRESS = 0x100_0000  # LOAD_PHYSICAL_ADDR of every distribution kernel
CMDLINE_COPY_SIZE = 2048  # COMMAND_LINE_SIZE: the decompressor copies so much whatever the text's length


class LoadFlags(IntFlag):
    """boot.rst, loadflags."""

    LOADED_HIGH = 1 << 0
    KASLR = 1 << 1
    QUIET = 1 << 5
    CAN_USE_HEAP = 1 << 7


class XLoadFlags(IntFlag):
    """boot.rst, xloadflags."""

    KERNEL_64 = 1 << 0
    CAN_BE_LOADED_ABOVE_4G = 1 << 1
    EFI_HANDOVER_32 = 1 << 2
    EFI_HANDOVER_64 = 1 << 3
    EFI_KEXEC = 1 << 4
    FIVE_LEVEL = 1 << 5
    FIVE_LEVEL_ENABLED = 1 << 6
    MEM_ENCRYPTION = 1 << 7


class E820Type(IntEnum):
    """arch/x86/include/asm/e820/types.h; ACPI specification table 15.6 for 1 to 5."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5


class SetupDataType(IntEnum):
    """arch/x86/include/uapi/asm/setup_data.h."""

    NONE = 0
    E820_EXT = 1
    RNG_SEED = 9


E820_ENTRY = (
    "e820_entry" / c.Struct("addr" / Int64ul, "size" / Int64ul, "type" / Int32ul)
) * "One E820 range, bootparam.h struct boot_e820_entry"

SETUP_HEADER = (
    "setup_header"
    / c.Struct(
        "setup_sects" / Int8ul,
        "root_flags" / Int16ul,
        "syssize" / Int32ul,
        "ram_size" / Int16ul,
        "vid_mode" / Int16ul,
        "root_dev" / Int16ul,
        "boot_flag" / Int16ul,
        "jump" / Int8ul,
        "jump_offset" / Int8ul,
        "header" / Int32ul,
        "version" / Int16ul,
        "realmode_swtch" / Int32ul,
        "start_sys_seg" / Int16ul,
        "kernel_version" / Int16ul,
        "type_of_loader" / Int8ul,
        "loadflags" / Int8ul,
        "setup_move_size" / Int16ul,
        "code32_start" / Int32ul,
        "ramdisk_image" / Int32ul,
        "ramdisk_size" / Int32ul,
        "bootsect_kludge" / Int32ul,
        "heap_end_ptr" / Int16ul,
        "ext_loader_ver" / Int8ul,
        "ext_loader_type" / Int8ul,
        "cmd_line_ptr" / Int32ul,
        "initrd_addr_max" / Int32ul,
        "kernel_alignment" / Int32ul,
        "relocatable_kernel" / Int8ul,
        "min_alignment" / Int8ul,
        "xloadflags" / Int16ul,
        "cmdline_size" / Int32ul,
        "hardware_subarch" / Int32ul,
        "hardware_subarch_data" / Int64ul,
        "payload_offset" / Int32ul,
        "payload_length" / Int32ul,
        "setup_data" / Int64ul,
        "pref_address" / Int64ul,
        "init_size" / Int32ul,
        "handover_offset" / Int32ul,
        "kernel_info_offset" / Int32ul,
    )
) * "Setup header at 0x1F1 of a kernel file and of boot_params, boot.rst"

EFI_INFO = (
    "efi_info"
    / c.Struct(
        "loader_signature" / Bytes(4),
        "systab" / Int32ul,
        "memdesc_size" / Int32ul,
        "memdesc_version" / Int32ul,
        "memmap" / Int32ul,
        "memmap_size" / Int32ul,
        "systab_hi" / Int32ul,
        "memmap_hi" / Int32ul,
    )
) * "EFI hand-off inside boot_params, bootparam.h struct efi_info"

BOOT_PARAMS = (
    "boot_params"
    / spaced(
        PAGE,
        {
            0x000: "screen_info" / Bytes(0x40),
            0x070: "acpi_rsdp_addr" / Int64ul,
            0x0C0: "ext_ramdisk_image" / Int32ul,
            0x0C4: "ext_ramdisk_size" / Int32ul,
            0x0C8: "ext_cmd_line_ptr" / Int32ul,
            0x13C: "cc_blob_address" / Int32ul,
            0x1C0: "efi_info" / EFI_INFO,
            0x1E8: "e820_entries" / Int8ul,
            0x1EC: "secure_boot" / Int8ul,
            0x1EF: "sentinel" / Int8ul,
            SETUP_HEADER_OFFSET: "hdr" / SETUP_HEADER,
            0x2D0: "e820_table" / c.Array(E820_MAX_ENTRIES, E820_ENTRY),
        },
    )
) * "The zero page, zero-page.rst"

SETUP_DATA = (
    "setup_data" / c.Struct("next" / Int64ul, "type" / Int32ul, "len" / Int32ul)
) * "Head of a setup_data node, setup_data.h"


@dataclass(frozen=True)
class Kernel:
    """What a bzImage's own header says, checked: sizes and offsets in bytes."""

    version: int
    version_text: str
    setup_size: int
    protected_size: int
    preferred_address: int
    init_size: int
    alignment: int
    relocatable: bool
    xloadflags: XLoadFlags
    cmdline_size: int
    initrd_max: int
    packed: slice  # of the file: the vmlinux, compressed, and 4 bytes with its size

    @property
    def true_length(self) -> int:
        """Bytes from the file's start to the end of the protected-mode part: what is loaded and measured."""
        return self.setup_size + self.protected_size


def is_marked(data: bytes) -> bool:
    """Whether it has a bzImage's mark, with which it is no other executable, whatever it has beside it."""
    at = SETUP_HEADER_OFFSET + offset_of(SETUP_HEADER, "header")
    return data[at : at + 4] == HEADER_MAGIC.to_bytes(4, "little")


def kernel(data: bytes, *, place: str = "kernel") -> Kernel:
    """Reads and checks the setup header of a bzImage; FormatError names the field that rules it out.

    `data` may be longer than the kernel (a padded section, or a file with an appended signature).
    """
    if len(data) < SETUP_HEADER_OFFSET + SETUP_HEADER.sizeof():
        raise TruncatedError(place, f"{len(data)} bytes", "a bzImage, whose setup header ends at 0x26c")
    head = unpack(SETUP_HEADER, data, SETUP_HEADER_OFFSET, place=place)
    if head.header != HEADER_MAGIC or head.boot_flag != BOOT_FLAG:
        raise FieldError(f"{place} offset 0x202", f"{data[0x202:0x206]!r}", "b'HdrS', the mark of a bzImage")
    if head.version < MIN_PROTOCOL:
        raise FieldError(
            f"{place} boot protocol",
            f"{head.version >> 8}.{head.version & 255:02}",
            "2.12 or later, for the 64-bit entry",
        )
    flags = XLoadFlags(head.xloadflags)
    if XLoadFlags.KERNEL_64 not in flags:
        raise FieldError(
            f"{place} xloadflags", f"{head.xloadflags:#x}", "bit 0: a kernel with a 64-bit entry"
        )
    if not head.loadflags & LoadFlags.LOADED_HIGH:
        raise FieldError(f"{place} loadflags", f"{head.loadflags:#x}", "bit 0: a kernel that is loaded high")
    setup = ((head.setup_sects or DEFAULT_SETUP_SECTS) + 1) * SECTOR_SIZE
    protected = head.syssize * SYSSIZE_UNIT
    if setup + protected > len(data):
        raise TruncatedError(place, f"{len(data)} bytes", f"{setup + protected} bytes by the setup header")
    return Kernel(
        version=head.version,
        version_text=_version_text(data, head.kernel_version),
        setup_size=setup,
        protected_size=protected,
        preferred_address=head.pref_address,
        init_size=head.init_size,
        alignment=head.kernel_alignment,
        relocatable=bool(head.relocatable_kernel),
        xloadflags=flags,
        cmdline_size=head.cmdline_size,
        initrd_max=head.initrd_addr_max,
        packed=slice(setup + head.payload_offset, setup + head.payload_offset + head.payload_length),
    )


def _version_text(data: bytes, pointer: int) -> str:
    text = data[pointer + SECTOR_SIZE : pointer + SECTOR_SIZE + 256] if pointer else b""
    return text.split(b"\0", 1)[0].decode("ascii", "replace")
