"""How does a debugger stop and look into a TD? A server of gdb's remote serial protocol, on loopback only."""

from __future__ import annotations

import socket
import string
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from emu.debug import registers, walk
from emu.debug.remote import MAX_PACKET, Channel, Closed, unescape
from emu.ending import Ending
from emu.observe import Observer
from emu.signals import EmuError, End
from emu.view import Machine, Vcpu
from formats.units import PAGE

LOOPBACK = "127.0.0.1"
TRAP, INTERRUPT_SIGNAL, SEGV = 5, 2, 11
GOOD_ENDS = ("handoff", "console", "halt", "shutdown", "limit", "killed")
FEATURES = (
    f"PacketSize={MAX_PACKET:x};QStartNoAckMode+;qXfer:features:read+;swbreak+;hwbreak+;vContSupported+"
)
OK, REFUSED, NOTHING_THERE = "OK", "E01", "E0e"
WATCHES = {"2": ("watch", 2), "3": ("rwatch", 1), "4": ("awatch", 3)}  # name of the stop; TD_WATCH_*


@dataclass(frozen=True)
class Watch:
    """A watchpoint as gdb sets it."""

    kind: str
    address: int
    size: int

    @property
    def name(self) -> str:
        """In a stop reply."""
        return WATCHES[self.kind][0]


def number(text: str) -> int:
    """A hexadecimal number without sign or blanks. ValueError."""
    if not text or text.strip(string.hexdigits):
        raise ValueError(text)
    return int(text, 16)


