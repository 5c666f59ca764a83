"""How do tests run the code of a flow? In Unicorn, with a Python function for everything the flow calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from machinecode import Link
from unicorn import UC_ARCH_X86, UC_HOOK_CODE, UC_MODE_64, Uc
from unicorn import x86_const as x86

from dsl.api import check_source
from dsl.model import Firmware
from gen.core.layout import emit_layout
from gen.flow import flow_unit
from gen.flow.context import Context, context_of
from gen.flow.names import CONTEXT, primitive_symbol
from gen.primitives import emit_primitives
from gen.x86 import Unit, listing

BASE, CALLEES, HEAP, STACK, END = 0x40_0000, 0x5000_0000, 0x6000_0000, 0x7000_0000, 0x5100_0000
SIZE = 0x10_0000
ARGUMENTS = tuple(getattr(x86, f"UC_X86_REG_{name}") for name in ("RDI", "RSI", "RDX", "RCX", "R8", "R9"))
TDCALLS = (
    "tdcall_vp_info",
    "tdcall_report",
    "tdcall_rtmr_extend",
    "tdcall_accept_run",
    "tdcall_accept_shared",
    "tdcall_vm_rd",
    "tdcall_vm_wr",
    "tdcall_apic_id",
    "ordinary_start",
    "ordinary_topology",
    "tdvmcall",
    "tdvmcall_io_write",
    "tdvmcall_io_read",
    "tdvmcall_map_gpa",
    "fatal",
    "fatal_accept",
    "memcmp",
    "memmove",
)
DATA = (
    "ap_gate",
    "ap_mailbox",
    "ap_enumerated",
    "ap_ids",
    "ap_shared",
    "paging_cpu_ids",
    "__text_start",
    "__text_end",
    "__rodata_start",
    "__rodata_end",
    "ap_reset",
    "ap_reset_end",
)
SHIPPED = Path(__file__).resolve().parents[2] / "dsl/flows/linux.tdf"

Callee = Callable[["FlowCpu", tuple[int, ...]], int | None]


def firmware_with(flows: str) -> Firmware:
    """The shipped firmware with further flows."""
    return check_source(
        SHIPPED.read_text() + "uses vmm, quote, fw_cfg, q35, host_acpi\n" + flows, "tests/flow.tdf"
    ).require()


class Fatal(Exception):
    """The flow ended in `fatal`; the text is what the VMM would have been sent."""


class FlowCpu:
    """Code of a firmware, ready to be called; `callees` by symbol, `calls` in order."""

    def __init__(self, firmware: Firmware, link: Link, primitives: bool = False) -> None:
        self.firmware = firmware
        self.context: Context = context_of(firmware)
        units = [flow_unit(firmware, page_tables_used=7)]
        rest = Unit("rest")
        emit_layout(rest, firmware)
        generated = Unit("primitives")
        if primitives:
            emit_primitives(generated, firmware, self.context)
            units.append(generated)
        own = {block.name for unit in units for block in unit.blocks}
        every = (primitive_symbol(each) for each in firmware.primitives.values())
        outside = [name for name in (*every, *TDCALLS) if name not in own]
        self._callee_at = {CALLEES + 16 * i: name for i, name in enumerate(outside)}
        fixed = [f"PROVIDE({name} = {at:#x});" for at, name in self._callee_at.items()]
        fixed += [f"PROVIDE({name} = {HEAP + 0x1000 * i:#x});" for i, name in enumerate(DATA)]
        fixed += ["region_code_start = 0x12340000;", "region_code_end = 0x12350000;"]
        fixed += ["region_code_size = 0x10000;", "__data_start = 0x12341000;", "__data_end = 0x12342000;"]
        sections = "*(.text .text.*) *(.rodata .rodata.*) . = ALIGN(4096); *(.data .data.*)"
        script = f"{' '.join(fixed)} SECTIONS {{ . = {BASE:#x}; .all : {{ {sections} }} }}"
        self.image = link([listing(unit) for unit in (*units, rest)], script=script)
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.callees: dict[str, Callee] = {}
        self._failed: Exception | None = None
        self.cpu = Uc(UC_ARCH_X86, UC_MODE_64)
        for start in (BASE, CALLEES, HEAP, STACK):
            self.cpu.mem_map(start, SIZE)
        self.cpu.mem_map(END, 0x1000)
        self.cpu.mem_write(CALLEES, b"\xc3" * SIZE)
        for start, content in self.image.segments:
            self.cpu.mem_write(start, content)
        self.cpu.hook_add(UC_HOOK_CODE, self._called, begin=CALLEES, end=CALLEES + SIZE - 1)
        self._heap = HEAP + 0x10000

    # ---------------------------------------------------------------- memory

    def place(self, content: bytes) -> int:
        """Puts bytes into fresh memory; returns their address."""
        address = self._heap
        self.write(address, content)
        self._heap += -(-len(content) // 64) * 64 + 64
        return address

    def span(self, content: bytes) -> int:
        """A span of these bytes; returns the address of the span."""
        data = self.place(content)
        return self.place(data.to_bytes(8, "little") + len(content).to_bytes(8, "little"))

    def write(self, address: int, content: bytes) -> None:
        self.cpu.mem_write(address, content)

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.cpu.mem_read(address, size))

    def u64(self, address: int) -> int:
        return int.from_bytes(self.read(address, 8), "little")

    def put(self, address: int, *values: int) -> None:
        """64-bit words, one after the other."""
        self.write(address, b"".join(value.to_bytes(8, "little") for value in values))

    def bytes_of(self, span: int) -> bytes:
        """What a span covers."""
        return self.read(self.u64(span), self.u64(span + 8))

    def state(self, offset: int) -> int:
        """Address of a part of the context."""
        return self.image.symbols[CONTEXT] + offset

    def error(self, name: str) -> int:
        return next(error.number for error in self.firmware.errors if error.name == name)

    # ---------------------------------------------------------------- running

    def call(self, symbol: str, *arguments: int) -> int:
        """Runs a function to its return; gives RAX. Raises Fatal, or what a callee raised."""
        stack = STACK + SIZE - 0x1008
        self.put(stack, END)
        self.cpu.reg_write(x86.UC_X86_REG_RSP, stack)
        for register in (*ARGUMENTS, x86.UC_X86_REG_RAX):
            self.cpu.reg_write(register, 0xDEAD_BEEF_DEAD_BEEF)
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            self.cpu.reg_write(register, value)
        self.calls, self._failed = [], None
        self.cpu.reg_write(x86.UC_X86_REG_RBP, 0x1122_3344)
        self.cpu.emu_start(self.image.symbols[symbol], END)
        if self._failed is not None:
            raise self._failed
        assert self.cpu.reg_read(x86.UC_X86_REG_RSP) == stack + 8, "the stack is not where it was"
        assert self.cpu.reg_read(x86.UC_X86_REG_RBP) == 0x1122_3344, "RBP belongs to the caller"
        return int(self.cpu.reg_read(x86.UC_X86_REG_RAX))

    def value(self, symbol: str, *arguments: int) -> int:
        """Runs a flow with one word as its result; asserts that it did not fail."""
        out = self.place(bytes(8))
        status = self.call(symbol, *arguments, out)
        flow = self.firmware.flows[symbol.removeprefix("flow_")]
        assert not flow.fallible or status == 0, f"status {status}"
        return self.u64(out)

    def _called(self, cpu: Any, address: int, size: int, data: Any) -> None:
        name = self._callee_at[address]
        arguments = tuple(int(cpu.reg_read(register)) for register in ARGUMENTS)
        self.calls.append((name, arguments))
        try:
            assert cpu.reg_read(x86.UC_X86_REG_RSP) % 16 == 8, f"{name}: the stack is not aligned"
            if name == "fatal":
                raise Fatal(self.read(arguments[0], 64).rstrip(b"\0").decode())
            result = self.callees[name](self, arguments) if name in self.callees else 0
            # A callee may leave anything in the scratch registers.
            for register in ARGUMENTS:
                cpu.reg_write(register, 0xDEAD_BEEF_0000_0001)
            cpu.reg_write(x86.UC_X86_REG_RAX, result or 0)
        except Exception as error:
            self._failed = error
            cpu.emu_stop()
