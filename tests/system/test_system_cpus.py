"""Does each CPU come up under the APIC id that module or VMM gave it, and what if the VMM lies about them?"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import oracle
import pytest
from tdbox import MIB, Firmware, Stopped, finish, launched, stopped

from emu.api import RunConfig, run
from emu.tdx.module import TdxModule
from emu.tdx.params import TdParams
from emu.view import Vcpu
from emu.vmm.policy import Call, Policy

RDMSR, CPUID, X2APIC_ID = 31, 10, 0x802
INVALID_OPERAND = 1 << 63
SPARSE = "sockets=2,cores=3"  # 0 1 2 4 5 6
PERMUTED = "2,9,0,300,1,4"


def listed(td: Stopped) -> list[int]:
    """APIC ids of the enabled CPUs of the MADT, in its order."""
    rsdp = oracle.boot_params(td.read, td.boot_params).rsdp
    (madt,) = [table for _, table in oracle.acpi_tables(td.read, rsdp) if table[:4] == b"APIC"]
    ids = []
    for entry in oracle.madt_entries(madt):
        if entry[0] == 0:
            apic_id, flags = struct.unpack_from("<BI", entry, 3)
        elif entry[0] == 9:
            apic_id, flags = struct.unpack_from("<II", entry, 4)
        else:
            continue
        assert flags & 1
        ids.append(apic_id)
    return ids


def measured(ids: Sequence[int]) -> bytes:
    return struct.pack(f"<{1 + len(ids)}I", len(ids), *ids)


CASES = [
    (SPARSE, 6, [0, 1, 2, 4, 5, 6]),
    (PERMUTED, 6, [2, 0, 1, 4, 9, 300]),
    ("sockets=2,cores=75,threads=2", 300, [0, *range(1, 150), *range(256, 406)]),
    ("sockets=50,cores=6", 300, [socket << 3 | core for socket in range(50) for core in range(6)]),
]


@pytest.mark.parametrize("module", ["1.5.01", "newer"])
@pytest.mark.parametrize("vmm", ["td-shim-spec", "qemu"])
@pytest.mark.parametrize(("ids", "vcpus", "expected"), CASES, ids=["sparse", "permuted", "300", "300 sparse"])
def test_cpus_are_listed_and_measured_by_their_ids(
    shipped: Firmware, ids: str, vcpus: int, expected: list[int], module: str
) -> None:
    config = replace(shipped.config, vcpus=vcpus, apic_ids=ids, module=module)
    with stopped(config) as td:
        assert td.report.met, td.report.end
        assert listed(td) == expected
        assert all(ap["parked"] for ap in td.report.aps)
        log = oracle.events(td.report.event_log[: td.report.event_log.index(b"\xff" * 8)])
    assert log[1].information() == ("td_cpus", measured(expected))


def test_a_madt_longer_than_the_td(linux: Firmware) -> None:
    config = replace(linux.config, vcpus=3, apic_ids="4,0,2", td=TdParams(max_vcpus=20))
    with stopped(config) as td:
        assert td.report.met, td.report.end
        assert b"\x00\x08" in td.machine.launch.hob
        assert listed(td) == [4, 0, 2]


def test_the_module_is_told_by_the_td_to_enumerate_and_left_so(linux: Firmware) -> None:
    with stopped(replace(linux.config, vcpus=2, module="newer")) as td:
        assert td.machine.module.td_ctls == 3
        assert not td.report.vmcalls.get("Instruction.RDMSR")
    with stopped(replace(linux.config, vcpus=2)) as td:
        assert td.machine.module.td_ctls == 1
        assert td.report.vmcalls["Instruction.RDMSR"] == 2


# ---- Debian's kernel starts them


@pytest.mark.parametrize(
    ("ids", "module", "room"),
    [(SPARSE, "newer", 0), (SPARSE, "1.5.01", 0), (PERMUTED, "1.5.01", 9), (PERMUTED, "newer", 0)],
)
def test_debians_kernel_starts_all(linux: Firmware, kernel: bytes, ids: str, module: str, room: int) -> None:
    config = replace(
        linux.config,
        memory=256 * MIB,
        kernel=kernel,
        vcpus=6,
        apic_ids=ids,
        module=module,
        td=TdParams(max_vcpus=room),
        cmdline="console=ttyS0 nokaslr no5lvl pci=off 8250.nr_uarts=1",
        until="console:Brought up 1 node, 6 CPUs",
    )
    done = run(config)
    assert done.met, done.end
    assert "Allowing 6 present CPUs plus 0 hotplug CPUs" in done.console
    wrong = re.findall(r"Firmware Bug.*|not the first enumerated|WARNING|unchecked MSR", done.console)
    if module == "1.5.01":  # whose CPUID leaf 1 has the vCPU index, which Linux compares
        wrong = [each for each in wrong if not re.search(r"APIC ID mismatch. CPUID: 0x000[0-5] ", each)]
    assert not wrong
    if (ids, module) == (SPARSE, "newer"):
        assert re.search(r"Max. logical packages: +2\s", done.console)
        assert re.search(r"Num. cores per package: +3\s", done.console)


def test_debians_kernel_runs_with_fewer_virtualization_exceptions(
    linux: Firmware, kernel: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """REDUCE_VE, which Linux sets where it has reduce_unnecessary_ve; for 6.12, which has not, the firmware's
    write of ENUM_TOPOLOGY does.
    """
    config = replace(
        linux.config,
        memory=256 * MIB,
        kernel=kernel,
        vcpus=2,
        module="newer",
        cmdline="console=ttyS0 nokaslr no5lvl pci=off 8250.nr_uarts=1",
        until="console:Brought up 1 node, 2 CPUs",
    )
    with launched(config) as machine:
        module = machine.module
        monkeypatch.setattr(module, "set_td_ctls", lambda value: TdxModule.set_td_ctls(module, value | 0xE))
        td = finish(machine, config)
        assert td.report.met, td.report.end
        assert module.td_ctls == 0xF
        assert not re.search(r"Firmware Bug|WARNING|unchecked MSR", td.report.console)


# ---- a VMM that lies


class Answers(Policy):
    """Answers each vCPU's question for its id by what it is given: None refuses, a number is the answer."""

    watches_calls = True

    def __init__(self, msr: Sequence[int | None], leaf: Sequence[int | None] = ()) -> None:
        super().__init__()
        self.of = {RDMSR: msr, CPUID: leaf}

    def on_call(self, call: Call) -> int | None:
        return INVALID_OPERAND if self.asked(call) and self.answer(call) is None else None

    def on_answer(self, call: Call) -> None:
        answer = self.answer(call) if self.asked(call) else None
        if answer is not None:
            call.answer[11 if call.function == RDMSR else 15] = answer

    def asked(self, call: Call) -> bool:
        return call.given[12] == {RDMSR: X2APIC_ID, CPUID: 0xB}.get(call.function)

    def answer(self, call: Call) -> int | None:
        answers = self.of[call.function]
        return answers[call.vcpu] if call.vcpu < len(answers) else None


