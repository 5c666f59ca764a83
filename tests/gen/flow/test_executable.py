"""Is an executable loaded in the order that its rights ask for, and entered as both conventions promise?"""

from __future__ import annotations

import pytest
from flowcpu import END, HEAP, FlowCpu, firmware_with
from machinecode import Link
from unicorn import UC_HOOK_INSN_INVALID
from unicorn import x86_const as x86

from gen.boot.modes import GDT, SELECTOR_CODE64

PAGE, GIB = 4096, 1 << 30
NONE, READ, READ_WRITE, READ_EXECUTE = 0, 1, 2, 3
UNACCEPTED, ADDED, LEFT_OUT = 0, 1, 2
RAM_LEAF = 1 << 63 | 0xE3  # no execute; dirty, accessed, large, writable, present
ZERO = ("RAX", "RBX", "RBP", *(f"R{number}" for number in range(8, 16)))


@pytest.fixture(scope="module")
def machine(link: Link) -> FlowCpu:
    return FlowCpu(firmware_with("uses executable\n"), link, primitives=True)


@pytest.fixture
def cpu(machine: FlowCpu) -> FlowCpu:
    machine.callees = {}
    return machine


def offset(cpu: FlowCpu, record: str, field: str) -> int:
    return next(f.offset for f in cpu.firmware.records[record].fields if f.name == field)


def make(cpu: FlowCpu, record: str, lists: dict[str, tuple[str, list[dict[str, int]]]], **words: int) -> int:
    """A record with these fields and lists; all its fields but enumerations have 64 bits."""
    address = cpu.place(bytes(cpu.firmware.records[record].size))
    for name, value in words.items():
        cpu.put(address + offset(cpu, record, name), value)
    for name, (element, items) in lists.items():
        start = address + offset(cpu, record, name)
        cpu.put(start, len(items))
        for index, item in enumerate(items):
            at = start + 8 + index * cpu.firmware.records[element].size
            for field, value in item.items():
                size = 4 if field in ("access", "state", "e820") else 8
                cpu.write(at + offset(cpu, element, field), value.to_bytes(size, "little"))
    return address


def ram(cpu: FlowCpu, *ranges: tuple[int, int, int, int]) -> int:
    items = [dict(zip(("start", "end", "state", "e820"), each, strict=True)) for each in ranges]
    return make(cpu, "Ram", {"ranges": ("RamRange", items)})


