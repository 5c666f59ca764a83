"""Does an OS get the host's own ACPI tables if a flow asks for them, and are they measured as they came?"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import oracle
import pytest
from debian import kernel, new_qemu, qemu
from qemubox import console, initrd, tour
from tdbox import MIB, Firmware, made, stopped

from emu import api
from emu.api import RunConfig
from emu.vmm.devices.fw_cfg import FwCfg
from tdforge.hosts import Launch

FLOW = Path(__file__).parents[1] / "dsl" / "flows" / "host_acpi.tdf"
GOOD = bytes(4)
FILES = ("etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables")  # the script, then as it allocates them


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    return made(FLOW, tmp_path_factory.mktemp("host-acpi"), tiny)


def downloaded(device: FwCfg) -> bytes:
    """What docs/event-log.md says of acpi_loader: name, size and content of each file, to 8 bytes."""
    listed = device.items[0x19]
    rows = [struct.unpack_from(">IHH56s", listed, at) for at in range(4, len(listed), 64)]
    keys = {name.rstrip(b"\0").decode(): key for _, key, _, name in rows}
    parts = []
    for name in FILES:
        data = device.changed[keys[name]]
        parts.append(name.encode().ljust(56, b"\0") + struct.pack("<Q", len(data)) + data)
    return b"".join(part + bytes(-len(part) % 8) for part in parts)


def test_debians_kernel_reaches_user_space_with_the_hosts_tables_in_a_td(
    firmware: Firmware, tmp_path: Path
) -> None:
    config = RunConfig(
        firmware.image, "host_acpi", memory=256 * MIB, vcpus=4, vmm="qemu", kernel=kernel().read_bytes(),
        initrd=initrd(tmp_path).read_bytes(), cmdline="console=ttyS0 quiet", until="halt",
    )  # fmt: skip
    with stopped(config) as td:
        assert td.report.end["reason"] == "shutdown", td.report.end
        said = tour(td.report.console)
        assert "ACPI tables: APIC CCEL DSDT FACP FACS MCFG WAET " in said
        assert "processors: 4" in said
        assert said[-1] == "done"
        (device,) = (d for d in td.machine.vmm.ports.board if isinstance(d, FwCfg))
        base, _ = firmware.section("hob")
        hob = oracle.hob_list(td.machine.launch.hob, base)
        expected = oracle.extended(hob, oracle.cpus(4), downloaded(device), GOOD)
        assert td.report.rtmr[0] == expected


def test_the_kernel_and_its_files_have_the_registers_of_a_boot_with_our_tables(
    firmware: Firmware, tmp_path: Path
) -> None:
    """RTMR[1] and RTMR[2] know nothing of the machine, whoever made its tables."""
    ours = made(FLOW.parents[3] / "dsl/flows/qemu.tdf", tmp_path, firmware.config.kernel or b"")
    reports = [
        api.run(RunConfig(each.image, "any", memory=128 * MIB, vmm="qemu", kernel=firmware.config.kernel))
        for each in (firmware, ours)
    ]
    assert all(report.met for report in reports)
    assert reports[0].rtmr[1:] == reports[1].rtmr[1:]
    assert reports[0].rtmr[0] != reports[1].rtmr[0]


@pytest.mark.parametrize("command", [qemu, new_qemu])
def test_a_real_qemus_tables(
    firmware: Firmware, tmp_path: Path, command: Callable[[], Sequence[str]]
) -> None:
    """With all its AML, without TDX."""
    image = tmp_path / "host_acpi.bin"
    image.write_bytes(firmware.image)
    launch = Launch(image, kernel(), initrd(tmp_path), "console=ttyS0", 512 * MIB, 2)
    text = console(launch, command())
    said = tour(text)
    (tables,) = [line for line in said if line.startswith("ACPI tables: ")]
    assert {"APIC", "CCEL", "DSDT", "FACP", "FACS", "MCFG", "WAET"} <= set(tables.split())
    assert "BOCHS" in text
    assert "processors: 2" in said
    assert "LNKA" in text or "PCI: Interrupt link" in text
    assert said[-1] == "done"
    assert "Power down" in text