class Withholding(Policy):
    """One vCPU never gets a turn."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        return 0 if vcpu.index == self.index else instructions


def under(config: RunConfig, policy: Policy) -> Any:
    with launched(config) as machine:
        machine.vmm.policy = policy
        td = finish(machine, config)
        return td.report, listed(td) if td.report.handoff else []


@pytest.mark.parametrize(
    "answers",
    [(0, 1, 1, 2), (0, 1, 2, 0), (5, 5, 5, 5), (2**32 - 1, 0, 1, 2)],
    ids=["two", "as the boot CPU", "all", "everybody's"],
)
def test_ids_that_are_not_different_end_the_boot(linux: Firmware, answers: tuple[int, ...]) -> None:
    report, _ = under(replace(linux.config, vcpus=4), Answers(answers))
    assert report.end["reason"] == "fatal"
    assert "CPU list does not match the TD" in report.end["detail"]


def test_an_id_that_is_everybodys_is_none(linux: Firmware) -> None:
    report, _ = under(replace(linux.config, vcpus=4), Answers((0, 1, 2, 2**32 - 1)))
    assert report.end["reason"] == "fatal"
    assert "a vCPU did not come" in report.end["detail"]


def test_other_ids_than_the_madt_of_the_vmm_has_end_the_boot(linux: Firmware) -> None:
    report, _ = under(replace(linux.config, vcpus=2), Answers((0, 7)))
    assert report.end["reason"] == "fatal"
    assert "CPU list does not match the TD" in report.end["detail"]


def test_a_module_that_enumerates_is_believed_before_the_vmm(linux: Firmware) -> None:
    config = replace(linux.config, vcpus=4, apic_ids="3,1,0,2", module="newer")
    report, ids = under(config, Answers((5, 5, 5, 5), (5, 5, 5, 5)))
    assert (report.met, ids) == (True, [3, 0, 1, 2])


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Answers((None, None, None), (4, 2, 6)), [4, 2, 6]),
        (Answers((None, None, None)), [0, 1, 2]),
        (Answers((None, 7, None), (3, None, None)), [3, 2, 7]),
    ],
    ids=["CPUID", "nobody", "each another"],
)
def test_a_vmm_that_refuses_to_say(qemu: Firmware, policy: Policy, expected: list[int]) -> None:
    report, ids = under(replace(qemu.config, vcpus=3), policy)
    assert (report.met, ids) == (True, expected)


@pytest.mark.parametrize("index", [1, 3])
def test_a_vcpu_that_never_runs_ends_the_boot(linux: Firmware, index: int) -> None:
    report, _ = under(replace(linux.config, vcpus=4), Withholding(index))
    assert report.end["reason"] == "fatal"
    assert "a vCPU did not come" in report.end["detail"]
