"""Which instructions and accesses raise #VE, which another exception, which end in a TD exit?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from . import layout as at
from .rows import Row, Step, absent, code, store, tdcall, vmcall

DELIVERY, REASONS, OTHER = "5.1 #VE delivery", "5.2 Exit reasons that become #VE", "5.3 Other exceptions"
DISPATCH = "tdx_td_dispatcher.c"
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
    yield _ve("pconfig", "PCONFIG: reason 65", "0f01c5", 65, 3)
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
        "CPU architecture",
        (user,),
        {"vector": 13, "error": 0, "at": 0},
    )
    for key, text in (("hlt", "f4"), ("invd", "0f08"), ("wbinvd", "0f09")):
        yield Row(
            f"ve.{key}_user",
            f"{key.upper()} in user mode is #GP(0)",
            OTHER,
            "CPU architecture",
            (code(text, cs=at.USER_CS),),
            {"vector": 13, "error": 0, "at": 0},
        )
    for key, text in (("monitor", "0f01c8"), ("mwait", "0f01c9"), ("pconfig", "0f01c5")):
        yield Row(
            f"ve.{key}_user",
            f"{key.upper()} in user mode is #UD",
            OTHER,
            "CPU architecture",
            (code(text, cs=at.USER_CS),),
            {"vector": 6, "at": 0},
        )
    yield Row(
        "ve.vmcall_user",
        "VMCALL in user mode is #VE(18), too",
        REASONS,
        "CPU architecture",
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
        "tdg_vp_veinfo_get.c",
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
        "CPU architecture",
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
        "CPU architecture",
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
        "CPU architecture",
        (code("f4", rsp=0),),
        {"vector": 20, "old_rsp": 0},
    )


def _others() -> Iterator[Row]:
    for key, what, text in (
        ("getsec", "GETSEC", "0f37"),
        ("rsm", "RSM", "0faa"),
        ("vmclear", "VMCLEAR", "660fc737"),
        ("vmlaunch", "VMLAUNCH", "0f01c2"),
        ("vmresume", "VMRESUME", "0f01c3"),
        ("vmxoff", "VMXOFF", "0f01c4"),
        ("vmxon", "VMXON", "f30fc737"),
        ("vmptrld", "VMPTRLD", "0fc737"),
        ("vmptrst", "VMPTRST", "0fc73f"),
        ("vmread", "VMREAD", "0f78c1"),
        ("vmwrite", "VMWRITE", "0f79c1"),
        ("vmfunc", "VMFUNC", "0f01d4"),
        ("invept", "INVEPT", "660f388007"),
        ("invvpid", "INVVPID", "660f388107"),
        ("encls", "ENCLS", "0f01cf"),
        ("enclv", "ENCLV", "0f01c0"),
        ("seamcall", "SEAMCALL", "660f01cf"),
        ("ud2", "UD2", "0f0b"),
        ("enqcmds", "ENQCMDS", "f30f38f807"),
    ):
        yield Row(
            f"ud.{key}",
            f"{what} is #UD",
            OTHER,
            DISPATCH,
            (code(text, rdi=at.BUFFER, rsi=at.BUFFER),),
            {"vector": 6, "at": 0},
        )
    yield Row(
        "gp.rdpmc",
        "RDPMC without PERFMON is #GP(0)",
        OTHER,
        "td_other_exits.c td_rdpmc_exit",
        (code("0f33", rcx=0),),
        {"vector": 13, "error": 0, "at": 0},
    )
    yield Row(
        "native.pause", "PAUSE is native", OTHER, DISPATCH, (code("f390"),), {"vector": 3, "changed": 0}
    )
    yield Row(
        "native.rdtsc",
        "RDTSC is native",
        OTHER,
        DISPATCH,
        (code("0f31 89c1 0f31 29c8 c1e81f"),),
        {"vector": 3, "rax": 0},
    )
    yield Row(
        "native.rdtscp",
        "RDTSCP is native and gives TSC_AUX",
        OTHER,
        DISPATCH,
        (code("0f30", rcx=0xC0000103, rax=9, rdx=0), code("0f01f9")),
        {"vector": 3, "rcx": 9},
    )
    yield Row(
        "native.rdrand",
        "RDRAND is native and sets CF",
        OTHER,
        DISPATCH,
        (code("0fc7f0 0f92c0 0fb6c0"),),
        {"vector": 3, "rax": 1},
    )
    yield Row(
        "native.invlpg", "INVLPG is native", OTHER, DISPATCH, (code("0f013f", rdi=at.BUFFER),), {"vector": 3}
    )
    yield Row(
        "native.mov_dr",
        "MOV to and from DR is native",
        OTHER,
        DISPATCH,
        (code("0f23c0 0f21c1", rax=0x1234),),
        {"vector": 3, "rcx": 0x1234},
    )
    cr8 = "CR8 is the upper half of the x2APIC's TPR"
    steps = (code("440f22c0 440f20c1", rax=5), code("0f32", rcx=0x808))
    yield Row("native.mov_cr8", cr8, OTHER, DISPATCH, steps, {"0.vector": 3, "0.rcx": 5, "rax": 0x50})
    yield Row(
        "native.mov_cr8_tpr",
        "and the TPR is CR8",
        OTHER,
        DISPATCH,
        (code("0f30", rcx=0x808, rax=0x73, rdx=0), code("440f20c1")),
        {"vector": 3, "rcx": 7},
    )
    gp = {"vector": 13, "error": 0, "at": 0}
    yield Row(
        "gp.cr8", "CR8 above 15 is #GP(0)", OTHER, "CPU architecture", (code("440f22c0", rax=0x10),), gp
    )
    user_cr8 = code("440f20c1", cs=at.USER_CS)
    yield Row("gp.cr8_user", "CR8 in user mode is #GP(0)", OTHER, "CPU architecture", (user_cr8,), gp)
    sidt = code("0f010f 0fb70f", rdi=at.BUFFER)
    yield Row("native.sidt", "SIDT is native", OTHER, DISPATCH, (sidt,), {"vector": 3, "rcx": 511})
    yield Row(
        "triple_fault",
        "A triple fault ends the TD",
        OTHER,
        DISPATCH,
        (code("0f0117 0f011f 0f0b", rdi=at.BUFFER),),
        end="triple-fault",
    )
    for key, what in (
        ("init", "INIT, SIPI, task switch, bus lock exits"),
        ("mc", "#MC"),
        ("smi", "SMI"),
        ("enqcmd", "ENQCMD with a bad PASID is #GP(0)"),
    ):
        yield absent(f"async.{key}", what, OTHER, "no such event is made by this VMM", DISPATCH)
    yield absent(
        "reduce_ve",
        "REDUCE_VE, ENUM_TOPOLOGY, VEINFO.GET version 1",
        REASONS,
        "features of later modules; this one is 1.5.01",
        "later modules",
    )


def pending(key: str, what: str, step: Step, expect: dict[str, int]) -> Row:
    """A row in a TD with SEPT_VE_DISABLE = 0."""
    return Row(key, what, "5.4 Accesses", "td_ept_violation.c", (step,), expect, td={"attributes": 0})


def _accesses() -> Iterator[Row]:
    section, source = "5.4 Accesses", "td_ept_violation.c"
    free, shared = at.FREE + 0x18, at.SHARED_WINDOW + at.FREE
    bit47 = 1 << 47

    def ve(qualification: int, gla: int, gpa: int) -> dict[str, int]:
        return {
            "vector": 20,
            "ve_status": 0,
            "ve_rcx": 48,
            "ve_rdx": qualification,
            "ve_r8": gla,
            "ve_r9": gpa,
            "at": 0,
        }

    # Qualification: 0 read, 1 write, 2 fetch, 7 linear address valid, 8 the access itself (Intel SDM 28.2.1)
    yield pending(
        "pending.read", "Read of a pending page: #VE(48)", code("488b07", rdi=free), ve(0x181, free, free)
    )
    yield pending(
        "pending.write", "Write to a pending page: #VE(48)", code("488907", rdi=free), ve(0x182, free, free)
    )
    fetch = pending(
        "pending.fetch",
        "Fetch from a pending page: #VE(48)",
        code("ffe7", rdi=at.FREE),
        {"vector": 20, "ve_rcx": 48, "ve_rdx": 0x184, "ve_r8": at.FREE, "ve_r9": at.FREE, "rip": at.FREE},
    )
    yield fetch
    yield pending(
        "pending.stack",
        "Push to a pending page: #VE(48)",
        code("50", rsp=at.FREE + 0x1000),
        ve(0x182, at.FREE + 0xFF8, at.FREE + 0xFF8),
    )
    yield pending(
        "pending.fetch_offset",
        "The GPA of a fetch has its offset",
        code("ffe7", rdi=free),
        {"vector": 20, "ve_rdx": 0x184, "ve_r8": free, "ve_r9": free, "rip": free},
    )
    # A new level-4 entry leads to a pending page as the next table; entry 3 of it is read
    linear = 5 << 39 | 3 << 30 | 8
    table = (code("48890f", rdi=at.PML4 + 8 * 5, rcx=at.FREE | 3), code("488b07", rdi=linear))
    yield Row(
        "pending.table",
        "A page table in a pending page: #VE(48), bit 8 of the qualification is 0",
        section,
        source,
        table,
        ve(0x81, linear, at.FREE + 24),
        td={"attributes": 0},
    )
    yield Row(
        "pending.table_exit",
        "The same under SEPT_VE_DISABLE is a TD exit",
        section,
        source,
        table,
        end="sept-violation",
        detail="not accepted",
    )
    # An IDT whose gates below 20 lie in a pending page, the others in an accepted one
    base = at.FREE + 0x1000 - 16 * 20
    load = (
        "0f010f 488b7702 4881c640010000 bf00100001 b918000000 f348a5"  # sidt [rdi]; gates 20 to 31 to there
    )
    descriptor = (511).to_bytes(2, "little") + base.to_bytes(8, "little") + bytes(6)
    split = (tdcall(6, rcx=at.FREE + 0x1000), code(load, rdi=at.BUFFER), store(at.BUFFER, descriptor))
    yield Row(
        "pending.delivery",
        "An exception whose gate lies in a pending page: #VE(48) takes its place",
        section,
        "td_other_exits.c tdx_inject_ve",
        (*split, code("0f011f 0f0b", rdi=at.BUFFER)),
        ve(0x181, base + 96, base + 96) | {"at": 3},
        td={"attributes": 0},
    )
    yield Row(
        "pending.delivery_ve",
        "A #VE whose gate lies in a pending page has no end: the next is #DF, which meets the same page",
        section,
        "td_other_exits.c tdx_inject_ve",
        (store(at.BUFFER, descriptor), code("0f011f f4", rdi=at.BUFFER)),
        end="sept-violation",
        detail="not accepted",
        td={"attributes": 0},
    )
    retry = (code("488b07", rdi=free), tdcall(6, rcx=at.FREE), code("488b07", rdi=free))
    yield Row(
        "pending.accept",
        "#VE(48), accept, retry: the page reads zero",
        section,
        source,
        retry,
        {"0.vector": 20, "1.rax": 0, "vector": 3, "rax": 0},
        td={"attributes": 0},
    )
    for name, text in (("read", "488b07"), ("write", "488907"), ("fetch", "ffe7")):
        yield Row(
            f"pending.{name}_exit",
            f"{name.capitalize()} of a pending page under SEPT_VE_DISABLE is a TD exit",
            section,
            source,
            (code(text, rdi=free),),
            end="sept-violation",
            detail="not accepted",
        )
    for attributes, name in ((0, "off"), (1 << 28, "on")):
        yield Row(
            f"absent.{name}",
            f"A private page the VMM lacks is a TD exit, SEPT_VE_DISABLE {name}",
            section,
            source,
            (code("488b07", rdi=0x8000000),),
            end="sept-violation",
            detail="not backed",
            td={"attributes": attributes},
        )
    made = vmcall(0x10001, r12=at.FREE | bit47, r13=0x1000)
    yield Row(
        "shared.access",
        "A converted page is read and written through the shared bit",
        section,
        source,
        (made, code("488907 488b0f", rdi=shared, rax=0x1234)),
        {"0.r10": 0, "vector": 3, "rcx": 0x1234},
    )
    yield Row(
        "shared.private_alias",
        "The private alias of a converted page is a TD exit",
        section,
        source,
        (made, code("488b07", rdi=at.FREE)),
        end="sept-violation",
    )
    yield Row(
        "shared.unconverted",
        "The shared alias of private memory is a TD exit",
        section,
        source,
        (code("488b07", rdi=shared),),
        end="sept-violation",
    )
    device = at.SHARED_WINDOW + 0xC0000018
    yield Row(
        "shared.mmio_read",
        "Read of shared memory the VMM gives to a device: #VE(48)",
        section,
        source,
        (code("8b07", rdi=device),),
        ve(0x181, device, bit47 | 0xC0000018),
    )
    yield Row(
        "shared.mmio_write",
        "Write to shared memory the VMM gives to a device: #VE(48)",
        section,
        source,
        (code("8907", rdi=device),),
        ve(0x182, device, bit47 | 0xC0000018),
    )
    yield Row(
        "shared.fetch",
        "Fetch from shared memory fails",
        section,
        "Base spec",
        (made, code("ffe7", rdi=shared)),
        end="sept-violation",
        status="simplified",
        why="which exception a CPU raises is not confirmed; the run ends",
    )
    table = at.BUFFER
    # A new level-4 entry leads to the buffer, whose first entry maps 1 GiB with the address bit under test.
    point = code("48890f", rdi=at.PML4 + 8 * 5, rcx=table | 3)
    for name, bits, gpaw, expect in (
        ("gpaw48", 1 << 48, 48, {"vector": 14, "error": 9, "cr2": (5 << 39) + 8, "at": 0}),
        ("gpaw48_51", 1 << 51, 48, {"vector": 14, "error": 9, "cr2": (5 << 39) + 8, "at": 0}),
    ):
        entry = code("48890f", rdi=table, rcx=0x83 | bits)
        yield Row(
            f"reserved.{name}",
            f"GPA bit {bits.bit_length() - 1} with GPAW {gpaw} is #PF with RSVD",
            OTHER,
            "td_ept_violation.c",
            (point, entry, code("8b07", rdi=(5 << 39) + 8)),
            expect,
        )
    user = code("488b07", cs=at.USER_CS, rdi=at.BUFFER)
    yield Row(
        "pf.user",
        "Private memory obeys the guest's own page tables: #PF in user mode",
        section,
        "CPU architecture",
        (user,),
        {"vector": 14, "error": 5, "cr2": at.BUFFER},
    )
    ready = (tdcall(6, rcx=at.FREE), code("488907", rdi=at.FREE, rax=7), vmcall(0x10000, r12=0))
    read = code("488b07", rdi=at.FREE)
    for attributes, name in ((0, "off"), (1 << 28, "on")):
        yield Row(
            f"blocked.{name}",
            f"A page that the host blocked is a TD exit, SEPT_VE_DISABLE {name}",
            section,
            source,
            (*ready, read),
            end="sept-violation",
            detail="not backed",
            td={"attributes": attributes, "removes": (at.FREE, False)},
        )
    back = {"removes": (at.FREE, True)}
    yield Row(
        "removed.read",
        "A page that the host removed and added again is pending: #VE(48)",
        section,
        source,
        (*ready, read),
        ve(0x181, at.FREE, at.FREE),
        td={"attributes": 0, **back},
    )
    yield Row(
        "removed.read_exit",
        "The same under SEPT_VE_DISABLE is a TD exit",
        section,
        source,
        (*ready, read),
        end="sept-violation",
        detail="not accepted",
        td=back,
    )
    function = (tdcall(6, rcx=at.FREE), code("c607c3 ffd7", rdi=at.FREE), vmcall(0x10000, r12=0))
    yield Row(
        "removed.fetch",
        "Code that ran there is gone, too",
        section,
        source,
        (*function, code("ffd7", rdi=at.FREE)),
        {"1.vector": 3, "vector": 20, "ve_rcx": 48, "ve_rdx": 0x184, "rip": at.FREE},
        td={"attributes": 0, **back},
    )
    table = at.PML4 + 8 * 6  # a level-4 entry whose table is that page, used, then removed
    lead = (
        tdcall(6, rcx=at.FREE),
        code(
            "488917 48890e 488b00", rdi=at.FREE, rdx=0x83, rsi=table, rcx=at.FREE | 3, rax=6 << 39 | at.BUFFER
        ),
        vmcall(0x10000, r12=0),
    )
    yield Row(
        "removed.table",
        "A page table there is gone, translations that came from it too",
        section,
        source,
        (*lead, code("488b00", rax=6 << 39 | at.BUFFER)),
        {"1.vector": 3, "vector": 20, "ve_rcx": 48, "ve_rdx": 0x81, "ve_r9": at.FREE},
        td={"attributes": 0, **back},
    )
    yield absent(
        "zero_step",
        "Zero-step defence and its notification",
        section,
        "this VMM does not single-step a TD",
        "td_exit_stepping.c",
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _delivery()
    yield from _instructions()
    yield from _others()
    yield from _accesses()
