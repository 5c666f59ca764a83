"""How do pages change between private and shared?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .common import make
from .rows import Row, Step, code, tdcall, vmcall
from .rows_pages import accept

CONVERSION = "6 Page conversion"
FREE, M2 = at.FREE, 2 << 20
BIT47, BIT51 = 1 << 47, 1 << 51
WIDE = {"config_flags": 5}
MAP = 0x10001
KVM = "KVM tdx.c tdx_map_gpa"
REMOVED = "KVM tdx.c tdx_map_gpa, tdx_sept_remove_private_spte, tdx_mem_page_aug"


def _conversion() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(f"convert.{key}", what, CONVERSION, more.pop("source", KVM), steps, expect, **more)

    share, unshare = vmcall(MAP, r12=FREE | BIT47, r13=0x1000), vmcall(MAP, r12=FREE, r13=0x1000)
    private_write, private_read = code("488907", rdi=FREE, rax=0x77), code("488b07", rdi=FREE)
    shared_write = code("488907", rdi=at.SHARED_WINDOW + FREE, rax=0x99)
    shared_read = code("488b07", rdi=at.SHARED_WINDOW + FREE)
    yield row(
        "share",
        "MapGPA of a pending page to shared",
        (share, shared_write, shared_read),
        {"0.r10": 0, "rax": 0x99},
    )
    yield row(
        "content",
        "Private contents do not reach the shared page",
        (accept(FREE), private_write, share, shared_read),
        {"2.r10": 0, "rax": 0},
        source=REMOVED,
    )
    yield row(
        "removed",
        "The private page is gone after MapGPA to shared",
        (accept(FREE), private_write, share, private_read),
        {},
        end="sept-violation",
        source=REMOVED,
    )
    yield row(
        "removed_no_ve",
        "It is gone with SEPT_VE_DISABLE off too: TD exit, no #VE",
        (accept(FREE), private_write, share, private_read),
        {},
        end="sept-violation",
        td={"attributes": 0},
        source=REMOVED,
    )
    yield row(
        "back_pending",
        "After MapGPA back the page is pending",
        (share, unshare, private_read),
        {"1.r10": 0, "vector": 20, "ve_rcx": 48},
        td={"attributes": 0},
        source=REMOVED,
    )
    yield row(
        "back_zero",
        "Accepted again it is zero",
        (accept(FREE), private_write, share, shared_write, unshare, accept(FREE), private_read),
        {"5.rax": 0, "vector": 3, "rax": 0},
        source=REMOVED,
    )
    yield row(
        "back_shared",
        "After MapGPA back the shared alias is gone",
        (share, shared_write, unshare, shared_read),
        {},
        end="sept-violation",
        source=REMOVED,
    )
    yield row(
        "shared_again",
        "Shared once more it is zero",
        (share, shared_write, unshare, share, shared_read),
        {"3.r10": 0, "rax": 0},
        source=REMOVED,
    )
    yield row(
        "accept_shared",
        "A converted page cannot be accepted: TD exit",
        (share, accept(FREE)),
        {},
        end="sept-violation",
        source=REMOVED,
    )
    yield row(
        "split",
        "MapGPA of 4 KiB splits a 2 MiB page; the rest stays",
        (
            accept(FREE, 1),
            code("488907", rdi=FREE + 0x1000, rax=0x31),
            share,
            code("488b07", rdi=FREE + 0x1000),
        ),
        {"2.r10": 0, "rax": 0x31},
        source=REMOVED,
    )
    yield row(
        "large",
        "MapGPA of 2 MiB",
        (
            vmcall(MAP, r12=FREE | BIT47, r13=M2),
            code("488907 488b0f", rdi=at.SHARED_WINDOW + FREE + M2 - 8, rax=5),
        ),
        {"0.r10": 0, "rcx": 5},
    )
    yield row(
        "gpaw52",
        "With GPAW 52 the shared bit is 51",
        (vmcall(MAP, r12=FREE | BIT51, r13=0x1000), shared_write, shared_read),
        {"0.r10": 0, "rax": 0x99},
        td=WIDE,
    )
    yield row(
        "align_start",
        "A start that is no page: ALIGN_ERROR",
        vmcall(MAP, r12=FREE + 8 | BIT47, r13=0x1000),
        {"rax": 0, "r10": 0x8000000000000002},
    )
    yield row(
        "align_size",
        "A size that is no page: ALIGN_ERROR",
        vmcall(MAP, r12=FREE | BIT47, r13=0x800),
        {"rax": 0, "r10": 0x8000000000000002},
    )
    yield row(
        "beyond",
        "Memory that is none cannot be private: INVALID_OPERAND and the failing GPA",
        vmcall(MAP, r12=0x8000000, r13=0x1000),
        {"rax": 0, "r10": 0x8000000000000000, "r11": 0x8000000},
    )
    report = tdcall(2, rcx=FREE, rdx=0)
    yield row(
        "rtmr_shared",
        "RTMR.EXTEND of a converted page by its private GPA: TD exit",
        (share, report),
        {},
        end="sept-violation",
        source="helpers.c check_walk_and_map_guest_side_gpa",
    )
    more = vmcall(MAP, r12=FREE + M2 | BIT47, r13=M2)
    yield row(
        "retry",
        "MapGPA of 4 MiB in two pieces: RETRY, with the GPA to go on from and its shared bit",
        (vmcall(MAP, r12=FREE | BIT47, r13=2 * M2), code("488b07", rdi=at.SHARED_WINDOW + FREE), more),
        {"0.r10": 1, "0.r11": FREE + M2 | BIT47, "1.rax": 0, "2.r10": 0},
        td={"map_gpa_retry": True},
        source=KVM,
    )
    yield row(
        "size0",
        "Size 0: INVALID_OPERAND",
        vmcall(MAP, r12=FREE | BIT47, r13=0),
        {"rax": 0, "r10": 0x8000000000000000, "r11": FREE | BIT47},
        source=KVM,
    )
    yield row(
        "across",
        "From private over the border to shared: INVALID_OPERAND",
        vmcall(MAP, r12=FREE, r13=BIT47),
        {"rax": 0, "r10": 0x8000000000000000, "r11": FREE},
        source=KVM,
    )
    yield row(
        "beyond_shared",
        "A GPA beyond the width, its shared bit being set: INVALID_OPERAND",
        vmcall(MAP, r12=3 * BIT47, r13=0x1000),
        {"rax": 0, "r10": 0x8000000000000000, "r11": 3 * BIT47},
        source=KVM,
    )
    yield row(
        "device",
        "Device memory is shared already",
        vmcall(MAP, r12=0xFEC00000 | BIT47, r13=0x1000),
        {"rax": 0, "r10": 0},
        source="QEMU accel/kvm/kvm-all.c kvm_convert_memory",
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    yield from _conversion()
