"""Whose turn is it? A deterministic order of the vCPUs over one virtual time, with a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.vcpu import Vcpu

QUANTUM = 20_000  # TSC ticks of a turn while several vCPUs run, give or take half of it
ALONE = 20_000_000  # of a turn while all others sleep
LONGEST_REST = 5  # a vCPU that only spins rests for up to 2**5 turns
SPINS = 16  # PAUSE instructions after which a turn is over
NEVER = 1 << 63


def forever(ticks: int | None) -> bool:
    """Nobody outside will ever send anything."""
    return False


@dataclass(frozen=True)
class Turn:
    """One vCPU's turn, up to a time."""

    vcpu: Vcpu
    end: int


@dataclass
class Schedule:
    """Whoever wants to run by `now` gets a turn in this round; a sleeper catches up when it wakes."""

    vcpus: list[Vcpu]
    seed: int = 0
    wait: Callable[[int | None], bool] = forever
    now: int = 0
    end: int = 0  # of this round
    queue: list[int] = field(default_factory=list)  # vCPUs whose turn of this round is not over
    alone: bool = False
    cut: bool = False  # the turn ends early: somebody else has to run
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    @property
    def time(self) -> int:
        """What time it is for the vCPU whose turn it is."""
        return max(self.now, self.vcpus[self.queue[0]].time) if self.queue else self.now

    def due(self, vcpu: Vcpu) -> int:
        """When a vCPU wants to run."""
        apic = vcpu.apic
        if apic.nmi or (apic.wanted and not (vcpu.halted and vcpu.deaf)):
            return self.now
        if vcpu.halted:
            return NEVER if apic.due is None or vcpu.deaf else apic.due
        return vcpu.rests_until

    def next(self) -> Turn | None:
        """The turn to be run now; None when no vCPU will ever run again."""
        while True:
            while self.queue:
                vcpu = self.vcpus[self.queue[0]]
                vcpu.catch_up(self.now)
                vcpu.apic.tick(vcpu.time)
                if vcpu.halted and vcpu.apic.wanted and self.due(vcpu) <= self.now:
                    vcpu.halted = False
                if not vcpu.halted:
                    return Turn(vcpu, self.end)
                self.done()
            if not self.plan():
                return None

    def plan(self) -> bool:
        """A new round; False when nobody is left."""
        times = [self.due(vcpu) for vcpu in self.vcpus]
        first = min(times)
        while first > self.now and self.wait(first - self.now if first < NEVER else None):
            times = [self.due(vcpu) for vcpu in self.vcpus]
            first = min(times)
        if first >= NEVER:
            return False
        self.now = max(self.now, first)
        self.queue = [index for index, time in enumerate(times) if time <= self.now]
        self.alone = len(self.queue) == 1
        if self.alone:
            self.end = min([self.now + ALONE, *(time for time in times if time > self.now)])
        else:
            self.end = self.now + self.chance.randrange(QUANTUM // 2, QUANTUM * 3 // 2)
            self.chance.shuffle(self.queue)
        return True

    def woken(self) -> None:
        """Somebody got an interrupt; a vCPU that runs alone makes room."""
        self.cut = self.alone

    def done(self) -> None:
        """The turn is over."""
        last = self.vcpus[self.queue.pop(0)]
        if not self.queue:
            self.now = min(self.end, max(self.now, last.time)) if self.cut else self.end
        self.cut = False

    def spun(self, turn: Turn) -> None:
        """The vCPU did nothing but wait: it rests, longer each time."""
        vcpu = turn.vcpu
        vcpu.rests_until = turn.end + (QUANTUM << min(vcpu.spins, LONGEST_REST) >> 1)
        vcpu.spins += 1
