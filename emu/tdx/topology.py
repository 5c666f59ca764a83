"""Which APIC ids does the host give its vCPUs, and which topology do they show in CPUID leaves 0xB and 0x1F?

Numbering: QEMU include/hw/i386/topology.h (package, core and thread, each in as many bits as it needs); so do
Cloud Hypervisor and Alioth. Levels: Intel SDM volume 2A, CPUID leaf 0BH.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from emu.signals import EmuError

LEVELS = ("sockets", "cores", "threads")
SMT, CORE = 1, 2  # level types, ECX[15:8]
LARGEST = (1 << 32) - 2  # all ones is everybody's


@dataclass(frozen=True)
class Topology:
    """APIC ids by VCPU_INDEX. An id's lowest `thread_bits` are the thread's, those below `package_bits` the
    core's.
    """

    ids: tuple[int, ...]
    threads: int
    thread_bits: int
    per_package: int
    package_bits: int

    def leaf(self, subleaf: int, index: int) -> tuple[int, int, int, int]:
        """CPUID leaf 0xB or 0x1F of vCPU `index`: EAX, EBX, ECX, EDX."""
        levels = ((self.thread_bits, self.threads, SMT), (self.package_bits, self.per_package, CORE))
        bits, count, kind = levels[subleaf] if subleaf < len(levels) else (0, 0, 0)
        return bits, count, kind << 8 | subleaf & 0xFF, self.ids[index]


def _width(count: int) -> int:
    return (count - 1).bit_length()


def _of_levels(sockets: int, cores: int, threads: int, vcpus: int) -> Topology:
    if sockets * cores * threads != vcpus:
        shown = f"{sockets} sockets with {cores} cores of {threads} threads"
        raise EmuError(f"apic ids: {shown} are {sockets * cores * threads} vCPUs, the TD has {vcpus}")
    low, high = _width(threads), _width(threads) + _width(cores)
    ids = tuple(
        index // (cores * threads) << high | index // threads % cores << low | index % threads
        for index in range(vcpus)
    )
    return Topology(ids, threads, low, cores * threads, high)


def parse(text: str, vcpus: int) -> Topology:
    """`0,2,1`: an id for each vCPU, in the order of their indices; `sockets=2,cores=3,threads=1`: as QEMU
    numbers these; nothing: index and id are the same. EmuError.
    """
    if not text:
        return _of_levels(1, vcpus, 1, vcpus)
    parts = text.split(",")
    if "=" in text:
        pairs = [re.fullmatch(r"(\w+)=([1-9]\d{0,4})", part) for part in parts]
        found = {pair[1]: int(pair[2]) for pair in pairs if pair and pair[1] in LEVELS}
        if len(found) != len(parts):
            raise EmuError(f"apic ids {text!r}: expected numbers of {', '.join(LEVELS)}")
        sockets, cores, threads = (found.get(level, 1) for level in LEVELS)
        return _of_levels(sockets, cores, threads, vcpus)
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise EmuError(f"apic ids {text!r}: expected numbers, or sockets=S,cores=C,threads=T")
    ids = tuple(map(int, parts))
    if len(ids) != vcpus:
        raise EmuError(f"apic ids {text!r}: {len(ids)} of them for {vcpus} vCPUs")
    if len(set(ids)) != len(ids) or max(ids) > LARGEST:
        raise EmuError(f"apic ids {text!r}: expected different numbers up to {LARGEST:#x}")
    return Topology(ids, 1, 0, vcpus, max(ids).bit_length())
