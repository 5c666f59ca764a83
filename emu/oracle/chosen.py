"""What may a VMM choose, and what comes of a choice? One run of an image under one chosen VMM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from random import Random
from types import MappingProxyType

from emu import api
from emu.api import RunConfig
from emu.oracle import executable
from emu.oracle.compare import Evidence
from emu.oracle.contents import INITRDS, LINES, changed_kernel, other_kernel, pattern
from emu.oracle.files import Files, Transfers, lie
from emu.oracle.shown import Range, Shown, gather
from emu.oracle.single import Finding, judge
from emu.oracle.witness import Argument, Witness
from emu.view import Machine, Vcpu
from emu.vmm.loader import Launch
from emu.vmm.policy import Call, Policy, with_section
from emu.vmm.presets import PRESETS
from formats import bundle, tdvf
from formats.fw_cfg import DMA_LOW, SELECTOR
from formats.ghci import INVALID_OPERAND, QUOTE_HEADER, QUOTE_SUCCESS, Function
from formats.ports import COM1, COM1_PORTS
from formats.q35 import CONFIG_ADDRESS, CONFIG_DATA
from formats.registers import R11, R12, R13, R14
from formats.structs import unpack
from formats.tdx.status import BUSY_RETRIES
from formats.tdx.td import CONFIG_GPAW52
from formats.units import PAGE, align_up

# Which vCPU it is: what is told is recorded, and a wrong answer ends the boot before the flow has begun
IDENTITY = ((Function.RDMSR, 0x802), (Function.CPUID, 0xB))
IO, MAP_GPA, FATAL, HLT = Function.IO, Function.MAP_GPA, Function.REPORT_FATAL_ERROR, Function.HLT
CONSOLE = range(COM1, COM1 + COM1_PORTS)
FW_CFG = range(SELECTOR, DMA_LOW + 4)
# What is refused or answered otherwise at these ends the boot of whoever needs them; `lie` is subtler
CHIPSET = range(CONFIG_ADDRESS, CONFIG_DATA + 4)
PLATFORM = (*FW_CFG, *CHIPSET)
EVERY = -1
REFUSAL = "fatal"  # how a run may end that hands nothing over
PIECE = 5000  # instructions of an odd turn at most
ODD_TURNS = 400  # then honest ones
ORDERS = ("honest", "the others first", "odd pieces", "single instructions")


@dataclass(frozen=True)
class Choice:
    """One VMM. Every field is a channel: something that a VMM may choose, 0 or empty for the honest one."""

    preset: int = 0  # of those that load the same image and kernel (emu.vmm.presets)
    memory: int = 0  # MiB more
    vcpus: int = 0  # more than the configuration has
    line: int = 0  # of LINES
    initrd: int = 0  # of INITRDS
    kernel: int = 0  # another byte in its setup part (1), its protected part (2), both (3)
    behind_line: int = 0  # what lies there: a pattern
    behind_kernel: int = 0
    behind_hob: int = 0
    tempmem: int = 0
    removed: int = 0  # 1: pages that the launch added where no section is have been taken out again
    settings: int = 0  # what lies in a CFV that the launch does not measure and the image leaves empty
    volume: int = 0  # 1: what the image has in a CFV ends in another byte
    signed: int = 0  # which of the signed files, with the anchor for it: the caller's to give
    shared: int = 0  # what lies in shared memory, and in a quote: a pattern
    unsteady: int = 0  # shared memory changes with every call and turn
    answers: tuple[int, ...] = ()  # of reads and other calls, one after the other and again
    refuse: int = 0  # which call that is not a line for the console is refused; -1: each
    chipset: int = 0  # which access to q35's configuration space is refused; -1: each
    order: int = 0  # of ORDERS
    seed: int = 0  # of the schedule
    entry: int = 0  # RCX and R8 at the first instruction
    gpaw: int = 0  # 1: 52 bits
    small: int = 0  # 1: no 2 MiB pages
    busy: int = 0  # how often the host holds a lock that the guest wants
    locked: int = 0  # at which extension it holds the RTMRs for as long as a firmware tries
    sizes: int = 0  # of files in fw_cfg: of emu.oracle.files.SIZES
    directory: int = 0  # of fw_cfg: of DIRECTORIES there
    transfers: int = 0  # of fw_cfg: of TRANSFERS there
    tables: int = 0  # in fw_cfg, and the script that places them: a seed

    def channels(self, other: Choice) -> set[str]:
        """The names of what the two choose differently."""
        return {f.name for f in fields(self) if getattr(self, f.name) != getattr(other, f.name)}

    def __str__(self) -> str:
        chosen = (f"{name}={getattr(self, name)}" for name in sorted(self.channels(HONEST)))
        return ", ".join(chosen) or "honest"


HONEST = Choice()
CHANNELS = tuple(f.name for f in fields(Choice))


class Chosen(Policy):
    """The VMM of a choice."""

    watches_calls = True

    def __init__(self, choice: Choice, kernel: bytes) -> None:
        super().__init__()
        self.choice, self.kernel = choice, kernel
        self.random = Random(f"order {choice.seed}")
        self.odd_turns = ODD_TURNS if choice.order else 0
        self.machine: Machine | None = None
        self.pages: list[Range] = []  # shared memory, by address and size
        self.files: Transfers | None = None  # of the fw_cfg device, if the machine has one
        self.answered = self.asked = self.changed = self.configured = 0

    # ---- launch

    def launch(self, launch: Launch) -> Launch:
        choice, kind = self.choice, tdvf.SectionType
        launch = self._behind(launch, kind.TD_HOB, choice.behind_hob)
        launch = self._behind(launch, kind.PAYLOAD_PARAM, choice.behind_line)
        launch = self._behind(launch, kind.PAYLOAD, choice.behind_kernel)
        for kind_, number in ((kind.TEMP_MEM, choice.tempmem), (kind.CFV, choice.settings)):
            launch = self._instead(launch, kind_, number)
        if choice.volume:
            launch = self._changed(launch)
        if choice.entry:
            launch = replace(launch, hob_address=choice.entry)
        return launch

    def _behind(self, launch: Launch, kind: tdvf.SectionType, number: int) -> Launch:
        """The pattern behind what the first section of this kind holds."""
        for section in launch.sections:
            if number and section.type == kind and not launch.regions[launch.holder(section)[0]].measured:
                content = launch.content(section)
                noise = pattern(number, section.memory_size, self.kernel)[len(content) :]
                if kind == tdvf.SectionType.PAYLOAD:  # a bundle's header there would be an initrd
                    noise = noise.replace(bundle.GUID.bytes_le, bytes(16))
                return with_section(launch, section, content + noise)
        return launch

    def _instead(self, launch: Launch, kind: tdvf.SectionType, number: int) -> Launch:
        """The pattern in all sections of this kind that the launch does not measure, if they hold nothing."""
        for section in launch.sections:
            if not number or section.type != kind or launch.regions[launch.holder(section)[0]].measured:
                continue
            if not any(launch.content(section)):  # a volume, or a payload, is what a flow looks for
                launch = with_section(launch, section, pattern(number, section.memory_size, self.kernel))
        return launch

    def _changed(self, launch: Launch) -> Launch:
        """Another last byte in each CFV that holds something and that the launch does not measure."""
        for section in launch.sections:
            if section.type != tdvf.SectionType.CFV or launch.regions[launch.holder(section)[0]].measured:
                continue
            if content := launch.content(section).rstrip(b"\0"):
                launch = with_section(launch, section, changed_kernel(content, 2))
        return launch

    def on_launched(self, machine: Machine) -> None:
        self.machine = machine
        for start, size in outside(machine.launch) if self.choice.removed else ():
            machine.memory.remove(start, size, again=True)

    # ---- run

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        self._change()
        if not self.odd_turns:
            return instructions
        self.odd_turns -= 1
        match ORDERS[self.choice.order % len(ORDERS)]:
            case "the others first":
                return instructions if vcpu.index else 0
            case "odd pieces":
                return min(instructions, self.random.randrange(1, PIECE))
            case "single instructions":
                return 1
        return instructions

    def on_call(self, call: Call) -> int | None:
        if call.function != IO or call.given[R14] not in FW_CFG:  # its descriptor is in shared memory
            self._change()
        spared = call.function in (FATAL, HLT) or (call.function, call.given[R12]) in IDENTITY
        port = call.given[R14] if call.function == IO else None
        if port in CHIPSET:
            self.configured += 1
            return INVALID_OPERAND if self.choice.chipset in (EVERY, self.configured) else None
        if spared or port in CONSOLE or port in FW_CFG:
            return None
        self.asked += 1
        return INVALID_OPERAND if self.choice.refuse in (EVERY, self.asked) else None

    def on_answer(self, call: Call) -> None:
        writes = call.function == IO and call.given[R13]
        if call.function == MAP_GPA and not call.answer[10] and self.machine is not None:
            bit = self.machine.memory.shared_bit
            if call.given[R12] & bit:
                self.pages.append((call.given[R12] & ~bit, call.given[R13]))
                self._fill(self.choice.shared)
        elif call.function == Function.GET_QUOTE and not call.answer[10] and self.choice.shared:
            self._quote(call.given[R12])
        elif (call.function, call.given[R12]) in IDENTITY or (
            call.function == IO and call.given[R14] in PLATFORM
        ):
            return
        elif self.choice.answers and not writes and call.function not in (MAP_GPA, FATAL, HLT):
            call.answer[R11] = self.choice.answers[self.answered % len(self.choice.answers)]
            self.answered += 1

    def _quote(self, gpa: int) -> None:
        """Other bytes behind the head of the answer, as many as that says."""
        assert self.machine is not None
        memory = self.machine.memory
        gpa &= ~memory.shared_bit
        head = unpack(QUOTE_HEADER, memory.read(gpa, QUOTE_HEADER.sizeof(), shared=True))
        if head.status == QUOTE_SUCCESS:
            content = pattern(self.choice.shared, head.out_size)
            memory.write(gpa + QUOTE_HEADER.sizeof(), content, shared=True)

    def _change(self) -> None:
        if self.choice.unsteady and self.pages:
            self.changed += 1
            self._fill(self.choice.shared + self.changed)

    def _fill(self, number: int) -> None:
        """The pattern in shared memory; not in the page of fw_cfg's descriptor, for then no file comes."""
        assert self.machine is not None
        kept = self.files.descriptors[-1] // PAGE * PAGE if self.files and self.files.descriptors else None
        for gpa, size in self.pages:
            skipped = PAGE if gpa == kept else 0
            content = pattern(number, size, self.kernel)[skipped:]
            self.machine.memory.write(gpa + skipped, content, shared=True)


