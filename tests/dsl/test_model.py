"""Does the model say what the flow file says? Layout, sugar, names, numbers, and the C layout of records."""

from dataclasses import replace

import pytest

from dsl import model
from dsl.api import CheckFailed, check_file, check_fits, check_source, flows_dir, shipped_flows
from dsl.capabilities import prelude
from dsl.model import Call, Do, Firmware, If, Let, Literal, Provenance

HEAD = """uses linux, acpi, vmm
firmware x {
    version 1.2.3
    svn 7
    image below 4 GiB {
        code BFV up to 64 KiB
        hob TD_HOB 8 KiB at 0x0080_0000
        stack TempMem 32 KiB guarded
        paging TempMem 16 KiB at 0x0100_0000
        log TempMem 64 KiB nvs
        payload Payload 1 MiB r
        parameters PayloadParam 4 KiB
    }
    memory below 2 GiB, top down { room 8 KiB acpi }
}
"""


def firmware(*statements: str, flows: str = "", head: str = HEAD) -> Firmware:
    body = "\n".join(statements)
    text = f"{head}flow boot(td: VpInfo) -> never {{ on error fatal\n{body}\nfail out_of_bounds }}\n{flows}"
    return check_source(text).require()


def calls(fw: Firmware) -> list[Call]:
    return [s.value for s in fw.flows["boot"].body if isinstance(s, Do) and isinstance(s.value, Call)]


def test_sections_follow_each_other() -> None:
    fw = firmware()
    assert (fw.name, fw.version, fw.svn) == ("x", (1, 2, 3), 7)
    assert [(s.name, s.address, s.size) for s in fw.image] == [
        ("code", None, None),
        ("hob", 0x0080_0000, 0x2000),
        ("stack", 0x0080_2000, 0x8000),
        ("paging", 0x0100_0000, 0x4000),
        ("log", 0x0100_4000, 0x1_0000),
        ("payload", 0x0101_4000, 0x10_0000),
        ("parameters", 0x0111_4000, 0x1000),
    ]
    code, _, stack, _, log, payload, _ = fw.image
    assert (code.measured, code.access, code.e820, code.budget) == (True, "rx", "reserved", 0x1_0000)
    assert (stack.guarded, stack.access, log.e820) == (True, "rw", "nvs")
    assert (payload.measured, payload.access) == (False, "r")
    assert [(r.name, r.size, r.limit, r.e820) for r in fw.memory] == [("room", 0x2000, 0x8000_0000, "acpi")]


def test_statements_are_calls_of_primitives() -> None:
    fw = firmware(
        "start_log(log)?",
        'measure hob into RTMR[1] as blob("x")',
        "separate RTMR[0], RTMR[1]",
        'print "hello"',
    )
    shown = [
        (c.callee, [getattr(a, "value", getattr(a, "name", None)) for a in c.arguments]) for c in calls(fw)
    ]
    assert shown == [
        ("start_log", ["log"]),
        ("measure_blob", ["hob", 1, "x"]),
        ("separate", [0]),
        ("separate", [1]),
        ("print", ["hello"]),
    ]
    assert [c.propagate for c in calls(fw)] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("written", "limit", "level"),
    [
        ("accept ram", (1 << 64) - 1, 1),
        ("accept ram up to 256 MiB", 256 << 20, 1),
        ("accept ram in 4 KiB pages", (1 << 64) - 1, 0),
        ("accept ram up to 4 GiB in 2 MiB pages", 4 << 30, 1),
    ],
)
def test_acceptance(written: str, limit: int, level: int) -> None:
    start = ["start_log(log)?", 'measure hob into RTMR[0] as blob("x")', "let vmm = parse_hob(hob)?"]
    start += ["let cpus = find_cpus(td)?", "let ram = plan_memory(vmm, td)?"]
    for words, callee in (("", "accept"), (" on all vcpus", "accept_on_all_vcpus")):
        accept = calls(firmware(*start, written + words))[-1]
        values = [a.value for a in accept.arguments[1:] if isinstance(a, Literal)]
        assert (accept.callee, values) == (callee, [limit, level])


@pytest.mark.parametrize("callee", ["accept", "accept_on_all_vcpus"])
def test_the_rest_is_left_before_acceptance(callee: str) -> None:
    start = ["start_log(log)?", 'measure hob into RTMR[0] as blob("x")', "let vmm = parse_hob(hob)?"]
    start += ["let cpus = find_cpus(td)?", "let ram = plan_memory(vmm, td)?"]
    words = "accept ram up to 1 GiB, rest lazily in 4 KiB pages" + " on all vcpus" * (callee != "accept")
    lazily, accept = calls(firmware(*start, words, head=HEAD.replace("vmm", "vmm, lazy", 1)))[-2:]
    assert (lazily.callee, accept.callee) == ("leave_lazily", callee)
    assert [a.value for a in lazily.arguments[1:] if isinstance(a, Literal)] == [1 << 30]
    assert [a.value for a in accept.arguments[1:] if isinstance(a, Literal)] == [(1 << 64) - 1, 0]


