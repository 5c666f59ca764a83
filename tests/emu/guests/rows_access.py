"""Which accesses to memory raise #VE, which #PF, which end in a TD exit?"""

from __future__ import annotations

from collections.abc import Iterator

from . import layout as at
from .rows import Row, Step, absent, code, store, tdcall, vmcall

OTHER = "5.3 Other exceptions"


def pending(key: str, what: str, step: Step, expect: dict[str, int]) -> Row:
    """A row in a TD with SEPT_VE_DISABLE = 0."""
    return Row(
        key,
        what,
        "5.4 Accesses",
        "td_ept_violation.c td_ept_violation_exit",
        (step,),
        expect,
        td={"attributes": 0},
    )


def _accesses() -> Iterator[Row]:
    section, source = "5.4 Accesses", "td_ept_violation.c td_ept_violation_exit"
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

    # Qualification: 0 read, 1 write, 2 fetch, 7 linear address valid, 8 the access itself; of that address 9
    # user, 10 writable, 11 no execution (Intel SDM volume 3, table 28-7)
    yield pending(
        "pending.read", "Read of a pending page: #VE(48)", code("488b07", rdi=free), ve(0x581, free, free)
    )
    yield pending(
        "pending.write", "Write to a pending page: #VE(48)", code("488907", rdi=free), ve(0x582, free, free)
    )
    fetch = pending(
        "pending.fetch",
        "Fetch from a pending page: #VE(48)",
        code("ffe7", rdi=at.FREE),
        {"vector": 20, "ve_rcx": 48, "ve_rdx": 0x584, "ve_r8": at.FREE, "ve_r9": at.FREE, "rip": at.FREE},
    )
    yield fetch
    yield pending(
        "pending.user",
        "Read of a pending page by an address for users: bit 9 of the qualification",
        code("488b07", rdi=at.USER_WINDOW + free),
        ve(0x781, at.USER_WINDOW + free, free),
    )
    # A level-4 entry leads to the buffer, whose first entry maps the first GiB
    linear = 5 << 39 | free
    for key, what, bits, qualification in (
        ("read_only", "a read-only address: bit 10 is 0", 0x81, 0x181),
        ("no_execute", "an address without execution: bit 11", 1 << 63 | 0x83, 0xD81),
    ):
        yield Row(
            f"pending.{key}",
            f"Read of a pending page by {what}",
            section,
            source,
            (
                code("48890f 488916", rdi=at.PML4 + 8 * 5, rcx=at.BUFFER | 3, rsi=at.BUFFER, rdx=bits),
                code("488b07", rdi=linear),
            ),
            ve(qualification, linear, free),
            td={"attributes": 0},
        )
    yield pending(
        "pending.stack",
        "Push to a pending page: #VE(48)",
        code("50", rsp=at.FREE + 0x1000),
        ve(0x582, at.FREE + 0xFF8, at.FREE + 0xFF8),
    )
    yield pending(
        "pending.fetch_offset",
        "The GPA of a fetch has its offset",
        code("ffe7", rdi=free),
        {"vector": 20, "ve_rdx": 0x584, "ve_r8": free, "ve_r9": free, "rip": free},
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
        ve(0x581, base + 96, base + 96) | {"at": 3},
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
        ve(0x781, device, bit47 | 0xC0000018),
    )
    yield Row(
        "shared.mmio_write",
        "Write to shared memory the VMM gives to a device: #VE(48)",
        section,
        source,
        (code("8907", rdi=device),),
        ve(0x782, device, bit47 | 0xC0000018),
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
            "td_ept_violation.c td_ept_violation_exit",
            (point, entry, code("8b07", rdi=(5 << 39) + 8)),
            expect,
        )
    large = code("48890f", rdi=at.PML4 + 8 * 5, rcx=table | 0x83)
    yield Row(
        "reserved.pml4_ps",
        "A level-4 entry has no page of its own: PS in it is #PF with RSVD",
        OTHER,
        "Intel SDM volume 3, 4.5.4, format of a PML4E",
        (large, code("8b07", rdi=(5 << 39) + 8)),
        {"vector": 14, "error": 9, "cr2": (5 << 39) + 8, "at": 0},
    )
    yield Row(
        "walk.shared_table",
        "A page table in shared memory is not followed",
        section,
        "Base spec",
        (code("48890f", rdi=at.PML4 + 8 * 5, rcx=table | bit47 | 3), code("8b07", rdi=(5 << 39) + 8)),
        end="sept-violation",
        status="simplified",
        why="which exception a CPU raises is not confirmed; the run ends",
    )
    gap = code("48890f", rdi=table, rcx=0x83 | 1 << 13)
    yield Row(
        "reserved.pdpt_gap",
        "A page of 1 GiB: bit 13 of its entry, below its address, is #PF with RSVD",
        OTHER,
        "Intel SDM volume 3, 4.5.4, format of a PDPTE that maps a 1-GByte page",
        (point, gap, code("8b07", rdi=(5 << 39) + 8)),
        {"vector": 14, "error": 9, "cr2": (5 << 39) + 8, "at": 0},
    )
    narrow = code("48890f", rdi=at.PML4 + 8 * 5, rcx=table | 1)
    wide = code("48890f", rdi=table, rcx=0x83)
    yield Row(
        "pf.table_read_only",
        "A table that a read-only entry leads to maps nothing that can be written: #PF",
        section,
        "Intel SDM volume 3, 4.6.1, determination of access rights",
        (narrow, wide, code("8907", rdi=(5 << 39) + at.FREE)),
        {"vector": 14, "error": 3, "cr2": (5 << 39) + at.FREE, "at": 0},
    )
    yield Row(
        "pf.table_of_supervisor",
        "A table that a supervisor entry leads to maps nothing for user mode: #PF",
        section,
        "Intel SDM volume 3, 4.6.1, determination of access rights",
        (
            code("48890f", rdi=at.PML4 + 8 * 5, rcx=table | 3),
            code("48890f", rdi=table, rcx=0x87),
            code("488b07", cs=at.USER_CS, rdi=(5 << 39) + at.BUFFER),
        ),
        {"vector": 14, "error": 5, "cr2": (5 << 39) + at.BUFFER},
    )
    user = code("488b07", cs=at.USER_CS, rdi=at.BUFFER)
    yield Row(
        "pf.user",
        "Private memory obeys the guest's own page tables: #PF in user mode",
        section,
        "Intel SDM volume 3, 4.6.1, determination of access rights",
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
        ve(0x581, at.FREE, at.FREE),
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
        {"1.vector": 3, "vector": 20, "ve_rcx": 48, "ve_rdx": 0x584, "rip": at.FREE},
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
    yield from _accesses()
