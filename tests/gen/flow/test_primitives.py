"""Do the generated primitives keep their promises? Run against C functions and TDCALLs played by the test."""

from __future__ import annotations

import struct

import pytest
from flowcpu import END, HEAP, Fatal, FlowCpu, firmware_with
from machinecode import Link
from unicorn import UC_HOOK_INSN_INVALID
from unicorn import x86_const as x86

from dsl.api import check_source
from formats.hob import MEMORY_ATTRIBUTES, ResourceType
from gen.boot.modes import GDT, SELECTOR_CODE64

DIGEST = bytes(range(1, 49))
PAGE = 4096
ZERO = ("RAX", "RBX", "RDX", "RDI", "RBP", *(f"R{number}" for number in range(8, 16)))


@pytest.fixture(scope="module")
def machine(link: Link) -> FlowCpu:
    return FlowCpu(firmware_with(""), link, primitives=True)


@pytest.fixture
def cpu(machine: FlowCpu) -> FlowCpu:
    machine.callees = {}
    return machine


def names(cpu: FlowCpu) -> list[str]:
    return [name for name, _ in cpu.calls]


def logs(digest_argument: int):
    """A log_* function that gives DIGEST."""

    def callee(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.write(arguments[digest_argument], DIGEST)
        return 0

    return callee


def extends(rtmr: int, status: int = 0):
    def callee(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] % 64 == 0, "TDG.MR.RTMR.EXTEND wants 64-byte alignment"
        assert (cpu.read(arguments[0], 48), arguments[1]) == (DIGEST, rtmr)
        return status

    return callee


@pytest.mark.parametrize(
    ("primitive", "log"),
    [
        ("measure_platform_config", "log_platform_config"),
        ("measure_blob", "log_blob"),
        ("measure_number", "log_number"),
        ("measure_cpus", "log_cpus"),
    ],
)
def test_measuring_logs_extends_and_commits(cpu: FlowCpu, primitive: str, log: str) -> None:
    cpu.callees = {log: logs(4), "tdcall_rtmr_extend": extends(1)}
    data, name, state = cpu.span(b"data"), cpu.span(b"name"), cpu.place(bytes(32))
    assert cpu.call(f"prim_{primitive}", data, 1, name, state) == 0
    assert names(cpu) == [log, "tdcall_rtmr_extend", "log_commit"]
    assert cpu.calls[0][1][:4] == (state, 1, name, data)
    assert cpu.calls[2][1][0] == state


def test_a_failed_extend_ends_the_boot(cpu: FlowCpu) -> None:
    cpu.callees = {"log_separator": logs(2), "tdcall_rtmr_extend": extends(0, 0x8000020000000000 | 168)}
    with pytest.raises(Fatal, match=r"TDG\.MR\.RTMR\.EXTEND failed"):
        cpu.call("prim_separate", 0, cpu.place(bytes(32)))
    assert names(cpu) == ["log_separator", "tdcall_rtmr_extend", "fatal"]


def test_a_full_log_extends_nothing(cpu: FlowCpu) -> None:
    cpu.callees = {"log_separator": lambda cpu, arguments: cpu.error("log_full")}
    assert cpu.call("prim_separate", 0, cpu.place(bytes(32))) == cpu.error("log_full")
    assert names(cpu) == ["log_separator"]


def ram(cpu: FlowCpu, regions: list[tuple[int, int]]) -> int:
    record = cpu.firmware.records["Ram"]
    address = cpu.place(bytes(record.size))
    carved = next(field.offset for field in record.fields if field.name == "carved")
    cpu.put(address + carved, len(regions), *(word for region in regions for word in region))
    return address


def test_the_image_says_what_its_memory_is(link: Link) -> None:
    """PermMem to accept, the rest as added; nothing of what was in the record before."""
    image = """firmware x {
        version 1.0.0
        image below 4 GiB {
            code    BFV
            config  CFV       4 KiB  at 0xFFD0_0000
            stack   TempMem  32 KiB  at 0x0080_0000
            paging  TempMem  80 KiB
            high    PermMem   4 GiB  at 0x1_0000_0000
        }
    }
    """
    boot = "uses memory\nflow boot(td: VpInfo) -> never { on error fatal fail requirement_failed }\n"
    cpu = FlowCpu(check_source(boot + image).require(), link, primitives=True)
    vmm = cpu.firmware.records["Vmm"]
    at = cpu.place(b"\xaa" * (vmm.size + 8))
    cpu.call("prim_image_memory", at)
    rows = [
        (ResourceType.SYSTEM_MEMORY, MEMORY_ATTRIBUTES, 0x80_0000, 0x8000),
        (ResourceType.SYSTEM_MEMORY, MEMORY_ATTRIBUTES, 0x80_8000, 0x1_4000),
        (ResourceType.UNACCEPTED, MEMORY_ATTRIBUTES, 1 << 32, 1 << 32),
    ]
    listed = struct.pack("<Q", len(rows)) + b"".join(struct.pack("<IIQQ", *map(int, row)) for row in rows)
    assert vmm.fields[0].name == "resources"
    assert cpu.read(at, vmm.size + 8) == listed.ljust(vmm.size, b"\0") + b"\xaa" * 8


def test_accept_hands_every_outcome_back_then_clears_the_carved_regions(cpu: FlowCpu) -> None:
    runs = [(0x100000, 3, 0, 0, 0), (0x200000, 5, 1, 0, 0), (0, 0, 0, 0, 0)]
    outcomes = [(3, 0), (2, 0xC0000B0B00000001)]
    told: list[tuple[int, int]] = []

    def accept_next(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        told.append(arguments[2:4])
        cpu.put(arguments[4], *runs[len(told) - 1])
        return 0

    def accept_run(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        at = len(told) - 1
        assert arguments[:3] == runs[at][:3]
        cpu.put(arguments[3], outcomes[at][0])
        return outcomes[at][1]

    cpu.callees = {"accept_next": accept_next, "tdcall_accept_run": accept_run}
    regions = [(HEAP + 0x80000 + 0x2000 * i, 0x1000) for i in range(3)]
    for start, _ in regions:
        cpu.write(start, b"\xaa" * 0x1800)
    plan, paging = ram(cpu, regions), cpu.place(bytes(24))
    assert cpu.call("prim_accept", plan, 1 << 32, 1, paging) == 0
    assert told == [(0, 0), *outcomes]
    assert cpu.calls[0] == ("accept_begin", (plan, 1 << 32, 1, *cpu.calls[0][1][3:]))
    assert [arguments[:5] for name, arguments in cpu.calls if name == "page_map"] == [
        (paging, start, start, size, 2) for start, size in regions
    ]
    for (start, size), place in zip(regions, cpu.context.carved.values(), strict=True):
        assert cpu.read(start, 0x1800) == bytes(0x1000) + b"\xaa" * 0x800
        assert (cpu.u64(cpu.state(place)), cpu.u64(cpu.state(place) + 8)) == (start, size)


def test_what_the_vmm_had_added_is_cleared_through_a_window(cpu: FlowCpu) -> None:
    """Mapped by C (here: where the window is), cleared, unmapped, before the next run is asked for."""
    clear, size, window = 0x12_3456_7000, 0x3000, 0xFC00_1000
    runs = [(0x100000, 1, 0, 0, 0), (0x200000, 1, 0, clear, size), (0, 0, 0, clear, PAGE)]
    at = window + clear % 0x20_0000
    cpu.cpu.mem_map(at, 0x4000)
    cpu.write(at, b"\xaa" * 0x4000)
    seen: list[tuple[str, int]] = []

    def accept_next(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.put(arguments[4], *runs[sum(name == "next" for name, _ in seen)])
        seen.append(("next", 0))
        return 0

    def accept_run(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        seen.append(("run", arguments[0]))
        cpu.put(arguments[3], 1)
        return 0

    def page_map(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        if arguments[1] == arguments[2]:
            return 0  # the carved regions, at the end
        assert arguments[1:3] == (at, clear)
        seen.append(("map" if arguments[4] else "unmap", arguments[3]))
        return 0

    cpu.callees = {"accept_next": accept_next, "tdcall_accept_run": accept_run, "page_map": page_map}
    regions = [(HEAP + 0x80000 + PAGE * i, PAGE) for i in range(3)]
    assert cpu.call("prim_accept", ram(cpu, regions), 1 << 32, 1, cpu.place(bytes(24))) == 0
    cleared = [("map", size), ("unmap", size)], [("map", PAGE), ("unmap", PAGE)]
    first, second, end = ("run", 0x100000), ("run", 0x200000), ("next", 0)
    assert seen == [end, first, end, *cleared[0], second, end, *cleared[1]]
    assert cpu.read(at, 0x4000) == bytes(size) + b"\xaa" * (0x4000 - size)


def test_a_failed_acceptance_ends_it(cpu: FlowCpu) -> None:
    cpu.callees = {"accept_next": lambda cpu, arguments: cpu.error("accept_failed")}
    assert cpu.call("prim_accept", ram(cpu, []), 0, 0, cpu.place(bytes(24))) == cpu.error("accept_failed")


def test_copies_are_mapped_then_made_with_the_zeros_behind_them(cpu: FlowCpu) -> None:
    source, size = HEAP + 0x90000, 0x1234
    content = bytes(i * 7 % 251 for i in range(size))
    cpu.write(source, content)
    record = cpu.firmware.records["Placement"]
    placement, paging = cpu.place(bytes(record.size)), cpu.place(bytes(24))
    copies = next(field.offset for field in record.fields if field.name == "copies")
    below, above = source - 0x2340, source + 0x2010
    cpu.write(above, b"\xaa" * 0x4000)
    cpu.put(
        placement + copies, 3, below, source, size, 0, above, source, size, 0xE00, above + PAGE * 3, 0, 0, 4
    )
    assert cpu.call("prim_load_linux", placement, paging) == 0
    assert cpu.read(below, size) == cpu.read(above, size) == content
    assert (
        cpu.read(above + size, 0x4000 - size) == bytes(0xE00) + b"\xaa" * (0xFCC) + bytes(4) + b"\xaa" * 0xFFC
    )
    mapped = [arguments[:5] for name, arguments in cpu.calls if name == "page_map"]
    parts = ((below, size), (above, size + 0xE00), (above + PAGE * 3, 4))
    pages = [(to & -PAGE, -(-(to + length) // PAGE) * PAGE) for to, length in parts]
    assert mapped == [(paging, start, start, end - start, 2) for start, end in pages]


def test_handoff_opens_windows_and_enters_with_the_boot_protocols_registers(cpu: FlowCpu) -> None:
    entry, page = HEAP + 0xB0200, HEAP + 0xC0000
    record = cpu.firmware.records["Placement"]
    offsets = {field.name: field.offset for field in record.fields}
    protected = next(f.offset for f in cpu.firmware.records["Linux"].fields if f.name == "protected_size")
    placement, paging = cpu.place(bytes(record.size)), cpu.place(bytes(24))
    words = {"load": 0x1234567, "entry": entry, "window_start": 0x1000000, "window_end": 0x3000000}
    for name, value in words.items():
        cpu.put(placement + offsets[name], value)
    cpu.put(placement + protected, 0x10000)
    cpu.write(entry, b"\x0f\x0b")  # the kernel: UD2, where the test looks at the registers
    seen: dict[str, int] = {}

    def kernel(engine: object, data: object) -> bool:
        for name in (*ZERO, "RIP", "RSI", "RCX", "EFLAGS", "CS", "DS", "SS"):
            seen[name] = cpu.cpu.reg_read(getattr(x86, f"UC_X86_REG_{name}"))
        cpu.cpu.reg_write(x86.UC_X86_REG_RIP, END)
        cpu.cpu.emu_stop()
        return True

    # The GDT of the reset code, so that selectors can be loaded: null, 32-bit, 64-bit, data.
    table = cpu.place(b"".join(descriptor.to_bytes(8, "little") for descriptor, _ in GDT))
    cpu.cpu.reg_write(x86.UC_X86_REG_GDTR, (0, table, 31, 0))
    cpu.cpu.reg_write(x86.UC_X86_REG_CS, SELECTOR_CODE64)
    hook = cpu.cpu.hook_add(UC_HOOK_INSN_INVALID, kernel)
    boot_params = cpu.place(page.to_bytes(8, "little") + PAGE.to_bytes(8, "little"))
    pml4, pdpt = HEAP + 0xD0000, HEAP + 0xD1000
    cpu.put(pml4, pdpt | 0x23)
    cpu.put(cpu.state(cpu.context.ap_paging), pml4)
    # Whatever the direction and the interrupt flag were on the way.
    cpu.callees["page_map"] = lambda cpu, _: cpu.cpu.reg_write(x86.UC_X86_REG_EFLAGS, 1 << 10 | 1 << 9 | 2)
    with pytest.raises(AssertionError, match="stack"):  # it does not return
        cpu.call("prim_handoff_linux", placement, boot_params, paging)
    assert cpu.callees.pop("page_map")
    cpu.cpu.hook_del(hook)
    assert [(arguments[0], *arguments[1:5]) for _, arguments in cpu.calls] == [
        (paging, 0, 0, 0x200000, 7),
        (paging, 0x1000000, 0x1000000, 0x2000000, 7),
        (paging, 0x1234000, 0x1234000, 0x11000, 7),
    ]
    # The parked APs find 512 GiB mapped one to one, writable and executable, in pages of 1 GiB.
    assert [cpu.u64(pdpt + 8 * i) for i in range(512)] == [i << 30 | 0x83 for i in range(512)]
    assert seen.pop("RSI") == page
    assert seen.pop("RIP") == entry
    assert (seen.pop("CS"), seen.pop("DS"), seen.pop("SS")) == (0x10, 0x18, 0x18)
    assert seen.pop("EFLAGS") & 0x600 == 0, "IF and DF are clear"
    assert seen.pop("RCX") == entry
    assert set(seen.values()) == {0}


def test_print_sends_each_byte_to_the_serial_port(cpu: FlowCpu) -> None:
    cpu.call("prim_print", cpu.span(b"ok\n"))
    assert [arguments[:3] for _, arguments in cpu.calls] == [(0x3F8, 1, byte) for byte in b"ok\n"]


@pytest.mark.parametrize(
    ("primitive", "callee"),
    [("prim_io_write", "tdvmcall_io_write"), ("prim_io_read", "tdvmcall_io_read")],
)
def test_a_port_is_one_tdvmcall_whose_refusal_is_an_error(cpu: FlowCpu, primitive: str, callee: str) -> None:
    third = cpu.place(bytes(8))  # the value, or where it goes
    assert cpu.call(primitive, 0x80, 1, third) == 0
    assert cpu.calls == [(callee, (0x80, 1, third, *cpu.calls[0][1][3:]))]
    cpu.callees = {callee: lambda cpu, arguments: 1 << 63}
    assert cpu.call(primitive, 0x80, 1, third) == cpu.error("tdvmcall_failed")


def test_tdvmcall_gives_r11(cpu: FlowCpu) -> None:
    def vmm(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] == 0x10000
        assert [cpu.u64(arguments[1] + 8 * i) for i in range(4)] == [1, 2, 3, 4]
        cpu.put(arguments[2], 77, 88)
        return 0

    cpu.callees = {"tdvmcall": vmm}
    out = cpu.place(bytes(8))
    assert cpu.call("prim_tdvmcall", 0x10000, 1, 2, 3, 4, out) == 0
    assert cpu.u64(out) == 77
    cpu.callees = {"tdvmcall": lambda cpu, arguments: 1 << 63}
    assert cpu.call("prim_tdvmcall", 0x10000, 1, 2, 3, 4, out) == cpu.error("tdvmcall_failed")


@pytest.mark.parametrize(
    ("answers", "succeeds"),
    [
        ([(0, 0)], True),
        ([(1, 0x1000), (1, 0x3000), (0, 0)], True),
        ([(1, 0)], False),  # no progress
        ([(1, 0x4000)], False),  # behind the end
        ([(1, 0x1800)], False),  # not a page
        ([(1 << 63, 0)], False),
        ([(2, 0x1000)], False),  # an error, whatever else it says
    ],
)
def test_sharing_takes_only_progress_for_an_answer(
    cpu: FlowCpu, answers: list[tuple[int, int]], succeeds: bool
) -> None:
    start, size, bit = 0x5000000, 0x4000, 1 << 47
    left = list(answers)
    asked: list[tuple[int, ...]] = []

    def map_gpa(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        asked.append(arguments[:2])
        status, progress = left.pop(0)
        cpu.put(arguments[2], (start | bit) + progress)
        return status

    cpu.callees = {"tdvmcall_map_gpa": map_gpa}
    region = cpu.place(start.to_bytes(8, "little") + size.to_bytes(8, "little"))
    td = cpu.place((48).to_bytes(8, "little") + bytes(24))
    paging, out = cpu.place(bytes(24)), cpu.place(bytes(16))
    status = cpu.call("prim_share", region, td, paging, out)
    assert asked[0] == (start | bit, size)
    assert all(sum(each) == (start | bit) + size for each in asked)
    if succeeds:
        assert status == 0
        assert cpu.calls[-1][1][:5] == (paging, start, start | bit, size, 2)
        assert (cpu.u64(out), cpu.u64(out + 8)) == (start, size)
    else:
        assert status == cpu.error("tdvmcall_failed")
        assert "page_map" not in names(cpu)


@pytest.mark.parametrize("last", [(1, 0x2000), (1, 0x4000), (2, 0), (1 << 63, 0)])
def test_sharing_that_stops_halfway_ends_the_boot(cpu: FlowCpu, last: tuple[int, int]) -> None:
    """What the VMM took is no RAM any more, and the plan says that it is."""
    start, bit = 0x5000000, 1 << 47
    left = [(1, 0x2000), last]

    def map_gpa(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        status, progress = left.pop(0)
        cpu.put(arguments[2], (start | bit) + progress)
        return status

    cpu.callees = {"tdvmcall_map_gpa": map_gpa}
    region = cpu.place(start.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    with pytest.raises(Fatal, match="TDVMCALL failed"):
        cpu.call("prim_share", region, cpu.place(VP_INFO), cpu.place(bytes(24)), cpu.place(bytes(16)))
    assert left == []


def test_a_number_is_printed_by_print(cpu: FlowCpu) -> None:
    sent: list[int] = []

    def hex_text(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] == 0x1234
        cpu.write(arguments[1], (6).to_bytes(8, "little") + b"0x1234\xaa")
        return 0

    def out(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        sent.append(arguments[2])
        return 0

    cpu.callees = {"hex_text": hex_text, "tdvmcall_io_write": out}
    cpu.call("prim_print_hex", 0x1234)
    assert bytes(sent) == b"0x1234"


@pytest.mark.parametrize(("pending", "status"), [(0, 0), (2, 0), (0, 1)])
def test_a_quote_is_polled_for(cpu: FlowCpu, pending: int, status: int) -> None:
    page, shared = HEAP + 0x30000, HEAP + 0x32000
    to = cpu.place(page.to_bytes(8, "little") + (4096).to_bytes(8, "little"))
    window = cpu.place(shared.to_bytes(8, "little") + (8192).to_bytes(8, "little"))
    data, td, out = cpu.place(DIGEST), cpu.place((48).to_bytes(8, "little") + bytes(32)), cpu.place(bytes(16))
    asked: list[tuple[int, ...]] = []

    def report(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[:2] == (page, page + 1024)
        assert cpu.read(page + 1024, 64) == DIGEST + bytes(16)
        return 0

    def tdvmcall(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        asked.append((arguments[0], *(cpu.u64(arguments[1] + 8 * i) for i in range(4))))
        return 0

    def answer(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[:3] == (to, window, out)
        waits = len(asked) - 1 < pending
        return cpu.error("quote_pending") if waits else cpu.error("quote_failed") if status else 0

    cpu.callees = {"tdcall_report": report, "tdvmcall": tdvmcall, "quote_answer": answer}
    failed = cpu.call("prim_get_quote", to, window, data, td, out)
    assert failed == (cpu.error("quote_failed") if status else 0)
    assert asked == [(0x10002, shared | 1 << 47, 8192, 0, 0), *[(0x10000, 0, 0, 0, 0)] * pending]


WINDOW, VP_INFO = 0x500_0000, (48).to_bytes(8, "little") + bytes(20) + (1).to_bytes(4, "little")


@pytest.mark.parametrize("tail", [[(0, 0)], [(1, 0x1000), (0, 0)], [(1, 0), (0, 0)]])
def test_unsharing_maps_and_accepts_each_page(cpu: FlowCpu, tail: list[tuple[int, int]]) -> None:
    left = list(tail)

    def map_gpa(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert not arguments[0] >> 47
        status, progress = left.pop(0)
        cpu.put(arguments[2], WINDOW + progress)
        return status

    cpu.callees = {"tdvmcall_map_gpa": map_gpa}
    region = cpu.place(WINDOW.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    status = cpu.call("prim_unshare", region, cpu.place(VP_INFO), cpu.place(bytes(24)))
    if tail[0] == (1, 0):  # no progress
        assert status == cpu.error("tdvmcall_failed")
        assert "tdcall_accept_run" not in names(cpu)
        return
    assert status == 0
    page_map, accept = (
        next(a for n, a in cpu.calls if n == name) for name in ("page_map", "tdcall_accept_run")
    )
    assert page_map[1:5] == (WINDOW, WINDOW, 0x4000, 2)
    assert accept[:3] == (WINDOW, 4, 0)
    assert (
        names(cpu).index("tdvmcall_map_gpa")
        < names(cpu).index("page_map")
        < names(cpu).index("tdcall_accept_run")
    )


def test_unsharing_that_cannot_accept(cpu: FlowCpu) -> None:
    cpu.callees = {"tdcall_accept_run": lambda cpu, arguments: 0xC000_0B0A_0000_0000}
    region = cpu.place(WINDOW.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    status = cpu.call("prim_unshare", region, cpu.place(VP_INFO), cpu.place(bytes(24)))
    assert status == cpu.error("accept_failed")


def request(cpu: FlowCpu, action: str, key: int = 0, start: int = 0, size: int = 0) -> bytes:
    number = dict(cpu.firmware.enumerations["FetchAction"].members)[action]
    words = ((number, 4), (key, 4), (start, 8), (size, 8))
    return b"".join(value.to_bytes(width, "little") for value, width in words)


@pytest.mark.parametrize(
    "broken", ["", "prim_share", "page_map", "fetch_next", "tdvmcall_io_write", "fetch_end"]
)
def test_files_are_fetched_by_the_requests_of_the_core(cpu: FlowCpu, broken: str) -> None:
    requests = [
        request(cpu, "select", 0x19, 0x1122, 4),
        request(cpu, "read", 0, 0x3344, 4),
        request(cpu, "map", 0, 0x600_0800, 0x1000),
        request(cpu, "done"),
    ]
    done: list[tuple[object, ...]] = []

    def fetch_next(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.write(arguments[4], requests.pop(0))
        return cpu.error("fw_cfg_failed") if broken == "fetch_next" else 0

    def port(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        done.append(arguments[:3])
        return 1 << 63 if broken == "tdvmcall_io_write" else 0

    def fails(name: str):
        return lambda cpu, arguments: cpu.error("tdvmcall_failed") if broken == name else 0

    cpu.callees = {"fetch_next": fetch_next, "tdvmcall_io_write": port, "fetch_end": fails("fetch_end")}
    cpu.callees |= {"tdvmcall_map_gpa": lambda cpu, arguments: 1 << 63 if broken == sharing(cpu) else 0}
    cpu.callees |= {
        "page_map": lambda cpu, arguments: (
            cpu.error("paging_exhausted") if broken == "page_map" and arguments[2] >> 47 else 0
        )
    }
    region = cpu.place(WINDOW.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    ram, paging, out = cpu.place(bytes(16)), cpu.place(bytes(24)), cpu.place(bytes(48))
    status = cpu.call("prim_fw_cfg_linux", region, ram, cpu.place(VP_INFO), paging, out)
    shared = [arguments[0] >> 47 for name, arguments in cpu.calls if name == "tdvmcall_map_gpa"]
    if broken:
        assert status != 0
        # However it failed, the window is private at the end, or was never shared.
        assert shared == ([1] if broken == "prim_share" else [1, 0])
        return
    assert status == 0
    assert shared == [1, 0]
    assert done == [(0x510, 2, 0x19), (0x518, 4, 0x1122), (0x518, 4, 0x3344)]
    maps = [arguments[:5] for name, arguments in cpu.calls if name == "page_map"]
    assert maps == [
        (paging, WINDOW, WINDOW | 1 << 47, 0x4000, 2),  # shared
        (paging, 0x600_0000, 0x600_0000, 0x2000, 2),  # whole pages
        (paging, WINDOW, WINDOW, 0x4000, 2),  # private again
    ]
    assert names(cpu)[-1] == "fetch_end"


@pytest.mark.parametrize("broken", ["", "q35_config", "tables_next", "prim_share"])
def test_the_hosts_tables_are_fetched_once_the_chipset_is_programmed(cpu: FlowCpu, broken: str) -> None:
    requests = [request(cpu, "select", 0x19, 0x1122, 4), request(cpu, "done")]
    fetch = cpu.firmware.records["TableFetch"]
    used = next(each.offset for each in fetch.fields if each.name == "used")
    ports: list[tuple[int, ...]] = []

    def config(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert "tdvmcall_map_gpa" not in names(cpu)
        cpu.write(arguments[2], access(cpu, 0x8000_0000, 4, 1, 5, done=int(arguments[0] == 1)))
        return cpu.error("q35_missing") if broken == "q35_config" else 0

    def tables_next(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[1:3] == (region, store)
        assert (
            broken
            or cpu.read(arguments[0], fetch.size)[used:]
            == (bytes(8), b"\x34\x12" + bytes(6))[len(requests) == 1]
        )
        cpu.put(arguments[0] + used, 0x1234)
        cpu.write(arguments[3], requests.pop(0))
        return cpu.error("fw_cfg_failed") if broken == "tables_next" else 0

    def port(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        ports.append(arguments[:3])
        return 0

    cpu.callees = {"q35_config": config, "tables_next": tables_next, "tdvmcall_io_write": port}
    cpu.callees |= {"tdvmcall_map_gpa": lambda cpu, arguments: 1 << 63 if broken == sharing(cpu) else 0}
    region = cpu.place(WINDOW.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    store, out = (
        cpu.place((0x700_0000).to_bytes(8, "little") + (0x10_0000).to_bytes(8, "little")),
        cpu.place(bytes(16)),
    )
    status = cpu.call("prim_fw_cfg_acpi", region, store, cpu.place(VP_INFO), cpu.place(bytes(24)), out)
    shared = [arguments[0] >> 47 for name, arguments in cpu.calls if name == "tdvmcall_map_gpa"]
    assert (status != 0) == bool(broken)
    assert shared == {"q35_config": [], "prim_share": [1]}.get(broken, [1, 0])
    if not broken:
        assert ports == [(0xCF8, 4, 0x8000_0000), (0xCFC, 4, 5), (0x510, 2, 0x19), (0x518, 4, 0x1122)]
        assert cpu.read(out, 16) == (0x700_0000).to_bytes(8, "little") + (0x1234).to_bytes(8, "little")


def test_a_window_that_stays_shared_ends_the_boot(cpu: FlowCpu) -> None:
    cpu.callees = {"fetch_next": lambda cpu, arguments: cpu.error("fw_cfg_failed")}
    cpu.callees |= {"tdvmcall_map_gpa": lambda cpu, arguments: 0 if arguments[0] >> 47 else 1 << 63}
    region = cpu.place(WINDOW.to_bytes(8, "little") + (0x4000).to_bytes(8, "little"))
    ram, paging, out = cpu.place(bytes(16)), cpu.place(bytes(24)), cpu.place(bytes(48))
    with pytest.raises(Fatal, match="TDVMCALL failed"):
        cpu.call("prim_fw_cfg_linux", region, ram, cpu.place(VP_INFO), paging, out)


def sharing(cpu: FlowCpu) -> str:
    """Which way the window goes: to be shared first, then back."""
    return "prim_share" if names(cpu).count("tdvmcall_map_gpa") == 1 else "prim_unshare"


def access(cpu: FlowCpu, address: int, size: int, write: int, value: int, done: int = 0) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in (address, 0xCFC, size, write, value, done))


@pytest.mark.parametrize("broken", ["", "q35_config", "tdvmcall_io_write", "tdvmcall_io_read", "q35_acpi"])
def test_the_chipset_is_programmed_by_the_accesses_of_the_core(cpu: FlowCpu, broken: str) -> None:
    rows = [(0x8000_0000, 4, 0, 0), (0x8000_F844, 1, 1, 0x80), (0, 0, 0, 0)]
    ports: list[tuple[int, ...]] = []
    answers: list[int] = []

    def config(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        step, answer, to = arguments[:3]
        answers.append(answer)
        cpu.write(to, access(cpu, *rows[step], done=int(step == 2)))
        return cpu.error("q35_missing") if broken == "q35_config" and step == 1 else 0

    def write(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        ports.append(arguments[:3])
        return 1 << 63 if broken == "tdvmcall_io_write" else 0

    def read(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        ports.append(arguments[:2])
        cpu.put(arguments[2], 0x29C0_8086)
        return 1 << 63 if broken == "tdvmcall_io_read" else 0

    def tables(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[:6] == given
        return cpu.error("acpi_no_room") if broken == "q35_acpi" else 0

    cpu.callees = {
        "q35_config": config,
        "tdvmcall_io_write": write,
        "tdvmcall_io_read": read,
        "q35_acpi": tables,
    }
    given = tuple(cpu.place(bytes(48)) for _ in range(6))
    status = cpu.call("prim_q35_tables", *given)
    assert (status != 0) == bool(broken)
    if not broken:
        assert ports == [(0xCF8, 4, 0x8000_0000), (0xCFC, 4), (0xCF8, 4, 0x8000_F844), (0xCFC, 1, 0x80)]
        assert answers == [0, 0x29C0_8086, 0x29C0_8086]
