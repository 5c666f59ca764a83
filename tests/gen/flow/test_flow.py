"""Does the code of a flow do what the flow says? Every kind of statement and expression, run."""

from __future__ import annotations

import pytest
from flowcpu import SIZE, STACK, Fatal, FlowCpu, firmware_with
from hypothesis import given, settings
from hypothesis import strategies as st
from machinecode import Link
from unicorn import UcError

FLOWS = """
flow add(a: u64, b: u64) -> u64 fails { return a + b }
flow sub(a: u64, b: u64) -> u64 fails { return a - b }
flow mul(a: u64, b: u64) -> u64 fails { return a * b }
flow div(a: u64, b: u64) -> u64 fails { return (a + b) / 7 }
flow mod(a: u64, b: u64) -> u64 fails { return (a ^ b) % 100 }
flow bits(a: u64, b: u64) -> u64 fails { return (a | b) ^ (a & ~b) }
flow shl(a: u64, b: u64) -> u64 fails { return (a | b) << 12 }
flow shr(a: u64, b: u64) -> u64 fails { return (a & b) >> 63 }
flow deep(a: u64, b: u64) -> u64 fails { return ((a + 1) * (b + 2) - (a + 3)) / 3 + (b + 4) % 7 * (a + 5) }
flow logic(a: u64, b: u64) -> bool { return a == 1 and not (b < 5 or b >= 10) }
flow compare(a: u64, b: u64) -> u64 {
    let found = 0
    if a == b { found = found | 1 }
    if a != b { found = found | 2 }
    if a < b { found = found | 4 }
    if a <= b { found = found | 8 }
    if a > b { found = found | 16 }
    if a >= b { found = found | 32 }
    return found
}
flow choose(state: RamState) -> u64 {
    match state { unaccepted -> { return 1 } added, left_out -> { return 2 } }
}
flow number(n: u64) -> u64 { match n { 1 -> { return 10 } 2, 3 -> { return 20 } _ -> { return 30 } } }
flow total(vmm: Vmm) -> u64 fails {
    let sum = 0
    for r in vmm.resources { if r.kind != 0 { sum = sum + r.size } }
    for t in vmm.tables { sum = sum + t.size }
    return sum
}
flow item(vmm: Vmm, i: u64) -> u64 fails { return vmm.resources[i].start }
flow count(vmm: Vmm) -> u64 { return vmm.resources.count }
flow part(data: bytes, a: u64, b: u64) -> bytes fails { return data[a .. b] }
flow attempt(data: measured bytes) -> u64 {
    try let found = hob_extent(data) { return found.size }
    on hob_truncated { return 1000 }
    on _ { return 2000 }
}
flow stop(a: u64) -> never fails { if a == 1 { fail out_of_bounds } fail log_full }
flow stopped(a: u64) -> u64 { try stop(a) { } on out_of_bounds { return 1 } on _ { return 2 } }
flow outer(a: u64) -> u64 fails {
    require a != 7
    let s = add(a, 1)?
    return add(s, s)?
}
flow nested(a: u64) -> u64 {
    let found = 0
    if a < 10 { if a < 5 { found = 1 } else { found = 2 } } else if a < 20 { found = 3 } else { found = 4 }
    return found
}
flow hello() { print "hi" }
flow less8(a: u8) -> bool { return a < 10 }
flow less16(a: u16) -> bool { return a < 10 }
flow less32(a: u32) -> bool { return a < 10 }
flow narrow(a: u32) -> u32 { return a }
flow small() -> u8 { return 200 }
flow let_small() -> u64 { let n = small() if n == 200 { return 1 } return 2 }
flow record(data: measured bytes) -> Linux fails { let kernel = parse_linux(data)? return kernel }
flow field(data: measured bytes) -> u64 fails { return parse_linux(data)?.init_size }
const WORDS = [0, 7, 0xFFFF_FFFF_FFFF_FFFF]
const ABC   = hex"616263"
const ZERO = hex"@ZEROS"
const KNOWN = [hex"@KNOWN", ZERO]
flow among(n: u64) -> bool { return n in WORDS }
flow not_among(n: u64) -> u64 { if not (n in WORDS) { return 1 } return 0 }
flow same(a: bytes, b: bytes) -> bool { return a == b }
flow differs(a: bytes, b: bytes) -> bool { return a != b }
flow named(a: bytes) -> u64 {
    if a == "" { return 1 }
    if a in [ABC, "de"] { return 2 }
    if a == ABC or a != hex"00" and not (a == "xyz") { return 3 }
    return 4
}
flow widened(a: u32) -> u64 fails { let n: u64 = small() let m: u64 = a n = n + m * 0x1_0000_0000 return n }
flow known(d: digest) -> bool { return d in KNOWN }
flow known_digest() -> digest { let own: digest = ZERO return own }
flow chosen(n: u64) -> u64 { return if n < 3 { 10 } else if n == 3 { n } else { 20 } }
flow picked(n: u64, a: bytes) -> bytes { return match n { 0, 2 -> { a } 1 -> { "one" } _ -> { ABC } } }
flow narrow_choice(n: u64) -> u64 { let v = if n == 0 { narrow(7) } else { narrow(8) } return v }
flow again() -> untrusted u64 fails { return retry 3 times io_read(0x60, 1)? }
flow once_more() -> u64 fails { retry 2 times io_write(1, 1, 1)? return 5 }
flow maybe(a: bytes) fails { measure a into RTMR[1] as blob("maybe") unless empty }
flow of(a: bytes, d: digest) -> bool { return digest(a) == d }
flow first() -> bytes { print "base" return "0123456789" }
flow second() -> u64 { print "start" return 2 }
flow third() -> u64 { print "end" return 5 }
flow ordered() -> bytes fails { return first()[second() .. third()] }
flow listed(vmm: Vmm) -> Vmm { print "base" return vmm }
flow ordered_item(vmm: Vmm) -> u64 fails { return listed(vmm).resources[second()].start }
"""
KNOWN = bytes.fromhex("00112233445566778899aabbccddeeff" * 3)


