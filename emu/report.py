"""What did a run show? The boot report: measurements, calls, pages, where it ended, where the APs stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from emu import eventlog, view
from emu.ending import Ending
from emu.eventlog import Log
from emu.machine import Machine
from emu.signals import End
from emu.vcpu import VE_VECTOR, Vcpu

AP_INSTRUCTIONS = 100_000  # how long an AP runs on before it is asked whether it is parked
AP_SAMPLES, AP_SAMPLE = 16, 97  # then it is sampled 16 times, 97 instructions apart
AP_LOOP_BYTES = 128  # a park loop stays within this many bytes


@dataclass(frozen=True)
class Report:
    """The result of a run; `met`: whether it ended with the condition of RunConfig.until."""

    mrtd: str
    rtmr: tuple[str, str, str, str]
    events: list[dict[str, object]]
    console: str
    end: dict[str, object]
    instructions: int  # of vCPU 0
    instructions_all: int  # of all vCPUs
    instructions_excluded: int  # of vCPU 0, in the symbols of RunConfig.skip_count
    tdcalls: dict[str, int]
    vmcalls: dict[str, int]
    pages: dict[str, int]
    handoff: dict[str, object] | None
    aps: list[dict[str, object]]
    met: bool
    hostile: list[str] = field(default_factory=list)  # what the VMM did that an honest one would not
    event_log_missing: str = ""  # why there is no event log
    event_log: bytes = field(repr=False, default=b"")

    def to_json(self) -> dict[str, Any]:
        """All keys but the raw event log, ready for json.dumps."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "event_log"}
        return values | {"rtmr": list(self.rtmr)}


EXCEPTIONS = {0: "#DE", 6: "#UD", 8: "#DF", 10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 20: "#VE"}
NOT_FOR_TDX = "was this kernel built with CONFIG_INTEL_TDX_GUEST?"
NOT_A_FAILURE = (1, 3, VE_VECTOR)  # traps and #VE: a handler's daily work


def _fault(machine: Machine, vcpu: view.Vcpu) -> dict[str, object] | None:
    """The last exception that the guest's own code raised, None if there was none."""
    last, symbols = vcpu.probe.last_fault(), machine.symbols
    if last is None:
        return None
    text = f"{EXCEPTIONS.get(last.vector, f'exception {last.vector}')} (error code {last.error_code:#x}"
    text += f", address {last.cr2:#x})" if last.vector == 14 else ")"
    return {
        "vector": last.vector,
        "rip": last.rip,
        "symbol": symbols.name(last.rip),
        "source": symbols.source(last.rip),
        "text": text,
    }


def _end(machine: Machine, ending: Ending) -> dict[str, object]:
    vcpu, end, symbols = ending.vcpu, ending.end, machine.symbols
    rip, detail = int(vcpu.regs.rip), end.detail
    fault, hint = _fault(machine, vcpu), ""
    if fault and end.reason == "triple-fault":
        rip, detail = int(str(fault["rip"])), f"{fault['text']} with no way to deliver it"
        if fault["vector"] == VE_VECTOR and machine.handoff and machine.handoff.boot_params is not None:
            hint = NOT_FOR_TDX
    elif fault and end.reason == "fatal" and fault["vector"] not in NOT_A_FAILURE:
        where = " ".join(str(fault[key]) for key in ("symbol", "source") if fault[key])
        detail += f"; after {fault['text']} at {where or hex(int(str(fault['rip'])))}"
    if vcpu.index:
        detail = f"vCPU {vcpu.index}: {detail}"
    return {
        "reason": end.reason,
        "rip": rip,
        "symbol": symbols.name(rip),
        "source": symbols.source(rip),
        "detail": detail,
        "fault": fault,
        "hint": hint,
    }


def _event_log(machine: Machine) -> Log:
    """The log as it was handed over. A firmware without boot_params may have written its tables later."""
    if machine.handoff is None:
        return Log(missing="the run ended before a handoff")
    given = machine.handoff.log
    if given.data or machine.handoff.boot_params is not None:
        return given
    later = eventlog.search(machine.read_guest, machine.memory.used())
    return later if later.data else Log(missing=f"{given.missing}, and {later.missing}")


def locate_ap(machine: Machine, vcpu: Vcpu) -> dict[str, object]:
    """Where an AP stays; before a kernel has it, after running it on for a bounded while."""
    seen: list[int] = []
    end = ""
    if machine.handoff and machine.console.until.reason != "handoff":
        return _describe_ap(machine, vcpu, vcpu.halted or vcpu.spins > 0, end)
    try:
        vcpu.run_alone(AP_INSTRUCTIONS)
        for _ in range(AP_SAMPLES):
            vcpu.run_alone(AP_SAMPLE)
            seen.append(int(vcpu.regs.rip))
    except End as ended:
        end = f"{ended.reason}: {ended.detail}"
    return _describe_ap(machine, vcpu, not end and max(seen) - min(seen) <= AP_LOOP_BYTES, end)


def _describe_ap(machine: Machine, vcpu: Vcpu, parked: bool, end: str) -> dict[str, object]:
    rip = int(vcpu.regs.rip)
    return {
        "index": vcpu.index,
        "parked": parked,
        "halted": vcpu.halted,
        "rip": rip,
        "symbol": machine.symbols.name(rip),
        "source": machine.symbols.source(rip),
        "instructions": vcpu.count,
        "end": end,
    }


def report(machine: Machine, ending: Ending) -> Report:
    """Collects what the machine holds after the run ended."""
    module, boot, given = machine.module, machine.vcpus[0], machine.handoff
    ended = _end(machine, ending)
    tdcalls, vmcalls = dict(module.tdcalls), dict(machine.vmm.vmcalls)
    instructions, excluded = boot.count, boot.excluded
    everything = sum(vcpu.count for vcpu in machine.vcpus)
    log = _event_log(machine)
    aps = [locate_ap(machine, vcpu) for vcpu in machine.vcpus[1:]]
    accepted = module.accepted_4k, module.accepted_2m
    by_firmware = given.accepted if given else accepted
    r0, r1, r2, r3 = (register.hex() for register in module.rtmr)
    return Report(
        mrtd=module.mrtd.hex(),
        rtmr=(r0, r1, r2, r3),
        events=eventlog.describe(log.data),
        console=machine.console.data.decode(errors="replace"),
        end=ended,
        instructions=instructions,
        instructions_all=everything,
        instructions_excluded=excluded,
        tdcalls=tdcalls,
        vmcalls=vmcalls,
        pages={
            "added": sum(region.pages for region in machine.launch.regions),
            "extended": sum(region.pages for region in machine.launch.regions if region.measured),
            "accepted_4k": accepted[0],
            "accepted_2m": accepted[1],
            "accepted_4k_by_payload": accepted[0] - by_firmware[0],
            "accepted_2m_by_payload": accepted[1] - by_firmware[1],
        },
        handoff=given.to_json() if given else None,
        aps=aps,
        met=ending.meets(machine.console.until),
        hostile=list(machine.vmm.policy.done),
        event_log_missing=log.missing,
        event_log=log.data,
    )