def test_ram_is_mapped_the_image_made_and_then_restricted(cpu: FlowCpu) -> None:
    load, source = HEAP + 0x90000, HEAP + 0xA0000
    content = bytes(i * 7 % 251 for i in range(0x1800))
    cpu.write(source, content)
    cpu.write(load, b"\xaa" * 0x5000)
    parts = [
        {
            "to": load + 0x10,
            "from": source,
            "size": 0x800,
            "start": load,
            "length": PAGE,
            "access": READ_EXECUTE,
        },
        {"to": load + PAGE, "start": load + PAGE, "length": PAGE, "access": NONE},
        {"to": load + 2 * PAGE, "from": source + 0x800, "size": 0x1000, "start": load + 2 * PAGE}
        | {"length": 2 * PAGE, "access": READ_WRITE},
        {"start": load + 2 * PAGE, "to": load + 2 * PAGE, "length": PAGE, "access": READ},
    ]
    executable = make(cpu, "Executable", {"parts": ("ImagePart", parts)}, load=load, size=4 * PAGE)
    pdpt, pml4 = HEAP + 0xC1000, HEAP + 0xC0000
    cpu.put(pml4, pdpt | 0x23)
    cpu.put(pdpt + 8 * 5, 0x1234)  # in use
    paging = cpu.place(pml4.to_bytes(8, "little") + bytes(16))
    plan = ram(
        cpu,
        (0, 0x9F000, UNACCEPTED, 1),
        (0x100000, 0x800000, UNACCEPTED, 1),
        (0x800000, 0x900000, ADDED, 1),
        (0x900000, 0xA00000, UNACCEPTED, 4),
        (0xA00000, 0xB00000, LEFT_OUT, 1),
        (4 * GIB, 6 * GIB + PAGE, UNACCEPTED, 1),
        (510 * GIB, 600 * GIB, UNACCEPTED, 1),
    )
    images: list[bytes] = []

    def relocate(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        span, given = arguments[:2]
        assert (cpu.u64(span), cpu.u64(span + 8), given) == (load, 4 * PAGE, executable)
        images.append(cpu.read(load, 5 * PAGE))
        return 0

    cpu.callees = {"relocate_executable": relocate}
    assert cpu.call("prim_load_executable", executable, plan, paging) == 0
    expected = bytearray(4 * PAGE) + b"\xaa" * PAGE
    expected[0x10:0x810] = content[:0x800]
    expected[2 * PAGE : 3 * PAGE] = content[0x800:]
    assert images == [bytes(expected)]
    mapped = [(arguments[1:5] if name == "page_map" else name) for name, arguments in cpu.calls]
    assert [arguments[0] for name, arguments in cpu.calls if name == "page_map"] == [paging] * 7
    assert mapped == [
        (PAGE, PAGE, 0x9F000 - PAGE, READ_WRITE),
        (0x100000, 0x100000, 0x700000, READ_WRITE),
        (load, load, 4 * PAGE, READ_WRITE),
        "relocate_executable",
        (load, load, PAGE, READ_EXECUTE),
        (load + PAGE, load + PAGE, PAGE, NONE),
        (load + 2 * PAGE, load + 2 * PAGE, 2 * PAGE, READ_WRITE),
        (load + 2 * PAGE, load + 2 * PAGE, PAGE, READ),
    ]
    entries = {i: cpu.u64(pdpt + 8 * i) for i in range(513) if cpu.u64(pdpt + 8 * i)}
    assert entries == {5: 0x1234} | {i: i << 30 | RAM_LEAF for i in (4, 6, 510, 511)}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_refused_map_ends_it(cpu: FlowCpu, failing: int) -> None:
    executable = make(cpu, "Executable", {}, load=HEAP + 0x90000, size=PAGE)
    calls = [0]

    def page_map(cpu: FlowCpu, arguments: tuple[int, ...]) -> int:
        calls[0] += 1
        return cpu.error("paging_exhausted") if calls[0] > failing else 0

    cpu.callees = {"page_map": page_map}
    plan = ram(cpu, (0x100000, 0x800000, UNACCEPTED, 1))
    status = cpu.call("prim_load_executable", executable, plan, cpu.place(bytes(24)))
    assert status == cpu.error("paging_exhausted")
    assert len(cpu.calls) == failing + 1


def test_a_relocation_that_is_refused_leaves_it_without_code(cpu: FlowCpu) -> None:
    load = HEAP + 0x90000
    parts = [{"to": load, "start": load, "length": PAGE, "access": READ_EXECUTE}]
    executable = make(cpu, "Executable", {"parts": ("ImagePart", parts)}, load=load, size=PAGE)
    cpu.callees = {"relocate_executable": lambda cpu, _: cpu.error("executable_relocation")}
    status = cpu.call("prim_load_executable", executable, ram(cpu), cpu.place(bytes(24)))
    assert status == cpu.error("executable_relocation")
    assert [arguments[4] for name, arguments in cpu.calls if name == "page_map"] == [READ_WRITE]


def test_the_handoff_has_the_registers_of_both_conventions(cpu: FlowCpu) -> None:
    entry, load, hobs, stack = HEAP + 0xB0200, HEAP + 0xB0000, HEAP + 0xB4000, HEAP + 0xB8000
    executable = make(cpu, "Executable", {}, load=load, entry=entry)
    cpu.write(entry, b"\x0f\x0b")  # the payload: UD2, where the test looks at the registers
    seen: dict[str, int] = {}

    def payload(engine: object, data: object) -> bool:
        for name in (*ZERO, "RIP", "RDI", "RSI", "RCX", "RDX", "RSP", "EFLAGS", "CS", "DS", "ES", "SS"):
            seen[name] = cpu.cpu.reg_read(getattr(x86, f"UC_X86_REG_{name}"))
        cpu.cpu.reg_write(x86.UC_X86_REG_RIP, END)
        cpu.cpu.emu_stop()
        return True

    table = cpu.place(b"".join(descriptor.to_bytes(8, "little") for descriptor, _ in GDT))
    cpu.cpu.reg_write(x86.UC_X86_REG_GDTR, (0, table, 31, 0))
    cpu.cpu.reg_write(x86.UC_X86_REG_CS, SELECTOR_CODE64)
    hook = cpu.cpu.hook_add(UC_HOOK_INSN_INVALID, payload)
    pml4, pdpt = HEAP + 0xD0000, HEAP + 0xD1000
    cpu.put(pml4, pdpt | 0x23)
    cpu.put(cpu.state(cpu.context.ap_paging), pml4)
    spans = [
        cpu.place(start.to_bytes(8, "little") + size.to_bytes(8, "little"))
        for start, size in ((hobs, PAGE), (stack, 4 * PAGE))
    ]
    paging = cpu.place(bytes(24))
    cpu.write(stack, b"\xff" * 4 * PAGE)  # a flow may have put anything there
    # Whatever the direction and the interrupt flag were on the way.
    cpu.callees["page_map"] = lambda cpu, _: cpu.cpu.reg_write(x86.UC_X86_REG_EFLAGS, 1 << 10 | 1 << 9 | 2)
    with pytest.raises(AssertionError, match="stack"):  # it does not return
        cpu.call("prim_handoff_executable", executable, *spans, paging)
    cpu.cpu.hook_del(hook)
    assert [arguments[:5] for _, arguments in cpu.calls] == [(paging, stack, stack, PAGE, NONE)]
    assert [cpu.u64(pdpt + 8 * i) for i in range(512)] == [i << 30 | 0x83 for i in range(512)]
    assert seen.pop("RIP") == entry
    assert (seen.pop("RDI"), seen.pop("RCX")) == (hobs, hobs)
    assert (seen.pop("RSI"), seen.pop("RDX")) == (load, load)
    rsp = seen.pop("RSP")
    assert rsp % 16 == 8
    assert rsp + 8 + 32 == stack + 4 * PAGE, "return address and shadow space end the stack"
    assert cpu.read(rsp, 8) == bytes(8)
    assert (seen.pop("CS"), seen.pop("DS"), seen.pop("ES"), seen.pop("SS")) == (0x10, 0x18, 0x18, 0x18)
    assert seen.pop("EFLAGS") & 0x600 == 0, "IF and DF are clear"
    assert set(seen.values()) == {0}


def test_a_handoff_without_a_guard_is_none(cpu: FlowCpu) -> None:
    cpu.put(cpu.state(cpu.context.ap_paging), HEAP + 0xD0000)
    cpu.put(HEAP + 0xD0000, HEAP + 0xD1000 | 0x23)
    cpu.callees = {"page_map": lambda cpu, _: cpu.error("paging_exhausted")}
    span = cpu.place((HEAP + 0xB0000).to_bytes(8, "little") + (2 * PAGE).to_bytes(8, "little"))
    executable = make(cpu, "Executable", {})
    status = cpu.call("prim_handoff_executable", executable, span, span, cpu.place(bytes(24)))
    assert status == cpu.error("paging_exhausted")
