"""Does a TD that takes nothing from its VMM have the registers that its build foretold?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tdbox import LINUX, MIB, Firmware, made

from emu.api import run
from gen.link.sample import sample
from image.hosts import verdicts

FLOW = LINUX.with_name("service_td.tdf")
GOOD = "tdforge sample: all good"


def built(folder: Path, payload: bytes) -> Firmware:
    """The flow with this payload; the VMM loads nothing but the image."""
    file = folder / "payload"
    file.write_bytes(payload)
    firmware = made(FLOW, folder, b"", file)
    return replace(firmware, config=replace(firmware.config, kernel=None, cmdline="", memory=128 * MIB))


def test_every_register_is_in_the_manifest(tmp_path: Path) -> None:
    firmware = built(tmp_path, sample("elf"))
    for vcpus, order in ((1, "single-pass"), (4, "two-pass"), (64, "single-pass")):
        config = replace(firmware.config, vcpus=vcpus, mrtd_order=order)
        report = run(replace(config, until=f"console:{GOOD}"))
        assert report.met, report.end
        assert (report.mrtd, list(report.rtmr)) == (
            firmware.manifest["mrtd"][order],
            firmware.manifest["rtmr"],
        )
        assert all(ap["parked"] for ap in report.aps)


def test_another_payload_has_other_registers(tmp_path: Path) -> None:
    seen = []
    for name in ("elf", "pe"):
        (tmp_path / name).mkdir()
        firmware = built(tmp_path / name, sample(name))
        report = run(replace(firmware.config, until=f"console:{GOOD}"))
        assert report.met, report.end
        assert list(report.rtmr) == firmware.manifest["rtmr"]
        seen.append(report.rtmr)
    assert seen[0][0] == seen[1][0]
    assert seen[0][1] != seen[1][1]


def test_only_a_host_of_the_specification_loads_it(tmp_path: Path) -> None:
    image = built(tmp_path, sample("elf")).image
    assert [verdict.vmm for verdict in verdicts(image) if verdict.accepts] == ["td-shim-spec"]
