"""What does a TD meet on QEMU's q35? fw_cfg, configuration space, power management, by TDVMCALL."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .common import SHARED
from .rows import Row, Step, code, vmcall
from .rows_pages import accept

FW_CFG, DMA, ITEMS = "8.1 fw_cfg of QEMU", "8.2 DMA of fw_cfg", "8.3 Items of fw_cfg"
CONFIGURATION, POWER, TABLES = "8.4 Configuration space", "8.5 Power management", "8.6 ACPI files"
QEMU = {"vmm": "qemu"}
IO, MMIO, MAP = 0x1E, 0x30, 0x10001
BUFFER, DESCRIPTOR = at.FREE, at.FREE + 0x1000  # two pages that become shared
NO_RAM = at.MEMORY
READ, SKIP, SELECT, WRITE = 2, 4, 8, 16
ABSENT = 0xFFFFFFFF
UNTRIED = "by QEMU's source alone: nobody has tried it on TDX hardware"
SOURCES = {  # by the first word of a row's key
    "register": "QEMU hw/nvram/fw_cfg.c fw_cfg_comb_valid, fw_cfg_data_read, fw_cfg_select",
    "dma": "QEMU hw/nvram/fw_cfg.c fw_cfg_dma_transfer, fw_cfg_dma_mem_write",
    "item": "QEMU hw/i386/fw_cfg.c fw_cfg_arch_create",
    "kernel": "QEMU hw/i386/x86-common.c x86_load_linux",
    "config": "QEMU hw/pci/pci_host.c pci_data_read, pci_data_write",
    "ecam": "QEMU hw/pci-host/q35.c mch_update_pciexbar, QEMU hw/pci/pcie_host.c pcie_mmcfg_data_read",
    "pm": "QEMU hw/acpi/core.c acpi_pm1_evt_get_sts, acpi_pm1_cnt_write",
    "reset": "QEMU hw/isa/lpc_ich9.c ich9_rst_cnt_write",
    "acpi": "QEMU hw/i386/acpi-build.c acpi_build_update, acpi_build",
}


def out(port: int, size: int, value: int) -> Step:
    """OUT by TDVMCALL."""
    return vmcall(IO, r12=size, r13=1, r14=port, r15=value)


def inp(port: int, size: int) -> Step:
    """IN; the answer is in R11."""
    return vmcall(IO, r12=size, r13=0, r14=port)


def put(where: int, register: int, size: int, value: int) -> tuple[Step, Step]:
    """A write of configuration space."""
    address = 0x80000000 | where | register & ~3
    return out(0xCF8, 4, address), out(0xCFC + (register & 3), size, value)


def get(where: int, register: int, size: int = 4) -> tuple[Step, Step]:
    """A read; the answer is in R11 of the second step."""
    return out(0xCF8, 4, 0x80000000 | where | register & ~3), inp(0xCFC + (register & 3), size)


def put_quads(address: int, *values: int) -> tuple[Step, ...]:
    """Stores quadwords through the shared alias."""
    window = at.SHARED_WINDOW
    return tuple(
        code("488907", rdi=window + address + 8 * index, rax=value) for index, value in enumerate(values)
    )


def look(address: int) -> Step:
    """Loads a quadword through the shared alias into RAX."""
    return code("488b07", rdi=at.SHARED_WINDOW + address)


def swapped(value: int, size: int) -> int:
    """The same bytes, read the other way round."""
    return int.from_bytes(value.to_bytes(size, "big"), "little")


SHARE = vmcall(MAP, r12=BUFFER | SHARED, r13=0x2000)


def transfer(control: int, length: int, address: int, descriptor: int = DESCRIPTOR) -> tuple[Step, ...]:
    """A descriptor through the shared alias, then the write that starts it."""
    first = swapped(control, 4) | swapped(length, 4) << 32
    start = out(0x518, 4, swapped(descriptor & ABSENT, 4))
    return (*put_quads(descriptor, first, swapped(address, 8)), start)


def control_of(length: int, control: int = 0) -> int:
    """The first quadword of a descriptor after its transfer."""
    return swapped(control, 4) | swapped(length, 4) << 32


HOST_BRIDGE, LPC = 0, 0x1F << 11
PROGRAM = (
    *put(HOST_BRIDGE, 0x60, 4, 0),
    *put(HOST_BRIDGE, 0x64, 4, 0),
    *put(HOST_BRIDGE, 0x60, 4, 0xE0000001),
    *put(LPC, 0x40, 4, 0x601),
    *put(LPC, 0x44, 1, 0x80),
)
ON = PROGRAM[-4:]  # the power-management block alone


def _row(
    section: str, key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any
) -> Row:
    source = SOURCES[key.split(".")[0]]
    steps = steps if isinstance(steps, tuple) else (steps,)
    return Row(f"q35.{key}", what, section, source, steps, expect, td=QEMU, **more)


def _registers() -> Iterator[Row]:
    def row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int]) -> Row:
        return _row(FW_CFG, f"register.{key}", what, steps, expect)

    start, byte = out(0x510, 2, 0), inp(0x511, 1)
    yield row("select", "OUT of 2 bytes to 510 selects, IN of 511 gives the bytes", (start, byte, byte),
              {"1.r11": 0x51, "2.r11": 0x45})  # fmt: skip
    yield row("again", "A selection begins again", (start, byte, start, byte), {"3.r11": 0x51})
    yield row("end", "Behind the end: zeros", (start, *[byte] * 5), {"4.r11": 0x55, "5.r11": 0})
    yield row("byte510", "IN of 1 byte from 510 is the next byte, too", (start, inp(0x510, 1), byte),
              {"1.r11": 0x51, "2.r11": 0x45})  # fmt: skip
    yield row("wide510", "IN of 2 and 4 bytes from 510 gives 0 and takes nothing",
              (start, inp(0x510, 2), inp(0x510, 4), byte),
              {"1.r11": 0, "2.r11": 0, "3.r11": 0x51})  # fmt: skip
    yield row("wide511", "IN of 2 and 4 bytes from 511 gives 0 and takes nothing",
              (start, inp(0x511, 2), inp(0x511, 4), byte),
              {"1.r11": 0, "2.r11": 0, "3.r11": 0x51})  # fmt: skip
    yield row("writes", "Other sizes written to 510 and 511 do nothing",
              (start, byte, out(0x510, 1, 1), out(0x510, 4, 1), out(0x511, 1, 1), byte),
              {"5.r11": 0x45})  # fmt: skip
    yield row("unknown", "A key that does not exist gives zeros", (out(0x510, 2, 0x06), byte), {"1.r11": 0})
    yield row("beyond", "A key beyond the last file gives zeros", (out(0x510, 2, 0x7FF), byte), {"1.r11": 0})
    yield row("signature", "The DMA register reads QEMU CFG", (inp(0x514, 4), inp(0x518, 4)),
              {"0.r11": 0x554D4551, "1.r11": 0x47464320})  # fmt: skip


def _dma() -> Iterator[Row]:
    def row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(DMA, f"dma.{key}", what, (SHARE, *steps), {"0.r10": 0} | expect, **more)

    qemu, ones = 0x554D4551, (1 << 64) - 1
    seen = (look(DESCRIPTOR), look(BUFFER))
    yield row("read", "READ with SELECT fills the buffer; control becomes 0",
              (*transfer(SELECT | READ, 4, BUFFER), *seen),
              {"4.rax": control_of(4), "rax": qemu})  # fmt: skip
    yield row("zeros", "Behind the item's end the buffer is cleared",
              (*put_quads(BUFFER, ones, ones), *transfer(SELECT | READ, 8, BUFFER),
               look(BUFFER), look(BUFFER + 8)),
              {"6.rax": qemu, "rax": ones})  # fmt: skip
    yield row("unknown", "A key that does not exist: zeros, no error",
              (*put_quads(BUFFER, ones), *transfer(0x06 << 16 | SELECT | READ, 8, BUFFER), *seen),
              {"5.rax": control_of(8), "rax": 0})  # fmt: skip
    yield row("offset", "SKIP and READ without SELECT go on from the offset",
              (*transfer(SELECT | SKIP, 2, 0), *transfer(READ, 2, BUFFER), look(BUFFER)),
              {"rax": 0x554D})  # fmt: skip
    yield row("priority", "READ wins over WRITE and SKIP; unknown bits are ignored",
              (*transfer(0xE0 | SELECT | READ | WRITE | SKIP, 4, BUFFER), *seen),
              {"4.rax": control_of(4), "rax": qemu})  # fmt: skip
    yield row("nothing", "No direction: done, nothing moved",
              (*transfer(SELECT, 4, BUFFER), *seen), {"4.rax": control_of(4), "rax": 0})  # fmt: skip
    yield row("write", "WRITE to an item that is read-only: error",
              (*transfer(SELECT | WRITE, 4, BUFFER), look(DESCRIPTOR)),
              {"rax": control_of(4, 1)})  # fmt: skip
    yield row("no_ram", "A buffer that is no RAM: error",
              (*transfer(SELECT | READ, 4, NO_RAM), look(DESCRIPTOR)),
              {"rax": control_of(4, 1)})  # fmt: skip
    yield row("shared_bit", "A buffer named with the shared bit is no RAM: error",
              (*transfer(SELECT | READ, 4, BUFFER | SHARED), look(DESCRIPTOR)),
              {"rax": control_of(4, 1)})  # fmt: skip
    yield row("no_descriptor", "A descriptor that is no RAM: nothing is told",
              (out(0x518, 4, swapped(NO_RAM, 4)), look(BUFFER)), {"1.r10": 0, "rax": 0})  # fmt: skip
    yield row("high", "The high half of the address serves one transfer",
              (out(0x514, 4, swapped(1, 4)), *transfer(SELECT | READ, 4, BUFFER), look(DESCRIPTOR),
               *transfer(SELECT | READ, 4, BUFFER), look(DESCRIPTOR)),
              {"5.rax": control_of(4, SELECT | READ), "rax": control_of(4)})  # fmt: skip
    yield row("unaligned", "Descriptor and buffer may lie anywhere",
              (*transfer(SELECT | READ, 4, BUFFER + 5, DESCRIPTOR + 3), look(BUFFER + 5)),
              {"rax": qemu})  # fmt: skip
    private = BUFFER + 0x2000
    yield row("private_buffer", "A private buffer sees nothing, and no error",
              (accept(private), *transfer(SELECT | READ, 4, private), look(DESCRIPTOR),
               code("488b07", rdi=private)),
              {"5.rax": control_of(4), "rax": 0},
              status="simplified", why=UNTRIED)  # fmt: skip
    yield row("private_descriptor", "A private descriptor is read as zeros: its control never changes",
              (accept(private), code("488907", rdi=private, rax=control_of(4, SELECT | READ)),
               code("488907", rdi=private + 8, rax=swapped(BUFFER, 8)),
               out(0x518, 4, swapped(private, 4)), look(BUFFER), code("488b07", rdi=private)),
              {"5.rax": 0, "rax": control_of(4, SELECT | READ)},
              status="simplified", why=UNTRIED)  # fmt: skip


def _items() -> Iterator[Row]:
    def row(key: str, what: str, number: int, size: int, expect: int, **more: Any) -> Row:
        steps = (SHARE, *transfer(number << 16 | SELECT | READ, 8, BUFFER), look(BUFFER))
        return _row(ITEMS, key, f"{what}, {size} bytes", steps, {"rax": expect}, **more)

    yield row("item.signature", "00: the signature", 0x00, 4, 0x554D4551)
    yield row("item.id", "01: interface and DMA", 0x01, 4, 3)
    yield row("item.ram", "03: size of RAM", 0x03, 8, at.MEMORY)
    yield row("item.cpus", "05: present vCPUs", 0x05, 2, 1)
    yield row("item.limit", "0F: highest APIC id + 1", 0x0F, 2, 1)
    yield row("item.irq0", "8002: IRQ 0 override", 0x8002, 4, 1)
    yield row("item.hpet", "8004: no HPET", 0x8004, 1, 0xFF)
    yield row("item.directory", "19: the directory begins with its length, big-endian, and the first size",
              0x19, 4, swapped(15, 4))  # fmt: skip
    yield row("kernel.none", "08: without -kernel there is none", 0x08, 4, 0)


def _configuration() -> Iterator[Row]:
    def row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(CONFIGURATION, key, what, steps, expect, **more)

    ecam = 0xE0000000 | SHARED
    read = vmcall(MMIO, r12=4, r13=0, r14=ecam)
    yield row("config.host", "00.0 is 8086:29C0", get(HOST_BRIDGE, 0), {"r11": 0x29C08086})
    yield row("config.lpc", "1f.0 is 8086:2918", get(LPC, 0), {"r11": 0x29188086})
    yield row("config.others", "Other functions read all ones", get(0x1FA << 8, 0), {"r11": ABSENT})
    yield row("config.bytes", "Parts of a register", get(HOST_BRIDGE, 2, 2), {"r11": 0x29C0})
    yield row("config.disabled", "Without bit 31 of the address: all ones", (out(0xCF8, 4, 0), inp(0xCFC, 4)),
              {"r11": ABSENT})  # fmt: skip
    yield row("config.narrow", "The address takes 4 bytes only",
              (out(0xCF8, 4, 0x80000000), out(0xCF8, 2, 0xF8), inp(0xCF8, 4)),
              {"r11": 0x80000000})  # fmt: skip
    yield row("config.pciexbar", "PCIEXBAR after a reset: B0000000, disabled", get(HOST_BRIDGE, 0x60),
              {"r11": 0xB0000000})  # fmt: skip
    yield row("config.pam", "PAM after a reset: 0", get(HOST_BRIDGE, 0x90), {"r11": 0})
    yield row("config.pmbase", "PMBASE after a reset: 1", get(LPC, 0x40), {"r11": 1})
    yield row("config.pmbase_mask", "PMBASE keeps bits 15:7 and 2:0",
              (*put(LPC, 0x40, 4, ABSENT), *get(LPC, 0x40)), {"r11": 0xFF87})  # fmt: skip
    yield row("config.routes", "Interrupt routes after a reset: disabled", get(LPC, 0x60),
              {"r11": 0x80808080})  # fmt: skip
    yield row("ecam.off", "No window before PCIEXBAR is enabled", (read,), {"r10": 0, "r11": 0})
    yield row("ecam.on", "The window at the programmed base", (*PROGRAM[:6], read),
              {"r10": 0, "r11": 0x29C08086})  # fmt: skip
    yield row("ecam.lpc", "1f.0 is 1 MiB * bus + 32 KiB * device further", (
        *PROGRAM[:6], vmcall(MMIO, r12=4, r13=0, r14=ecam + 0xF8000)), {"r11": 0x29188086})  # fmt: skip
    yield row("ecam.absent", "No function there: all ones", (
        *PROGRAM[:6], vmcall(MMIO, r12=4, r13=0, r14=ecam + 0x8000)), {"r11": ABSENT})  # fmt: skip
    yield row("ecam.extended", "No extended space: all ones", (
        *PROGRAM[:6], vmcall(MMIO, r12=4, r13=0, r14=ecam + 0x100)), {"r11": ABSENT})  # fmt: skip


def _power() -> Iterator[Row]:
    def row(key: str, what: str, steps: tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(POWER, key, what, steps, expect, **more)

    yield row("pm.off", "No block before ACPI_CNTL enables it", (*ON[:2], inp(0x604, 2)), {"r11": 0xFFFF})
    yield row("pm.status", "PM1_STS begins with the timer's bit", (*ON, inp(0x600, 2)), {"r11": 1})
    yield row("pm.status_clear", "One clears it", (*ON, out(0x600, 2, 1), inp(0x600, 2)), {"r11": 0})
    yield row("pm.enable", "PM1_EN begins as 0 and keeps what is written",
              (*ON, inp(0x602, 2), out(0x602, 2, 0x120), inp(0x602, 2)),
              {"4.r11": 0, "r11": 0x120})  # fmt: skip
    yield row("pm.control", "PM1_CNT begins as 1: the interrupt is an SCI", (*ON, inp(0x604, 2)), {"r11": 1})
    yield row("pm.sleep_type", "A sleep type without SLP_EN is only kept",
              (*ON, out(0x604, 2, 0x1C01), inp(0x604, 2)), {"r11": 0x1C01})  # fmt: skip
    yield row("pm.s5", "SLP_EN with type 0 powers off", (*ON, out(0x604, 2, 0x2000)), {}, end="shutdown")
    yield row("pm.s5_byte", "So does a byte to 605", (*ON, out(0x605, 1, 0x20)), {}, end="shutdown")
    yield row("pm.s4", "Type 2 powers off, too", (*ON, out(0x604, 2, 0x2800)), {}, end="shutdown")
    yield row("pm.events", "GPE0 enable bits are kept", (*ON, out(0x628, 4, 0x55), inp(0x628, 4)),
              {"r11": 0x55})  # fmt: skip
    yield row("pm.smi", "SMI_EN without SMM", (*ON, inp(0x630, 4)), {"r11": 0x20})
    yield row("pm.others", "Gaps of the block read all ones", (*ON, inp(0x60C, 2)), {"r11": 0xFFFF})
    yield row("pm.watchdog", "TCO: registers after a reset", (*ON, inp(0x670, 2)), {"r11": 3},
              status="simplified", why="the watchdog does not run; writes do nothing")  # fmt: skip
    yield row("reset.read", "CF9 keeps bits 1 and 3", (out(0xCF9, 1, 0xFB), inp(0xCF9, 1)), {"r11": 0x0A})
    yield row("reset.write", "CF9 with bit 2 resets", (out(0xCF9, 1, 0x0E),), {}, end="reset",
              status="simplified", why="the run ends, as a QEMU up to 10.2; 11 rebuilds the TD")  # fmt: skip
    yield row("reset.keyboard", "No keyboard controller to reset with",
              (out(0x64, 1, 0xFE), inp(0x64, 1)), {"r11": 0xFF})  # fmt: skip


def _acpi() -> Iterator[Row]:
    def first(name: int) -> tuple[Step, ...]:
        return (SHARE, *transfer(name << 16 | SELECT | READ, 24, BUFFER), look(BUFFER), look(BUFFER + 16))

    rsdp, script = 0x22, 0x2C
    yield _row(TABLES, "acpi.rsdp", "etc/acpi/rsdp: revision 0, its checksum left to the firmware",
               (*PROGRAM, *first(rsdp)), {"14.rax": 0x2052545020445352})  # fmt: skip
    yield _row(TABLES, "acpi.script", "etc/table-loader begins with ALLOCATE of etc/acpi/rsdp",
               (*PROGRAM, *first(script)), {"14.rax": 0x2F63746500000001})  # fmt: skip


def rows() -> Iterator[Row]:
    """All of them."""
    yield from _registers()
    yield from _dma()
    yield from _items()
    yield from _configuration()
    yield from _power()
    yield from _acpi()