class Debugger(Observer):
    """Waits for one gdb before the first instruction and obeys it. `say` gets a line for the person."""

    def __init__(self, port: int, say: Callable[[str], None]) -> None:
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self.listener.bind((LOOPBACK, port))
        except (OSError, OverflowError) as error:
            self.listener.close()
            raise EmuError(f"cannot listen on {LOOPBACK} port {port}: {error}") from None
        self.listener.listen(1)
        self.port = int(self.listener.getsockname()[1])
        self.say = say
        self.channel: Channel | None = None
        self.machine: Machine | None = None
        self.current = self.resumed = 0
        self.breakpoints: dict[int, int] = {}
        self.watches: dict[Watch, int] = {}
        self.hit: Watch | None = None
        self.first: int | None = None
        self.signal = TRAP

    # -- events of the run

    def on_start(self, machine: Machine) -> None:
        self.machine = machine
        self.say(f"waiting for gdb: target remote {LOOPBACK}:{self.port}")
        connection, _ = self.listener.accept()
        self.listener.close()
        self.channel = Channel(connection)
        boot = machine.vcpus[0]
        self.first = int(boot.regs.rip)
        boot.probe.break_set(self.first)

    def on_stop(self, vcpu: Vcpu) -> None:
        self.current = vcpu.index
        touched = vcpu.probe.watch_hit()
        self.hit = next((watch for watch, gpa in self.watches.items() if gpa == touched), None)
        if self.first is not None:
            vcpu.probe.break_clear(self.first)
            self.first = None
            self.converse(None)
        else:
            self.converse(TRAP)

    def on_slice(self, machine: Machine) -> None:
        try:
            if self.channel and self.channel.interrupted():
                self.converse(INTERRUPT_SIGNAL)
        except Closed:
            self.release()

    def on_end(self, machine: Machine, ending: Ending) -> None:
        reason = ending.end.reason
        self.current = ending.vcpu.index
        if reason not in GOOD_ENDS:
            self.say(f"gdb: stopped at the end: {reason}: {ending.end.detail}")
            with suppress(End):
                self.converse(SEGV)
        if self.channel:
            with suppress(Closed):
                self.channel.send("W00" if reason in GOOD_ENDS else "W01")
            self.channel.close()
            self.channel = None

    def close(self) -> None:
        """Frees the socket."""
        self.listener.close()
        if self.channel:
            self.channel.close()

    # -- the conversation while the guest stands

    @property
    def vcpus(self) -> Sequence[Vcpu]:
        assert self.machine is not None
        return self.machine.vcpus

    @property
    def vcpu(self) -> Vcpu:
        """The one that gdb looks at."""
        return self.vcpus[self.current]

    def stopped(self) -> str:
        """The stop reply."""
        text = f"T{self.signal:02x}thread:{self.current + 1:x};"
        if self.signal == TRAP and self.hit:
            text += f"{self.hit.name}:{self.hit.address:x};"
        elif self.signal == TRAP and int(self.vcpu.regs.rip) in self.breakpoints:
            text += "swbreak:;"
        return text

    def converse(self, signal: int | None) -> None:
        """Tells gdb of a stop and answers until it lets the guest run. None: gdb asks by itself."""
        if not self.channel:
            return
        self.signal, self.resumed = signal or TRAP, self.current
        try:
            if signal:
                self.channel.send(self.stopped())
            while True:
                packet = self.channel.receive()
                answer = self.answer(packet)
                if answer is None:
                    return
                self.channel.send(answer)
                if packet == b"QStartNoAckMode":
                    self.channel.acknowledge = False
                if packet[:1] == b"D":
                    raise Closed
        except Closed:
            self.release()

    def release(self) -> None:
        """The debugger has left: the guest runs on."""
        for address in self.breakpoints:
            self.set_break(address, False)
        self.breakpoints.clear()
        for watch in list(self.watches):
            self.watch(False, watch)
        for vcpu in self.vcpus:
            vcpu.probe.step(False)
        if self.channel:
            self.channel.close()
        self.channel = None

    def answer(self, packet: bytes) -> str | None:
        """Reply to one packet, None when the guest runs on; an empty one for what is not known."""
        try:
            return self.dispatch(packet)
        except (ValueError, IndexError):
            return REFUSED

    def dispatch(self, packet: bytes) -> str | None:
        """By the packet's first letter."""
        if packet[:1] == b"X":
            head, _, data = packet[1:].partition(b":")
            return self.write_memory(head.decode("ascii"), unescape(data))
        text = packet.decode("ascii")
        kind, rest = text[:1], text[1:]
        match kind:
            case "?":
                return self.stopped()
            case "g":
                found = registers.values(self.vcpu)
                return "".join(registers.encode(r, found) for r in registers.REGISTERS)
            case "p":
                return registers.encode(registers.REGISTERS[number(rest)], registers.values(self.vcpu))
            case "P":
                which, _, value = rest.partition("=")
                register, raw = registers.REGISTERS[number(which)], bytes.fromhex(value)
                fits = len(raw) == register.bits // 8
                done = fits and registers.assign(self.vcpu, register.name, int.from_bytes(raw, "little"))
                return OK if done else REFUSED
            case "G":
                return self.write_all(rest)
            case "m":
                address, size = (number(part) for part in rest.split(","))
                found_there = walk.read(self.vcpu.regs, self.vcpu.memory, address, min(size, MAX_PACKET // 4))
                return NOTHING_THERE if found_there is None else found_there.hex()
            case "M":
                place, _, digits = rest.partition(":")
                return self.write_memory(place, bytes.fromhex(digits))
            case "Z" | "z":
                return self.breakpoint(kind == "Z", rest)
            case "c" | "s" | "C" | "S":
                self.resume({self.resumed} if kind in "sS" else set())
                return None
            case "H":
                return self.select(rest[0], int(rest[1:], 16))
            case "T":
                return OK if 1 <= number(rest) <= len(self.vcpus) else REFUSED
            case "D":
                return OK
            case "k":
                raise End("killed", "the debugger ended the run")
        return self.query(text)

    def select(self, what: str, thread: int) -> str:
        """H: whose registers, or who steps; 0 and -1 leave it as it is."""
        if thread > len(self.vcpus):
            return REFUSED
        if thread > 0 and what == "g":
            self.current = thread - 1
        elif thread > 0:
            self.resumed = thread - 1
        return OK

    def query(self, text: str) -> str | None:
        """Packets with a name."""
        if text.startswith("vCont;"):
            self.continue_with(text[6:])
            return None
        if text.startswith("vKill"):
            raise End("killed", "the debugger ended the run")
        if text.startswith("qXfer:features:read:target.xml:"):
            start, size = (number(part) for part in text.rpartition(":")[2].split(","))
            whole = registers.description()
            part = whole[start : start + size]
            return ("m" if start + size < len(whole) else "l") + part
        if text.startswith("qSupported"):
            return FEATURES
        if text.startswith("qThreadExtraInfo,"):
            vcpu = self.vcpus[int(text.partition(",")[2], 16) - 1]
            note = f"vCPU {vcpu.index}{', halted' if vcpu.halted else ''}, {vcpu.count:,} instructions"
            return note.encode().hex()
        fixed = {
            "vCont?": "vCont;c;C;s;S",
            "QStartNoAckMode": OK,
            "qAttached": "1",
            "qC": f"QC{self.current + 1:x}",
            "qfThreadInfo": "m" + ",".join(f"{n + 1:x}" for n in range(len(self.vcpus))),
            "qsThreadInfo": "l",
        }
        return fixed.get(text, "")

    def continue_with(self, actions: str) -> None:
        """vCont: a step applies to the threads it names, everything else runs."""
        stepping: set[int] = set()
        for action in actions.split(";"):
            word, _, thread = action.partition(":")
            if word[:1] in ("s", "S"):
                named = int(thread, 16) if thread else 0  # 0 and -1: any
                stepping.add(named - 1 if named > 0 else self.resumed)
        self.resume(stepping)

    def resume(self, stepping: set[int]) -> None:
        """Arms steps and lets the guest leave the breakpoint it stands at."""
        for index, vcpu in enumerate(self.vcpus):
            vcpu.probe.step(index in stepping)
        stood = self.vcpus[self.resumed]
        stood.probe.break_pass()

    def set_break(self, address: int, on: bool) -> bool:
        """On every vCPU."""
        if not on:
            for vcpu in self.vcpus:
                vcpu.probe.break_clear(address)
            return True
        return all(vcpu.probe.break_set(address) for vcpu in self.vcpus)

    def breakpoint(self, on: bool, rest: str) -> str:
        """Z and z: software and hardware breakpoints are the same here."""
        kind, address_text, size_text = rest.split(",", 2)
        address = number(address_text)
        if kind in WATCHES:
            return self.watch(on, Watch(kind, address, number(size_text)))
        if kind not in ("0", "1"):
            return ""
        users = self.breakpoints.get(address, 0) + (1 if on else -1)
        if on and users == 1 and not self.set_break(address, True):
            return REFUSED
        if users > 0:
            self.breakpoints[address] = users
        elif address in self.breakpoints:
            del self.breakpoints[address]
            self.set_break(address, False)
        return OK

    def watch(self, on: bool, watch: Watch) -> str:
        """A watchpoint on every vCPU: on the memory that its address leads to now."""
        if on == (watch in self.watches):
            return OK
        current, accesses = self.vcpu, WATCHES[watch.kind][1]
        if not on:
            gpa = self.watches.pop(watch)
            for vcpu in self.vcpus:
                vcpu.probe.watch_clear(gpa, watch.size, accesses)
            return OK
        found = walk.translate(current.regs, current.memory, watch.address)
        if found is None or not 0 < watch.size <= PAGE - watch.address % PAGE:
            return REFUSED
        if not all(vcpu.probe.watch_set(found, watch.size, accesses) for vcpu in self.vcpus):
            return REFUSED
        self.watches[watch] = found
        return OK

    def write_memory(self, head: str, data: bytes) -> str:
        """M and X."""
        address = number(head.split(",")[0])
        vcpu = self.vcpu
        if not walk.write(vcpu.regs, vcpu.memory, address, data):
            return NOTHING_THERE
        for other in self.vcpus:
            other.probe.forget_code()
        return OK

    def write_all(self, digits: str) -> str:
        """G: what cannot be set is left alone."""
        for register in registers.REGISTERS:
            part, digits = digits[: register.bits // 4], digits[register.bits // 4 :]
            if register.available and "x" not in part:
                value = int.from_bytes(bytes.fromhex(part), "little")
                registers.assign(self.vcpu, register.name, value)
        return OK