@pytest.fixture(scope="module")
def cpu(link: Link) -> FlowCpu:
    flows = FLOWS.replace("@ZEROS", bytes(48).hex()).replace("@KNOWN", KNOWN.hex())
    return FlowCpu(firmware_with(flows), link)


WORDS = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 100), st.sampled_from([2**63, 2**64 - 1, 2**32]))
TOP = 2**64
ARITHMETIC = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: (a + b) // 7 if a + b < TOP else TOP,
    "mod": lambda a, b: (a ^ b) % 100,
    "bits": lambda a, b: (a | b) ^ (a & ~b),
    "shl": lambda a, b: ((a | b) << 12) % TOP,
    "shr": lambda a, b: (a & b) >> 63,
}


@pytest.mark.parametrize("name", ARITHMETIC)
@given(a=WORDS, b=WORDS)
@settings(max_examples=60, deadline=None)
def test_arithmetic_is_that_of_whole_numbers_or_an_error(cpu: FlowCpu, name: str, a: int, b: int) -> None:
    out = cpu.place(bytes(8))
    status = cpu.call(f"flow_{name}", a, b, out)
    expected = ARITHMETIC[name](a, b)
    if 0 <= expected < TOP:
        assert (status, cpu.u64(out)) == (0, expected)
    else:
        assert status == cpu.error("arithmetic_overflow")


@given(a=st.integers(0, 1000), b=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_intermediate_values_survive(cpu: FlowCpu, a: int, b: int) -> None:
    expected = ((a + 1) * (b + 2) - (a + 3)) // 3 + (b + 4) % 7 * (a + 5)
    out = cpu.place(bytes(8))
    status = cpu.call("flow_deep", a, b, out)
    if (a + 1) * (b + 2) < a + 3:
        assert status == cpu.error("arithmetic_overflow")
    else:
        assert (status, cpu.u64(out)) == (0, expected)


@given(a=st.integers(0, 3), b=st.integers(0, 12))
@settings(max_examples=52, deadline=None)
def test_conditions(cpu: FlowCpu, a: int, b: int) -> None:
    assert cpu.value("flow_logic", a, b) == int(a == 1 and 5 <= b < 10)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(5, 5, 1 | 8 | 32), (1, 2**63, 2 | 4 | 8), (2**64 - 1, 1, 2 | 16 | 32)]
)
def test_comparisons_are_unsigned(cpu: FlowCpu, a: int, b: int, expected: int) -> None:
    assert cpu.value("flow_compare", a, b) == expected


