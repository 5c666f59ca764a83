"""How is #VE delivered, and which instructions raise it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import layout as at
from .rows import Row, code, tdcall, vmcall

DELIVERY, REASONS, OTHER = "5.1 #VE delivery", "5.2 Exit reasons that become #VE", "5.3 Other exceptions"
DISPATCH = "tdx_td_dispatcher.c tdx_td_dispatcher"
INJECT = "td_other_exits.c tdx_inject_ve"
NO_PLACE = 0xC000070400000000  # NO_VALID_VE_INFO


def _ve(
    key: str,
    what: str,
    text: str,
    reason: int,
    length: int,
    qualification: int = 0,
    info: int = 0,
    **regs: int,
) -> Row:
    expect = {
        "vector": 20,
        "ve_status": 0,
        "ve_rcx": reason,
        "ve_rdx": qualification,
        "ve_r8": 0,
        "ve_r9": 0,
        "ve_r10": info << 32 | length,
        "at": 0,
        "changed": 0,
    }
    return Row(f"ve.{key}", what, REASONS, DISPATCH, (code(text, **regs),), expect)


def _instructions() -> Iterator[Row]:
    yield _ve("hlt", "HLT: reason 12", "f4", 12, 1)
    yield _ve("invd", "INVD: reason 13", "0f08", 13, 2)
    yield _ve("vmcall", "VMCALL: reason 18", "0f01c1", 18, 3)
    yield _ve("rdmsr", "RDMSR: reason 31", "0f32", 31, 2, rcx=0x1B)
    yield _ve("wrmsr", "WRMSR: reason 32", "0f30", 32, 2, rcx=0x1B)
    yield _ve("mwait", "MWAIT: reason 36", "0f01c9", 36, 3)
    yield _ve("monitor", "MONITOR: reason 39", "0f01c8", 39, 3)
    yield _ve("wbinvd", "WBINVD: reason 54", "0f09", 54, 2)
    yield _ve("wbnoinvd", "WBNOINVD: reason 54", "f30f09", 54, 3)
    # Qualification: bits 2:0 size - 1, 3 IN, 4 string, 5 REP, 6 immediate, 31:16 port (Intel SDM 28.2.1)
    yield _ve("in8", "IN AL, DX: reason 30, one byte, in, port in DX", "ec", 30, 1, 0x03F80008, rdx=0x3F8)
    yield _ve("in16", "IN AX, DX: two bytes", "66ed", 30, 2, 0x03F80009, rdx=0x3F8)
    yield _ve("in32", "IN EAX, DX: four bytes", "ed", 30, 1, 0x0CFC000B, rdx=0xCFC)
    yield _ve("in_imm", "IN AL, 60h: immediate port", "e460", 30, 2, 0x00600048)
    yield _ve("out8", "OUT DX, AL: out", "ee", 30, 1, 0x03F80000, rdx=0x3F8)
    yield _ve("out16", "OUT DX, AX", "66ef", 30, 2, 0x03F80001, rdx=0x3F8)
    yield _ve("out32", "OUT DX, EAX", "ef", 30, 1, 0x0CF80003, rdx=0xCF8)
    yield _ve("out_imm", "OUT 80h, AL", "e680", 30, 2, 0x00800040)
    # Instruction information: bits 9:7 address size, 17:15 segment of OUTS (Intel SDM volume 3, table 28-8)
    yield _ve("insb", "INSB: string", "6c", 30, 1, 0x03F80018, rdx=0x3F8, rdi=at.BUFFER, info=0x100)
    yield _ve(
        "rep_outsb", "REP OUTSB: string and REP; from DS", "f36e", 30, 2, 0x03F80030,
        rdx=0x3F8, rsi=at.BUFFER, rcx=4, info=0x18100,
    )  # fmt: skip
    yield _ve(
        "outsw_fs", "OUTSW from FS with 32-bit addresses", "6467666f", 30, 4, 0x03F80011,
        rdx=0x3F8, rsi=at.BUFFER, info=0x20080,
    )  # fmt: skip
    yield Row(
        "ve.hlt_at_0",
        "HLT at address 0",
        REASONS,
        DISPATCH,
        (tdcall(6, rcx=0), code("c607f4 ffe7", rdi=0)),  # mov byte [rdi], F4; jmp rdi
        {"vector": 20, "ve_rcx": 12, "rip": 0},
    )
    user = code("ec", cs=at.USER_CS, rdx=0x3F8)
    yield Row(
        "ve.in_user",
        "IN in user mode with IOPL 0 is #GP(0)",
        OTHER,
        "Intel SDM volume 1, 19.5.1, I/O privilege level",
        (user,),
        {"vector": 13, "error": 0, "at": 0},
    )
    for key, text in (("hlt", "f4"), ("invd", "0f08"), ("wbinvd", "0f09")):
        yield Row(
            f"ve.{key}_user",
            f"{key.upper()} in user mode is #GP(0)",
            OTHER,
            "Intel SDM volume 2, HLT, INVD, WBINVD",
            (code(text, cs=at.USER_CS),),
            {"vector": 13, "error": 0, "at": 0},
        )
    for key, text in (("monitor", "0f01c8"), ("mwait", "0f01c9")):
        yield Row(
            f"ve.{key}_user",
            f"{key.upper()} in user mode is #UD",
            OTHER,
            "Intel SDM volume 2, MONITOR, MWAIT",
            (code(text, cs=at.USER_CS),),
            {"vector": 6, "at": 0},
        )
    yield Row(
        "ve.vmcall_user",
        "VMCALL in user mode is #VE(18), too",
        REASONS,
        "Intel SDM volume 3, 26.1.2, instructions that cause VM exits unconditionally",
        (code("0f01c1", cs=at.USER_CS),),
        {"vector": 20, "ve_rcx": 18, "at": 0},
    )
    yield Row(
        "ve.apic_write",
        "APIC-write: a self-IPI with a vector below 16 is reason 56, behind the instruction",
        REASONS,
        DISPATCH,
        (code("0f30", rcx=0x83F, rax=5, rdx=0),),
        {"vector": 20, "ve_rcx": 56, "ve_rdx": 0x3F0, "ve_r8": 0, "ve_r9": 0, "at": 2},
    )


def _delivery() -> Iterator[Row]:
    source = INJECT
    send = replace(vmcall(0x20, r12=0x830, r13=1 << 18 | 4 << 8), keep_ve=True)  # ICR: NMI to self
    yield Row(
        "ve.nmi",
        "An NMI waits until VEINFO.GET",
        DELIVERY,
        "td_other_exits.c td_nmi_exit",
        (code("f4", keep_ve=True), send, code("9090", keep_ve=True), tdcall(3)),
        {"0.vector": 20, "1.vector": 3, "1.r10": 0, "2.vector": 3, "rax": 0, "vector": 2, "at": 4},
    )
    yield Row(
        "ve.rip",
        "RIP points at the instruction",
        DELIVERY,
        source,
        (code("90 90 f4"),),
        {"vector": 20, "at": 2},
    )
    yield Row(
        "ve.no_error",
        "No error code is pushed: RFLAGS of the frame has RF",
        DELIVERY,
        source,
        (code("f4"),),
        {"vector": 20, "rflags": 0x10002, "cs": at.CS64},
    )
    yield Row(
        "ve.once",
        "VEINFO.GET gives it once",
        DELIVERY,
        "tdg_vp_veinfo_get.c tdg_vp_veinfo_get",
        (code("f4"), tdcall(3)),
        {"0.ve_rcx": 12, "rax": NO_PLACE, "rcx": 0, "rdx": 0, "r8": 0, "r9": 0, "r10": 0},
    )
    yield Row(
        "ve.second",
        "A second #VE before VEINFO.GET is #DF",
        DELIVERY,
        source,
        (code("f4", keep_ve=True), code("f4")),
        {"0.vector": 20, "vector": 8, "error": 0},
    )
    yield Row(
        "ve.second_shared",
        "An access to shared device memory before VEINFO.GET goes to the VMM: TD exit, no #DF",
        DELIVERY,
        "Intel SDM volume 3, 26.5.7.1, convertible EPT violations",
        (code("f4", keep_ve=True), code("8b07", rdi=at.SHARED_WINDOW + 0xC0000018)),
        end="sept-violation",
        detail="TDG.VP.VEINFO.GET",
    )
    yield Row(
        "ve.kept",
        "The pending information is the first #VE's",
        DELIVERY,
        source,
        (code("f4", keep_ve=True), code("0f09", keep_ve=True), tdcall(3)),
        {"1.vector": 8, "rax": 0, "rcx": 12, "r10": 1},
    )
    yield Row(
        "ve.again",
        "After VEINFO.GET the next #VE is one again",
        DELIVERY,
        source,
        (code("f4"), code("0f09")),
        {"0.ve_rcx": 12, "vector": 20, "ve_rcx": 54},
    )
    yield Row(
        "ve.user",
        "#VE from user mode switches to the handler's privilege",
        DELIVERY,
        source,
        (code("0fa2", cs=at.USER_CS, rax=2),),
        {"vector": 20, "ve_rcx": 10, "cs": at.USER_CS, "ss": at.USER_DATA},
    )
    # Old RSP, the second quadword from the top of a frame, is code: mov eax, 44332211h; ret
    top = at.EXCEPTION_STACK - 16
    yield Row(
        "ve.code",
        "An exception frame over code that has run: the frame is executed, not what was there",
        DELIVERY,
        "Intel SDM volume 3, 9.1.3, self-modifying code",
        (
            code("48b8b801000000c30000 488907 ffd7", rdi=top),  # mov eax, 1; ret
            code("0f0b", rsp=0xFFFFC344332211B8),
            code("ffd7", rdi=top),
        ),
        {"0.rax": 1, "1.vector": 6, "vector": 3, "rax": 0x44332211},
    )
    yield Row(
        "ve.ist",
        "#VE uses the interrupt stack table",
        DELIVERY,
        "Intel SDM volume 3, 6.14.5, interrupt stack table",
        (code("f4", rsp=0),),
        {"vector": 20, "old_rsp": 0},
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _delivery()
    yield from _instructions()
