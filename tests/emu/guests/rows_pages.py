"""How do pages get accepted, converted and described?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .common import make
from .rows import FILL, Row, Step, absent, code, tdcall, vmcall

ACCEPT, ATTRIBUTES = "3 TDG.MEM.PAGE.ACCEPT", "2.4 Page attributes"
SOURCE = "tdg_mem_page_accept.c tdg_mem_page_accept"
INVALID_RCX, ALREADY, MISMATCH = 0xC000010000000001, 0x00000B0A00000000, 0xC0000B0B00000000
FREE, M2 = at.FREE, 2 << 20
BIT47, BIT51 = 1 << 47, 1 << 51
WIDE = {"config_flags": 5}
PENDING = 1 << 62


def accept(gpa: int, level: int = 0) -> Step:
    """TDG.MEM.PAGE.ACCEPT."""
    return tdcall(6, rcx=gpa | level)


def _accept() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(f"accept.{key}", what, ACCEPT, SOURCE, steps, expect, **more)

    def refused(key: str, what: str, rcx: int, **td: Any) -> Row:
        return row(
            key, f"{what}: OPERAND_INVALID|RCX", tdcall(6, rcx=rcx), {"rax": INVALID_RCX, "changed": 1}, td=td
        )

    yield refused("level2", "Level 2 (1 GiB)", 1 << 30 | 2)
    for level in (3, 4, 7):
        yield refused(f"level{level}", f"Level {level}", FREE | level)
    for bit in (3, 11):
        yield refused(f"bit{bit}", f"Reserved bit {bit}", FREE | 1 << bit)
    for bit in (52, 63):
        yield refused(f"bit{bit}", f"Bit {bit}", FREE | 1 << bit)
    yield refused("align2m", "2 MiB asked at a GPA aligned to 4 KiB", FREE | 0x1000 | 1)
    yield refused("shared48", "A shared GPA, GPAW 48", FREE | BIT47)
    yield refused("shared52", "A shared GPA, GPAW 52", FREE | BIT51, **WIDE)
    yield refused("beyond48", "A GPA beyond GPAW 48", FREE | 1 << 48)
    yield refused("beyond48_51", "A GPA with bit 51, GPAW 48", FREE | BIT51)
    yield row(
        "bit47_gpaw52",
        "With GPAW 52 bit 47 is an address bit: the VMM has no page there",
        accept(FREE | BIT47),
        {},
        end="sept-violation",
        td=WIDE,
    )
    read = code("488b07", rdi=FREE + 0xFF8)
    yield row(
        "4k",
        "A pending 4 KiB page is mapped, and reads zero",
        (accept(FREE), read),
        {"0.rax": 0, "0.changed": 1, "vector": 3, "rax": 0},
    )
    end = code("488b07", rdi=FREE + M2 - 8)
    yield row(
        "2m",
        "A pending 2 MiB page is mapped, and reads zero",
        (accept(FREE, 1), end),
        {"0.rax": 0, "vector": 3, "rax": 0},
    )
    write = code("488907", rdi=FREE, rax=0x55)
    again = code("488b07", rdi=FREE)
    yield row(
        "4k_again",
        "An accepted 4 KiB page: ALREADY_ACCEPTED, level 0",
        (accept(FREE), accept(FREE)),
        {"rax": ALREADY},
    )
    yield row(
        "2m_again",
        "An accepted 2 MiB page: ALREADY_ACCEPTED, level 1",
        (accept(FREE, 1), accept(FREE, 1)),
        {"rax": ALREADY | 1},
    )
    yield row(
        "4k_in_2m",
        "4 KiB inside an accepted 2 MiB page: ALREADY_ACCEPTED, level 1",
        (accept(FREE, 1), accept(FREE + 0x5000)),
        {"rax": ALREADY | 1},
    )
    yield row(
        "kept",
        "ALREADY_ACCEPTED does not touch the page",
        (accept(FREE), write, accept(FREE), again),
        {"2.rax": ALREADY, "rax": 0x55},
    )
    yield row(
        "kept2m",
        "Nor does it touch a 2 MiB page",
        (accept(FREE, 1), write, accept(FREE, 1), again),
        {"2.rax": ALREADY | 1, "rax": 0x55},
    )
    yield row(
        "mismatch",
        "2 MiB where 4 KiB pages are: PAGE_SIZE_MISMATCH, level 1",
        (accept(FREE), accept(FREE, 1)),
        {"rax": MISMATCH | 1},
    )
    # mov eax, 6; mov rcx, rdi; tdcall; test rax, rax; jnz end; add rdi, 0x1000; dec rbx; jnz start
    each = code("b806000000 4889f9 660f01cc 4885c0 750c 4881c700100000 48ffcb 75e3", rdi=FREE, rbx=512)
    yield row(
        "mismatch_all",
        "2 MiB where all 512 pages are accepted one by one: PAGE_SIZE_MISMATCH as well",
        (each, accept(FREE, 1)),
        {"0.rax": 0, "0.rbx": 0, "rax": MISMATCH | 1},
    )
    yield row(
        "demoted",
        "4 KiB inside a pending 2 MiB page: the VMM splits it, the guest executes again",
        (accept(FREE + 0x5000), accept(FREE + 0x6000)),
        {"0.rax": 0, "rax": 0},
    )
    small = {"host_page_size": "4K"}
    yield row(
        "host4k",
        "A host that maps 4 KiB only: 2 MiB is PAGE_SIZE_MISMATCH",
        accept(FREE, 1),
        {"rax": MISMATCH | 1},
        td=small,
    )
    yield row(
        "host4k_small",
        "A host that maps 4 KiB only: 4 KiB succeeds",
        (accept(FREE, 1), accept(FREE)),
        {"rax": 0},
        td=small,
    )
    yield row("added_bfv", "Measured pages are accepted already", accept(at.BASE), {"rax": ALREADY})
    yield row("added_temp", "TempMem is accepted already", accept(at.BUFFER), {"rax": ALREADY})
    yield row("added_hob", "The TD HOB is accepted already", accept(at.HOB), {"rax": ALREADY})
    yield row(
        "added_2m",
        "2 MiB around pages added at launch: PAGE_SIZE_MISMATCH",
        accept(0x800000, 1),
        {"rax": MISMATCH | 1},
    )
    yield row(
        "busy",
        "A held lock: OPERAND_BUSY|RCX, then success",
        (accept(FREE), accept(FREE)),
        {"0.rax": 0x8000020000000001, "rax": 0},
        td={"accept_busy": 1},
    )
    yield row(
        "busy_order",
        "The operand is checked before the lock",
        accept(FREE | 8),
        {"rax": INVALID_RCX},
        td={"accept_busy": 1},
    )
    for level, gpa in ((0, 0x8000000), (1, 0x8000000)):
        yield row(
            f"free{level}",
            f"No page of the VMM at level {level}: TD exit",
            accept(gpa, level),
            {},
            end="sept-violation",
            detail="TDG.MEM.PAGE.ACCEPT",
        )
    yield row(
        "ve_disable_off", "Accepting needs no #VE first", accept(FREE), {"rax": 0}, td={"attributes": 0}
    )
    yield row(
        "flags",
        "ACCEPT changes RAX only, success or not",
        (accept(FREE), accept(FREE | 8)),
        {"0.changed": 1, "changed": 1, "rcx": FREE | 8, "rdx": FILL + 2},
    )
    info, gone = vmcall(0x10000, r12=0), {"removes": (FREE, False)}
    yield row(
        "blocked",
        "A page that the host blocked: TD exit",
        (accept(FREE), info, accept(FREE)),
        {},
        end="sept-violation",
        detail="TDG.MEM.PAGE.ACCEPT",
        td=gone,
    )
    yield row(
        "removed",
        "A page that the host removed and added again: accepted without an error, and zero",
        (accept(FREE), code("488907", rdi=FREE, rax=7), info, accept(FREE), code("488b07", rdi=FREE)),
        {"3.rax": 0, "vector": 3, "rax": 0},
        td={"removes": (FREE, True)},
    )
    yield absent(
        "accept.resume",
        "An interrupted 2 MiB accept goes on where it stopped",
        ACCEPT,
        "an accept takes no time here",
        SOURCE,
    )


def _attributes() -> Iterator[Row]:
    source = "tdg_mem_page_attr_rd.c tdg_mem_page_attr_rd"

    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(
            f"attr.{key}",
            what,
            ATTRIBUTES,
            source if "rd" in key else "tdg_mem_page_attr_wr.c tdg_mem_page_attr_wr",
            steps,
            expect,
            **more,
        )

    yield row(
        "rd_4k",
        "ATTR.RD of a 4 KiB page: GPA and level 0; no attributes for this VM",
        tdcall(23, rcx=at.BUFFER + 8),
        {"rax": 0, "rcx": at.BUFFER, "rdx": 0, "changed": 7},
    )
    yield row(
        "rd_pending",
        "ATTR.RD of a pending 2 MiB page",
        tdcall(23, rcx=FREE + 0x5000),
        {"rax": 0, "rcx": PENDING | FREE | 1, "rdx": 0},
    )
    yield row(
        "rd_2m",
        "ATTR.RD of an accepted 2 MiB page",
        (accept(FREE, 1), tdcall(23, rcx=FREE + 0x5000)),
        {"rcx": FREE | 1},
    )
    yield row(
        "rd_shared",
        "ATTR.RD of a shared GPA: |RCX, outputs zero",
        tdcall(23, rcx=FREE | BIT47),
        {"rax": INVALID_RCX, "rcx": 0, "rdx": 0},
    )
    yield row("rd_beyond", "ATTR.RD beyond GPAW: |RCX", tdcall(23, rcx=1 << 48), {"rax": INVALID_RCX})
    yield row(
        "rd_free",
        "ATTR.RD where the VMM has no page: TD exit",
        tdcall(23, rcx=0x8000000),
        {},
        end="sept-violation",
    )
    yield row(
        "wr_none",
        "ATTR.WR without attributes",
        tdcall(24, rcx=at.BUFFER, rdx=0, r8=0),
        {"rax": 0, "rcx": at.BUFFER, "rdx": 0},
    )
    yield row(
        "wr_pending",
        "ATTR.WR of a pending page shows it",
        tdcall(24, rcx=FREE | 1, rdx=0, r8=0),
        {"rax": 0, "rcx": PENDING | FREE | 1},
    )
    yield row(
        "wr_vm0",
        "ATTR.WR: a word for VM 0: |RDX, outputs zero",
        tdcall(24, rcx=at.BUFFER, rdx=0x8007, r8=0),
        {"rax": 0xC000010000000002, "rcx": 0, "rdx": 0},
    )
    yield row(
        "wr_vm1",
        "ATTR.WR: a VM that does not exist: |RDX",
        tdcall(24, rcx=at.BUFFER, rdx=0x80070000, r8=0),
        {"rax": 0xC000010000000002},
    )
    yield row(
        "wr_r8",
        "ATTR.WR: flags for a VM that does not exist: |R8",
        tdcall(24, rcx=at.BUFFER, rdx=0, r8=0x10000),
        {"rax": 0xC000010000000008},
    )
    yield row(
        "wr_order",
        "ATTR.WR: RDX and R8 come before RCX",
        tdcall(24, rcx=at.BUFFER | 8, rdx=0, r8=1),
        {"rax": 0xC000010000000008},
    )
    for level in (3, 7):
        yield row(
            f"wr_level{level}",
            f"ATTR.WR: level {level}: |RCX",
            tdcall(24, rcx=FREE | level, rdx=0, r8=0),
            {"rax": INVALID_RCX},
        )
    yield row(
        "wr_align",
        "ATTR.WR: GPA not aligned to its level: |RCX",
        tdcall(24, rcx=FREE | 0x1001, rdx=0, r8=0),
        {"rax": INVALID_RCX},
    )
    yield row(
        "wr_mismatch",
        "ATTR.WR: 2 MiB where 4 KiB pages are: PAGE_SIZE_MISMATCH",
        (accept(FREE), tdcall(24, rcx=FREE | 1, rdx=0, r8=0)),
        {"rax": MISMATCH | 1},
    )
    share = vmcall(0x10001, r12=FREE | BIT47, r13=0x1000)
    yield row(
        "wr_mismatch_hole",
        "The same where the first of them is gone",
        (share, tdcall(24, rcx=FREE | 1, rdx=0, r8=0)),
        {"0.r10": 0, "rax": MISMATCH | 1, "rcx": 0, "rdx": 0},
    )
    yield row(
        "wr_mismatch_1g",
        "ATTR.WR: 1 GiB where smaller pages are: PAGE_SIZE_MISMATCH, level 2",
        tdcall(24, rcx=2, rdx=0, r8=0),
        {"rax": MISMATCH & ~0xFFFFFFFF | 2},
    )
    yield row(
        "wr_larger",
        "ATTR.WR: 4 KiB inside a 2 MiB page: TD exit",
        tdcall(24, rcx=FREE, rdx=0, r8=0),
        {},
        end="sept-violation",
    )
    yield row(
        "wr_free",
        "ATTR.WR where the VMM has no page: TD exit",
        tdcall(24, rcx=0x8000000, rdx=0, r8=0),
        {},
        end="sept-violation",
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _accept()
    yield from _attributes()
