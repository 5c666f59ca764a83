"""Which CPUs are there, and how do the APs wait? Each tells its APIC id, may accept RAM, then goes to the
park loop, with page tables of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from peachpy.x86_64 import (
    ADD,
    AND,
    CALL,
    CMP,
    JA,
    JAE,
    JB,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    OR,
    PAUSE,
    RDTSC,
    SHL,
    SUB,
    TEST,
    XOR,
    Label,
    byte,
    dword,
    eax,
    ecx,
    edi,
    edx,
    esi,
    qword,
    r8,
    r8d,
    r9,
    r10,
    r10d,
    r11,
    rax,
    rcx,
    rdi,
    rdx,
    rsi,
)

from dsl.sizes import SPAN_SIZE
from formats.tdx.topology import ENUM_TOPOLOGY, TD_CTLS, TOPOLOGY_ENUM_CONFIGURED
from formats.units import PAGE
from formats.wakeup import ENTRY, IDS, OWN_ADDRESSES, PARKED, RESET, RESET_VECTOR, TABLES
from gen.flow.names import CONTEXT, FATAL_STATUS
from gen.primitives.builder import READ, READ_EXECUTE, READ_WRITE, Body, Builder, pages_arguments
from gen.primitives.memory import accept_runs, accepting, begin, map_carved
from gen.x86 import LOCK_XADD, MOVCR, REP_MOVSB, REP_STOSB, Symbol, cr3, rsp

# TSC ticks that vCPU 0 waits for another one: some seconds at any frequency that the TDX module allows (0.1
# to 10 GHz).
PATIENCE = 1 << 34


def find_cpus(b: Builder) -> None:  # (td, out)
    """Enumerates the topology if the module can, opens the gate, and waits for an id from each vCPU."""
    td, out = b.save(rdi, rsi)
    count, value, slots = b.frame.slot(8), b.frame.slot(8), b.frame.slot(16)
    told, more, collect = Label("told"), Label("more"), Label("collect")
    MOV(ecx, [rdi + b.offset("VpInfo", "num_vcpus")])
    MOV([rsp + count], rcx)
    CMP(ecx, b.firmware.constants["MAX_CPUS"].value)
    MOV(eax, b.error("cpus_too_many"))
    JA(b.fail)
    MOV(rax, [Symbol("paging_cpu_ids")])
    MOV([rsp + slots], rax)
    SHL(rcx, 2)
    MOV([rsp + slots + SPAN_SIZE], rcx)
    if b.firmware.without_tdx:
        in_td = Label("in_td")
        CMP(dword[rdi + b.offset("VpInfo", "tdx")], 0)
        JNE(in_td)
        LEA(rdi, [rsp + slots])
        CALL(Symbol("ordinary_topology"))
        JMP(collect)
        LABEL(in_td)
    MOV(rdi, TOPOLOGY_ENUM_CONFIGURED - (1 << 64))
    LEA(rsi, [rsp + value])
    CALL(Symbol("tdcall_vm_rd"))
    TEST(rax, rax)
    JNZ(told)
    CMP(qword[rsp + value], 1)
    JNE(told)
    MOV(rdi, TD_CTLS)
    MOV(esi, ENUM_TOPOLOGY)
    MOV(edx, ENUM_TOPOLOGY)
    CALL(Symbol("tdcall_vm_wr"))
    TEST(rax, rax)
    JNZ(told)
    MOV(dword[Symbol("ap_enumerated")], 1)
    LABEL(told)
    XOR(edi, edi)  # the flow runs on the vCPU of index 0
    CALL(Symbol("tdcall_apic_id"))
    ADD(eax, 1)
    MOV(rcx, [rsp + slots])
    MOV([rcx], eax)
    MOVCR(rax, cr3)
    MOV([Symbol("ap_gate")], eax)
    XOR(r8d, r8d)
    MOV(r9, [rsp + slots])
    LABEL(more)
    ADD(r8d, 1)
    CMP(r8d, [rsp + count])
    JAE(collect)
    _await(b, "id", lambda: CMP(dword[r9 + r8 * 4], 0))
    JMP(more)
    LABEL(collect)
    LEA(rdi, [rsp + slots])
    MOV(rsi, [rsp + td])
    MOV(rdx, [rsp + out])
    b.checked("collect_cpus")


def _await(b: Builder, name: str, look: Callable[[], object]) -> None:
    """Looks until the flags say that something is not zero; gives up as `cpus_absent`. Keeps R8 and R9."""
    again, there, begun = Label(f"again_{name}"), Label(f"there_{name}"), Label(f"begun_{name}")
    XOR(r10d, r10d)
    MOV(r11, PATIENCE)
    LABEL(again)
    look()
    JNE(there)
    PAUSE()
    RDTSC()
    SHL(rdx, 32)
    OR(rax, rdx)
    TEST(r10, r10)
    JNZ(begun)
    MOV(r10, rax)
    LABEL(begun)
    SUB(rax, r10)
    CMP(rax, r11)
    JB(again)
    MOV(eax, b.error("cpus_absent"))
    JMP(b.fail)
    LABEL(there)


def park_aps(b: Builder) -> None:  # (mailbox, paging)
    """Page 0 of the region is the mailbox; the APs' own page tables follow and outlive the shim's.

    They map the park loop and what it reads; the OS's wakeup code, wherever it lies, is added in the handoff.
    """
    (mailbox,) = b.save(rdi)
    _clear(b, mailbox)
    MOV(rcx, [rax + SPAN_SIZE])
    SUB(rcx, TABLES)
    _map(b, mailbox)
    _send(b, mailbox)


def park_aps_with_reset(b: Builder) -> None:  # (mailbox, paging)
    """The same in the first pages of the region, and behind the page tables what takes APs back: their ids,
    and the reset code. All lies in 2 MiB, as declared, for the OS's tables map no more around the vector
    (Linux arch/x86/mm/ident_map.c).
    """
    (mailbox,) = b.save(rdi)
    _clear(b, mailbox)
    _copy_reset_code(b, mailbox)
    MOV(ecx, IDS - TABLES)
    _map(b, mailbox)
    LEA(rdi, [Symbol(CONTEXT, b.context.ap_paging)])
    MOV(rax, [rsp + mailbox])
    MOV(rsi, [rax])
    ADD(rsi, IDS)
    MOV(ecx, PAGE)
    pages_arguments(READ_WRITE)
    b.checked("page_map")
    MOV(rax, [rsp + mailbox])
    MOV(rax, [rax])
    ADD(rax, IDS)
    MOV(rdx, [Symbol("paging_cpu_ids")])
    MOV(edx, [rdx])  # of vCPU 0, which comes first (runtime-c/src/cpus.c)
    MOV([rax], edx)
    MOV([Symbol("ap_ids")], rax)
    _send(b, mailbox)


def _clear(b: Builder, mailbox: int) -> None:
    """The region, whose span is at RDI; RAX = its span."""
    MOV(rcx, [rdi + SPAN_SIZE])
    MOV(rdi, [rdi])
    XOR(eax, eax)
    REP_STOSB()
    MOV(rax, [rsp + mailbox])


def _copy_reset_code(b: Builder, mailbox: int) -> None:
    """To its page; what it holds of its own addresses moves with it. The mailbox names its vector."""
    MOV(rdx, [rsp + mailbox])
    MOV(rdx, [rdx])
    LEA(rdi, [rdx + RESET])
    LEA(rax, [rdx + RESET + ENTRY])
    MOV([rdx + RESET_VECTOR], rax)
    LEA(rsi, [Symbol("ap_reset")])
    LEA(rcx, [Symbol("ap_reset_end")])
    SUB(rcx, rsi)
    MOV(rax, rdi)
    SUB(rax, rsi)
    REP_MOVSB()
    for place in OWN_ADDRESSES:
        ADD([rdx + RESET + place], eax)


def _map(b: Builder, mailbox: int) -> None:
    """The APs' tables, in the RCX bytes behind the mailbox, map code and mailbox."""
    pool = b.context.ap_paging
    tables = pool + b.offset("Paging", "tables")
    MOV([Symbol(CONTEXT, tables + SPAN_SIZE)], rcx)
    MOV(rax, [rsp + mailbox])
    MOV(rax, [rax])
    ADD(rax, TABLES)
    MOV([Symbol(CONTEXT, tables)], rax)
    MOV(eax, 1)  # the PML4
    MOV([Symbol(CONTEXT, pool + b.offset("Paging", "used"))], rax)
    for part, access in (("text", READ_EXECUTE), ("rodata", READ), ("data", READ)):
        LEA(rdi, [Symbol(CONTEXT, pool)])
        LEA(rsi, [Symbol(f"__{part}_start")])
        LEA(rcx, [Symbol(f"__{part}_end")])
        SUB(rcx, rsi)
        pages_arguments(access)
        b.checked("page_map")
    LEA(rdi, [Symbol(CONTEXT, pool)])
    MOV(rax, [rsp + mailbox])
    MOV(rsi, [rax])
    MOV(ecx, PAGE)
    pages_arguments(READ_WRITE)
    b.checked("page_map")


