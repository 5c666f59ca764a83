"""What does a caller need to run an image? RunConfig in, Report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from emu import eventlog
from emu.keyboard import Keyboard
from emu.machine import Ending, Machine, Until, create
from emu.observe import Observer
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.snapshot.file import Snapshot
from emu.symbols import read
from emu.tdx.launch import ORDERS
from emu.tdx.params import TdParams
from emu.vcpu import VE_VECTOR, Vcpu
from emu.vmm import devices
from emu.vmm import launch as vmm_launch
from emu.vmm import policy as policies
from emu.vmm.devices import EPOCH
from emu.vmm.policy import Policy
from emu.vmm.script import Script

__all__ = ["EmuError", "Report", "RunConfig", "TdParams", "run"]

HOST_PAGE_SIZES = ("2M", "4K")
MAX_VCPUS = 512  # more than the 300 at which tables and loops outgrow a byte; each costs host memory


@dataclass(frozen=True)
class RunConfig:
    """One run. Sizes in bytes; `hob` replaces the VMM's TD HOB; `host_page_size` 4K makes 2 MiB accepts
    mismatch; instructions of the symbols in `skip_count` are counted apart.
    """

    image: bytes
    image_name: str
    memory: int = 2 << 30
    vcpus: int = 1
    vmm: str = "td-shim"
    kernel: bytes | None = None
    initrd: bytes | None = None
    cmdline: str = ""
    until: str = "handoff"
    mrtd_order: str = "single-pass"
    elf: Path | None = None
    host_page_size: str = "2M"
    hob: bytes | None = None
    max_instructions: int = 20_000_000_000
    skip_count: tuple[str, ...] = ()
    td: TdParams = field(default_factory=TdParams)  # TD_PARAMS but for `vcpus`, which are those above
    seed: int = 0  # of the order in which vCPUs take turns
    rtc: str = EPOCH.isoformat()  # what the clock shows at the start
    stdin: bytes = b""  # what the serial port receives
    map_gpa_retry: bool = False  # MapGPA does 2 MiB at a time and answers RETRY
    script: Path | None = None  # a file of functions that watch and change what the VMM does (emu.vmm.script)


@dataclass(frozen=True)
class Report:
    """What a run showed; `met` tells whether it ended as RunConfig.until wished."""

    mrtd: str
    rtmr: tuple[str, str, str, str]
    events: list[dict[str, object]]
    console: str
    end: dict[str, object]
    instructions: int
    instructions_apart: int
    tdcalls: dict[str, int]
    vmcalls: dict[str, int]
    pages: dict[str, int]
    handoff: dict[str, object] | None
    aps: list[dict[str, object]]
    met: bool
    hostile: list[str] = field(default_factory=list)  # what the VMM did that an honest one would not
    event_log: bytes = field(repr=False, default=b"")

    def to_json(self) -> dict[str, Any]:
        """All keys but the raw event log, ready for json.dumps."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "event_log"}
        return values | {"rtmr": list(self.rtmr)}


def check_vcpus(number: int) -> None:
    """Can a TD have so many? EmuError."""
    if not 1 <= number <= MAX_VCPUS:
        raise EmuError(f"vcpus {number}: expected 1 to {MAX_VCPUS}")


def _check(config: RunConfig) -> None:
    if config.mrtd_order not in ORDERS:
        raise EmuError(f"mrtd order {config.mrtd_order!r}: expected one of {', '.join(ORDERS)}")
    if config.host_page_size not in HOST_PAGE_SIZES:
        raise EmuError(f"host page size {config.host_page_size!r}: expected 2M or 4K")
    check_vcpus(config.vcpus)
    if config.initrd is not None and config.kernel is None:
        raise EmuError("an initrd without a kernel")


def prepare(
    config: RunConfig, console: Callable[[bytes], None] | None = None, policy: Policy | None = None
) -> Machine:
    """The launched TD of a configuration, before its first instruction. `policy` replaces that of the VMM."""
    _check(config)
    until = Until.parse(config.until)
    inputs = vmm_launch.Inputs(
        config.image,
        config.image_name,
        config.memory,
        config.vcpus,
        config.kernel,
        config.initrd,
        config.cmdline,
        config.hob,
    )
    preset, make_policy = policies.parse(config.vmm)
    policy = policy or make_policy()
    if config.script:
        policy = Script(config.script, policy)
    launch = policy.launch(vmm_launch.prepare(inputs, preset))
    params = policy.params(replace(config.td, vcpus=config.vcpus))
    return create(
        launch,
        params,
        until,
        read(config.elf),
        mrtd_order=config.mrtd_order,
        large_pages=config.host_page_size == "2M",
        skip_count=config.skip_count,
        listener=console,
        seed=config.seed,
        rtc=devices.parse_time(config.rtc).isoformat(),
        stdin=config.stdin,
        policy=policy,
        map_gpa_retry=config.map_gpa_retry,
    )


