"""How do files come out of fw_cfg? C says what to ask next; here are port writes and the shared window."""

from __future__ import annotations

from collections.abc import Callable

from peachpy.x86_64 import (
    CALL,
    CMP,
    JE,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    TEST,
    XOR,
    Label,
    dword,
    eax,
    edi,
    edx,
    esi,
    r8,
    rcx,
    rdi,
    rdx,
    rsi,
)

from formats.fw_cfg import DMA_LOW, SELECTOR
from gen.flow.names import FATAL_STATUS
from gen.primitives.builder import READ_WRITE, Body, Builder, pages_arguments, reload_cr3
from gen.x86 import REP_STOSB, Symbol, rsp


def fw_cfg_linux(b: Builder) -> None:  # (window, ram, td, paging, out)
    """Sizes, then room, then bytes; then what the host wrote into the kernel is taken out."""
    window, ram, td, paging, out = b.save(rdi, rsi, rdx, rcx, r8)

    def ask(fetch: int, request: int) -> None:
        LEA(rdi, [rsp + fetch])
        MOV(rsi, [rsp + window])
        MOV(rdx, [rsp + ram])
        MOV(rcx, [rsp + out])
        LEA(r8, [rsp + request])
        b.checked("fetch_next")

    fetch = transfers(b, window, td, paging, "Fetch", ask)
    LEA(rdi, [rsp + fetch])
    MOV(rsi, [rsp + out])
    b.checked("fetch_end")


def transfers(
    b: Builder, window: int, td: int, paging: int, state: str, ask: Callable[[int, int], None]
) -> int:
    """Shares the window, carries out one request after the other, makes the window private again.

    Also if a request failed: a flow may go on after an error, and must not find the window shared. `ask`
    calls what gives the next request, by the slots of a cleared record `state` and of the request. The slot
    of the record comes back.
    """
    fetch, request, shared = b.record_slot(state), b.record_slot("FetchRequest"), b.frame.slot(16)
    status = b.frame.slot(8)
    action, key, start, size = (
        request + b.offset("FetchRequest", name) for name in ("action", "key", "start", "size")
    )
    actions = dict(b.firmware.enumerations["FetchAction"].members)
    more, transfer, end = Label("more"), Label("transfer"), Label("end")
    _window(window, td, paging)
    LEA(rcx, [rsp + shared])
    CALL(Symbol("prim_share"))
    CMP(eax, b.error("tdvmcall_failed"))
    JE(b.fail)  # refused: all of it is as it was
    outer, b.fail = b.fail, Label("transfers_ended")
    TEST(eax, eax)
    JNZ(b.fail)
    LEA(rdi, [rsp + fetch])
    MOV(rcx, b.firmware.records[state].size)
    XOR(eax, eax)
    REP_STOSB()
    LABEL(more)
    ask(fetch, request)
    CMP(dword[rsp + action], actions["done"])
    JE(end)
    CMP(dword[rsp + action], actions["map"])
    JNE(transfer)
    MOV(rdi, [rsp + paging])
    MOV(rsi, [rsp + start])
    MOV(rcx, [rsp + size])
    pages_arguments(READ_WRITE)
    b.checked("page_map")
    reload_cr3()
    JMP(more)
    LABEL(transfer)
    kick = Label("kick")
    CMP(dword[rsp + action], actions["select"])
    JNE(kick)
    MOV(edi, SELECTOR)
    MOV(esi, 2)
    MOV(edx, [rsp + key])
    b.vmm("tdvmcall_io_write")
    LABEL(kick)
    MOV(edi, DMA_LOW)
    MOV(esi, 4)
    MOV(rdx, [rsp + start])
    b.vmm("tdvmcall_io_write")
    JMP(more)
    LABEL(end)
    XOR(eax, eax)
    LABEL(b.fail)
    b.fail = outer
    MOV([rsp + status], eax)
    _window(window, td, paging)
    CALL(Symbol("prim_unshare"))
    private = Label("private_again")
    TEST(eax, eax)
    JZ(private)
    MOV(edi, eax)
    CALL(Symbol(FATAL_STATUS))  # does not return
    LABEL(private)
    MOV(eax, [rsp + status])
    TEST(eax, eax)
    JNZ(b.fail)
    return fetch


def _window(window: int, td: int, paging: int) -> None:
    for register, slot in ((rdi, window), (rsi, td), (rdx, paging)):
        MOV(register, [rsp + slot])


BODIES: dict[str, Body] = {"fw_cfg_linux": fw_cfg_linux}