def _send(b: Builder, mailbox: int) -> None:
    """An AP that sees the mailbox finds everything else in place (stores stay in order on x86)."""
    MOV(rax, [rsp + mailbox])
    MOV(rax, [rax])
    MOV([Symbol("ap_mailbox")], rax)
    # The tables that the APs leave become the OS's memory: wait until each has gone.
    gone, more = Label("gone"), Label("next_ap")
    if b.firmware.without_tdx:
        CMP(dword[Symbol(CONTEXT, b.context.td + b.offset("VpInfo", "tdx"))], 0)
        JE(gone)
    XOR(r8d, r8d)
    MOV(r9, rax)
    LABEL(more)
    ADD(r8d, 1)
    CMP(r8d, [Symbol(CONTEXT, b.context.td + b.offset("VpInfo", "num_vcpus"))])
    JAE(gone)
    _await(b, "parked", lambda: CMP(byte[r9 + r8 * 1 + PARKED], 0))
    JMP(more)
    LABEL(gone)


def accept_on_all_vcpus(b: Builder) -> None:  # (ram, limit, level, paging)
    """Publishes what is to be accepted, works along, and finishes what an AP could not."""
    a, end = accepting(b), b.frame.slot(8)
    shares = b.record_slot("Shares")
    work, ended, other, all_done = (Label(name) for name in ("work", "ended", "other", "all_done"))
    begin(a)
    MOV(rdi, [rsp + a.ram])
    MOV(esi, [rsp + a.level])
    LEA(rdx, [rsp + shares])
    CALL(Symbol("accept_shares"))
    # The number comes last: an AP that sees it finds the list (stores stay in order on x86).
    LEA(rax, [rsp + shares + b.items("Shares", "list")])
    MOV([Symbol("ap_shared", b.offset("Sharing", "list"))], rax)
    MOV(rax, [rsp + shares + b.offset("Shares", "chunks")])
    MOV([Symbol("ap_shared", b.offset("Sharing", "chunks"))], rax)
    LABEL(work)
    CALL(Symbol("tdcall_accept_shared"))
    TEST(rax, rax)
    JZ(all_done)
    MOV(ecx, PAGE - 1)  # how many pages
    AND(rcx, rax)
    SUB(rax, rcx)
    SHL(rcx, PAGE.bit_length() - 1)
    ADD(rcx, rax)
    MOV([rsp + end], rcx)
    MOV([rsp + a.index], rax)
    begin(a)
    MOV(rax, [rsp + a.index])
    MOV([rsp + a.at + b.offset("Acceptance", "next")], rax)
    accept_runs(replace(b, fail=ended), a, end)
    LEA(rcx, [Symbol("ap_shared", b.offset("Sharing", "done"))])
    MOV(eax, 1)
    LOCK_XADD([rcx], rax)
    JMP(work)
    # Here ends the boot: an error that a flow may survive would leave APs at work on a list that is gone.
    LABEL(ended)
    CMP(eax, b.error("accept_failed"))
    JNE(other)
    MOV(rdi, [rsp + a.at + b.offset("Acceptance", "next")])
    MOV(rsi, [rsp + a.status])
    CALL(Symbol("fatal_accept"))
    LABEL(other)
    MOV(edi, eax)
    CALL(Symbol(FATAL_STATUS))
    LABEL(all_done)
    map_carved(b, a)


BODIES: dict[str, Body] = {
    "accept_on_all_vcpus": accept_on_all_vcpus,
    "find_cpus": find_cpus,
    "park_aps": park_aps,
    "park_aps_with_reset": park_aps_with_reset,
}