def run(
    config: RunConfig,
    console: Callable[[bytes], None] | None = None,
    progress: Callable[[int], None] | None = None,
    observer: Observer | None = None,
    resume: Snapshot | None = None,
    save: Path | None = None,
    keyboard: Keyboard | None = None,
) -> Report:
    """Runs an image until its end, or on from a snapshot. `console` gets the guest's output, `progress` the
    instruction count now and then, `save` the snapshot of a run that ended as wished. EmuError tells a
    user's mistake in one line.
    """
    machine = prepare(config, console)
    try:
        if resume:
            machine.restore(resume)
        machine.keyboard = keyboard
        if observer:
            machine.observe(observer)
        ending = machine.run(config.max_instructions, progress)
        if save and ending.end.reason == machine.until.kind:
            snapshot.write(save, config, machine.save())
        return report(machine, ending)
    finally:
        machine.close()


EXCEPTIONS = {0: "#DE", 6: "#UD", 8: "#DF", 10: "#TS", 11: "#NP", 12: "#SS", 13: "#GP", 14: "#PF", 20: "#VE"}
NOT_A_FAILURE = (1, 3, VE_VECTOR)  # traps and #VE: a handler's daily work


def _fault(machine: Machine, vcpu: Vcpu) -> dict[str, object] | None:
    """The last exception that the guest's own code raised, None if there was none."""
    last = machine.lib.td_last_fault(vcpu.handle)
    if last.vector < 0:
        return None
    rip, vector, symbols = int(last.rip), int(last.vector), machine.symbols
    text = f"{EXCEPTIONS.get(vector, f'exception {vector}')} (error code {last.error_code:#x}"
    text += f", address {int(last.cr2):#x})" if vector == 14 else ")"
    return {
        "vector": vector,
        "rip": rip,
        "symbol": symbols.name(rip),
        "source": symbols.source(rip),
        "text": text,
    }


def _end(machine: Machine, ending: Ending) -> dict[str, object]:
    vcpu, end, symbols = ending.vcpu, ending.end, machine.symbols
    rip, detail = int(vcpu.regs.rip), end.detail
    fault = _fault(machine, vcpu)
    if fault and end.reason == "triple-fault":
        rip, detail = int(str(fault["rip"])), f"{fault['text']} with no way to deliver it"
    elif fault and end.reason == "fatal" and fault["vector"] not in NOT_A_FAILURE:
        where = " ".join(str(fault[key]) for key in ("symbol", "source") if fault[key])
        detail += f"; after {fault['text']} at {where or hex(int(str(fault['rip'])))}"
    if vcpu.model.index:
        detail = f"vCPU {vcpu.model.index}: {detail}"
    return {
        "reason": end.reason,
        "rip": rip,
        "symbol": symbols.name(rip),
        "source": symbols.source(rip),
        "detail": detail,
        "fault": fault,
    }


def report(machine: Machine, ending: Ending) -> Report:
    """Collects what the machine holds after the run ended."""
    end = ending.end
    lib, module, boot = machine.lib, machine.module, machine.vcpus[0]
    ended = _end(machine, ending)
    tdcalls, vmcalls = dict(module.tdcalls), dict(machine.vmm.vmcalls)
    instructions, apart = boot.count, int(lib.td_count_apart(boot.handle))
    given, log = machine.handed_over or (None, b"")
    aps = [machine.locate_ap(vcpu) for vcpu in machine.vcpus[1:]]
    added = sum(region.pages for region in machine.launch.regions)
    extended = sum(region.pages for region in machine.launch.regions if region.measured)
    r0, r1, r2, r3 = (register.hex() for register in module.rtmr)
    return Report(
        mrtd=module.mrtd.hex(),
        rtmr=(r0, r1, r2, r3),
        events=eventlog.describe(log),
        console=machine.console.data.decode(errors="replace"),
        end=ended,
        instructions=instructions,
        instructions_apart=apart,
        tdcalls=tdcalls,
        vmcalls=vmcalls,
        pages={
            "added": added,
            "extended": extended,
            "accepted_4k": module.accepted_4k,
            "accepted_2m": module.accepted_2m,
        },
        handoff=given,
        aps=aps,
        met=end.reason == machine.until.kind,
        hostile=list(machine.vmm.policy.done),
        event_log=log,
    )
