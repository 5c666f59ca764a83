"""What does each TDCALL leaf answer? Checks in their order, status words, registers that change and that stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import layout as at
from .rows import ALL_ONES, FILL, Row, Step, absent, code, store, tdcall

ENCODING, LEAVES, FIELDS, REPORTS = "2.1 TDCALL", "2.4 Leaves", "2.5 Metadata fields", "7 Reports"
DISPATCH = "tdx_td_dispatcher.c"
INVALID = 0xC000010000000000  # OPERAND_INVALID
SHARED = 1 << 47
NO_VE_INFO, ID_INCORRECT, NOT_WRITABLE = 0xC000070400000000, 0xC0000C0000000000, 0xC0000C0100000000
NOT_READABLE, VALUE_NOT_VALID, FIRST_ID = 0xC0000C0200000000, 0xC0000C0300000000, 0x00000C0B00000000
GP = {"vector": 13, "error": 0, "at": 0}
RAX, RCX, RDX, R8, R9, R10, R11 = 1 << 0, 1 << 1, 1 << 2, 1 << 8, 1 << 9, 1 << 10, 1 << 11
B, FREE = at.BUFFER, at.FREE
SEPARATOR = bytes.fromhex(  # SHA-384 of four zero bytes
    "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e576573ad7ed9ae41019f5818b4b971c9effc60e1ad9f1289f0"
)
# RTMR after one extend of the separator from zero, and its quadwords
EXTENDED = bytes.fromhex(
    "518923b0f955d08da077c96aaba522b9decede61c599cea6c41889cfbea4ae4d50529d96fe4d1afdafb65e7f95bf23c4"
)
FLEXIBLE, DEFAULT_VE = {"config_flags": 6}, 1 << 28


def quad(content: bytes, index: int) -> int:
    """A little-endian quadword."""
    return int.from_bytes(content[8 * index : 8 * index + 8], "little")


def _row(key: str, what: str, section: str, source: str, steps: Step | tuple[Step, ...], expect: dict[str, int],
         **more: Any) -> Row:  # fmt: skip
    return Row(key, what, section, source, steps if isinstance(steps, tuple) else (steps,), expect, **more)


def _encoding() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(f"tdcall.{key}", what, ENCODING, DISPATCH, steps, expect, **more)

    bad = {"vector": 3, "rax": INVALID, "changed": RAX}
    for leaf in (13, 14, 15, 16, 17, 19, 21, 28, 29, 30, 31, 32, 33, 64, 72, 254, 0xFFFF):
        yield row(f"leaf{leaf}", f"Leaf {leaf} does not exist", tdcall(leaf), bad)
    for leaf in (0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12, 18, 22, 23, 25):
        yield row(f"version{leaf}", f"Leaf {leaf} has no version 1", tdcall(0x10000 | leaf, rcx=0xFC00), bad)
    yield row("version7", "Leaf 7 has no version 2", tdcall(0x20007, rcx=0, rdx=0), bad)
    yield row("reserved24", "RAX bit 24 is reserved", tdcall(1 << 24 | 1), bad)
    yield row("reserved63", "RAX bit 63 is reserved", tdcall(1 << 63 | 1), bad)
    yield row("compat", "In 32-bit code it is #GP(0)", tdcall(1, cs=at.CS32), GP)
    yield row("user", "In user mode it is #GP(0)", tdcall(1, cs=at.USER_CS), GP, status="simplified",
              why="what a CPU does is not confirmed in a public source")  # fmt: skip
    yield row("flags", "RFLAGS and the stack pointer are preserved",
              code("f9 660f01cc 0f92c3 4889e1", rax=1, rbx=0, rsp=at.STACK - 64), {"rbx": 1, "rcx": at.STACK - 64})  # fmt: skip
    xmm = code("66480f6ec3 660f01cc 66480f7ec3", rax=1, rbx=0x1122334455667788)
    yield row("xmm", "XMM registers are preserved", xmm, {"rbx": 0x1122334455667788})
    yield absent("tdcall.outside", "Outside a TD it is #UD", ENCODING, "this emulator runs TDs only", "CPU architecture")
    yield absent("tdcall.interrupted", "An interrupted leaf is executed again", ENCODING,
                 "leaves are not interrupted here: they take no time", DISPATCH)  # fmt: skip


def _info() -> Iterator[Row]:
    def row(key: str, what: str, expect: dict[str, int], **td: Any) -> Row:
        return _row(f"vp.info.{key}", what, LEAVES, "tdg_vp_info.c", tdcall(1), expect, td=td)

    every = RAX | RCX | RDX | R8 | R9 | R10 | R11
    yield row("changed", "VP.INFO changes RAX, RCX, RDX, R8 to R11 and nothing else", {"rax": 0, "changed": every})
    yield row("gpaw48", "RCX is the GPA width, 48", {"rcx": 48})
    yield row("gpaw52", "RCX is the GPA width, 52", {"rcx": 52}, gpaw=52, config_flags=5)
    yield row("attributes", "RDX is ATTRIBUTES", {"rdx": 1 << 28})
    yield row("attributes_debug", "RDX shows DEBUG", {"rdx": 1 << 28 | 1}, attributes=1 << 28 | 1)
    yield row("vcpus", "R8 is NUM_VCPUS and MAX_VCPUS", {"r8": 1 << 32 | 1})
    yield row("max_vcpus", "MAX_VCPUS may be more than NUM_VCPUS", {"r8": 8 << 32 | 1}, max_vcpus=8)
    yield row("index", "R9 is VCPU_INDEX", {"r9": 0})
    yield row("features", "R10 bit 0 tells of SYS.RD; R11 is 0", {"r10": 1, "r11": 0})


def _rtmr() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(f"rtmr.{key}", what, LEAVES, "tdg_mr_rtmr_extend.c", steps, expect, **more)

    ok = tdcall(2, rcx=B, rdx=0)
    yield row("ok", "RTMR.EXTEND changes RAX only", ok, {"rax": 0, "changed": RAX})
    for offset in (1, 32, 63):
        yield row(f"align{offset}", f"RCX off by {offset}: OPERAND_INVALID|RCX", tdcall(2, rcx=B + offset, rdx=0),
                  {"rax": INVALID | 1})  # fmt: skip
    yield row("shared", "A shared GPA: OPERAND_INVALID|RCX", tdcall(2, rcx=B | SHARED, rdx=0), {"rax": INVALID | 1})
    yield row("high", "A GPA beyond GPAW: OPERAND_INVALID|RCX", tdcall(2, rcx=B | 1 << 48, rdx=0), {"rax": INVALID | 1})
    yield row("index", "Index 4: OPERAND_INVALID|RDX", tdcall(2, rcx=B, rdx=4), {"rax": INVALID | 2})
    yield row("order", "RCX is checked before RDX", tdcall(2, rcx=B + 1, rdx=4), {"rax": INVALID | 1})
    yield row("walk_first", "The page is walked before the index is checked", tdcall(2, rcx=FREE, rdx=4), {},
              end="sept-violation", detail="TDG.MR.RTMR.EXTEND")  # fmt: skip
    yield row("pending", "A pending page: #VE(48) with SEPT_VE_DISABLE off, RAX still the leaf",
              tdcall(2, rcx=FREE, rdx=0), {"vector": 20, "ve_rcx": 48, "ve_r9": FREE, "at": 0, "changed": 0},
              td={"attributes": 0})  # fmt: skip
    yield row("pending_exit", "A pending page: TD exit with SEPT_VE_DISABLE on", tdcall(2, rcx=FREE, rdx=0), {},
              end="sept-violation")  # fmt: skip
    for n in range(4):
        steps = (store(B, SEPARATOR), tdcall(2, rcx=B, rdx=n), tdcall(7, rcx=0, rdx=0x1310000300000040 + 6 * n),
                 tdcall(7, rcx=0, rdx=0x1310000300000045 + 6 * n))  # fmt: skip
        yield row(f"value{n}", f"RTMR{n} becomes SHA-384 of itself and the data", steps,
                  {"1.rax": 0, "2.r8": quad(EXTENDED, 0), "3.r8": quad(EXTENDED, 5)})  # fmt: skip
    other = (store(B, SEPARATOR), tdcall(2, rcx=B, rdx=0), tdcall(7, rcx=0, rdx=0x1310000300000046))
    yield row("other", "The other registers stay", other, {"r8": 0})
    busy = (tdcall(2, rcx=B, rdx=0), tdcall(2, rcx=B, rdx=0))
    yield row("busy", "A held lock: OPERAND_BUSY|RTMR, then success", busy, {"0.rax": 0x80000200000000A8, "1.rax": 0},
              td={"rtmr_busy": 1})  # fmt: skip
    index = tdcall(2, rcx=B, rdx=4)
    yield row("busy_order", "The index is checked before the lock", index, {"rax": INVALID | 2}, td={"rtmr_busy": 1})


def _veinfo() -> Iterator[Row]:
    empty = {"rax": NO_VE_INFO, "rcx": 0, "rdx": 0, "r8": 0, "r9": 0, "r10": 0,
             "changed": RAX | RCX | RDX | R8 | R9 | R10}  # fmt: skip
    yield _row("veinfo.empty", "Without a #VE all outputs are 0", LEAVES, "tdg_vp_veinfo_get.c", tdcall(3), empty)
    full = (code("f4", keep_ve=True), tdcall(3))
    yield _row("veinfo.full", "VEINFO.GET after HLT", LEAVES, "tdg_vp_veinfo_get.c", full,
               {"rax": 0, "rcx": 12, "rdx": 0, "r8": 0, "r9": 0, "r10": 1, "r11": FILL + 11})  # fmt: skip


def _report() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], section: str = LEAVES,
            source: str = "tdg_mr_report.c", **more: Any) -> Row:  # fmt: skip
        return _row(f"report.{key}", what, section, source, steps, expect, **more)

    data = B + 0x800
    ok = tdcall(4, rcx=B, rdx=data, r8=0)
    yield row("ok", "MR.REPORT changes RAX only", ok, {"rax": 0, "changed": RAX})
    yield row("rcx_align", "RCX not a multiple of 1024: |RCX", tdcall(4, rcx=B + 512, rdx=data, r8=0), {"rax": INVALID | 1})
    yield row("rdx_align", "RDX not a multiple of 64: |RDX", tdcall(4, rcx=B, rdx=data + 32, r8=0), {"rax": INVALID | 2})
    yield row("rdx_high", "RDX beyond GPAW: |RDX", tdcall(4, rcx=B, rdx=1 << 48, r8=0), {"rax": INVALID | 2})
    yield row("subtype", "R8 not 0: |R8", tdcall(4, rcx=B, rdx=data, r8=1), {"rax": INVALID | 8})
    yield row("rcx_high", "RCX beyond GPAW: |RCX", tdcall(4, rcx=1 << 48, rdx=data, r8=0), {"rax": INVALID | 1})
    yield row("order_align", "RCX's alignment comes first", tdcall(4, rcx=B + 512, rdx=data + 1, r8=1), {"rax": INVALID | 1})
    yield row("order_rdx", "RDX comes before R8", tdcall(4, rcx=1 << 48, rdx=data + 1, r8=1), {"rax": INVALID | 2})
    yield row("order_r8", "R8 comes before the walk of RCX", tdcall(4, rcx=FREE, rdx=data, r8=1), {"rax": INVALID | 8})
    yield row("rcx_pending", "RCX pending: #VE(48)", tdcall(4, rcx=FREE, rdx=data, r8=0),
              {"vector": 20, "ve_rcx": 48, "ve_r9": FREE}, td={"attributes": 0})  # fmt: skip
    yield row("rdx_pending", "RDX pending: TD exit under SEPT_VE_DISABLE", tdcall(4, rcx=B, rdx=FREE, r8=0), {},
              end="sept-violation")  # fmt: skip
    yield row("busy", "RTMR lock held: OPERAND_BUSY|RTMR", (ok, ok), {"0.rax": 0x80000200000000A8, "1.rax": 0},
              td={"rtmr_busy": 1})  # fmt: skip
    made = Step(b"\x66\x0f\x01\xcc", {"rax": 0, "rcx": 0xFC00, "r10": 0, "r11": 0x10001, "r12": FREE | SHARED, "r13": 0x1000})
    copy = code("488b07", rdi=at.SHARED_WINDOW + FREE)
    yield row("shared", "Both operands may be shared", (made, tdcall(4, rcx=FREE | SHARED, rdx=FREE | SHARED, r8=0), copy),
              {"1.rax": 0, "rax": 0x81})  # fmt: skip

    structure = "tdx_api_defs.h"

    def layout(key: str, what: str, offsets: dict[int, int], *before: Step, **more: Any) -> Row:
        values = {f"mem.{B + offset:#x}": value for offset, value in offsets.items()}
        return row(key, what, (*before, ok), values, REPORTS, structure, **more)

    yield layout("type", "REPORTTYPE is 81, subtype 0, version 0; then 12 reserved bytes", {0: 0x81, 8: 0})
    words = bytes(range(1, 65))
    yield layout("data", "REPORTDATA lies at 128", {128: quad(words, 0), 184: quad(words, 7)}, store(data, words))
    yield layout("reserved", "Bytes 192 to 223 are 0", {192: 0, 200: 0, 208: 0, 216: 0})
    yield layout("valid", "TEE_TCB_INFO at 256 begins with its VALID bits", {256: 0x301FF})
    yield layout("svn", "TEE_TCB_SVN at 264: minor, major", {264: 0x0105, 272: 0})
    yield layout("signer", "MRSIGNERSEAM at 328 is 0 for a module of the vendor", {328: 0, 368: 0})
    yield layout("module_attributes", "ATTRIBUTES of the module at 376 are 0", {376: 0})
    yield layout("tcb_reserved", "Bytes 400 to 511 are 0", {400: 0, 488: 0, 496: 0, 504: 0})
    yield layout("attributes", "ATTRIBUTES at 512", {512: 1 << 28})
    yield layout("xfam", "XFAM at 520", {520: 3})
    yield layout("xfam_more", "XFAM at 520 is the TD's", {520: 0x1807}, td={"xfam": 0x1807})
    digests = {"mrconfigid": bytes(range(48)), "mrowner": bytes(range(48, 96)), "mrownerconfig": bytes(range(96, 144))}
    for name, offset in (("mrconfigid", 576), ("mrowner", 624), ("mrownerconfig", 672)):
        yield layout(name, f"{name.upper()} at {offset}",
                     {offset: quad(digests[name], 0), offset + 40: quad(digests[name], 5)}, td=digests)  # fmt: skip
    for n in range(4):
        yield layout(f"rtmr{n}", f"RTMR{n} at {720 + 48 * n}", {720 + 48 * n: quad(EXTENDED, 0), 760 + 48 * n: quad(EXTENDED, 5)},
                     store(data, SEPARATOR), tdcall(2, rcx=data, rdx=n))  # fmt: skip
    yield layout("servtd", "SERVTD_HASH at 912 is 0 without service TDs", {912: 0, 952: 0})
    yield layout("tdinfo_reserved", "Bytes 960 to 1023 are 0", {960: 0, 1016: 0})
    read = tdcall(7, rcx=0, rdx=0x1310000300000000)
    compare = Step(b"\x66\x0f\x01\xcc" + bytes.fromhex("488b8510020000 4c29c0"), {**read.regs, "rbp": B})
    yield row("mrtd", "MRTD at 528 is the field MRTD", (ok, compare), {"rax": 0}, REPORTS, structure)
    genuine = "the MAC says in words that it is none; the hash over TEE_TCB_INFO is over all of it (not confirmed)"
    yield layout("mac", "The MAC at 224", {224: 0x444554414C554D45, 232: 0x43414D204F4E202C}, status="simplified", why=genuine)
    hashes = "no public source tells whether anything but the 239 bytes counts"
    yield _row("report.tcb_hash", "TEE_TCB_INFO_HASH at 32", REPORTS, structure, ok, {"rax": 0}, status="simplified", why=hashes)


def _verify() -> Iterator[Row]:
    def row(key: str, what: str, steps: Step | tuple[Step, ...], expect: dict[str, int], **more: Any) -> Row:
        return _row(f"verify.{key}", what, LEAVES, "tdg_mr_verifyreport.c", steps, expect, **more)

    report, verify = tdcall(4, rcx=B, rdx=B + 0x800, r8=0), tdcall(22, rcx=B)
    yield row("own", "A report of this platform passes", (report, verify), {"rax": 0, "changed": RAX})
    change = code("80b7 80000000 01", rdi=B)  # XOR BYTE [RDI + 128], 1
    yield row("changed", "A changed report: INVALID_REPORTMACSTRUCT", (report, change, verify), {"rax": 0xC000100100000000})
    svn = code("80b7 10000000 01", rdi=B)
    yield row("cpusvn", "A changed CPUSVN: INVALID_CPUSVN", (report, svn, verify), {"rax": 0xC000100000000000},
              status="simplified", why="a CPU compares with the versions it knows, here with its own")  # fmt: skip
    yield row("align", "RCX not a multiple of 256: |RCX", tdcall(22, rcx=B + 128), {"rax": INVALID | 1})
    yield row("shared", "A shared GPA: |RCX", tdcall(22, rcx=B | SHARED), {"rax": INVALID | 1})
    yield row("pending", "A pending page: #VE(48)", tdcall(22, rcx=FREE), {"vector": 20, "ve_rcx": 48, "changed": 0},
              td={"attributes": 0})  # fmt: skip
    yield row("cpu", "A CPU without SEAMVERIFYREPORT: OPERAND_INVALID", tdcall(22, rcx=B + 1), {"rax": INVALID},
              td={"seamverifyreport": False})  # fmt: skip


def _cpuidve() -> Iterator[Row]:
    for value in range(4):
        yield _row(f"cpuidve.{value}", f"CPUIDVE.SET {value}", LEAVES, "tdg_vp_cpuidve_set.c", tdcall(5, rcx=value),
                   {"rax": 0, "changed": RAX})  # fmt: skip
    for bit in (2, 63):
        yield _row(f"cpuidve.reserved{bit}", f"CPUIDVE.SET bit {bit}: |RCX", LEAVES, "tdg_vp_cpuidve_set.c",
                   tdcall(5, rcx=1 << bit), {"rax": INVALID | 1})  # fmt: skip


def _partition() -> Iterator[Row]:
    def row(key: str, what: str, step: Step, status: int, source: str, **more: Any) -> Row:
        return _row(f"nested.{key}", what, LEAVES, source, step, {"rax": status, "changed": RAX if status else 0}, **more)

    yield row("enter_align", "VP.ENTER: RDX not a multiple of 256: |RDX", tdcall(25, rcx=0, rdx=B + 8), INVALID | 2,
              "tdg_vp_enter.c")  # fmt: skip
    yield row("enter_shared", "VP.ENTER: a shared GPA: |RDX", tdcall(25, rcx=0, rdx=B | SHARED), INVALID | 2, "tdg_vp_enter.c")
    yield row("enter_vm0", "VP.ENTER: VM 0: |RCX", tdcall(25, rcx=0, rdx=B), INVALID | 1, "tdg_vp_enter.c")
    yield row("enter_vm1", "VP.ENTER: VM 1 of a TD without nested VMs: |RCX", tdcall(25, rcx=1 << 52, rdx=B), INVALID | 1,
              "tdg_vp_enter.c")  # fmt: skip
    yield row("invept_vm0", "VP.INVEPT: bit 0: |RCX", tdcall(26, rcx=1), INVALID | 1, "tdg_vp_invept.c")
    yield row("invept_vm1", "VP.INVEPT: a VM that does not exist: |RCX", tdcall(26, rcx=2), INVALID | 1, "tdg_vp_invept.c")
    yield _row("nested.invept_none", "VP.INVEPT: the empty set", LEAVES, "tdg_vp_invept.c", tdcall(26, rcx=0), {"rax": 0})
    yield row("invvpid_vm0", "VP.INVVPID: VM 0: |RCX", tdcall(27, rcx=0, rdx=0), INVALID | 1, "tdg_vp_invvpid.c")
    yield row("invvpid_vm1", "VP.INVVPID: a VM that does not exist: |RCX", tdcall(27, rcx=1 << 52, rdx=0), INVALID | 1,
              "tdg_vp_invvpid.c")  # fmt: skip
    yield absent("nested.run", "Nested VMs: entry, exits, attributes, their fields", LEAVES, "NUM_L2_VMS is always 0",
                 "tdg_vp_enter.c")  # fmt: skip
    handles = "a handle that binds nothing may also end in a cross-TD trap, depending on the TD's UUID"
    for leaf, name in ((18, "RD"), (20, "WR")):
        yield _row(f"servtd.{name.lower()}", f"SERVTD.{name} without a binding: |RCX", LEAVES, "tdg_servtd_rd_wr.c",
                   tdcall(leaf, rcx=0, rdx=0), {"rax": INVALID | 1, "r8": 0}, status="simplified", why=handles)  # fmt: skip
    yield absent("servtd.bound", "Service TDs", LEAVES, "nothing can be bound", "tdg_servtd_rd_wr.c")


def _rd() -> Iterator[Row]:
    def row(key: str, what: str, step: Step | tuple[Step, ...], expect: dict[str, int], source: str = "tdg_vm_rd_wr.c",
            **more: Any) -> Row:  # fmt: skip
        return _row(f"rd.{key}", what, LEAVES, source, step, expect, **more)

    xfam = 0x1110000300000001
    yield row("vm", "VM.RD changes RAX and R8 only", tdcall(7, rcx=0, rdx=xfam), {"rax": 0, "r8": 3, "changed": RAX | R8})
    yield row("vm_rcx", "VM.RD: RCX not 0: |RCX, R8 zeroed", tdcall(7, rcx=1, rdx=xfam),
              {"rax": INVALID | 1, "r8": 0, "rdx": xfam})  # fmt: skip
    yield row("vm_unknown", "VM.RD of no field", tdcall(7, rcx=0, rdx=0x1110000300000777), {"rax": ID_INCORRECT, "r8": 0})
    yield row("vm_elements", "VM.RD of more than one element", tdcall(7, rcx=0, rdx=xfam | 1 << 34), {"rax": ID_INCORRECT})
    yield row("vm_fields", "VM.RD of more than one field", tdcall(7, rcx=0, rdx=xfam | 1 << 38), {"rax": ID_INCORRECT})
    yield row("vm_reserved", "VM.RD with a reserved id bit", tdcall(7, rcx=0, rdx=xfam | 1 << 24), {"rax": ID_INCORRECT})
    yield row("vm_size", "Size and context bits of an id do not count", tdcall(7, rcx=0, rdx=xfam & ~(0x73 << 32 | 7 << 52)),
              {"rax": 0, "r8": 3})  # fmt: skip
    yield row("vm_mask_bit", "The write-mask bit of an id does not count", tdcall(7, rcx=0, rdx=xfam | 1 << 51),
              {"rax": 0, "r8": 3}, source="metadata_generic.c")  # fmt: skip
    yield row("vm_host", "VM.RD of a field of the host", tdcall(7, rcx=0, rdx=0x8010000000000001),
              {"rax": NOT_READABLE, "r8": 0}, status="simplified",
              why="a few host fields are known; the others answer FIELD_ID_INCORRECT")  # fmt: skip
    yield row("vm_v1", "VM.RD version 1 gives the next id", tdcall(0x10007, rcx=0, rdx=0x1110000300000000),
              {"rax": 0, "r8": 1 << 28, "rdx": xfam, "changed": RAX | RDX | R8})  # fmt: skip
    yield row("vm_v1_null", "VM.RD version 1 of no id gives the first id", tdcall(0x10007, rcx=0, rdx=ALL_ONES),
              {"rax": FIRST_ID, "r8": 0, "rdx": 0x8010000300000020})  # fmt: skip
    yield row("vm_v0_null", "VM.RD version 0 of no id", tdcall(7, rcx=0, rdx=ALL_ONES), {"rax": ID_INCORRECT})
    yield row("vm_v1_bad", "VM.RD version 1 that fails: RDX is all ones", tdcall(0x10007, rcx=1, rdx=xfam),
              {"rax": INVALID | 1, "rdx": ALL_ONES, "r8": 0})  # fmt: skip
    vp = "tdg_vp_rd_wr.c"
    yield row("vp", "VP.RD gives value and next id", tdcall(9, rcx=0, rdx=0xA020000200000002),
              {"rax": 0, "r8": 0, "rdx": 0xA020000000000007, "changed": RAX | RDX | R8}, vp)  # fmt: skip
    yield row("vp_rcx", "VP.RD: RCX not 0: |RCX", tdcall(9, rcx=2, rdx=0xA020000200000002),
              {"rax": INVALID | 1, "rdx": ALL_ONES, "r8": 0}, vp)  # fmt: skip
    yield row("vp_unknown", "VP.RD of no field", tdcall(9, rcx=0, rdx=0xA020000200000999),
              {"rax": ID_INCORRECT, "rdx": ALL_ONES}, vp)  # fmt: skip
    yield row("vp_null", "VP.RD of no id gives the first id", tdcall(9, rcx=0, rdx=ALL_ONES),
              {"rax": FIRST_ID, "rdx": 0xA020000200000002}, vp)  # fmt: skip
    sys = "tdg_sys_rd.c"
    yield row("sys", "SYS.RD gives value and next id", tdcall(11, rdx=0x0800000200000000),
              {"rax": 0, "r8": 0x8086, "rdx": 0x0800000100000003, "changed": RAX | RDX | R8}, sys)  # fmt: skip
    yield row("sys_rcx", "SYS.RD takes no notice of RCX", tdcall(11, rcx=7, rdx=0x0800000200000000), {"rax": 0, "r8": 0x8086}, sys)
    yield row("sys_unknown", "SYS.RD of no field", tdcall(11, rdx=0x0800000200000777), {"rax": ID_INCORRECT, "rdx": ALL_ONES}, sys)
    yield row("sys_null", "SYS.RD of no id gives the first id", tdcall(11, rdx=ALL_ONES),
              {"rax": FIRST_ID, "rdx": 0x0800000200000000}, sys)  # fmt: skip
    rdall = "tdg_sys_rdall.c"
    yield row("rdall", "SYS.RDALL fills the buffer and ends", tdcall(12, rdx=B, r8=ALL_ONES), {"rax": 0, "r8": ALL_ONES},
              rdall, status="simplified", why="every field is a sequence of its own; a module joins neighbours")  # fmt: skip
    yield row("rdall_align", "SYS.RDALL: RDX not a whole page: |RDX", tdcall(12, rdx=B + 8, r8=ALL_ONES),
              {"rax": INVALID | 2, "r8": ALL_ONES}, rdall)  # fmt: skip
    yield row("rdall_shared", "SYS.RDALL: a shared GPA: |RDX", tdcall(12, rdx=B | SHARED, r8=ALL_ONES), {"rax": INVALID | 2}, rdall)
    yield row("rdall_id", "SYS.RDALL from no field", tdcall(12, rdx=B, r8=0x0800000200000777), {"rax": ID_INCORRECT}, rdall)


def _wr() -> Iterator[Row]:
    def row(key: str, what: str, step: Step | tuple[Step, ...], expect: dict[str, int], source: str = "metadata_td.c",
            **more: Any) -> Row:  # fmt: skip
        return _row(f"wr.{key}", what, LEAVES, source, step, expect, **more)

    notify, ctls = 0x9110000300000010, 0x1110000300000017
    one = tdcall(8, rcx=0, rdx=notify, r8=1, r9=1)
    yield row("notify", "VM.WR of NOTIFY_ENABLES changes RAX and R8", one, {"rax": 0, "r8": 0, "changed": RAX | R8})
    yield row("notify_old", "VM.WR gives the value before", (one, one), {"rax": 0, "r8": 1})
    yield row("notify_linux", "The id that Linux uses", tdcall(8, rcx=0, rdx=0x9100000000000010, r8=1, r9=ALL_ONES), {"rax": 0})
    yield row("rcx", "VM.WR: RCX not 0: |RCX", tdcall(8, rcx=1, rdx=notify, r8=1, r9=1), {"rax": INVALID | 1, "r8": 0})
    yield row("mask0", "VM.WR with an empty mask", tdcall(8, rcx=0, rdx=notify, r8=1, r9=0), {"rax": NOT_WRITABLE})
    yield row("mask_outside", "VM.WR of bits that cannot be written", tdcall(8, rcx=0, rdx=notify, r8=2, r9=2),
              {"rax": NOT_WRITABLE})  # fmt: skip
    yield row("forbidden", "VM.WR that would change other bits", tdcall(8, rcx=0, rdx=notify, r8=3, r9=3),
              {"rax": VALUE_NOT_VALID})  # fmt: skip
    yield row("xfam", "VM.WR of XFAM", tdcall(8, rcx=0, rdx=0x1110000300000001, r8=3, r9=ALL_ONES), {"rax": NOT_WRITABLE})
    yield row("unknown", "VM.WR of no field", tdcall(8, rcx=0, rdx=0x1110000300000777, r8=0, r9=1), {"rax": ID_INCORRECT})
    yield row("ctls_fixed", "TD_CTLS without FLEXIBLE_PENDING_VE", tdcall(8, rcx=0, rdx=ctls, r8=0, r9=1),
              {"rax": VALUE_NOT_VALID})  # fmt: skip
    yield row("ctls_same", "TD_CTLS: the value it has may be written", tdcall(8, rcx=0, rdx=ctls, r8=1, r9=1), {"rax": 0, "r8": 1})
    off, touch = tdcall(8, rcx=0, rdx=ctls, r8=0, r9=1), code("488b07", rdi=FREE)
    yield row("ctls_off", "TD_CTLS off: a pending page is #VE(48) again", (off, touch), {"0.rax": 0, "0.r8": 1, "vector": 20},
              td=FLEXIBLE)  # fmt: skip
    on = tdcall(8, rcx=0, rdx=ctls, r8=1, r9=1)
    yield row("ctls_on", "TD_CTLS on: a pending page is a TD exit", (on, touch), {}, end="sept-violation",
              td={**FLEXIBLE, "attributes": 0})  # fmt: skip
    yield row("ctls_lock", "TD_CTLS bits of later modules", tdcall(8, rcx=0, rdx=ctls, r8=1 << 63, r9=1 << 63), {"rax": NOT_WRITABLE})
    vp = "tdg_vp_rd_wr.c"
    yield row("vp", "VP.WR of CPUID_USER_VE", tdcall(10, rcx=0, rdx=0xA020000000000008, r8=1, r9=0xFF),
              {"rax": 0, "r8": 0, "changed": RAX | R8}, vp)  # fmt: skip
    yield row("vp_index", "VP.WR of VCPU_INDEX", tdcall(10, rcx=0, rdx=0xA020000200000002, r8=1, r9=0xFF), {"rax": NOT_WRITABLE}, vp)
    yield row("vp_rcx", "VP.WR: RCX not 0: |RCX", tdcall(10, rcx=1, rdx=0xA020000000000008, r8=1, r9=1), {"rax": INVALID | 1}, vp)
    control = 0xA120000000000000
    yield row("vp_control", "VP.WR of CPUID_CONTROL, and back", (tdcall(10, rcx=0, rdx=control + 127, r8=3, r9=3),
              tdcall(9, rcx=0, rdx=control + 127)), {"0.rax": 0, "rax": 0, "r8": 3, "rdx": ALL_ONES}, vp,
              status="simplified", why="the fields of nested VMs that would follow are missing")  # fmt: skip
    yield row("vp_control_end", "CPUID_CONTROL has 128 entries", tdcall(9, rcx=0, rdx=control + 128), {"rax": ID_INCORRECT}, vp)
    yield row("vp_control_bits", "CPUID_CONTROL has two bits", tdcall(10, rcx=0, rdx=control, r8=4, r9=7), {"rax": VALUE_NOT_VALID}, vp)


def _fields() -> Iterator[Row]:
    source = "tdr_tdcs_fields_lookup.c"

    def row(name: str, leaf: int, identifier: int, value: int, key: str = "", **more: Any) -> Row:
        step = tdcall(leaf, rcx=0, rdx=identifier)
        table = {7: source, 9: "tdvps_fields_lookup.c", 11: "global_sys_fields_lookup.c"}[leaf]
        return _row(f"field.{key or name.lower()}", f"{name} ({identifier:016X})", FIELDS, table, step, {"rax": 0, "r8": value}, **more)

    td: tuple[tuple[str, int, int, str, dict[str, Any]], ...] = (
        ("NUM_VCPUS", 0x9010000200000001, 1, "", {}),
        ("NUM_L2_VMS", 0x9010000100000005, 0, "", {}),
        ("MAX_VCPUS", 0x1110000200000002, 4, "", {"max_vcpus": 4}),
        ("GPAW", 0x1110000000000003, 0, "gpaw48", {}),
        ("GPAW", 0x1110000000000003, 1, "gpaw52", {"gpaw": 52, "config_flags": 5}),
        ("ATTRIBUTES", 0x1110000300000000, 1 << 28, "", {}),
        ("XFAM", 0x1110000300000001, 0xE7, "", {"xfam": 0xE7}),
        ("TSC_FREQUENCY", 0x111000010000000C, 80, "", {"tsc_25mhz": 80}),
        ("NOTIFY_ENABLES", 0x9110000300000010, 0, "", {}),
        ("CONFIG_FLAGS", 0x1110000300000016, 4, "", {}),
        ("TD_CTLS", 0x1110000300000017, 1, "td_ctls1", {}),
        ("TD_CTLS", 0x1110000300000017, 0, "td_ctls0", {"attributes": 0}),
        ("SERVTD_HASH", 0x9910000300000000, 0, "", {}),
        ("SERVTD_NUM", 0x9910000100000006, 0, "", {}),
        ("PRE_IMPORT_UUID", 0x9810000300000040, 0, "", {}),
    )
    for name, identifier, value, key, params in td:
        yield row(name, 7, identifier, value, key, td=params)
    for name, start in (("MRCONFIGID", 0x10), ("MROWNER", 0x18), ("MROWNERCONFIG", 0x20)):
        digest = bytes(range(start, start + 48))
        yield row(f"{name} element 5", 7, 0x1310000300000005 + start, quad(digest, 5), name.lower(), td={name.lower(): digest})
    yield row("RTMR0 element 0", 7, 0x1310000300000040, 0, "rtmr")
    last = tdcall(7, rcx=0, rdx=0x1310000300000058)
    yield _row("field.rtmr_end", "RTMR has 24 elements", FIELDS, source, last, {"rax": ID_INCORRECT})
    later = tdcall(7, rcx=0, rdx=0x9100000000000019)
    yield _row("field.topology", "TOPOLOGY_ENUM_CONFIGURED is of later modules", FIELDS, source, later, {"rax": ID_INCORRECT})
    uuid = "a digest of the TD's parameters, so that runs repeat; a module makes it at random"
    yield _row("field.td_uuid", "TD_UUID", FIELDS, source, tdcall(7, rcx=0, rdx=0x8010000300000020), {"rax": 0},
               status="simplified", why=uuid)  # fmt: skip
    yield row("VCPU_INDEX", 9, 0xA020000200000002, 0)
    yield row("CPUID_SUPERVISOR_VE", 9, 0xA020000000000007, 0)
    yield row("CPUID_USER_VE", 9, 0xA020000000000008, 0)
    yield row("CPUID_CONTROL[0]", 9, 0xA120000000000000, 0, "cpuid_control")
    yield row("VENDOR_ID", 11, 0x0800000200000000, 0x8086)
    yield row("MAJOR_VERSION", 11, 0x0800000100000004, 1)
    yield row("MINOR_VERSION", 11, 0x0800000100000003, 5)
    yield row("NUM_TDX_FEATURES", 11, 0x0A00000000000001, 1)
    yield row("TDX_FEATURES0", 11, 0x0A00000300000008, 1 << 18 | 1 << 8 | 1 << 5 | 1 << 3, status="simplified",
              why="only the features that are modelled are shown: no migration, no partitioning")  # fmt: skip
    yield row("MIG_ATTRIBUTES", 11, 0xA000000300000000, 0, status="simplified", why="no migration")
    yield row("SYS_ATTRIBUTES", 11, 0x0A00000200000000, 0)


def rows() -> Iterator[Row]:
    """All rows of this part."""
    for part in (_encoding, _info, _rtmr, _veinfo, _report, _verify, _cpuidve, _partition, _rd, _wr, _fields):
        yield from part()
