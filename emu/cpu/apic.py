"""Which interrupts does a vCPU have to take? Its x2APIC: the part that the TDX module virtualises (TPR,
PPR, IRR, ISR, EOI, self-IPI) and the part that the VMM emulates (timer, LVT, ICR), as KVM does (Linux
arch/x86/kvm/lapic.c). Register numbers: Intel SDM volume 3, table 11-6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

ID, VERSION, TPR, APR, PPR, EOI, LDR, SVR = 0x802, 0x803, 0x808, 0x809, 0x80A, 0x80B, 0x80D, 0x80F
ISR, TMR, IRR, ESR, ICR = 0x810, 0x818, 0x820, 0x828, 0x830
LVT_TIMER, INITIAL, CURRENT, DIVIDE, SELF_IPI = 0x832, 0x838, 0x839, 0x83E, 0x83F
TSC_DEADLINE = 0x6E0
LVT_THERMAL, LVT_PMC, LINT0, LINT1, LVT_ERROR = 0x833, 0x834, 0x835, 0x836, 0x837
# Integrated APIC, six LVT entries (none for CMCI, which MCG_CAP does not have), directed EOI
# (kvm_apic_set_version, where the I/O APIC is not in the kernel, as with a TD)
VERSION_VALUE = 1 << 24 | 0x50014
NATIVE = frozenset((*range(TPR, EOI + 1), 0x80C, 0x80E, *range(ISR, ESR), SELF_IPI))
EMULATED = frozenset(
    (ID, VERSION, LDR, SVR, ESR, ICR, *range(LVT_TIMER, CURRENT + 1), DIVIDE, SELF_IPI, TSC_DEADLINE)
)
READ_ONLY = frozenset((ID, VERSION, LDR, CURRENT))
LVT_MASKED = 1 << 16
SVR_ENABLE, SVR_TAKEN = 1 << 8, 1 << 12 | 0x3FF
BUSY, EXTINT = 1 << 12, 0x700  # ICR; delivery mode
LVT_BITS = LVT_MASKED | 1 << 12 | 0xFF  # mask, pending, vector; lapic.c apic_lvt_mask
LINT_BITS = LVT_BITS | 0x700 | 7 << 13  # delivery mode, polarity, remote IRR, trigger
LVT_TAKEN = {LVT_TIMER: LVT_BITS | 3 << 17, LVT_THERMAL: LVT_BITS | 0x700, LVT_PMC: LVT_BITS | 0x700}
LVT_TAKEN |= {LINT0: LINT_BITS, LINT1: LINT_BITS, LVT_ERROR: LVT_BITS}
ONE_SHOT, PERIODIC, DEADLINE = 0, 1, 2  # LVT timer bits 18:17
FIXED, LOWEST_PRIORITY, NMI = 0, 1, 4  # delivery modes, ICR bits 10:8
BROADCAST = 0xFFFFFFFF
FIRST_VECTOR = 16  # below: illegal vector


@dataclass(frozen=True)
class Message:
    """An interrupt on its way: who gets it and how."""

    vector: int
    mode: int
    destination: int
    logical: bool
    shorthand: int = 0  # ICR bits 19:18: none, self, all, all but self


def logical_id(apic_id: int) -> int:
    """The x2APIC logical id that goes with an id."""
    return apic_id >> 4 << 16 | 1 << (apic_id & 15)


def top(bits: int) -> int:
    """The highest set bit, 0 for none."""
    return bits.bit_length() - 1 if bits else 0


@dataclass
class LocalApic:
    """The x2APIC of one vCPU; `now` gives its TSC, `send` carries messages to other vCPUs."""

    index: int
    apic_id: int
    now: Callable[[], int]
    send: Callable[[int, Message], None]
    ticks: int  # of the TSC per tick of the undivided timer, which is the crystal's of CPUID 0x15
    irr: int = 0
    isr: int = 0
    tpr: int = 0
    nmi: bool = False
    self_ipi: int = 0  # of the virtual-APIC page, which only an illegal vector is written to
    svr: int = 0xFF
    icr: int = 0
    initial: int = 0
    divide: int = 0
    due: int | None = None  # TSC at which the timer fires
    lvt: dict[int, int] = field(default_factory=dict)

    @property
    def enabled(self) -> bool:
        """Software enable; until then the VMM's interrupts are dropped."""
        return bool(self.svr & SVR_ENABLE)

    @property
    def ppr(self) -> int:
        """Processor priority."""
        in_service = top(self.isr) & 0xF0
        return self.tpr if self.tpr & 0xF0 >= in_service else in_service

    def pending(self) -> int | None:
        """The vector that the vCPU has to take as soon as it can."""
        vector = top(self.irr)
        return vector if vector & 0xF0 > self.ppr & 0xF0 else None

    @property
    def wanted(self) -> bool:
        """Whether anything is to be delivered."""
        return self.nmi or (self.irr != 0 and self.pending() is not None)

    def take(self, vector: int) -> None:
        """The vCPU begins to serve this interrupt."""
        self.irr &= ~(1 << vector)
        self.isr |= 1 << vector

    def post(self, vector: int, mode: int = FIXED) -> None:
        """An interrupt arrives."""
        if mode == NMI:
            self.nmi = True
        elif mode in (FIXED, LOWEST_PRIORITY) and vector >= FIRST_VECTOR and self.enabled:
            self.irr |= 1 << vector

    def matches(self, message: Message, sender: int) -> bool:
        """Whether a message is for this vCPU."""
        if message.shorthand:
            own = self.index == sender
            return message.shorthand == 2 or own == (message.shorthand == 1)
        if message.destination == BROADCAST:
            return True
        if not message.logical:
            return message.destination == self.apic_id
        mine = logical_id(self.apic_id)
        return mine >> 16 == message.destination >> 16 and bool(mine & message.destination & 0xFFFF)

    # -- the module's part

    def read_native(self, register: int) -> int:
        """RDMSR that does not leave the TD: it reads the virtual-APIC page, whatever a bare x2APIC would do
        (Intel SDM volume 3, 30.5).
        """
        if register == TPR:
            return self.tpr
        if register == PPR:
            return self.ppr
        if register == SELF_IPI:
            return self.self_ipi
        for first, bits in ((ISR, self.isr), (IRR, self.irr)):
            if first <= register < first + 8:
                return bits >> 32 * (register - first) & 0xFFFFFFFF
        return 0

    def write_native(self, register: int, value: int) -> bool:
        """WRMSR that does not leave the TD; False is #GP."""
        if register == TPR and value <= 0xFF:
            self.tpr = value
        elif register == EOI and not value:
            self.isr &= ~(1 << top(self.isr)) if self.isr else ~0
        elif register == SELF_IPI and FIRST_VECTOR <= value <= 0xFF:
            self.irr |= 1 << value
        else:
            return False
        return True

    # -- the VMM's part

    def lvt_entry(self, register: int) -> int:
        """An entry of the local vector table; LINT0 of the boot processor begins as KVM's quirk has it."""
        start = EXTINT if register == LINT0 and not self.index else LVT_MASKED
        return self.lvt.get(register, start)

    def read(self, register: int) -> int | None:
        """TDVMCALL RDMSR of a register in EMULATED; None: refused."""
        if register == SELF_IPI:
            return None
        if register == CURRENT:
            left = self.due - self.now() if self.due is not None and self.mode != DEADLINE else 0
            return -(-max(left, 0) // self.step)
        if register == TSC_DEADLINE:
            return (self.due or 0) if self.mode == DEADLINE else 0
        held = {
            ID: self.apic_id,
            VERSION: VERSION_VALUE,
            LDR: logical_id(self.apic_id),
            SVR: self.svr,
            ESR: 0,
            ICR: self.icr,
            INITIAL: self.initial,
            DIVIDE: self.divide,
        }
        return held[register] if register in held else self.lvt_entry(register)

    def write(self, register: int, value: int) -> bool:
        """TDVMCALL WRMSR of a register in EMULATED; False: refused."""
        if register in READ_ONLY or (value >> 32 and register not in (ICR, TSC_DEADLINE)):
            return False
        if register == SVR:
            self.svr = value & SVR_TAKEN
            if not self.enabled:
                self.lvt = {entry: self.lvt_entry(entry) | LVT_MASKED for entry in LVT_TAKEN}
        elif register == ICR:
            value &= ~BUSY
            self.icr = value
            delivery, logical, shorthand = value >> 8 & 7, bool(value & 1 << 11), value >> 18 & 3
            self.send(self.index, Message(value & 0xFF, delivery, value >> 32, logical, shorthand))
        elif register == INITIAL:
            if self.mode != DEADLINE:
                self.initial = value
                self.due = self.now() + self.initial * self.step if self.initial else None
        elif register == DIVIDE:
            self.set_divide(value & 0xB)
        elif register == TSC_DEADLINE:
            if self.mode == DEADLINE:
                self.due = value or None
        elif register == ESR:
            return not value
        elif register == SELF_IPI:
            if value > 0xFF:
                return False
            self.post(value)
        else:
            was = self.mode
            self.lvt[register] = (value if self.enabled else value | LVT_MASKED) & LVT_TAKEN[register]
            if (was == DEADLINE) != (self.mode == DEADLINE):
                self.due, self.initial = None, 0
        return True

    def set_divide(self, value: int) -> None:
        """Divide configuration; a count under way goes on at the new rate."""
        old, self.divide = self.step, value
        if self.due is not None and self.mode != DEADLINE:
            now = self.now()
            self.due = now + max(self.due - now, 0) * self.step // old

    @property
    def mode(self) -> int:
        """Timer mode."""
        return self.lvt.get(LVT_TIMER, 0) >> 17 & 3

    @property
    def step(self) -> int:
        """TSC ticks per timer tick (divide configuration: bits 3, 1, 0; 111b is 1)."""
        code = self.divide & 3 | self.divide >> 1 & 4
        return self.ticks << (code + 1 & 7)

    def tick(self, now: int) -> None:
        """Fires the timer if its time has come."""
        if self.due is None or self.due > now:
            return
        period = self.initial * self.step
        missed = (now - self.due) // period + 1 if period else 0
        self.due = self.due + period * missed if self.mode == PERIODIC and period else None
        entry = self.lvt.get(LVT_TIMER, LVT_MASKED)
        if not entry & LVT_MASKED:
            self.post(entry & 0xFF)
