"""What does every host give a TD, and what does it take for an image? Limits that no image may pass.

They are those of the hosts that a check of an image names (docs/image.md), and of the smallest machine.
"""

from __future__ import annotations

from formats.units import GIB, KIB, MIB

# RAM of the smallest machine that this project supports: it ends here. TD_HOB and TempMem lie in the RAM of
# every machine, or the VMM refuses them (QEMU target/i386/kvm/tdx.c tdx_accept_ram_range).
LEAST_RAM = 128 * MIB
# RAM of a larger machine goes on at least to here without a hole, where QEMU's q35 may split it (QEMU
# hw/i386/pc_q35.c); others split at 3 GiB. Payload and PayloadParam, for large kernels, lie below.
LOWEST_SPLIT = 2 * GIB
# No section from here to 1 MiB, where Linux looks for tables without an EFI: drivers/firmware/dmi_scan.c and
# iscsi_ibft_find.c, arch/x86/kernel/probe_roms.c and ebda.c (which reads page 0 too, where no section lies)
SEARCHED = 0x8_0000
FILE_UNIT = 64 * KIB  # an image file is a multiple: QEMU hw/i386/x86-common.c x86_bios_rom_init
MAX_FILE_SIZE = 16 * MIB  # above 17 MiB the file covers the LAPIC, above 20 MiB the IOAPIC
MAX_ADDED = GIB  # bytes in sections; a larger sum is a broken image, not a TD anyone launches
MAX_SECTIONS = 28  # of the metadata: what fits between its place and the GUID table (image/write.py)
# Where libkrun puts initrd and command line, and its code in front of a vmlinux's entry has the kernel look
# for them: libkrun src/arch/src/x86_64/layout.rs. The kernel begins where the room for the initrd ends.
VMLINUX_INITRD, VMLINUX_INITRD_END, VMLINUX_LINE = 0xA0_0000, 0x100_0000, 0x2_0000