def test_a_variable_is_as_wide_as_declared(cpu: FlowCpu) -> None:
    assert cpu.value("flow_widened", 0x5555_5555_8000_0001) == 0x8000_0001_0000_00C8


@pytest.mark.parametrize(("value", "expected"), [(0, 1), (1, 2), (2, 2)])
def test_match_on_an_enumeration(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_choose", value) == expected


def test_a_value_outside_of_its_enumeration_traps(cpu: FlowCpu) -> None:
    with pytest.raises(UcError):
        cpu.value("flow_choose", 3)


@pytest.mark.parametrize(("value", "expected"), [(0, 30), (1, 10), (2, 20), (3, 20), (2**63, 30)])
def test_match_on_numbers(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_number", value) == expected


@pytest.mark.parametrize(("value", "expected"), [(0, 1), (5, 2), (10, 3), (20, 4)])
def test_else_if(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_nested", value) == expected


def vmm(cpu: FlowCpu, resources: list[tuple[int, int, int]], tables: list[int]) -> int:
    """A Vmm record: resources as (kind, start, size), tables by size."""
    record = cpu.firmware.records["Vmm"]
    address = cpu.place(bytes(record.size))
    cpu.put(address, len(resources))
    for at, (kind, start, size) in enumerate(resources):
        cpu.put(address + 8 + 24 * at, kind, start, size)
    offset = next(field.offset for field in record.fields if field.name == "tables")
    cpu.put(address + offset, len(tables))
    for at, size in enumerate(tables):
        cpu.put(address + offset + 8 + 16 * at, 0, size)
    return address


def test_loops_over_records_and_spans(cpu: FlowCpu) -> None:
    assert cpu.value("flow_total", vmm(cpu, [(1, 0, 100), (0, 0, 7), (5, 0, 1000)], [3, 4])) == 1107
    assert cpu.value("flow_total", vmm(cpu, [], [])) == 0


def test_index_is_checked(cpu: FlowCpu) -> None:
    address = vmm(cpu, [(1, 11, 1), (1, 22, 1)], [])
    assert cpu.value("flow_item", address, 1) == 22
    assert cpu.value("flow_count", address) == 2
    for index in (2, 2**64 - 1):
        assert cpu.call("flow_item", address, index, cpu.place(bytes(8))) == cpu.error("out_of_bounds")


@given(a=st.integers(0, 12), b=st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_slices_are_checked(cpu: FlowCpu, a: int, b: int) -> None:
    out = cpu.place(bytes(16))
    status = cpu.call("flow_part", cpu.span(b"0123456789"), a, b, out)
    if a <= b <= 10:
        assert status == 0
        assert cpu.bytes_of(out) == b"0123456789"[a:b]
    else:
        assert status == cpu.error("out_of_bounds")


def test_calls_are_made_from_left_to_right(cpu: FlowCpu) -> None:
    seen: list[bytes] = []
    cpu.callees["prim_print"] = lambda machine, arguments: seen.append(machine.bytes_of(arguments[0]))
    out = cpu.place(bytes(16))
    assert cpu.call("flow_ordered", out) == 0
    assert seen == [b"base", b"start", b"end"]
    assert cpu.bytes_of(out) == b"234"
    seen.clear()
    vmm = cpu.place(bytes(cpu.firmware.records["Vmm"].size))  # whose list is empty
    assert cpu.call("flow_ordered_item", vmm, out) == cpu.error("out_of_bounds")
    assert seen == [b"base", b"start"]


@pytest.mark.parametrize(("error", "expected"), [(None, 3), ("hob_truncated", 1000), ("hob_malformed", 2000)])
def test_try(cpu: FlowCpu, error: str | None, expected: int) -> None:
    def hob_extent(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert machine.bytes_of(arguments[0]) == b"region"
        if error is None:
            machine.put(arguments[1], machine.u64(arguments[0]), 3)
            return 0
        return machine.error(error)

    cpu.callees["hob_extent"] = hob_extent
    assert cpu.value("flow_attempt", cpu.span(b"region")) == expected


@pytest.mark.parametrize(("value", "expected"), [(1, 1), (2, 2)])
def test_a_flow_that_never_returns_is_tried(cpu: FlowCpu, value: int, expected: int) -> None:
    """Its error is handled; it was an invalid opcode."""
    assert cpu.value("flow_stopped", value) == expected


def test_errors_pass_through_flows(cpu: FlowCpu) -> None:
    out = cpu.place(bytes(8))
    assert cpu.value("flow_outer", 4) == 10
    assert cpu.call("flow_outer", 7, out) == cpu.error("requirement_failed")
    assert cpu.call("flow_outer", 2**64 - 1, out) == cpu.error("arithmetic_overflow")


def test_texts_are_passed_without_a_nul(cpu: FlowCpu) -> None:
    cpu.callees["prim_print"] = lambda machine, arguments: seen.append(machine.bytes_of(arguments[0]))
    seen: list[bytes] = []
    cpu.call("flow_hello")
    assert seen == [b"hi"]


def test_the_upper_half_of_a_narrow_argument_is_ignored(cpu: FlowCpu) -> None:
    out = cpu.place(b"\xff" * 8)
    cpu.call("flow_narrow", 0xAAAA_AAAA_1234_5678, out)
    assert cpu.read(out, 8) == bytes.fromhex("78563412ffffffff")


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_a_register_holds_above_a_narrow_argument_does_not_decide(cpu: FlowCpu, bits: int) -> None:
    above = (1 << 64) - (1 << bits)
    for number, answer in ((5, 1), (9, 1), (10, 0), ((1 << bits) - 1, 0)):
        assert cpu.value(f"flow_less{bits}", above | number) == answer
        assert cpu.value(f"flow_less{bits}", number) == answer


def test_what_the_frame_holds_above_a_narrow_result_does_not_decide(cpu: FlowCpu) -> None:
    cpu.write(STACK, b"\xa5" * SIZE)
    assert cpu.value("flow_let_small") == 1
    cpu.write(STACK, bytes(SIZE))


def test_records_are_returned_whole(cpu: FlowCpu) -> None:
    record = cpu.firmware.records["Linux"]
    content, field = bytes(range(record.size)), next(f.offset for f in record.fields if f.name == "init_size")
    cpu.callees["parse_linux"] = lambda machine, arguments: machine.write(arguments[1], content)
    out = cpu.place(bytes(len(content) + 8))
    assert cpu.call("flow_record", cpu.span(b""), out) == 0
    assert cpu.read(out, len(content) + 8) == content + bytes(8)
    assert cpu.value("flow_field", cpu.span(b"")) == int.from_bytes(content[field : field + 8], "little")


# ---------------------------------------------------------------- the shipped flow


def boot(cpu: FlowCpu, attributes: int = 1 << 28) -> int:
    td = cpu.place(bytes(32))
    cpu.put(td, 48, attributes)
    return cpu.call("flow_boot", td)


def test_the_shipped_flow_calls_its_primitives_in_order(cpu: FlowCpu) -> None:
    cpu.callees = {"prim_handoff_linux": lambda machine, arguments: machine.error("paging_range")}
    with pytest.raises(Fatal, match="tdforge: paging: bad range"):
        boot(cpu)
    assert [name for name, _ in cpu.calls] == [
        "start_log",
        "hob_extent",
        "prim_measure_platform_config",
        "prim_find_cpus",
        "prim_measure_cpus",
        "parse_hob",
        "plan_memory",
        "prim_accept",
        "linux_extent",
        "initrd_extent",
        "text_extent",
        "prim_measure_blob",
        "prim_measure_platform_config",
        "parse_linux",
        "place_linux",
        "prim_load_linux",
        "prim_park_aps",
        "acpi_devices",
        "acpi_tables",
        "zero_page",
        "prim_separate",
        "prim_separate",
        "prim_handoff_linux",
        "fatal",
    ]


def test_states_layout_and_regions_reach_the_primitives(cpu: FlowCpu) -> None:
    seen: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> None:
        def callee(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
            seen[name] = arguments
            if name == "start_log":
                assert machine.u64(arguments[0]) == event_log.address
                assert machine.u64(arguments[0] + 8) == event_log.size
            return 0

        cpu.callees[name] = callee

    cpu.callees = {"prim_handoff_linux": lambda machine, arguments: 1}
    event_log = next(section for section in cpu.firmware.image if section.name == "event_log")
    for name in ("start_log", "plan_memory", "prim_accept", "acpi_tables"):
        remember(name)
    with pytest.raises(Fatal):
        boot(cpu)
    assert seen["start_log"][1] == cpu.state(cpu.context.states["log"])
    assert seen["plan_memory"][2] == cpu.image.symbols["tdf_layout"]
    assert seen["prim_accept"][1:4] == (2**64 - 1, 1, cpu.state(cpu.context.states["paging"]))
    assert seen["acpi_tables"][0] == cpu.state(cpu.context.carved["tables"])
    assert seen["acpi_tables"][3] == cpu.state(cpu.context.carved["wakeup"])


@pytest.mark.parametrize("place", range(1, 21))
def test_no_error_is_dropped(cpu: FlowCpu, place: int) -> None:
    """Whatever call fails, nothing is called after it but the way to `fatal`."""
    errors = cpu.firmware.errors
    order: list[str] = []

    def callee(name: str) -> None:
        def run(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
            order.append(name)
            return errors[place].number if len(order) == place else 0

        cpu.callees[name] = run

    cpu.callees = {}
    for name, primitive in cpu.firmware.primitives.items():
        if primitive.fallible:
            callee(name if primitive.home == "c" else f"prim_{name}")
    with pytest.raises(Fatal, match=errors[place].text.replace("(", r"\(")):
        boot(cpu)
    assert len(order) == place
    assert cpu.calls[-1][0] == "fatal"


def test_a_requirement_of_the_shipped_flow(cpu: FlowCpu) -> None:
    with pytest.raises(Fatal, match="tdforge: SEPT_VE_DISABLE is not set"):
        boot(cpu, attributes=0)
    assert [name for name, _ in cpu.calls] == ["fatal"]


def test_the_entry_asks_the_module_and_starts_the_flow(cpu: FlowCpu) -> None:
    def vp_info(machine: FlowCpu, arguments: tuple[int, ...]) -> None:
        machine.put(arguments[0], 48, 0)  # no SEPT_VE_DISABLE: ends soon
        assert arguments[0] == machine.state(machine.context.td)

    cpu.callees = {"tdcall_vp_info": vp_info}
    with pytest.raises(Fatal, match="SEPT_VE_DISABLE"):
        cpu.call("tdf_entry")
    assert cpu.calls[0][0] == "tdcall_vp_info"


def test_an_unknown_status_is_fatal_too(cpu: FlowCpu) -> None:
    with pytest.raises(Fatal, match="tdforge: a status that no primitive declares"):
        cpu.call("tdf_fatal", 12345)


def memcmp(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
    left, right = (machine.read(at, arguments[2]) for at in arguments[:2])
    return 0 if left == right else 1 if left > right else 0xFFFF_FFFF


@pytest.mark.parametrize(("value", "expected"), [(0, 1), (7, 1), (2**64 - 1, 1), (1, 0), (2**32 - 1, 0)])
def test_membership_of_numbers(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_among", value) == expected
    assert cpu.value("flow_not_among", value) == 1 - expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [(b"abc", b"abc", 1), (b"abc", b"abd", 0), (b"abc", b"ab", 0), (b"", b"", 1), (b"", b"a", 0)],
)
def test_bytes_are_compared_over_their_whole_size(
    cpu: FlowCpu, left: bytes, right: bytes, expected: int
) -> None:
    cpu.callees["memcmp"] = memcmp
    assert cpu.value("flow_same", cpu.span(left), cpu.span(right)) == expected
    assert cpu.value("flow_differs", cpu.span(left), cpu.span(right)) == 1 - expected


@pytest.mark.parametrize(
    ("content", "expected"), [(b"", 1), (b"abc", 2), (b"de", 2), (b"ab", 3), (b"\0", 4), (b"xyz", 4)]
)
def test_constants_of_bytes(cpu: FlowCpu, content: bytes, expected: int) -> None:
    cpu.callees["memcmp"] = memcmp
    assert cpu.value("flow_named", cpu.span(content)) == expected


@pytest.mark.parametrize(
    ("digest", "expected"), [(KNOWN, 1), (bytes(48), 1), (KNOWN[:-1] + b"\0", 0), (b"\1" * 48, 0)]
)
def test_membership_of_digests(cpu: FlowCpu, digest: bytes, expected: int) -> None:
    cpu.callees["memcmp"] = memcmp
    assert cpu.value("flow_known", cpu.place(digest + b"\xaa" * 16)) == expected


def test_a_digest_is_a_value(cpu: FlowCpu) -> None:
    out = cpu.place(b"\xaa" * 64)
    cpu.call("flow_known_digest", out)
    assert cpu.read(out, 64) == bytes(48) + b"\xaa" * 16


@pytest.mark.parametrize(("found", "expected"), [(KNOWN, 1), (bytes(48), 0)])
def test_a_digest_is_made_where_it_is_compared(cpu: FlowCpu, found: bytes, expected: int) -> None:
    def digest(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
        assert machine.bytes_of(arguments[0]) == b"data"
        assert arguments[1] % 8 == 0
        machine.write(arguments[1], found)
        return 0

    cpu.callees |= {"memcmp": memcmp, "digest": digest}
    assert cpu.value("flow_of", cpu.span(b"data"), cpu.place(KNOWN)) == expected


@pytest.mark.parametrize(("value", "expected"), [(0, 10), (2, 10), (3, 3), (4, 20), (2**64 - 1, 20)])
def test_numbers_are_chosen(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_chosen", value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0, b"given"), (1, b"one"), (2, b"given"), (3, b"abc"), (2**63, b"abc")]
)
def test_bytes_are_chosen(cpu: FlowCpu, value: int, expected: bytes) -> None:
    out = cpu.place(bytes(16))
    cpu.call("flow_picked", value, cpu.span(b"given"), out)
    assert cpu.bytes_of(out) == expected


@pytest.mark.parametrize(("value", "expected"), [(0, 7), (1, 8)])
def test_the_result_of_a_call_is_chosen(cpu: FlowCpu, value: int, expected: int) -> None:
    assert cpu.value("flow_narrow_choice", value) == expected


@pytest.mark.parametrize(
    ("flow", "callee", "attempts"), [("again", "prim_io_read", 3), ("once_more", "prim_io_write", 2)]
)
@pytest.mark.parametrize("failures", range(4))
def test_a_call_is_made_until_it_succeeds(
    cpu: FlowCpu, flow: str, callee: str, attempts: int, failures: int
) -> None:
    def called(machine: FlowCpu, arguments: tuple[int, ...]) -> int:
        made = [own for name, own in machine.calls if name == callee]
        assert made[0][:3] == arguments[:3], "the arguments are the same each time"
        if len(made) <= failures:
            return machine.error("tdvmcall_failed")
        if callee == "prim_io_read":
            machine.put(arguments[2], 5)
        return 0

    cpu.callees[callee] = called
    out = cpu.place(bytes(8))
    status = cpu.call(f"flow_{flow}", out)
    assert len(cpu.calls) == min(failures + 1, attempts)
    if failures < attempts:
        assert (status, cpu.u64(out)) == (0, 5)
    else:
        assert status == cpu.error("tdvmcall_failed")


@pytest.mark.parametrize(("content", "measured"), [(b"x", 1), (b"", 0)])
def test_what_is_empty_is_not_measured(cpu: FlowCpu, content: bytes, measured: int) -> None:
    assert cpu.call("flow_maybe", cpu.span(content)) == 0
    assert [name for name, _ in cpu.calls] == ["prim_measure_blob"] * measured
