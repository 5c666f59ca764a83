"""What is the Python side of a machine's state, and how does it become plain data and come back? Every class
whose objects hold state is listed here with the fields that are not state; an object of any other class, and
an object that is reached twice, is refused by its place. So nothing is left out without a line that says so.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any

from emu.cpu.apic import LocalApic
from emu.eventlog import Log
from emu.handoff import Handoff
from emu.machine import Console, Machine
from emu.schedule import Schedule
from emu.signals import EmuError, End, VirtualizationException
from emu.tdx.module import TdxModule, VcpuModel
from emu.tdx.params import Choices, TdParams
from emu.vcpu import Vcpu
from emu.vmm.devices.bus import Ports
from emu.vmm.devices.clock import Clock
from emu.vmm.devices.fw_cfg import FwCfg
from emu.vmm.devices.ich9 import Pm, Reset
from emu.vmm.devices.ioapic import IoApic
from emu.vmm.devices.pci import Function, Pci
from emu.vmm.devices.power import PmTimer, Power
from emu.vmm.devices.uart import Uart
from emu.vmm.hostile.fw_cfg import HostileFwCfg, LyingFwCfg, LyingPci
from emu.vmm.hostile.policy import Hostile
from emu.vmm.hosts.alioth import AliothFwCfg
from emu.vmm.policy import Policy
from emu.vmm.vmcall import Vmm

# Objects that are there in every machine of one configuration: they are changed in place. By class, the
# fields that are set when a machine is built, lead to an object whose home is elsewhere, or watch the run.
PARTS: Mapping[type, frozenset[str]] = {
    Machine: frozenset(("config", "ffi", "lib", "vm", "memory", "launch", "symbols", "observer", "keyboard")),
    Console: frozenset(("until", "listener")),
    TdxModule: frozenset(("params", "memory", "topology")),
    Vmm: frozenset(("memory", "on_idle", "apics")),
    Ports: frozenset(("send", "interrupt", "elapsed", "epoch", "cmos", "devices", "host")),
    Uart: frozenset(("send", "line")),
    IoApic: frozenset(("send", "version")),
    Power: frozenset(("switches",)),
    PmTimer: frozenset(("port", "elapsed")),
    Reset: frozenset(),
    Pci: frozenset(),
    Function: frozenset(("mask",)),
    Pm: frozenset(("pci", "elapsed", "line")),
    FwCfg: frozenset(("dma", "items", "late", "build", "writable")),
    AliothFwCfg: frozenset(("dma", "items", "late", "build", "writable")),
    Clock: frozenset(("elapsed", "epoch", "cmos")),
    Policy: frozenset(),
    Hostile: frozenset(("device",)),
    HostileFwCfg: frozenset(("device",)),
    LyingFwCfg: frozenset(("dma", "items", "late", "build", "writable")),
    LyingPci: frozenset(),
    Vcpu: frozenset(
        (
            *("ffi", "lib", "handle", "names", "after_call", "probe", "observer", "stop"),
            *("module", "vmm", "memory"),
        )
    ),
    VcpuModel: frozenset(),
    LocalApic: frozenset(("now", "send")),
    Schedule: frozenset(("vcpus", "wait")),
}
# Objects that come and go: they are made anew from all their fields
VALUES: tuple[type, ...] = (Handoff, Log, End, VirtualizationException, TdParams, Choices)
PLAIN = (type(None), bool, int, float, str)
SEQUENCES: Mapping[str, type] = {kind.__name__: kind for kind in (tuple, list, set, frozenset, deque)}
MAPPINGS: Mapping[str, type] = {kind.__name__: kind for kind in (dict, Counter)}
BY_NAME: Mapping[str, type] = {kind.__name__: kind for kind in (*PARTS, *VALUES)}


def capture(value: Any, place: str = "machine", seen: dict[int, str] | None = None) -> Any:
    """Data for json.dumps. EmuError names what cannot be saved."""
    seen = {} if seen is None else seen
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind in (bytes, bytearray):
        return {kind.__name__: bytes(value).hex()}
    if kind is random.Random:
        return {"Random": capture(value.getstate(), place, seen)}
    if kind.__name__ in SEQUENCES and kind is SEQUENCES[kind.__name__]:
        items = sorted(value) if isinstance(value, set | frozenset) else value
        return {kind.__name__: [capture(item, f"{place}[{at}]", seen) for at, item in enumerate(items)]}
    if kind.__name__ in MAPPINGS and kind is MAPPINGS[kind.__name__]:
        pairs = [[capture(k, place, seen), capture(v, f"{place}[{k!r}]", seen)] for k, v in value.items()]
        return {kind.__name__: pairs}
    if kind not in PARTS and kind not in VALUES:
        raise EmuError(f"this machine cannot be saved: {place} is a {kind.__name__}")
    if kind in PARTS:
        if id(value) in seen:
            raise EmuError(f"this machine cannot be saved: {place} is {seen[id(value)]}, too")
        seen[id(value)] = place
    outside = PARTS.get(kind, frozenset())
    fields = {name: part for name, part in vars(value).items() if name not in outside}
    return {kind.__name__: {name: capture(part, f"{place}.{name}", seen) for name, part in fields.items()}}


def restore(data: Any, current: Any = None) -> Any:
    """The value of captured data. Objects of PARTS, lists, dicts and byte arrays that are already there
    (`current`) are changed in place, so that everyone who shares them sees it. EmuError: data that was not
    captured here.
    """
    if not isinstance(data, dict):
        return data
    ((name, content),) = data.items()
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "bytearray":
        made = current if isinstance(current, bytearray) else bytearray()
        made[:] = bytes.fromhex(content)
        return made
    if name == "Random":
        source = current if isinstance(current, random.Random) else random.Random()
        source.setstate(restore(content))
        return source
    if name in SEQUENCES:
        return _restore_items(SEQUENCES[name], content, current)
    if name in MAPPINGS:
        return _restore_mapping(MAPPINGS[name], content, current)
    kind = BY_NAME.get(name)
    if kind in VALUES:
        return kind(**{field: restore(value) for field, value in content.items()})
    if kind is None or type(current) is not kind:
        raise EmuError(f"snapshot: a {name} in place of a {type(current).__name__}")
    if set(content) != set(vars(current)) - PARTS[kind]:
        raise EmuError(f"snapshot: a {name} with other fields")
    for field, value in content.items():
        setattr(current, field, restore(value, getattr(current, field)))
    return current


def _restore_items(kind: type, content: list[Any], current: Any) -> Any:
    old = list(current) if isinstance(current, list | tuple | deque) else []
    old += [None] * (len(content) - len(old))
    items = [restore(item, was) for item, was in zip(content, old, strict=False)]
    if isinstance(current, list | deque) and type(current) is kind:
        current.clear()
        current.extend(items)
        return current
    return kind(items)


def _restore_mapping(kind: type, content: list[list[Any]], current: Any) -> Any:
    target: Any = current if type(current) is kind else kind()
    pairs = [(restore(key), value) for key, value in content]
    values = {key: restore(value, target.get(key)) for key, value in pairs}
    target.clear()
    dict.update(target, values)
    return target
