"""How does a guest ask its VMM? Sub-functions of TDG.VP.VMCALL (R11), answers (R10), which registers travel.

Source: Intel TDX Guest-Host Communication Interface 1.5, section 3; statuses also Linux
arch/x86/include/asm/shared/tdx.h.
"""

from __future__ import annotations

from enum import IntEnum

import construct as c
from construct import Int32ul, Int64ul

from formats.registers import R8, R9, R10, R11, R12, R13, R14, R15, RBX, RDI, RDX, RSI, mask


class Function(IntEnum):
    """Sub-functions; those below 0x10000 are numbered as the exit reason they stand for."""

    CPUID = 0x0A
    HLT = 0x0C
    IO = 0x1E
    RDMSR = 0x1F
    WRMSR = 0x20
    MMIO = 0x30
    GET_TD_VM_CALL_INFO = 0x10000
    MAP_GPA = 0x10001
    GET_QUOTE = 0x10002
    REPORT_FATAL_ERROR = 0x10003
    SETUP_EVENT_NOTIFY_INTERRUPT = 0x10004


NAMES = {
    int(Function.CPUID): "Instruction.CPUID",
    int(Function.HLT): "Instruction.HLT",
    int(Function.IO): "Instruction.IO",
    int(Function.RDMSR): "Instruction.RDMSR",
    int(Function.WRMSR): "Instruction.WRMSR",
    int(Function.MMIO): "#VE.RequestMMIO",
    int(Function.GET_TD_VM_CALL_INFO): "GetTdVmCallInfo",
    int(Function.MAP_GPA): "MapGPA",
    int(Function.GET_QUOTE): "GetQuote",
    int(Function.REPORT_FATAL_ERROR): "ReportFatalError",
    int(Function.SETUP_EVENT_NOTIFY_INTERRUPT): "SetupEventNotifyInterrupt",
}

# R10, what became of the call
SUCCESS = 0
RETRY = 1  # MapGPA: partly done, go on at R11
INVALID_OPERAND = 0x8000000000000000
GPA_INUSE = 0x8000000000000001
ALIGN_ERROR = 0x8000000000000002
SUBFUNC_UNSUPPORTED = 0x8000000000000003
STATUS_NAMES = {
    SUCCESS: "SUCCESS",
    RETRY: "RETRY",
    INVALID_OPERAND: "INVALID_OPERAND",
    GPA_INUSE: "GPA_INUSE",
    ALIGN_ERROR: "ALIGN_ERROR",
    SUBFUNC_UNSUPPORTED: "SUBFUNC_UNSUPPORTED",
}

# GetQuote: what the buffer that guest and VMM share begins with; the report, then the quote, follows it. Also
# QEMU target/i386/kvm/tdx-quote-generator.h.
QUOTE_HEADER = (
    "ghci_quote_header"
    / c.Struct("version" / Int64ul, "status" / Int64ul, "in_size" / Int32ul, "out_size" / Int32ul)
) * "Head of GetQuote's shared buffer, GHCI 1.5, TDG.VP.VMCALL<GetQuote>"
QUOTE_VERSION = 1
QUOTE_SUCCESS, QUOTE_ERROR, QUOTE_IN_FLIGHT = 0, 1 << 63, (1 << 64) - 1  # its status

IO_READ, IO_WRITE = 0, 1  # Instruction.IO and #VE.RequestMMIO: R13
FATAL_TEXT = (R14, R15, RBX, RDI, RSI, R8, R9, RDX)  # ReportFatalError: carriers of the text, low byte first
FATAL_TEXT_SIZE = 8 * len(FATAL_TEXT)

# Registers shown to the VMM (RCX): those of every call, and those plus the carriers of a text.
MASK_STANDARD = mask(R10, R11, R12, R13, R14, R15)
MASK_FATAL = MASK_STANDARD | mask(*FATAL_TEXT)