def test_requirements_branch_to_their_error() -> None:
    fw = firmware("require td.gpaw == 48 else sept_ve_enabled", "require td.gpaw == 48")
    first, second, _ = fw.flows["boot"].body
    numbers = {e.name: e.number for e in fw.errors}
    for statement, error in ((first, "sept_ve_enabled"), (second, "requirement_failed")):
        assert isinstance(statement, If)
        assert isinstance(statement.then[0], model.Fail)
        assert statement.then[0].error == numbers[error]


def test_constants_are_folded_and_numbers_fitted() -> None:
    fw = firmware(
        "let a: u8 = 2 * 8 + 1",
        "let b = td.gpaw & 0xFF",
        "let c = KIB * 4",
        head=HEAD + "const KIB = 1 << 10\n",
    )
    a, b, c, _ = fw.flows["boot"].body
    assert isinstance(a, Let)
    assert isinstance(b, Let)
    assert isinstance(c, Let)
    assert isinstance(a.value, Literal)
    assert (a.value.value, a.value.type) == (17, model.Scalar("u8", 8))
    assert b.value.type == model.Scalar("u8", 8)
    assert isinstance(c.value, Literal)
    assert c.value.value == 4096


def test_errors_of_a_flow_are_numbered_from_256() -> None:
    fw = firmware(head=HEAD + 'error mine "my own"\nerror other "another"\n')
    assert fw.errors[-2:] == (
        model.ErrorCode("mine", 256, "my own"),
        model.ErrorCode("other", 257, "another"),
    )


def test_a_flow_is_documented_and_keeps_its_signature() -> None:
    fw = firmware(
        flows="/// Half of it,\n/// rounded down.\nflow half(n: u64) -> u64 fails { return n / 2 }\n"
    )
    half = fw.flows["half"]
    assert (half.fallible, half.on_error_fatal, half.doc) == (True, False, "Half of it, rounded down.")
    assert half.span.line < half.span.end_line or half.span.column == 1


def test_records_are_laid_out_as_c_does() -> None:
    records = prelude().records
    ram_range = {f.name: f.offset for f in records["RamRange"].fields}
    assert ram_range == {"start": 0, "end": 8, "state": 16, "e820": 20}
    assert (records["RamRange"].size, records["RamRange"].align) == (24, 8)
    assert {f.name: f.offset for f in records["Ram"].fields} == {
        "private_end": 0,
        "ranges": 8,
        "carved": 16 + 256 * 24,
    }


def test_primitives_carry_what_c_needs() -> None:
    share = prelude().primitives["share"]
    assert [(p.name, p.mutable, p.state) for p in share.parameters] == [
        ("region", True, False),
        ("td", False, False),
        ("paging", True, True),
    ]
    assert share.result_provenance is Provenance.SHARED
    assert share.home == "generated"
    assert all(len(p.parameters) <= 6 for p in prelude().primitives.values())


def test_every_shipped_flow_is_accepted() -> None:
    assert set(shipped_flows()) >= {"linux"}
    for path in shipped_flows().values():
        assert path.parent == flows_dir()
        assert check_file(path).diagnostics == ()


def test_the_worst_case_of_the_log_is_in_the_model() -> None:
    fw = firmware("start_log(log)?", 'measure hob into RTMR[0] as platform_config("x")', "separate RTMR[0]")
    assert fw.event_log_worst_case == 80 + (86 + 8192) + 70


def test_stack_and_code_have_to_fit() -> None:
    fw = firmware()
    assert check_fits(fw, stack_bytes=32768 - 4096, code_bytes=65536) == []
    assert check_fits(fw, stack_bytes=None, code_bytes=None) == []
    stack = check_fits(fw, stack_bytes=32768 - 4095, code_bytes=None)[0]
    code = check_fits(fw, stack_bytes=None, code_bytes=65537)[0]
    assert stack.render() == (
        "<text>:8:9: error[T10]: the deepest call chain takes 28673 bytes of stack, "
        "`stack` has 28672 (fits)\n"
        "    8 |         stack TempMem 32 KiB guarded\n"
        "      |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
        "      = hint: give it 36 KiB"
    )
    assert code.render().startswith(
        "<text>:6:9: error[T10]: the code takes 65537 bytes, `code` may take 65536 (fits)\n"
        "    6 |         code BFV up to 64 KiB\n"
        "      |         ^^^^^^^^^^^^^^^^^^^^^\n"
    )
    unbound = replace(fw, image=tuple(replace(s, budget=None) for s in fw.image))
    assert check_fits(unbound, stack_bytes=None, code_bytes=2 << 20) == []
    assert len(check_fits(unbound, stack_bytes=None, code_bytes=(2 << 20) + 1)) == 1


def test_a_refused_flow_has_no_model() -> None:
    result = check_source("flow boot(td: VpInfo) -> never { }", "x.tdf")
    assert result.firmware is None
    with pytest.raises(CheckFailed, match=r"x\.tdf:1:1: error\[E05\]: the file declares no firmware"):
        result.require()
