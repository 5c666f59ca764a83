"""How does the VMM answer TDG.VP.VMCALL? The GHCI sub-functions as KVM (Linux arch/x86/kvm/vmx/tdx.c) and
QEMU (target/i386/kvm/tdx.c) answer them, honest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from emu.cpu import pagestate
from emu.cpu.apic import EMULATED as APIC_EMULATED
from emu.cpu.apic import FIXED, LocalApic, Message
from emu.cpu.memory import Memory
from emu.signals import End
from emu.tdx.msr import ARCH_CAPABILITIES
from emu.vmm import kvm_msr, quote
from emu.vmm.devices.bus import Ports
from emu.vmm.policy import Call, Policy
from formats import ghci
from formats.ghci import Function
from formats.registers import R10, R11, R12, R13, R14, R15, RCX, Gpr
from formats.tdx import status
from formats.units import LARGE_PAGE, PAGE

KVM_FEATURE_MSI_EXT_DEST_ID = 1 << 15  # Linux Documentation/virt/kvm/x86/cpuid.rst; for APIC ids above 255
MAP_GPA_PIECE = LARGE_PAGE  # KVM's TDX_MAP_GPA_MAX_LEN
NO_HYPERCALL = -1000 & (1 << 64) - 1  # -KVM_ENOSYS (x86.c ____kvm_emulate_hypercall)
OPTIONAL_FUNCTIONS = 1 << 1  # GetTdVmCallInfo: SetupEventNotifyInterrupt (QEMU target/i386/kvm/tdx.c)

MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1


@dataclass
class Vmm:
    """State of the untrusted side."""

    memory: Memory
    ports: Ports
    vcpus: int
    on_idle: Callable[[int, bool], None]
    policy: Policy = field(default_factory=Policy)
    apics: list[LocalApic] = field(default_factory=list)
    vmcalls: Counter[str] = field(default_factory=Counter)
    msrs: dict[tuple[int, int], int] = field(default_factory=dict)
    map_gpa_retry: bool = False  # RETRY after each piece, whether an interrupt waits or not
    mcg_cap: int = kvm_msr.MCG_CAP_KVM
    notify: tuple[int, int] | None = None  # vCPU and vector of the event notification

    def handle(self, index: int, r: Gpr) -> None:
        """Answers one TDG.VP.VMCALL of vCPU `index`; only registers selected in RCX have reached the VMM, and
        RCX itself (tdg_vp_vmcall.c copy_gprs_data_from_td_to_vmm).
        """
        mask = r[RCX]
        seen = [value if mask >> number & 1 else 0 for number, value in enumerate(r)]
        seen[RCX] = mask
        known = ghci.NAMES.get(seen[R11], f"sub-function {seen[R11]:#x}")
        name = f"vendor {seen[R10]:#x}" if seen[R10] else known
        self.vmcalls[name] += 1
        handler = Vmm.hypercall if seen[R10] else HANDLERS.get(seen[R11], Vmm.unsupported)
        if self.policy.watches_calls:
            self.ask_policy(Call(index, name, seen.copy(), seen), handler)
        else:
            seen[R10] = handler(self, index, seen)
        for number in range(2, 16):
            if mask >> number & 1:
                r[number] = seen[number] & (1 << 64) - 1
        r[0] = status.SUCCESS

    def ask_policy(self, call: Call, handler: Handler) -> None:
        """A call as the policy wants it answered."""
        r = call.answer
        refused = self.policy.on_call(call)
        if refused is not None:
            r[R10] = refused
            return
        try:
            r[R10] = handler(self, call.vcpu, r)
        except End as end:
            r[R10] = ghci.SUCCESS
            self.policy.on_end(call, end)
        self.policy.on_answer(call)

    def unsupported(self, index: int, r: Gpr) -> int:
        """Every number that is not in HANDLERS (handle_tdvmcall)."""
        return ghci.SUBFUNC_UNSUPPORTED

    def hypercall(self, index: int, r: Gpr) -> int:
        """R10 is the number of a hypercall of KVM's own, of which this VMM has none (tdx_emulate_vmcall)."""
        return NO_HYPERCALL

    def cpuid(self, index: int, r: Gpr) -> int:
        """0x0A: the hypervisor leaves, KVM's signature and one feature."""
        leaf = r[R12] & 0xFFFFFFFF
        r[R12] = r[R13] = r[R14] = r[R15] = 0
        if leaf == 0x40000000:
            r[R12], r[R13], r[R14], r[R15] = 0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D
        elif leaf == 0x40000001:
            r[R12] = KVM_FEATURE_MSI_EXT_DEST_ID
        elif leaf in (0xB, 0x1F):
            r[R15] = self.apics[index].apic_id
        return ghci.SUCCESS

    def hlt(self, index: int, r: Gpr) -> int:
        """0x0C."""
        self.on_idle(index, bool(r[R12]))
        return ghci.SUCCESS

    def io(self, index: int, r: Gpr) -> int:
        """0x1E; KVM passes the low 16 bits of the port on, whatever is above them (tdx_emulate_io)."""
        size, write, port, value = r[R12], r[R13], r[R14] & 0xFFFF, r[R15]
        if size not in (1, 2, 4) or write > 1:
            return ghci.INVALID_OPERAND
        if write:
            self.ports.write(port, size, value & (1 << 8 * size) - 1)
        else:
            r[R11] = self.ports.read(port, size)
        return ghci.SUCCESS

    def rdmsr(self, index: int, r: Gpr) -> int:
        """0x1F; the number is ECX, 32 bits (tdx_handle_exit)."""
        msr = r[R12] & MASK32
        if msr in APIC_EMULATED:
            value = self.apics[index].read(msr)
        else:
            value = kvm_msr.read(self.msrs, index, msr, self.mcg_cap, ARCH_CAPABILITIES)
        if value is None:
            return ghci.INVALID_OPERAND
        r[R11] = value
        return ghci.SUCCESS

    def wrmsr(self, index: int, r: Gpr) -> int:
        """0x20."""
        msr, value = r[R12] & MASK32, r[R13]
        if msr in APIC_EMULATED:
            done = self.apics[index].write(msr, value)
        else:
            done = kvm_msr.write(self.msrs, index, msr, value, self.mcg_cap, ARCH_CAPABILITIES)
        return ghci.SUCCESS if done else ghci.INVALID_OPERAND

    def mmio(self, index: int, r: Gpr) -> int:
        """0x30: with a private GPA, which is one without the shared bit, it is refused (tdx_emulate_mmio).
        Address bits above the shared one are not looked at: no device is there. Shared RAM is served, too.
        """
        size, write, gpa, bit = r[R12], r[R13], r[R14], self.memory.shared_bit
        if size not in (1, 2, 4, 8) or write > 1:
            return ghci.INVALID_OPERAND
        if not gpa & bit or not gpa + size - 1 & MASK64 & bit:
            return ghci.INVALID_OPERAND
        gpa &= ~bit
        memory = self.memory
        ends = {memory.state(at) & pagestate.STATE for at in (gpa, gpa + size - 1)}
        if ends == {pagestate.SHARED}:
            if write:
                memory.write(gpa, r[R15].to_bytes(8, "little")[:size], shared=True)
            else:
                r[R11] = int.from_bytes(memory.read(gpa, size, shared=True), "little")
        elif write:
            self.ports.write_memory(gpa, size, r[R15] & (1 << 8 * size) - 1)
        else:
            r[R11] = self.ports.read_memory(gpa, size)
        return ghci.SUCCESS

    def call_info(self, index: int, r: Gpr) -> int:
        """0x10000: R12 = 0 asks whether all base functions are there, 1 which optional ones."""
        if r[R12] > 1:
            return ghci.INVALID_OPERAND
        r[R11] = OPTIONAL_FUNCTIONS if r[R12] else 0
        r[R12] = r[R13] = r[R14] = 0
        return ghci.SUCCESS

    def map_gpa(self, index: int, r: Gpr) -> int:
        """0x10001: converts memory between private and shared, piece by piece as KVM does (vmx/tdx.c,
        tdx_map_gpa): RETRY with the next GPA when an interrupt waits. R11 keeps the shared bit, and the
        sub-function's number where nothing is left to do.
        """
        given, number, bit = r[R12], r[R11], self.memory.shared_bit
        end = given + r[R13]
        r[R11] = given
        if not r[R13] or end > 2 * bit or (given ^ end - 1) & bit:
            return ghci.INVALID_OPERAND
        if given % PAGE or end % PAGE:
            return ghci.ALIGN_ERROR
        to_shared = bool(given & bit)
        for piece in range(given, end, MAP_GPA_PIECE):
            r[R11] = piece
            if piece > given and (self.map_gpa_retry or self.apics[index].wanted):
                return ghci.RETRY
            if to_shared and piece & ~bit >= self.memory.span:
                break  # nothing but device memory from here on
            if not self.convert(piece & ~bit, min(MAP_GPA_PIECE, end - piece), to_shared):
                return ghci.INVALID_OPERAND
        r[R11] = number
        return ghci.SUCCESS

    def convert(self, start: int, size: int, to_shared: bool) -> bool:
        """Converts RAM, whose content is lost both ways (QEMU accel/kvm/kvm-all.c kvm_convert_memory). Device
        memory is shared already, and stays so: False when it is to become private.
        """
        memory, lib = self.memory, self.memory.lib
        states = {gpa: memory.state(gpa) & pagestate.STATE for gpa in range(start, start + size, PAGE)}
        if not to_shared and pagestate.UNMAPPED in states.values():
            return False
        memory.split(start, size)
        wanted = pagestate.SHARED if to_shared else pagestate.PENDING
        for gpa, state in states.items():
            if state != pagestate.UNMAPPED and (state == pagestate.SHARED) != to_shared:
                (lib.td_discard if to_shared else lib.td_discard_shared)(memory.vm, gpa, PAGE)
                memory.set_states(gpa, PAGE, wanted)
        return True

    def get_quote(self, index: int, r: Gpr) -> int:
        """0x10002: answered at once, with a text in place of a quote; then the notification. The checks are
        KVM's (tdx_get_quote) and QEMU's (tdx_handle_get_quote); of a private page a VMM sees zeros.
        """
        memory = self.memory
        gpa, size = r[R12] & ~memory.shared_bit, r[R13]
        if not r[R12] & memory.shared_bit or not size:
            return ghci.INVALID_OPERAND
        if gpa % PAGE or size % PAGE:
            return ghci.ALIGN_ERROR
        if size > quote.MAX_BUFFER or gpa + size > memory.span:
            return ghci.INVALID_OPERAND
        pages = range(gpa, gpa + size, PAGE)
        if any(memory.state(page) & pagestate.STATE != pagestate.SHARED for page in pages):
            return ghci.INVALID_OPERAND
        buffer = memory.read(gpa, size, shared=True)
        if not quote.is_request(buffer):
            return ghci.INVALID_OPERAND
        memory.write(gpa, quote.answer(buffer).write(buffer), shared=True)
        if self.notify:
            target, vector = self.notify
            self.ports.interrupt(Message(vector, FIXED, self.apics[target].apic_id, logical=False))
        return ghci.SUCCESS

    def fatal(self, index: int, r: Gpr) -> int:
        """0x10003: the text of the guest ends the run; registers that are not selected leave no gap
        (tdx_handle_report_fatal_error).
        """
        carriers = (number for number in ghci.FATAL_TEXT if r[RCX] >> number & 1)
        raw = b"".join(r[number].to_bytes(8, "little") for number in carriers)
        text = raw.split(b"\0", 1)[0].decode("ascii", "backslashreplace")
        raise End("fatal", f"{text} (code {r[R12]:#x})" if r[R12] or not text else text)

    def notify_interrupt(self, index: int, r: Gpr) -> int:
        """0x10004: the vector that says a quote is there, for the vCPU that asked."""
        if not 32 <= r[R12] <= 255:
            return ghci.INVALID_OPERAND
        self.notify = (index, r[R12])
        return ghci.SUCCESS


Handler = Callable[[Vmm, int, Gpr], int]
HANDLERS: dict[int, Handler] = {
    Function.CPUID: Vmm.cpuid,
    Function.HLT: Vmm.hlt,
    Function.IO: Vmm.io,
    Function.RDMSR: Vmm.rdmsr,
    Function.WRMSR: Vmm.wrmsr,
    Function.MMIO: Vmm.mmio,
    Function.GET_TD_VM_CALL_INFO: Vmm.call_info,
    Function.MAP_GPA: Vmm.map_gpa,
    Function.GET_QUOTE: Vmm.get_quote,
    Function.REPORT_FATAL_ERROR: Vmm.fatal,
    Function.SETUP_EVENT_NOTIFY_INTERRUPT: Vmm.notify_interrupt,
}
