"""How do measurements happen? C writes the event, the module extends the RTMR, then the event counts."""

from __future__ import annotations

from peachpy.x86_64 import CALL, JZ, LABEL, LEA, MOV, TEST, Label, edi, esi, r8, rax, rcx, rdi, rdx, rsi

from dsl.sizes import DIGEST_SIZE
from gen.flow.names import FATAL_STATUS
from gen.primitives.builder import Body, Builder
from gen.x86 import Symbol, rsp


def measure(log: str) -> Body:
    """A measuring primitive around the C function `log`."""

    def body(b: Builder) -> None:  # (data or value, rtmr, name, log)
        data, rtmr, name, state = b.save(rdi, rsi, rdx, rcx)
        digest = _digest_slot(b)
        MOV(rdi, [rsp + state])
        MOV(esi, [rsp + rtmr])
        MOV(rdx, [rsp + name])
        MOV(rcx, [rsp + data])
        LEA(r8, [rsp + digest])
        b.checked(log)
        _extend(b, digest, rtmr, state)

    return body


def separate(b: Builder) -> None:  # (rtmr, log)
    """Closes an RTMR with the separator."""
    rtmr, state = b.save(rdi, rsi)
    digest = _digest_slot(b)
    MOV(rdi, [rsp + state])
    MOV(esi, [rsp + rtmr])
    LEA(rdx, [rsp + digest])
    b.checked("log_separator")
    _extend(b, digest, rtmr, state)


def _digest_slot(b: Builder) -> int:
    """Where TDG.MR.RTMR.EXTEND takes a digest from."""
    return b.frame.slot(DIGEST_SIZE, 64)


def _extend(b: Builder, digest: int, rtmr: int, log: int) -> None:
    """Extends the RTMR with the digest, then makes the event part of the log.

    Whoever holds the lock of the registers decides whether this fails. No flow goes on from that: an event
    would be missing, and another one could take its place.
    """
    extended = Label("extended")
    LEA(rdi, [rsp + digest])
    MOV(esi, [rsp + rtmr])
    CALL(Symbol("tdcall_rtmr_extend"))
    TEST(rax, rax)
    JZ(extended)
    MOV(edi, b.error("rtmr_extend_failed"))
    CALL(Symbol(FATAL_STATUS))  # does not return
    LABEL(extended)
    MOV(rdi, [rsp + log])
    CALL(Symbol("log_commit"))


BODIES: dict[str, Body] = {
    "measure_platform_config": measure("log_platform_config"),
    "measure_blob": measure("log_blob"),
    "measure_number": measure("log_number"),
    "separate": separate,
}