def outside(launch: Launch) -> list[Range]:
    """Pages that are added where no section is: address and size of each run."""
    found = []
    for region in launch.regions:
        at, end = region.gpa, region.gpa + region.length
        for section in sorted(launch.sections, key=lambda section: section.address):
            if at < section.end and section.address < end:
                found += [(at, section.address - at)] if at < section.address else []
                at = align_up(section.end, PAGE)
        found += [(at, end - at)] if at < end else []
    return found


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `shown` is None if nothing was handed over; `asked` and `shares`: whether it asked
    the VMM for anything, and shared memory with it."""

    choice: Choice
    reason: str
    detail: str
    evidence: Evidence
    shown: Shown | None = None
    findings: tuple[Finding, ...] = ()
    asked: int = 0
    shares: bool = False


def configuration(config: RunConfig, choice: Choice) -> RunConfig:
    """What the choice makes of a configuration."""
    same = PRESETS[config.vmm].kernel
    names = tuple(name for name, preset in PRESETS.items() if preset.kernel is same)
    start = names.index(config.vmm)
    td = config.td
    if choice.gpaw:
        td = replace(td, config_flags=td.config_flags | CONFIG_GPAW52)
    if choice.busy:
        td = replace(td, choices=replace(td.choices, accept_busy=choice.busy))
    if choice.locked:
        held = replace(td.choices, rtmr_free=choice.locked - 1, rtmr_busy=BUSY_RETRIES + 1)
        td = replace(td, choices=held)
    return replace(
        config,
        vmm=names[(start + choice.preset) % len(names)],
        memory=config.memory + (choice.memory << 20),
        vcpus=config.vcpus + choice.vcpus,
        kernel=changed_kernel(config.kernel, choice.kernel) if config.kernel else None,
        initrd=(INITRDS[choice.initrd % len(INITRDS)] or None) if config.kernel else None,
        cmdline=LINES[choice.line % len(LINES)],
        seed=choice.seed,
        host_page_size="4K" if choice.small else "2M",
        td=td,
    )


def run(
    config: RunConfig,
    choice: Choice,
    log_area: Range | None = None,
    arguments: Mapping[str, Argument] = MappingProxyType({}),
    window: Range | None = None,
) -> Outcome:
    """One run to its end, checked after a hand-over. `arguments`: where to see what the firmware's code is
    given; `window`: where a vmlinux lies. EmuError: a TD that cannot be launched.
    """
    config = configuration(config, choice)
    policy = Chosen(choice, config.kernel or b"")
    machine = api.prepare(config, policy=policy)
    kernel = config.kernel or b""
    chosen = Files(choice.sizes, choice.directory, choice.transfers, choice.tables)
    try:
        policy.files = lie(machine.vmm.ports.board, chosen, other_kernel(kernel) if kernel else b"")
        witness = Witness(arguments)
        if arguments:
            machine.observe(witness)
        ending = machine.run(config.max_instructions, None)
        shown = None
        if ending.end.reason == "handoff":
            entered = executable.is_entered(machine)
            shown = executable.gather(machine, log_area) if entered else gather(machine, log_area, window)
        report = api.report(machine, ending)
        evidence = (report.mrtd, report.rtmr)
        reason, detail = str(report.end["reason"]), str(report.end["detail"])
        shares = bool(policy.pages)
        if shown is not None:
            findings = judge(machine, shown, report.aps, witness.given)
        else:
            refused = reason == REFUSAL and report.end["fault"] is None
            findings = [] if refused else [Finding("end", f"{reason}: {detail}")]
        return Outcome(choice, reason, detail, evidence, shown, tuple(findings), policy.asked, shares)
    finally:
        machine.close()
