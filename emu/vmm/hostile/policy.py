"""What can a VMM do to make the guest fail? Everything that the VMM decides, wrong by a seed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from emu.signals import End
from emu.tdx.measure import AddedRegion
from emu.tdx.params import TdParams
from emu.view import Machine, Vcpu
from emu.vmm.backing import backed, union
from emu.vmm.devices.bus import Device
from emu.vmm.hostile import hob, memory_map, payload
from emu.vmm.hostile.fw_cfg import LyingFwCfg, lying, meddled
from emu.vmm.loader import Launch
from emu.vmm.policy import Call, Policy, section_content, with_content, with_section
from formats import tdvf
from formats.tdx.td import DEBUG, SEPT_VE_DISABLE
from formats.units import LARGE_PAGE, PAGE

NMI, FIRST_VECTOR = 2, 32
LOG_LIMIT = 64  # lines about calls; a kernel makes a hundred thousand
ODD_TURNS = 200  # turns of odd length, then honest ones
# R10 of a TDVMCALL: success, RETRY, INVALID_OPERAND, GPA_INUSE, ALIGN_ERROR (GHCI 1.5, table 3-2), undefined
STATUSES = (0, 1, 1 << 63, 1 << 63 | 1, 1 << 63 | 2, (1 << 64) - 1)
MAP_GPA, RETRY = "MapGPA", 1
# Where a seed lies at launch: one lie too many and the first check hides all that come after it
AIMS = ("nowhere", "memory", "memory", "tables", "payload", "payload", "command line", "everywhere")
TURNS = ("as honest", "application processors first", "random pieces", "single instructions")


class Hostile(Policy):
    """Each seed draws a few attacks; the same seed draws the same. It backs all RAM that its TD HOB claims
    and never removes a page: withholding only stops the TD.
    """

    watches_calls = True

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.random = Random(f"hostile {seed}")
        self.device: LyingFwCfg | None = None
        self.aim = self.random.choice(AIMS)
        self.order = self.random.choice(TURNS)
        self.odd_turns = ODD_TURNS
        self.nmi_at = self.random.randrange(1000, 150_000) if self.chance(0.04) else None
        self.call_rate = self.random.choice((0, 0.01, 0.1, 0.5))
        self.resumes = self.random.randrange(1, 40) if self.chance(0.5) else 0
        self.interrupts = self.random.randrange(1, 10) if self.chance(0.3) else 0
        self.held: End | None = None  # the report that did not end the run
        self.logged = 0

    def chance(self, share: float) -> bool:
        """True with this probability."""
        return self.random.random() < share

    def aims_at(self, what: str) -> bool:
        """Whether to lie there; in half of the cases if anywhere."""
        return self.aim == what or (self.aim == "everywhere" and self.chance(0.5))

    # -- launch

    def params(self, params: TdParams) -> TdParams:
        choices, attributes = params.choices, params.attributes
        if self.chance(0.25):
            busy = self.random.choice((1, 1, 7, 7, 100, 999, 1000, 1001))
            self.done.append(f"TDG.MEM.PAGE.ACCEPT finds its page locked {busy} times")
            choices = replace(choices, accept_busy=busy)
        if self.chance(0.03):
            busy = (1, 2, 7, 100, 1000, 1001, 1500)[self.random.randrange(7)]
            self.done.append(f"TDG.MR.RTMR.EXTEND finds the registers locked {busy} times")
            choices = replace(choices, rtmr_busy=busy)
        if self.chance(0.02):
            self.done.append("ATTRIBUTES: SEPT_VE_DISABLE off")
            attributes &= ~SEPT_VE_DISABLE
        if self.chance(0.05):
            self.done.append("ATTRIBUTES: DEBUG on")
            attributes |= DEBUG
        if self.chance(0.1):
            self.done.append("random MRCONFIGID, MROWNER, MROWNERCONFIG")
            one, two, three = (self.random.randbytes(48) for _ in range(3))
            params = replace(params, mrconfigid=one, mrowner=two, mrownerconfig=three)
        return replace(params, choices=choices, attributes=attributes)

    def launch(self, launch: Launch) -> Launch:
        launch = self._hob(launch)
        launch = self._payload(launch)
        if self.chance(0.75):
            launch = self._temporary_memory(launch)
        if self.chance(0.15):
            launch = self._extra_pages(launch)
        if self.chance(0.3):
            address = hob.number(self.random)
            self.done.append(f"RCX and R8 at entry: {address:#x}")
            launch = replace(launch, hob_address=address)
        return launch

    def _hob(self, launch: Launch) -> Launch:
        kind = tdvf.SectionType.TD_HOB
        lists = [(s.address, s.memory_size) for s in launch.sections if s.type == kind]
        if not lists:
            return launch
        base, size = lists[0]
        data = launch.hob
        if launch.memory_map:
            return self._memory_map(launch, size)
        for what, lies in (("memory", hob.LIES), ("tables", hob.TABLE_LIES)):
            if self.aims_at(what):
                count = self.random.choice((1, 1, 2, 3))
                data, texts = hob.mutated(self.random, data, base, lies, count)
                self.done += texts
        data, ranges, texts = backed(data[:size])
        self.done += texts
        if len(data) < size and self.chance(0.5):
            self.done.append("HOB: random bytes after the list")
            data += self.random.randbytes(size - len(data))
        return replace(with_content(launch, kind, data), ram=union((*launch.ram, *ranges)))

    def _memory_map(self, launch: Launch, size: int) -> Launch:
        """The RAM stays as it is: pages that a VMM promises and does not have stop the TD."""
        if not self.aims_at("memory"):
            return launch
        data, texts = memory_map.mutated(self.random, launch.hob, self.random.choice((1, 1, 2, 3)))
        self.done += texts
        return with_content(launch, tdvf.SectionType.TD_HOB, data[:size])

    def _payload(self, launch: Launch) -> Launch:
        kind, honest = tdvf.SectionType.PAYLOAD, b""
        for section in launch.sections:
            if section.type == kind:
                honest = launch.content(section)
        if honest and self.aims_at("payload"):
            data, texts = payload.payload(self.random, honest)
            self.done += texts
            launch = with_content(launch, kind, data)
        elif honest and self.chance(0.4):
            self.done.append("payload: 64 KiB of random bytes after it")
            launch = with_content(launch, kind, honest + self.random.randbytes(1 << 16))
        kind = tdvf.SectionType.PAYLOAD_PARAM
        line = section_content(launch, kind)
        if line and self.aims_at("command line"):
            content, text = payload.command_line(self.random, line, len(line))
            self.done.append(text)
            launch = with_content(launch, kind, content)
        return launch

    def _temporary_memory(self, launch: Launch) -> Launch:
        """TempMem is added without being measured: the VMM chooses what lies there."""
        fill = self.random.choice((None, b"\xff", b"\xcc", b"\x07\0\0\0\0\0\0\0"))
        self.done.append(f"TempMem: {f'full of {fill.hex()}' if fill else 'random bytes'}")
        for section in launch.sections:
            if section.type == tdvf.SectionType.TEMP_MEM:
                size = section.memory_size
                content = (fill * size)[:size] if fill else self.random.randbytes(size)
                launch = with_section(launch, section, content)
        return launch

    def _extra_pages(self, launch: Launch) -> Launch:
        """Pages that no section asks for, with bytes of the VMM's: MRTD shows them."""
        taken = [(region.gpa, region.gpa + region.length) for region in launch.regions]
        extra = []
        for _ in range(self.random.randrange(1, 6)):
            start, end = self.random.choice(launch.ram)
            gpa = start + self.random.randrange((end - start) // PAGE) * PAGE
            if not any(low <= gpa < high for low, high in taken):
                taken.append((gpa, gpa + PAGE))
                extra.append(AddedRegion(gpa, self.random.randbytes(PAGE), self.chance(0.5)))
                self.done.append(f"an additional page at {gpa:#x}")
        return replace(launch, regions=(*launch.regions, *extra))

    def devices(self, board: tuple[Device, ...]) -> tuple[Device, ...]:
        if self.seed % 2:
            board, self.device = lying(board, self.seed, self.done)
        return board

    def on_launched(self, machine: Machine) -> None:
        memory = machine.memory
        start, end = self.random.choice(machine.launch.ram)
        chunks = range(start // LARGE_PAGE, end // LARGE_PAGE)
        if not chunks or self.chance(0.4):
            return
        some = self.random.sample(chunks, min(len(chunks), self.random.choice((1, 2, 8, 24))))
        for chunk in some:
            memory.split(chunk * LARGE_PAGE, LARGE_PAGE)
        self.done.append(f"{len(some)} chunks of 2 MiB in pages of 4 KiB")

    # -- run

    def turn(self, vcpu: Vcpu, instructions: int) -> int:
        if self.nmi_at is not None and vcpu.index == 0:
            if vcpu.count < self.nmi_at:
                return min(instructions, self.nmi_at - vcpu.count)
            if vcpu.regs.mode == 64 and vcpu.regs.idt_limit > 16 * NMI:  # earlier, the TD would just die
                self.nmi_at = None
                self.done.append(f"NMI after {vcpu.count} instructions")
                vcpu.apic.nmi = True
        if self.interrupts and self.chance(0.05):
            self.interrupts -= 1
            vector = self.random.randrange(FIRST_VECTOR, 256)
            vcpu.apic.irr |= 1 << vector
            self.log(f"interrupt {vector:#x} for vCPU {vcpu.index}, which nobody sent")
        instructions = meddled(self.device, instructions)
        if not self.odd_turns or self.order == TURNS[0]:
            return instructions
        self.odd_turns -= 1
        if self.odd_turns == ODD_TURNS - 1:
            self.done.append(f"vCPUs run in turns: {self.order}")
        if self.order == TURNS[1]:
            return instructions if vcpu.index else 0
        return self.random.randrange(5000) if self.order == TURNS[2] else 1

    def on_call(self, call: Call) -> int | None:
        if self.held is not None:
            self.resumes -= 1
            if self.resumes <= 0:
                raise self.held
        if call.name == MAP_GPA and self.chance(self.call_rate):
            self.log("MapGPA: RETRY without progress")
            call.answer[11] = call.given[12]
            return RETRY
        return None

    def on_answer(self, call: Call) -> None:
        if not self.chance(self.call_rate):
            return
        if self.chance(0.5):
            call.answer[10] = self.random.choice(STATUSES)
            self.log(f"{call.name}: R10 is {call.answer[10]:#x}")
        for number in (2, 3, 6, 7, 8, 9, 11, 12, 13, 14, 15):
            if self.chance(0.4):
                call.answer[number] = hob.number(self.random)
        self.log(f"{call.name}: random values in other registers")

    def on_end(self, call: Call, end: End) -> None:
        """Resumes a guest that has reported a fatal error, for some calls more."""
        if self.held is not None:
            return  # on_call counts
        if end.reason != "fatal" or not self.resumes:
            raise end
        self.held = end
        self.done.append(f"resumed after its fatal report, for {self.resumes} calls")

    def log(self, text: str) -> None:
        """A line about a call, unless there are many already."""
        self.logged += 1
        if self.logged < LOG_LIMIT:
            self.done.append(text)
        elif self.logged == LOG_LIMIT:
            self.done.append("and more of this kind")
