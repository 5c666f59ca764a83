"""How does QEMU's chipset get ready? C says which access comes next; then C makes the tables."""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    CMP,
    JMP,
    JNE,
    JZ,
    LABEL,
    LEA,
    MOV,
    XOR,
    Label,
    dword,
    eax,
    edi,
    edx,
    esi,
    qword,
    r8,
    r9,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from formats.q35 import CONFIG_ADDRESS
from gen.primitives.builder import Body, Builder
from gen.x86 import rsp


def q35_tables(b: Builder) -> None:  # (area, ram, cpus, mailbox, log, out)
    """The accesses, then the tables."""
    area, ram, cpus, mailbox, log, out = b.save(rdi, rsi, rdx, rcx, r8, r9)
    configure(b)
    for register, slot in ((rdi, area), (rsi, ram), (rdx, cpus), (rcx, mailbox), (r8, log), (r9, out)):
        MOV(register, [rsp + slot])
    b.checked("q35_acpi")


def configure(b: Builder) -> None:
    """Carries out the accesses of q35_config."""
    step, answer = b.frame.slot(8), b.frame.slot(8)
    access = b.record_slot("ConfigAccess")
    address, port, size, write, value, done = (
        access + b.offset("ConfigAccess", name)
        for name in ("address", "port", "size", "write", "value", "done")
    )
    more, read, configured = Label("more_config"), Label("read_config"), Label("configured")
    XOR(eax, eax)
    MOV([rsp + step], rax)
    MOV([rsp + answer], rax)
    LABEL(more)
    MOV(rdi, [rsp + step])
    MOV(rsi, [rsp + answer])
    LEA(rdx, [rsp + access])
    b.checked("q35_config")
    ADD(qword[rsp + step], 1)
    CMP(dword[rsp + done], 0)
    JNE(configured)
    MOV(edi, CONFIG_ADDRESS)
    MOV(esi, 4)
    MOV(edx, [rsp + address])
    b.vmm("tdvmcall_io_write")
    MOV(edi, [rsp + port])
    MOV(esi, [rsp + size])
    CMP(dword[rsp + write], 0)
    JZ(read)
    MOV(edx, [rsp + value])
    b.vmm("tdvmcall_io_write")
    JMP(more)
    LABEL(read)
    LEA(rdx, [rsp + answer])
    b.vmm("tdvmcall_io_read")
    JMP(more)
    LABEL(configured)


BODIES: dict[str, Body] = {"q35_tables": q35_tables}
