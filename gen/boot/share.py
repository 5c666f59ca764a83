"""How do all vCPUs accept RAM together? Each takes the next chunk that nobody has, by a counter.

vCPU 0 publishes the list of `accept_shares` and then how many chunks it has, and works along. A chunk is
taken in one step and never given back, so each page is accepted by one vCPU, whichever come and in whatever
order. An AP has no stack: all that it knows is in registers. What it cannot finish it leaves to vCPU 0,
which decides (C: accept_rest).
"""

from __future__ import annotations

from peachpy.x86_64 import (
    ADD,
    AND,
    CMOVA,
    CMOVB,
    CMP,
    JAE,
    JB,
    JMP,
    JNE,
    JNZ,
    JZ,
    LABEL,
    LEA,
    MOV,
    OR,
    PAUSE,
    RET,
    SHL,
    SHR,
    SUB,
    TEST,
    XOR,
    Label,
    eax,
    edx,
    r8,
    r9,
    r10,
    r10d,
    rax,
    rcx,
    rdi,
    rdx,
)

from dsl.capabilities import prelude
from formats.tdx.leaves import Leaf
from formats.tdx.status import PAGE_SIZE_MISMATCH
from formats.units import LARGE_PAGE, PAGE
from gen.boot.standins import branch
from gen.x86 import DQ, LOCK_CMPXCHG, LOCK_XADD, TDCALL, Symbol, Unit

SHARED = "ap_shared"
_SHARING = {field.name: field.offset for field in prelude().records["Sharing"].fields}
NEXT, CHUNKS, DONE, REST, LIST = (_SHARING[name] for name in ("next", "chunks", "done", "rest", "list"))


def emit_shared(unit: Unit, without_tdx: bool = False) -> None:
    """The shared words and vCPU 0's part; the linker drops both if no flow asks for them."""
    _accept_shared(unit, without_tdx)
    with unit.data(SHARED, section=f".data.{SHARED}", align=64):
        for name in _SHARING:
            DQ(0, name)


def _accept_shared(unit: Unit, without_tdx: bool) -> None:
    """`uint64_t tdcall_accept_shared(void)`: accepts while there are chunks and waits for those of others.

    Returns 0 when all are done, else the rest of a chunk (GPA | pages): the caller finishes it, counts it and
    calls again. An AP that has taken a chunk is waited for without a limit: its pages would be missing.
    """
    with unit.code("tdcall_accept_shared", section=".text.tdcall_accept_shared"):
        if without_tdx:
            branch("tdcall_accept_shared")
        more, wait, refused, done = Label("more"), Label("wait"), Label("refused"), Label("done")
        LEA(r9, [Symbol(SHARED)])
        LABEL(more)
        MOV(rax, [r9 + REST])
        TEST(rax, rax)
        JNZ(done)
        _chunk(wait, refused)
        JMP(more)
        LABEL(wait)
        PAUSE()
        MOV(rax, [r9 + REST])
        TEST(rax, rax)
        JNZ(done)
        MOV(rdx, [r9 + DONE])
        CMP(rdx, [r9 + CHUNKS])
        JNE(wait)
        RET()
        LABEL(refused)
        _rest()
        MOV(rax, rcx)
        RET()
        LABEL(done)
        XOR(r10d, r10d)
        MOV([r9 + REST], r10)
        RET()


def emit_take_part(wait: Label) -> None:
    """An AP's part, in the loop at `wait`: accepts while there are chunks. Keeps ESI and EBP."""
    more, refused, leave, nothing = (Label(name) for name in ("take", "refused", "leave_rest", "nothing"))
    LEA(r9, [Symbol(SHARED)])
    LABEL(more)
    MOV(rax, [r9 + NEXT])
    CMP(rax, [r9 + CHUNKS])
    JAE(nothing)
    _chunk(wait, refused)
    JMP(more)
    LABEL(refused)
    _rest()
    LABEL(leave)
    PAUSE()
    XOR(eax, eax)
    LOCK_CMPXCHG([r9 + REST], rcx)
    JNE(leave)
    JMP(more)
    LABEL(nothing)


def _chunk(none: Label, refused: Label) -> None:
    """Takes a chunk, accepts it, counts it. Jumps to `none` if there is none left, to `refused` if not all of
    its pages are simply accepted: [R10, R8) is what remains. R9 = `ap_shared`; uses RAX, RCX, RDX, RDI.
    """
    share = prelude().records["Share"]
    at = {field.name: field.offset for field in share.fields}
    seek, found, small, done = Label("seek"), Label("found"), Label("small_pages"), Label("chunk_done")
    MOV(eax, 1)
    LOCK_XADD([r9 + NEXT], rax)
    CMP(rax, [r9 + CHUNKS])
    JAE(none)
    MOV(rdi, [r9 + LIST])
    LABEL(seek)
    MOV(edx, [rdi + at["chunks"]])
    CMP(rax, rdx)
    JB(found)
    SUB(rax, rdx)
    ADD(rdi, share.size)
    JMP(seek)
    LABEL(found)
    SHL(rax, LARGE_PAGE.bit_length() - 1)
    MOV(rdx, [rdi + at["start"]])
    MOV(r10, rdx)
    AND(r10, -LARGE_PAGE)
    ADD(r10, rax)
    LEA(r8, [r10 + LARGE_PAGE])
    CMP(r10, rdx)
    CMOVB(r10, rdx)
    MOV(rdx, [rdi + at["end"]])
    CMP(r8, rdx)
    CMOVA(r8, rdx)
    MOV(rdx, r8)
    SUB(rdx, r10)
    CMP(edx, [rdi + at["large"]])
    JNE(small)
    LEA(rcx, [r10 + 1])  # level 1
    _accept()
    JZ(done)
    SHR(rax, 32)
    CMP(eax, PAGE_SIZE_MISMATCH >> 32)
    JNE(refused)
    LABEL(small)
    MOV(rcx, r10)
    _accept()
    JNZ(refused)
    ADD(r10, PAGE)
    CMP(r10, r8)
    JB(small)
    LABEL(done)
    MOV(eax, 1)
    LOCK_XADD([r9 + DONE], rax)


def _accept() -> None:
    """RCX: GPA | level. The flags say of RAX whether the page is accepted."""
    MOV(eax, int(Leaf.MEM_PAGE_ACCEPT))
    TDCALL(reads=(rax, rcx), writes=(rax,))
    TEST(rax, rax)


def _rest() -> None:
    """RCX = the word for [R10, R8)."""
    MOV(rcx, r8)
    SUB(rcx, r10)
    SHR(rcx, PAGE.bit_length() - 1)
    OR(rcx, r10)
