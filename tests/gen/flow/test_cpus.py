"""Does vCPU 0 find the others, send them where they wait, and give up on those that never come?

The test plays C functions, TDCALLs and the other vCPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flowcpu import HEAP, SHIPPED, Fatal, FlowCpu, firmware_with
from machinecode import Link
from unicorn import UC_HOOK_MEM_WRITE
from unicorn import x86_const as x86

from dsl.api import check_source
from formats.tdx.topology import ENUM_TOPOLOGY, TD_CTLS, TOPOLOGY_ENUM_CONFIGURED
from gen.boot.share import CHUNKS, DONE, LIST
from gen.primitives import cpus

PAGE, TABLES, SLOTS = 4096, 0x81_0000, HEAP + 0xB0000
FIRMWARE_PART = 0x800  # of the mailbox page: ACPI 6.5, table 5.44
REFUSED = 0xC000_0100_0000_0001


@pytest.fixture(scope="module")
def machine(link: Link) -> Iterator[FlowCpu]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpus, "PATIENCE", 1)
        yield FlowCpu(firmware_with(""), link, primitives=True)


@pytest.fixture
def cpu(machine: FlowCpu) -> FlowCpu:
    return fresh(machine)


@pytest.fixture(scope="module")
def anywhere(link: Link) -> FlowCpu:
    """Of a flow that runs without TDX, too."""
    text = SHIPPED.read_text().replace("    svn 1\n", "    svn 1\n    runs without TDX\n")
    return FlowCpu(check_source(text, "tests/flow.tdf").require(), link, primitives=True)


def fresh(cpu: FlowCpu) -> FlowCpu:
    cpu.callees = {}
    for name in ("ap_gate", "ap_mailbox", "ap_enumerated", "ap_ids"):
        cpu.put(cpu.image.symbols[name], 0)
    cpu.put(cpu.image.symbols["paging_cpu_ids"], SLOTS)
    cpu.write(SLOTS, bytes(2 * PAGE))
    cpu.cpu.reg_write(x86.UC_X86_REG_CR3, TABLES)
    return cpu


def td_of(cpu: FlowCpu, vcpus: int, tdx: int = 1) -> int:
    """A VpInfo at its place in the context; returns its address."""
    address = cpu.state(cpu.context.td)
    for field in cpu.firmware.records["VpInfo"].fields:
        value = {"num_vcpus": vcpus, "tdx": tdx}.get(field.name)
        if value is not None:
            cpu.write(address + field.offset, value.to_bytes(4, "little"))
    return address


@contextmanager
def on_store(cpu: FlowCpu, name: str, action: Callable[[], None]) -> Iterator[None]:
    """Calls `action` when code writes to the symbol."""
    at = cpu.image.symbols[name]
    hook = cpu.cpu.hook_add(UC_HOOK_MEM_WRITE, lambda *_: action(), begin=at, end=at)
    yield
    cpu.cpu.hook_del(hook)


def tell(cpu: FlowCpu, *told: int) -> None:
    for index, value in enumerate(told, 1):
        cpu.write(SLOTS + 4 * index, value.to_bytes(4, "little"))


def module(cpu: FlowCpu, configured: int | None, takes: bool) -> None:
    """What the TDX module says of TOPOLOGY_ENUM_CONFIGURED (None: there is no such field) and to TD_CTLS."""

    def read(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] == TOPOLOGY_ENUM_CONFIGURED
        cpu.put(arguments[1], 1 if configured is None else configured)
        return REFUSED if configured is None else 0

    def write(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[:3] == (TD_CTLS, ENUM_TOPOLOGY, ENUM_TOPOLOGY)
        return 0 if takes else REFUSED

    def apic_id(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] & 0xFFFF_FFFF == 0
        assert cpu.u64(cpu.image.symbols["ap_gate"]) == 0
        return 0xFFFF_FFFF_0000_0007  # of a 32-bit function the caller looks at 32 bits

    cpu.callees = {"tdcall_vm_rd": read, "tdcall_vm_wr": write, "tdcall_apic_id": apic_id}


@pytest.mark.parametrize(
    ("configured", "takes", "enumerated"),
    [(1, True, 1), (1, False, 0), (0, True, 0), (2, True, 0), (None, True, 0)],
)
def test_the_module_enumerates_if_it_can_and_all_are_collected(
    cpu: FlowCpu, configured: int | None, takes: bool, enumerated: int
) -> None:
    module(cpu, configured, takes)
    gates: list[int] = []

    def opened() -> None:
        gates.append(cpu.u64(cpu.image.symbols["ap_enumerated"]))
        tell(cpu, 10, 9)

    def collect(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        slots, given_td, given_out = arguments[:3]
        assert (cpu.u64(slots), cpu.u64(slots + 8)) == (SLOTS, 12)
        assert (given_td, given_out) == (td, out)
        assert cpu.bytes_of(slots) == b"".join(each.to_bytes(4, "little") for each in (8, 10, 9))
        return 0

    cpu.callees["collect_cpus"] = collect
    td, out = td_of(cpu, 3), cpu.place(bytes(32))
    with on_store(cpu, "ap_gate", opened):
        assert cpu.call("prim_find_cpus", td, out) == 0
    assert gates == [enumerated], "the gate opens once, when it is known whom to ask"
    assert cpu.u64(cpu.image.symbols["ap_gate"]) == TABLES
    assert [name for name, _ in cpu.calls][-2:] == ["tdcall_apic_id", "collect_cpus"]


def test_what_collecting_says_is_the_result(cpu: FlowCpu) -> None:
    module(cpu, None, False)
    cpu.callees["collect_cpus"] = lambda cpu, arguments: cpu.error("cpus_mismatch")
    assert cpu.call("prim_find_cpus", td_of(cpu, 1), cpu.place(bytes(32))) == cpu.error("cpus_mismatch")


def test_more_than_an_event_lists(cpu: FlowCpu) -> None:
    most = cpu.firmware.constants["MAX_CPUS"].value
    module(cpu, 1, True)
    tell(cpu, *[1] * (most - 1))
    assert cpu.call("prim_find_cpus", td_of(cpu, most), cpu.place(bytes(32))) == 0
    assert cpu.call("prim_find_cpus", td_of(cpu, most + 1), cpu.place(bytes(32))) == cpu.error(
        "cpus_too_many"
    )
    assert cpu.calls == []


def test_one_that_never_comes(cpu: FlowCpu) -> None:
    module(cpu, 1, True)
    tell(cpu, 2, 0, 4)
    assert cpu.call("prim_find_cpus", td_of(cpu, 4), cpu.place(bytes(32))) == cpu.error("cpus_absent")
    assert "collect_cpus" not in [name for name, _ in cpu.calls]


@pytest.mark.parametrize("tdx", [0, 1])
def test_without_tdx_nobody_is_asked(anywhere: FlowCpu, tdx: int) -> None:
    cpu = fresh(anywhere)
    module(cpu, 1, True)
    tell(cpu, 2)
    td, out = td_of(cpu, 2, tdx), cpu.place(bytes(32))

    def topology(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert (cpu.u64(arguments[0]), cpu.u64(arguments[0] + 8)) == (SLOTS, 8)
        return 0

    cpu.callees["ordinary_topology"] = topology
    assert cpu.call("prim_find_cpus", td, out) == 0
    called = [name for name, _ in cpu.calls]
    asked = ["tdcall_vm_rd", "tdcall_vm_wr", "tdcall_apic_id", "collect_cpus"]
    assert called == (asked if tdx else ["ordinary_topology", "collect_cpus"])
    assert cpu.u64(cpu.image.symbols["ap_gate"]) == (TABLES if tdx else 0)


# ---- parked

REGION = HEAP + 0xA0000


def wakeup(cpu: FlowCpu) -> int:
    cpu.write(REGION, b"\xaa" * 0x8000)
    return cpu.place(REGION.to_bytes(8, "little") + (0x8000).to_bytes(8, "little"))


def test_parked_aps_get_tables_of_their_own_and_the_mailbox_last(cpu: FlowCpu) -> None:
    def page_map(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[0] == cpu.state(cpu.context.ap_paging)
        assert cpu.u64(mailbox) == 0
        assert cpu.read(REGION, 0x8000) == bytes(0x8000)
        return 0

    mailbox, gate = (cpu.image.symbols[name] for name in ("ap_mailbox", "ap_gate"))
    cpu.put(gate, TABLES)
    cpu.callees = {"page_map": page_map}
    region = wakeup(cpu)
    td_of(cpu, 3)

    def parked() -> None:
        cpu.write(REGION + FIRMWARE_PART + 1, b"\1\1")

    with on_store(cpu, "ap_mailbox", parked):
        assert cpu.call("prim_park_aps", region, cpu.place(bytes(24))) == 0
    pool = cpu.state(cpu.context.ap_paging)
    assert [cpu.u64(pool + at) for at in (0, 8, 16)] == [REGION + PAGE, 0x7000, 1]
    assert cpu.u64(mailbox) == REGION
    assert cpu.u64(gate) == TABLES
    assert [arguments[4] for _, arguments in cpu.calls] == [3, 1, 1, 2]
    assert cpu.calls[-1][1][1:4] == (REGION, REGION, PAGE)


WITH_RESET = HEAP + 0x80000
BLOCK, CODE_SIZE, IDS, RESET = 0x1_0000, 0x1000, 0xE000, 0xF000
OF_ITSELF = (0x22, 0x30, 0x38)  # where the reset code holds addresses of its own


def block(cpu: FlowCpu, start: int = WITH_RESET, size: int = BLOCK) -> int:
    """A region of `size` bytes with the reset code beside it, whose bytes are their own offsets."""
    cpu.write(start, b"\xaa" * size)
    code = cpu.image.symbols["ap_reset"]
    cpu.write(code, b"".join(at.to_bytes(2, "little") for at in range(0, CODE_SIZE, 2)))
    for at in OF_ITSELF:
        cpu.write(code + at, (code + at).to_bytes(4, "little"))
    cpu.put(SLOTS, 0x1234_0000_0007)  # the ids of vCPU 0 and another
    return cpu.place(start.to_bytes(8, "little") + size.to_bytes(8, "little"))


def test_aps_that_come_back_find_code_ids_and_tables(cpu: FlowCpu) -> None:
    region = block(cpu, size=BLOCK + PAGE)
    mailbox, ids = (cpu.image.symbols[name] for name in ("ap_mailbox", "ap_ids"))
    td_of(cpu, 2)
    seen: list[int] = []

    def parked() -> None:
        seen.append(cpu.u64(ids))
        cpu.write(WITH_RESET + FIRMWARE_PART + 1, b"\1")

    with on_store(cpu, "ap_mailbox", parked):
        assert cpu.call("prim_park_aps_with_reset", region, cpu.place(bytes(24))) == 0
    assert seen == [WITH_RESET + IDS], "an AP that sees the mailbox finds where its id goes"
    assert cpu.u64(mailbox) == WITH_RESET
    pool = cpu.state(cpu.context.ap_paging)
    assert [cpu.u64(pool + at) for at in (0, 8, 16)] == [WITH_RESET + PAGE, IDS - PAGE, 1]
    assert [arguments[4] for _, arguments in cpu.calls] == [3, 1, 1, 2, 2]
    assert [arguments[1:4] for _, arguments in cpu.calls[-2:]] == [
        (WITH_RESET, WITH_RESET, PAGE),
        (WITH_RESET + IDS, WITH_RESET + IDS, PAGE),
    ]
    assert cpu.u64(WITH_RESET + FIRMWARE_PART + 1024) == WITH_RESET + RESET + 0x50
    assert cpu.read(WITH_RESET + PAGE, IDS - PAGE) == bytes(IDS - PAGE)
    assert cpu.read(WITH_RESET + IDS, PAGE) == (7).to_bytes(4, "little") + bytes(PAGE - 4)
    expected = bytearray(cpu.read(cpu.image.symbols["ap_reset"], CODE_SIZE))
    for at in OF_ITSELF:
        expected[at : at + 4] = (WITH_RESET + RESET + at).to_bytes(4, "little")
    assert cpu.read(WITH_RESET + RESET, CODE_SIZE) == expected
    assert cpu.read(WITH_RESET + BLOCK, PAGE) == bytes(PAGE)


def test_one_that_never_leaves_our_tables(cpu: FlowCpu) -> None:
    region = wakeup(cpu)
    td_of(cpu, 4)
    with on_store(cpu, "ap_mailbox", lambda: cpu.write(REGION + FIRMWARE_PART, b"\1\1\0\1")):
        status = cpu.call("prim_park_aps", region, cpu.place(bytes(24)))
    assert status == cpu.error("cpus_absent")


def test_alone_there_is_nobody_to_wait_for(cpu: FlowCpu) -> None:
    td_of(cpu, 1)
    assert cpu.call("prim_park_aps", wakeup(cpu), cpu.place(bytes(24))) == 0


def test_without_tdx_nobody_is_waited_for(anywhere: FlowCpu) -> None:
    cpu = fresh(anywhere)
    td_of(cpu, 300, 0)
    assert cpu.call("prim_park_aps", wakeup(cpu), cpu.place(bytes(24))) == 0


# ---- acceptance by all

LIMIT, REST_AT, STATUS = 1 << 32, 0x12_3456_7000, 0xC000_0100_0000_0001


def plan_of(cpu: FlowCpu) -> tuple[int, int]:
    """A plan whose carved regions lie in memory of the test, and the record of the page tables."""
    record = cpu.firmware.records["Ram"]
    (carved,) = [each.offset for each in record.fields if each.name == "carved"]
    plan = cpu.place(bytes(record.size))
    for index in range(len(cpu.context.carved)):
        cpu.put(plan + carved + 8 + 16 * index, HEAP + 0x80000 + PAGE * index, PAGE)
    cpu.write(cpu.image.symbols["ap_shared"], bytes(64))
    return plan, cpu.place(bytes(24))


def offset(cpu: FlowCpu, record: str, name: str) -> int:
    return next(each.offset for each in cpu.firmware.records[record].fields if each.name == name)


def test_what_is_shared_is_published_before_how_much_it_is(cpu: FlowCpu) -> None:
    plan, paging = plan_of(cpu)
    words = cpu.image.symbols["ap_shared"]
    seen: list[tuple[int, int]] = []

    def shares(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.put(arguments[2] + offset(cpu, "Shares", "chunks"), 7)
        seen.append((arguments[2] + offset(cpu, "Shares", "list") + 8, 0))
        return 0

    cpu.callees = {"accept_shares": shares}
    hook = cpu.cpu.hook_add(
        UC_HOOK_MEM_WRITE,
        lambda _cpu, _kind, at, _size, value, _: seen.append((at - words, value)),
        begin=words,
        end=words + 63,
    )
    assert cpu.call("prim_accept_on_all_vcpus", plan, LIMIT, 1, paging) == 0
    cpu.cpu.hook_del(hook)
    (items, _), *stored = seen
    assert stored == [(LIST, items), (CHUNKS, 7)]
    called = [(name, arguments[:4]) for name, arguments in cpu.calls]
    assert [name for name, _ in called[:3]] == ["accept_begin", "accept_shares", "tdcall_accept_shared"]
    assert called[0][1][:3] == (plan, LIMIT, 1)
    assert called[1][1][0] == plan
    assert called[1][1][1] & 0xFFFF_FFFF == 1
    assert [name for name, _ in called[3:]] == ["page_map"] * len(cpu.context.carved), "the carved regions"


def rests(cpu: FlowCpu, *words: int) -> None:
    """What the shared acceptance leaves to vCPU 0, one after the other."""
    left = [*words, 0]
    cpu.callees["tdcall_accept_shared"] = lambda cpu, arguments: left.pop(0)


def test_what_is_left_of_a_chunk_is_finished_and_counted(cpu: FlowCpu) -> None:
    plan, paging = plan_of(cpu)
    done = cpu.image.symbols["ap_shared"] + DONE
    runs = [(REST_AT, 3, 0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0)]
    asked: list[tuple[int, ...]] = []
    counted: list[int] = []

    def rest(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        asked.append((cpu.u64(arguments[1] + offset(cpu, "Acceptance", "next")), *arguments[2:5]))
        counted.append(cpu.u64(done))
        cpu.put(arguments[5], *runs[len(asked) - 1])
        return 0

    def accept_run(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert arguments[:3] == runs[0][:3]
        cpu.put(arguments[3], 2)
        return STATUS

    cpu.callees = {"accept_rest": rest, "tdcall_accept_run": accept_run}
    rests(cpu, REST_AT | 3, 0 | 512)
    assert cpu.call("prim_accept_on_all_vcpus", plan, LIMIT, 1, paging) == 0
    end = REST_AT + 3 * PAGE
    assert asked == [(REST_AT, end, 0, 0), (REST_AT, end, 2, STATUS), (0, 512 * PAGE, 0, 0)]
    assert counted == [0, 0, 1]
    assert cpu.u64(done) == 2
    begun = [arguments[:3] for name, arguments in cpu.calls if name == "accept_begin"]
    assert begun == [(plan, LIMIT, 1)] * 3


def test_a_page_that_cannot_be_had_ends_the_boot_and_is_named(cpu: FlowCpu) -> None:
    plan, paging = plan_of(cpu)
    first = [True]

    def rest(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.put(arguments[5], REST_AT, 1, 0, 0, 0)
        return 0 if first.pop() else cpu.error("accept_failed")

    def failing(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        first.append(False)
        return STATUS

    def fatal(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        raise Fatal(f"{arguments[0]:#x} {arguments[1]:#x}")

    cpu.callees = {"accept_rest": rest, "tdcall_accept_run": failing, "fatal_accept": fatal}
    rests(cpu, REST_AT | 1)
    with pytest.raises(Fatal, match=f"^{REST_AT:#x} {STATUS:#x}$"):
        cpu.call("prim_accept_on_all_vcpus", plan, LIMIT, 1, paging)


def test_want_of_page_tables_ends_the_boot_while_others_work(cpu: FlowCpu) -> None:
    plan, paging = plan_of(cpu)

    def rest(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        cpu.put(arguments[5], 0, 0, 0, REST_AT, PAGE)
        return 0

    cpu.callees = {"accept_rest": rest, "page_map": lambda cpu, arguments: cpu.error("paging_exhausted")}
    rests(cpu, REST_AT | 1)
    with pytest.raises(Fatal, match="tdforge: paging"):
        cpu.call("prim_accept_on_all_vcpus", plan, LIMIT, 1, paging)
    rests(cpu)
    status = cpu.call("prim_accept_on_all_vcpus", plan, LIMIT, 1, paging)
    assert status == cpu.error("paging_exhausted"), "with the carved regions, when all is done"
