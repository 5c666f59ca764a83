"""How are registers extended and reports made and checked?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .common import (
    EXTENDED,
    FREE,
    INVALID,
    LEAVES,
    RAX,
    REPORTS,
    SEPARATOR,
    SHARED,
    B,
    make,
    quad,
)
from .rows import Row, Step, code, store, tdcall


def _rtmr() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(
            f"rtmr.{key}", what, LEAVES, "tdg_mr_rtmr_extend.c tdg_mr_rtmr_extend", steps, expect, **more
        )

    ok = tdcall(2, rcx=B, rdx=0)
    yield row("ok", "RTMR.EXTEND changes RAX only", ok, {"rax": 0, "changed": RAX})
    for offset in (1, 32, 63):
        yield row(
            f"align{offset}",
            f"RCX off by {offset}: OPERAND_INVALID|RCX",
            tdcall(2, rcx=B + offset, rdx=0),
            {"rax": INVALID | 1},
        )
    yield row(
        "shared", "A shared GPA: OPERAND_INVALID|RCX", tdcall(2, rcx=B | SHARED, rdx=0), {"rax": INVALID | 1}
    )
    yield row(
        "high",
        "A GPA beyond GPAW: OPERAND_INVALID|RCX",
        tdcall(2, rcx=B | 1 << 48, rdx=0),
        {"rax": INVALID | 1},
    )
    yield row("index", "Index 4: OPERAND_INVALID|RDX", tdcall(2, rcx=B, rdx=4), {"rax": INVALID | 2})
    yield row("order", "RCX is checked before RDX", tdcall(2, rcx=B + 1, rdx=4), {"rax": INVALID | 1})
    yield row(
        "walk_first",
        "The page is walked before the index is checked",
        tdcall(2, rcx=FREE, rdx=4),
        {},
        end="sept-violation",
        detail="TDG.MR.RTMR.EXTEND",
    )
    yield row(
        "pending",
        "A pending page: #VE(48) with SEPT_VE_DISABLE off, RAX still the leaf",
        tdcall(2, rcx=FREE, rdx=0),
        {"vector": 20, "ve_rcx": 48, "ve_rdx": 1, "ve_r8": 0, "ve_r9": FREE, "at": 0, "changed": 0},
        td={"attributes": 0},
    )
    yield row(
        "pending_exit",
        "A pending page: TD exit with SEPT_VE_DISABLE on",
        tdcall(2, rcx=FREE, rdx=0),
        {},
        end="sept-violation",
    )
    for n in range(4):
        steps = (
            store(B, SEPARATOR),
            tdcall(2, rcx=B, rdx=n),
            tdcall(7, rcx=0, rdx=0x1310000300000040 + 6 * n),
            tdcall(7, rcx=0, rdx=0x1310000300000045 + 6 * n),
        )
        yield row(
            f"value{n}",
            f"RTMR{n} becomes SHA-384 of itself and the data",
            steps,
            {"1.rax": 0, "2.r8": quad(EXTENDED, 0), "3.r8": quad(EXTENDED, 5)},
        )
    other = (store(B, SEPARATOR), tdcall(2, rcx=B, rdx=0), tdcall(7, rcx=0, rdx=0x1310000300000046))
    yield row("other", "The other registers stay", other, {"r8": 0})
    busy = (tdcall(2, rcx=B, rdx=0), tdcall(2, rcx=B, rdx=0))
    yield row(
        "busy",
        "A held lock: OPERAND_BUSY|RTMR, then success",
        busy,
        {"0.rax": 0x80000200000000A8, "1.rax": 0},
        td={"rtmr_busy": 1},
    )
    yield row(
        "busy_later",
        "A lock that the host takes after the first extension",
        busy,
        {"0.rax": 0, "1.rax": 0x80000200000000A8},
        td={"rtmr_busy": 1, "rtmr_free": 1},
    )
    index = tdcall(2, rcx=B, rdx=4)
    yield row(
        "busy_order", "The index is checked before the lock", index, {"rax": INVALID | 2}, td={"rtmr_busy": 1}
    )


def _report() -> Iterator[Row]:
    def row(
        key: str,
        what: str,
        steps: Step | tuple[Step, ...],
        expect: dict[str, int],
        section: str = LEAVES,
        source: str = "tdg_mr_report.c tdg_mr_report",
        **more: Any,
    ) -> Row:
        return make(f"report.{key}", what, section, source, steps, expect, **more)

    data = B + 0x800
    ok = tdcall(4, rcx=B, rdx=data, r8=0)
    yield row("ok", "MR.REPORT changes RAX only", ok, {"rax": 0, "changed": RAX})
    yield row(
        "rcx_align",
        "RCX not a multiple of 1024: |RCX",
        tdcall(4, rcx=B + 512, rdx=data, r8=0),
        {"rax": INVALID | 1},
    )
    yield row(
        "rdx_align",
        "RDX not a multiple of 64: |RDX",
        tdcall(4, rcx=B, rdx=data + 32, r8=0),
        {"rax": INVALID | 2},
    )
    yield row("rdx_high", "RDX beyond GPAW: |RDX", tdcall(4, rcx=B, rdx=1 << 48, r8=0), {"rax": INVALID | 2})
    yield row("subtype", "R8 not 0: |R8", tdcall(4, rcx=B, rdx=data, r8=1), {"rax": INVALID | 8})
    yield row(
        "rcx_high", "RCX beyond GPAW: |RCX", tdcall(4, rcx=1 << 48, rdx=data, r8=0), {"rax": INVALID | 1}
    )
    yield row(
        "order_align",
        "RCX's alignment comes first",
        tdcall(4, rcx=B + 512, rdx=data + 1, r8=1),
        {"rax": INVALID | 1},
    )
    yield row(
        "order_rdx", "RDX comes before R8", tdcall(4, rcx=1 << 48, rdx=data + 1, r8=1), {"rax": INVALID | 2}
    )
    yield row(
        "order_r8",
        "R8 comes before the walk of RCX",
        tdcall(4, rcx=FREE, rdx=data, r8=1),
        {"rax": INVALID | 8},
    )
    yield row(
        "rcx_pending",
        "RCX pending: #VE(48)",
        tdcall(4, rcx=FREE, rdx=data, r8=0),
        {"vector": 20, "ve_rcx": 48, "ve_rdx": 3, "ve_r8": 0, "ve_r9": FREE},
        td={"attributes": 0},
    )
    yield row(
        "device",
        "RDX is shared memory the VMM gives to a device: #VE(48)",
        tdcall(4, rcx=B, rdx=SHARED | 0xC0000000, r8=0),
        {"vector": 20, "ve_rcx": 48, "ve_rdx": 1, "ve_r9": SHARED | 0xC0000000, "changed": 0},
        source="helpers.c check_walk_and_map_guest_side_gpa",
    )
    yield row(
        "rdx_pending",
        "RDX pending: TD exit under SEPT_VE_DISABLE",
        tdcall(4, rcx=B, rdx=FREE, r8=0),
        {},
        end="sept-violation",
    )
    yield row(
        "busy",
        "RTMR lock held: OPERAND_BUSY|RTMR",
        (ok, ok),
        {"0.rax": 0x80000200000000A8, "1.rax": 0},
        td={"rtmr_busy": 1},
    )
    made = Step(
        b"\x66\x0f\x01\xcc",
        {"rax": 0, "rcx": 0xFC00, "r10": 0, "r11": 0x10001, "r12": FREE | SHARED, "r13": 0x1000},
    )
    copy = code("488b07", rdi=at.SHARED_WINDOW + FREE)
    yield row(
        "shared",
        "Both operands may be shared",
        (made, tdcall(4, rcx=FREE | SHARED, rdx=FREE | SHARED, r8=0), copy),
        {"1.rax": 0, "rax": 0x81},
    )

    structures = ((512, "td_info_s"), (256, "tee_tcb_info_s"), (0, "report_mac_struct_s"))

    def layout(key: str, what: str, offsets: dict[int, int], *before: Step, **more: Any) -> Row:
        values = {f"mem.{B + offset:#x}": value for offset, value in offsets.items()}
        structure = next(name for start, name in structures if min(offsets) >= start)
        return row(key, what, (*before, ok), values, REPORTS, f"tdx_api_defs.h {structure}", **more)

    yield layout("type", "REPORTTYPE is 81, subtype 0, version 0; then 12 reserved bytes", {0: 0x81, 8: 0})
    words = bytes(range(1, 65))
    yield layout(
        "data", "REPORTDATA lies at 128", {128: quad(words, 0), 184: quad(words, 7)}, store(data, words)
    )
    yield layout("reserved", "Bytes 192 to 223 are 0", {192: 0, 200: 0, 208: 0, 216: 0})
    yield layout(
        "valid",
        "TEE_TCB_INFO at 256 begins with its VALID bits",
        {256: 0x301FF},
        status="simplified",
        why="the CPU writes it; the rule in the module's header names one bit a field, CPUs set these",
    )
    yield layout(
        "svn",
        "TEE_TCB_SVN at 264: minor, major",
        {264: 0x0105, 272: 0},
        status="simplified",
        why="the CPU writes the SVN that the module was signed with; here stands the version, 1.5",
    )
    yield layout("signer", "MRSIGNERSEAM at 328 is 0 for a module of the vendor", {328: 0, 368: 0})
    yield layout("module_attributes", "ATTRIBUTES of the module at 376 are 0", {376: 0})
    yield layout("tcb_reserved", "Bytes 400 to 511 are 0", {400: 0, 488: 0, 496: 0, 504: 0})
    yield layout("attributes", "ATTRIBUTES at 512", {512: 1 << 28})
    yield layout("xfam", "XFAM at 520", {520: 3})
    yield layout("xfam_more", "XFAM at 520 is the TD's", {520: 0x1807}, td={"xfam": 0x1807})
    digests = {
        "mrconfigid": bytes(range(48)),
        "mrowner": bytes(range(48, 96)),
        "mrownerconfig": bytes(range(96, 144)),
    }
    for name, offset in (("mrconfigid", 576), ("mrowner", 624), ("mrownerconfig", 672)):
        yield layout(
            name,
            f"{name.upper()} at {offset}",
            {offset: quad(digests[name], 0), offset + 40: quad(digests[name], 5)},
            td=digests,
        )
    for n in range(4):
        yield layout(
            f"rtmr{n}",
            f"RTMR{n} at {720 + 48 * n}",
            {720 + 48 * n: quad(EXTENDED, 0), 760 + 48 * n: quad(EXTENDED, 5)},
            store(data, SEPARATOR),
            tdcall(2, rcx=data, rdx=n),
        )
    yield layout("servtd", "SERVTD_HASH at 912 is 0 without service TDs", {912: 0, 952: 0})
    yield layout("tdinfo_reserved", "Bytes 960 to 1023 are 0", {960: 0, 1016: 0})
    read = tdcall(7, rcx=0, rdx=0x1310000300000000)
    compare = Step(b"\x66\x0f\x01\xcc" + bytes.fromhex("488b8510020000 4c29c0"), {**read.regs, "rbp": B})
    yield row(
        "mrtd",
        "MRTD at 528 is the field MRTD",
        (ok, compare),
        {"rax": 0},
        REPORTS,
        "tdx_api_defs.h td_info_s",
    )
    genuine = (
        "the MAC says in words that it is none; the hash over TEE_TCB_INFO is over all of it (not confirmed)"
    )
    yield layout(
        "mac",
        "The MAC at 224",
        {224: 0x444554414C554D45, 232: 0x43414D204F4E202C},
        status="simplified",
        why=genuine,
    )
    hashes = "no public source tells whether anything but the 239 bytes counts"
    yield make(
        "report.tcb_hash",
        "TEE_TCB_INFO_HASH at 32",
        REPORTS,
        "tdx_api_defs.h report_mac_struct_s",
        ok,
        {"rax": 0},
        status="simplified",
        why=hashes,
    )


def _verify() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return make(
            f"verify.{key}", what, LEAVES, "tdg_mr_verifyreport.c tdg_mr_verifyreport", steps, expect, **more
        )

    report, verify = tdcall(4, rcx=B, rdx=B + 0x800, r8=0), tdcall(22, rcx=B)
    yield row("own", "A report of this platform passes", (report, verify), {"rax": 0, "changed": RAX})
    change = code("80b7 80000000 01", rdi=B)  # XOR BYTE [RDI + 128], 1
    yield row(
        "changed",
        "A changed report: INVALID_REPORTMACSTRUCT",
        (report, change, verify),
        {"rax": 0xC000100100000000},
    )
    svn = code("80b7 10000000 01", rdi=B)
    yield row(
        "cpusvn",
        "A changed CPUSVN: INVALID_CPUSVN",
        (report, svn, verify),
        {"rax": 0xC000100000000000},
        status="simplified",
        why="a CPU compares with the versions it knows, here with its own",
    )
    yield row("align", "RCX not a multiple of 256: |RCX", tdcall(22, rcx=B + 128), {"rax": INVALID | 1})
    yield row("shared", "A shared GPA: |RCX", tdcall(22, rcx=B | SHARED), {"rax": INVALID | 1})
    yield row(
        "pending",
        "A pending page: #VE(48)",
        tdcall(22, rcx=FREE),
        {"vector": 20, "ve_rcx": 48, "changed": 0},
        td={"attributes": 0},
    )
    yield row(
        "cpu",
        "A CPU without SEAMVERIFYREPORT: OPERAND_INVALID",
        tdcall(22, rcx=B + 1),
        {"rax": INVALID},
        td={"seamverifyreport": False},
    )


def rows() -> Iterator[Row]:
    """All rows of this part."""
    for part in (_rtmr, _report, _verify):
        yield from part()
