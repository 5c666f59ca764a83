"""Which APIC id does a vCPU tell, and what does it do until it is parked? By each answer of TDX module and
VMM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import unicorn as uc
import unicorn.x86_const as x86
from cpu import Td
from machinecode import Linked

from dsl.capabilities import prelude

INDEX, NATIVE, OF_MSR, OF_CPUID = 5, 0x1234_5678, 0x21, 0x43
MAILBOX, STACK = 0x90_0000, 0x88_0000
RDMSR, CPUID, X2APIC_ID, TOPOLOGY = 31, 10, 0x802, 0xB
REFUSED, INVALID = 1 << 63, 0xC000_0100_0000_0001
FIRMWARE_PART = 0x800  # of the mailbox page: ACPI 6.5, table 5.44
NOBODY = (0, 0, 0, 0)


@dataclass(frozen=True)
class Answers:
    """Of the module to CPUID, if it enumerates; of the VMM to RDMSR and CPUID (EAX to EDX), None: refused."""

    enumerated: bool = False
    msr: int | None = OF_MSR
    leaf: tuple[int, int, int, int] | None = (1, 2, 0x100, OF_CPUID)
    by_module: bool = False  # who refuses

    def module(self, before: dict[str, int]) -> dict[str, int]:
        """TDG.VP.VMCALL."""
        assert (before["rax"], before["rcx"]) == (0, 0xFC00)
        shown = {f"r{n}": before[f"r{n}"] for n in range(13, 16)}
        assert not any(shown.values()), "what the VMM need not see"
        function, operand = before["r11"], before["r12"]
        assert (function, operand) in ((RDMSR, X2APIC_ID), (CPUID, TOPOLOGY))
        after = {f"r{n}": 0xBAD0 + n for n in range(11, 16)}
        answer = self.msr if function == RDMSR else self.leaf
        if answer is None:
            return {"rax": INVALID, **after} if self.by_module else {"rax": 0, "r10": REFUSED, **after}
        if isinstance(answer, int):
            return {"rax": 0, "r10": 0, **after, "r11": 0xFFFF_FFFF_0000_0000 | answer}
        return {"rax": 0, "r10": 0, **after, **dict(zip(("r12", "r13", "r14", "r15"), answer, strict=True))}


CASES = [
    (Answers(enumerated=True), NATIVE, []),
    (Answers(), OF_MSR, [RDMSR]),
    (Answers(msr=0), 0, [RDMSR]),
    (Answers(msr=None), OF_CPUID, [RDMSR, CPUID]),
    (Answers(msr=None, by_module=True), OF_CPUID, [RDMSR, CPUID]),
    (Answers(msr=None, leaf=(0, 0, 1, 0)), 0, [RDMSR, CPUID]),
    (Answers(msr=None, leaf=NOBODY), INDEX, [RDMSR, CPUID]),
    (Answers(msr=None, leaf=None), INDEX, [RDMSR, CPUID]),
    (Answers(msr=None, leaf=None, by_module=True), INDEX, [RDMSR, CPUID]),
]


def machine(image: Linked, answers: Answers) -> Td:
    """A vCPU whose CPUID is answered by the module; it may execute it only if that enumerates."""
    td = Td(image, answers.module)
    td.cpu.mem_write(image.symbols["ap_enumerated"], int(answers.enumerated).to_bytes(4, "little"))

    def cpuid(cpu: uc.Uc, _: object) -> int:
        assert answers.enumerated, "#VE, for which there is no handler"
        leaf = [cpu.reg_read(register) for register in (x86.UC_X86_REG_EAX, x86.UC_X86_REG_ECX)]
        assert leaf == [TOPOLOGY, 0]
        for register, value in zip("ABCD", (1, 2, 0x100, NATIVE), strict=True):
            cpu.reg_write(getattr(x86, f"UC_X86_REG_R{register}X"), value)
        return 1

    td.cpu.hook_add(uc.UC_HOOK_INSN, cpuid, None, 1, 0, x86.UC_X86_INS_CPUID)
    return td


@pytest.mark.parametrize(("answers", "apic_id", "asked"), CASES)
def test_the_id_is_what_the_first_says_that_answers(
    image: Linked, answers: Answers, apic_id: int, asked: list[int]
) -> None:
    td = machine(image, answers)
    assert td.call("tdcall_apic_id", INDEX) == apic_id
    assert [call.before["r11"] for call in td.calls] == asked
    after = td.registers()
    assert (after["r10"], after["r11"]) == (0, 0), "the caller finds what the VMM answered"


def on_pause(td: Td, action: Callable[[int], None]) -> None:
    """Calls `action` with the number of the PAUSE."""
    count = [0]

    def step(cpu: uc.Uc, at: int, size: int, _: Any) -> None:
        if bytes(cpu.mem_read(at, 2)) == b"\xf3\x90":  # PAUSE; of TDCALL no size is known
            count[0] += 1
            action(count[0])

    td.cpu.hook_add(uc.UC_HOOK_CODE, step)


def slots(image: Linked) -> int:
    return int.from_bytes(image.read(image.symbols["paging_cpu_ids"], 8), "little")


@pytest.mark.parametrize(("answers", "apic_id", "asked"), CASES)
def test_an_ap_tells_its_id_then_waits_for_the_mailbox(
    image: Linked, answers: Answers, apic_id: int, asked: list[int]
) -> None:
    td = machine(image, answers)
    page = slots(image)
    td.cpu.mem_write(page, bytes(4096))
    td.cpu.mem_write(MAILBOX, bytes(4096))
    seen: list[bytes] = []

    def action(number: int) -> None:
        seen.append(bytes(td.cpu.mem_read(MAILBOX, 4096)))
        if number == 3:
            td.cpu.mem_write(image.symbols["ap_mailbox"], MAILBOX.to_bytes(8, "little"))

    on_pause(td, action)
    td.set(rbp=INDEX, rbx=52, r8=0x0080_0000)  # the width, and what the host gives each vCPU
    td.start(image.symbols["ap_identify"], STACK, until=image.symbols["ap_park"])
    told = bytes(td.cpu.mem_read(page, 4096))
    assert told == bytes(4 * INDEX) + (apic_id + 1).to_bytes(4, "little") + bytes(4096 - 4 * INDEX - 4)
    after = td.registers()
    assert (after["rbp"], after["rdx"], after["rsp"]) == (apic_id, MAILBOX, STACK)
    assert seen == [bytes(4096)] * 3, "it says that it has gone before it has"
    assert td.cpu.reg_read(x86.UC_X86_REG_CR3) == MAILBOX + 4096
    at = FIRMWARE_PART + INDEX
    assert bytes(td.cpu.mem_read(MAILBOX, 4096)) == bytes(at) + b"\1" + bytes(4095 - at)
    cleared = ("rbx", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
    assert not [name for name in cleared if after[name]], "the OS finds what the vCPU was entered with"


def test_an_ap_that_may_come_back_leaves_its_id_before_it_says_that_it_has_gone(image: Linked) -> None:
    td = machine(image, Answers())
    ids = MAILBOX + 0x1_0000
    td.cpu.mem_write(MAILBOX, bytes(4096))
    td.cpu.mem_write(ids, bytes(4096))
    td.cpu.mem_write(image.symbols["ap_mailbox"], MAILBOX.to_bytes(8, "little"))
    td.cpu.mem_write(image.symbols["ap_ids"], ids.to_bytes(8, "little"))
    order: list[int] = []
    for place in (MAILBOX, ids):
        td.cpu.hook_add(
            uc.UC_HOOK_MEM_WRITE, lambda *_, place=place: order.append(place), begin=place, end=place + 4095
        )
    td.set(rbp=INDEX)
    td.start(image.symbols["ap_identify"], STACK, until=image.symbols["ap_park"])
    told = bytes(td.cpu.mem_read(ids, 4096))
    assert told == bytes(4 * INDEX) + OF_MSR.to_bytes(4, "little") + bytes(4096 - 4 * INDEX - 4)
    assert order == [ids, MAILBOX]


def test_a_vcpu_that_nobody_waits_for_tells_nothing(image: Linked) -> None:
    td = machine(image, Answers())
    page = slots(image)
    behind = prelude().constants["MAX_CPUS"].value
    td.cpu.mem_write(page, bytes(8192))
    on_pause(td, lambda number: td.cpu.emu_stop() if number == 5 else None)
    td.set(rbp=behind)
    td.start(image.symbols["ap_identify"], STACK)
    assert bytes(td.cpu.mem_read(page, 8192)) == bytes(8192)
    assert not td.calls
