"""How does a TD run from launch to its end? Wires engine, module and VMM together and drives the vCPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from emu import handoff
from emu.config import MODULE_NEWER, RunConfig
from emu.cpu import engine
from emu.cpu.apic import LocalApic, Message
from emu.cpu.memory import Memory
from emu.cpu.probe import Probe
from emu.ending import CONSOLE, Ending, Until
from emu.handoff import Handoff
from emu.keyboard import Keyboard
from emu.observe import Observer
from emu.schedule import SPINS, Schedule, Turn
from emu.signals import EmuError, End
from emu.symbols import Symbols
from emu.tdx import cpuid
from emu.tdx.launch import build
from emu.tdx.module import TdxModule, VcpuModel
from emu.tdx.params import TdParams
from emu.vcpu import Vcpu, instruction_names
from emu.vmm.devices.bus import Host, Ports
from emu.vmm.devices.clock import cmos_memory, parse_time
from emu.vmm.devices.power import PmTimer, Power
from emu.vmm.hosts import alioth
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy
from emu.vmm.q35 import board
from emu.vmm.vmcall import Vmm
from formats.units import FOUR_GIB, LARGE_PAGE, PAGE, align_up

SLICE = 20_000_000  # instructions between two progress reports


@dataclass
class Console:
    """Collects what the guest prints and notices the text that ends the run."""

    until: Until
    listener: Callable[[bytes], None] | None
    data: bytearray = field(default_factory=bytearray)
    reached: bool = False

    def send(self, byte: int) -> None:
        """One byte from the guest."""
        self.data.append(byte)
        if self.listener:
            self.listener(bytes((byte,)))
        text = self.until.text
        if text and byte == text[-1] and self.data.endswith(text):
            self.reached = True

    def check(self) -> None:
        """Ends the run between two instructions, where it can be saved, once that text was seen."""
        if self.reached:
            self.reached = False
            shown = self.until.text.decode(errors="backslashreplace")
            raise End(CONSOLE, f"the console shows {shown!r}")


@dataclass
class Machine:
    """One TD with its VMM. Build with `create`, then `run`."""

    config: RunConfig
    ffi: Any
    lib: Any
    vm: Any
    memory: Memory
    module: TdxModule
    vmm: Vmm
    launch: Launch
    console: Console
    symbols: Symbols
    vcpus: list[Vcpu] = field(default_factory=list)
    observer: Observer | None = None
    schedule: Schedule = field(init=False)
    keyboard: Keyboard | None = None
    handoff: Handoff | None = None  # once the payload runs

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.vcpus, self.config.seed, self.wait)

    def close(self) -> None:
        """Frees the engines and the memory."""
        for vcpu in self.vcpus:
            self.lib.td_vcpu_free(vcpu.handle)
        self.lib.td_vm_free(self.vm)
        self.vcpus.clear()

    def add_vcpu(self, index: int) -> Vcpu:
        """TDH.VP.INIT of one vCPU."""
        handle = self.lib.td_vcpu_new(self.vm, index)
        if handle == self.ffi.NULL:
            raise EmuError(self.ffi.string(self.lib.td_error()).decode() or "not enough memory for a vCPU")
        names = instruction_names(self.lib, self.ffi)
        apic_id = self.launch.topology.ids[index]
        apic = LocalApic(
            index, apic_id, lambda: int(self.lib.td_tsc(handle)), self.send, self.module.params.tsc_25mhz
        )
        vcpu = Vcpu(
            self.ffi,
            self.lib,
            handle,
            self.module,
            self.vmm,
            self.memory,
            VcpuModel(index),
            names,
            self.console.check,
            apic,
            Probe(self.ffi, self.lib, handle),
        )
        self.vmm.apics.append(apic)
        ranges = self.symbols.ranges(self.config.skip_count)
        if ranges:
            self.lib.td_count_ranges(handle, self.ffi.new("td_range[]", ranges), len(ranges))
        vcpu.enter(self.launch.hob_address)
        self.vcpus.append(vcpu)
        return vcpu

    def observe(self, observer: Observer) -> None:
        """Shows the run to an observer from now on, exceptions that the engine delivers included."""
        self.observer = observer
        for vcpu in self.vcpus:
            vcpu.observer = observer
            vcpu.probe.report_exceptions()
        observer.on_start(self)

    def run(self, max_instructions: int, progress: Callable[[int], None] | None) -> Ending:
        """Runs all vCPUs until one of them ends the run; the TD is left as it was then."""
        ending = self.turns(max_instructions, progress)
        if self.observer:
            self.observer.on_end(self, ending)
        return ending

    def turns(self, max_instructions: int, progress: Callable[[int], None] | None) -> Ending:
        """Runs the vCPUs as the schedule says until one of them ends the run."""
        boot, schedule = self.vcpus[0], self.schedule
        self.lib.td_arm_handoff(boot.handle, self.handoff is None)
        running = boot
        reported = 0
        try:
            while turn := schedule.next():
                running = turn.vcpu
                self.turn(turn, max_instructions)
                schedule.done()
                if self.keyboard and (typed := self.keyboard.glance()):
                    self.vmm.ports.uart.feed(typed)
                if progress and boot.count - reported >= SLICE:
                    reported = boot.count
                    progress(reported)
                if self.observer:
                    self.observer.on_slice(self)
            return Ending(End("halt", "every vCPU halted and nothing will wake one"), boot)
        except End as end:
            return Ending(end, running)

    def turn(self, turn: Turn, max_instructions: int) -> None:
        """Runs a vCPU up to a time, its own timer included; notes a handoff that is not the end."""
        vcpu, end = turn.vcpu, turn.end
        self.lib.td_spin_limit(vcpu.handle, SPINS if len(self.vcpus) > 1 else 0)
        vcpu.yielded = False
        left = end - vcpu.time
        if left > 0:  # else its last turn went past this one: blocks are not split
            end = min(end, vcpu.time + self.vmm.policy.turn(vcpu, left))
        while not vcpu.halted and not self.schedule.cut:
            now, count, apic = vcpu.time, vcpu.count, vcpu.apic
            apic.tick(now)
            if now >= end:
                break
            if count >= max_instructions:
                raise End("limit", f"{max_instructions} instructions without reaching the end")
            until = end if apic.due is None else min(end, apic.due)
            try:
                vcpu.run(min(count + until - now, max_instructions))
            except End as ended:
                if ended.reason != "handoff":
                    raise
                self.hand_over(vcpu)
            if vcpu.yielded:
                self.schedule.spun(turn)
                return
        vcpu.spins = vcpu.rests_until = 0

    def hand_over(self, boot: Vcpu) -> None:
        """The payload begins; ends the run if that is the condition."""
        entry, parameters = int(boot.regs.rip), int(boot.regs.gpr[6])
        accepted = (self.module.accepted_4k, self.module.accepted_2m)
        self.handoff = handoff.take(self.read_guest, entry, parameters, accepted)
        if self.observer:
            self.observer.on_handoff(boot, self.handoff)
        if self.console.until.reason == "handoff":
            raise End("handoff", "")
        self.lib.td_arm_handoff(boot.handle, False)

    def idle(self, index: int, blocked: bool) -> None:
        """TDVMCALL HLT. A boot processor that nothing can wake ends the run."""
        vcpu = self.vcpus[index]
        if vcpu.apic.nmi or (not blocked and vcpu.apic.pending() is not None):
            return
        if not index and (blocked or not vcpu.apic.enabled):
            raise End("halt", f"vCPU {index} halted and nothing will wake it")
        vcpu.halted, vcpu.deaf = True, blocked

    def wait(self, ticks: int | None) -> bool:
        """All vCPUs sleep, for `ticks` or forever; with a keyboard in real time. True: it was used."""
        if self.keyboard is None or not self.keyboard.open:
            return False
        hz = self.module.params.tsc_25mhz * cpuid.CRYSTAL_HZ
        typed = self.keyboard.read(None if ticks is None else ticks / hz)
        self.vmm.ports.uart.feed(typed)
        return bool(typed)

    def send(self, sender: int, message: Message) -> None:
        """An interrupt message to whom it concerns."""
        for vcpu in self.vcpus:
            if vcpu.apic.matches(message, sender):
                vcpu.apic.post(message.vector, message.mode)
                if vcpu.index != sender:
                    self.schedule.woken()

    def read_guest(self, gpa: int, size: int) -> bytes:
        """Private memory as far as it is backed."""
        if gpa < 0 or gpa >= self.memory.span:
            return b""
        return self.memory.read(gpa, min(size, self.memory.span - gpa))


def host(launch: Launch, memory: Memory, elapsed: Callable[[], float], policy: Policy) -> Host:
    """What the host that launches has and others do not; `policy` may put other devices on its board."""
    if launch.q35 is not None:
        honest = board.host(memory, launch.q35, launch.topology.ids, elapsed)
    elif launch.alioth is not None:
        honest = alioth.host(memory, launch.alioth, launch.topology.ids, elapsed, launch.power)
    else:
        timer = (PmTimer(launch.pm_timer, elapsed),) if launch.pm_timer else ()
        honest = Host(lambda set_line: (Power(launch.power), *timer))
    return replace(
        honest,
        zeros=launch.zeros,
        memory_ones=launch.memory_ones,
        board=lambda set_line: policy.devices(honest.board(set_line)),
    )


def create(
    config: RunConfig,
    launch: Launch,
    params: TdParams,
    policy: Policy,
    symbols: Symbols,
    listener: Callable[[bytes], None] | None,
) -> Machine:
    """Launches a TD: memory, measured regions, finalized MRTD, vCPUs in their entry state. `launch` and
    `params` are what `policy` made of the configuration's. EmuError.
    """
    console = Console(Until.parse(config.until), listener)
    ffi, lib = engine.load()
    span = max(FOUR_GIB, launch.ram[-1][1])
    span = align_up(span, LARGE_PAGE)
    if span > 1 << (params.gpaw - 1):
        raise EmuError(f"memory ends at {span:#x}, beyond GPAW {params.gpaw}")
    td = build(params, launch.regions, launch.hob_address, config.mrtd_order)
    vm = lib.td_vm_new(span, params.gpaw)
    if vm == ffi.NULL:
        raise EmuError(f"the host cannot reserve {span >> 20} MiB of address space for the guest")
    layout = lib.td_vm_layout(vm)
    layout.tsc_step_num, layout.tsc_step_den = 1, 1
    layout.sept_ve_disable = params.attributes >> 28 & 1
    memory = Memory(ffi, lib, vm, layout)
    for start, end in launch.ram:
        memory.add_ram(start, end // PAGE * PAGE, large=launch.large_pages)
    for region in launch.regions:
        memory.add_pages(region.gpa, region.content, region.length, region.measured)

    def elapsed() -> float:
        return machine.schedule.time / (params.tsc_25mhz * cpuid.CRYSTAL_HZ)

    vmm = Vmm(
        memory,
        Ports(
            console.send,
            lambda message: machine.send(-1, message),
            elapsed,
            parse_time(config.rtc).isoformat(),
            cmos_memory(launch.ram),
            host(launch, memory, elapsed, policy),
        ),
        params.vcpus,
        lambda index, blocked: machine.idle(index, blocked),
        policy,
        map_gpa_retry=config.map_gpa_retry,
        mcg_cap=launch.mcg_cap,
    )
    newer = config.module == MODULE_NEWER
    module = TdxModule(params, memory, td.mrtd, launch.topology if newer else None)
    machine = Machine(config, ffi, lib, vm, memory, module, vmm, launch, console, symbols)
    for index in range(params.vcpus):
        machine.add_vcpu(index)
    vmm.ports.uart.feed(config.stdin)
    policy.on_launched(machine)
    return machine
