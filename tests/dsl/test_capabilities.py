"""Does a flow see what it `uses`, and nothing else? Are the prelude's error numbers unique and stable?"""

from pathlib import Path

import pytest

from dsl.api import check_source
from dsl.capabilities import CORE, PRELUDE, capabilities, capability_of, prelude
from dsl.declare import Names, declare
from dsl.diagnostics import Reporter
from dsl.parse import parse

IMAGE = """firmware x {
    version 1.0.0
    image below 4 GiB {
        code BFV
        hob TD_HOB 8 KiB at 0x0080_0000
        stack TempMem 32 KiB
        paging TempMem 64 KiB
    }
}
"""
NUMBERS = Path(__file__).with_name("error_numbers.txt")
BOOT = "flow boot(td: VpInfo) -> never { on error fatal STATEMENT fail requirement_failed }\n"


def told(uses: str, statement: str, more: str = "") -> list[tuple[str, str, str]]:
    text = uses + BOOT.replace("STATEMENT", statement) + more + IMAGE
    return [(d.code, d.message, d.hint) for d in check_source(text).diagnostics]


def test_core_is_always_there_and_alone() -> None:
    firmware = check_source(BOOT.replace("STATEMENT", 'print "x"') + IMAGE).require()
    assert {name for name in firmware.primitives if capability_of(name) != CORE} == set()
    assert all(capability_of(e.name) == CORE for e in firmware.errors)


def test_what_is_used_brings_what_it_builds_on() -> None:
    assert "hob_extent" in prelude(["memory"]).primitives
    assert "start_log" not in prelude(["memory"]).primitives
    assert {"start_log", "accept", "park_aps"} <= prelude(["acpi"]).primitives.keys()
    assert "parse_linux" not in prelude(["acpi", "vmm"]).primitives
    assert prelude().primitives.keys() == prelude(capabilities()).primitives.keys()


@pytest.mark.parametrize(
    ("statement", "shown", "capability"),
    [
        ("let l = hob_extent(hob)?", "`hob_extent`", "memory"),
        ("start_log(hob)? separate RTMR[0]", "`start_log`", "measure"),
        ("separate RTMR[0]", "`separate`", "measure"),
        ('measure hob into RTMR[0] as blob("x")', "`measure ... as blob`", "measure"),
        ('measure td into RTMR[0] as cpus("x")', "`measure ... as cpus`", "acpi"),
        ('measure hob into RTMR[0] as blub("x")', "`measure`", "measure"),
        ("accept td", "`accept`", "memory"),
        ("accept td from 0 to 1 GiB", "`accept`", "memory"),
        ("accept td on all vcpus", "`accept ... on all vcpus`", "cpus"),
        ("park aps on hob", "`park aps`", "cpus"),
        ("handoff linux(td, hob)", "`handoff linux`", "linux"),
        ("handoff linus(td, hob)", "`handoff`", "linux"),
        ("let q = get_quote(hob, hob, digest(hob), td)?", "`get_quote`", "quote"),
        ("require td.gpaw == LEVEL_2M", "`LEVEL_2M`", "memory"),
        ("if td.gpaw == 1 { fail tdvmcall_failed }", "`tdvmcall_failed`", "vmm"),
        ("require td.gpaw == 1 else acpi_no_room", "`acpi_no_room`", "acpi"),
        ("let s = RamState.added", "`RamState`", "memory"),
    ],
)
def test_a_name_of_a_capability_that_is_not_used(statement: str, shown: str, capability: str) -> None:
    found = told("", statement)
    assert found[0] == (
        "N01",
        f"{shown} is part of `{capability}`, which this file does not use",
        f"add `uses {capability}`",
    )
    assert not [d for d in found if "which this file does not use" in d[1]][1:]


def test_a_missing_capability_is_reported_once_and_nothing_follows_from_it() -> None:
    flows = "flow f(p: Placement) -> u64 { return p.load }\nflow g(l: Linux) -> u64 { return l.init_size }\n"
    assert [d[2] for d in told("", "", flows)] == ["add `uses linux`"]


def test_memory_regions_need_the_capability_that_carves_them() -> None:
    text = BOOT.replace("STATEMENT", "") + IMAGE.replace(
        "\n}\n", "\n memory below 4 GiB, top down { a 4 KiB b 4 KiB }\n}\n"
    )
    (found,) = check_source(text).diagnostics
    assert (found.code, found.message, found.hint) == (
        "N01",
        "a `memory` region is part of `memory`, which this file does not use",
        "add `uses memory`",
    )


@pytest.mark.parametrize(
    ("uses", "kinds"),
    [
        ("", "`linux`"),
        ("uses linux\n", "`linux`"),
        ("uses executable, linux\n", "`executable` and `linux`"),
    ],
)
def test_an_unknown_kind_is_named_with_the_known_ones(uses: str, kinds: str) -> None:
    hints = [d[2] for d in told(uses, "handoff nothing(td)") if "has no kind" in d[1]]
    assert hints == [f"the kinds are {kinds}"]


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("flow f() -> list<list<u8, 2>, 3> fails { fail out_of_bounds }", "there are no lists of lists"),
        ("flow f() { let x: list<list<u8, 2>, 3> = 1 }", "there are no lists of lists"),
        ("flow f() -> list<never, 3> fails { fail out_of_bounds }", "there are no lists of `never`"),
    ],
)
def test_lists_of_what_no_list_holds(declared: str, message: str) -> None:
    assert told("", "", declared + "\n") == [("E01", message, "use one list")]


def test_names_of_a_capability_that_is_not_used_are_free() -> None:
    mine = 'flow share(n: u64) -> u64 { return n }\nerror acpi_no_room "mine"\nenum Copy { from = 1 }\n'
    assert told("", "let io_read = share(1) require io_read == 1 else acpi_no_room", mine) == []


@pytest.mark.parametrize(
    ("uses", "message", "hint"),
    [
        ("uses acpy\n", "the prelude has no capability `acpy`", "did you mean `acpi`?"),
        ("uses core\n", "`core` is always included", "leave it out"),
        ("uses vmm\nuses acpi, vmm\n", "`vmm` is already used", ""),
    ],
)
def test_what_uses_may_name(uses: str, message: str, hint: str) -> None:
    assert [d[1:] for d in told(uses, "")] == [(message, hint)]


def test_a_misspelt_capability_is_one_mistake() -> None:
    found = told("uses memmory\n", "let list = hob_extent(hob)? print hex(list.size)")
    assert found == [("N01", "the prelude has no capability `memmory`", "did you mean `memory`?")]
    assert told("uses memmory, memory\n", "let list = hob_extent(hob)? print hex(list.size)") == found


def test_the_number_of_an_error_never_changes() -> None:
    lines = (line.split() for line in NUMBERS.read_text().splitlines()[1:])
    shipped = {name: int(number) for number, name in lines}
    assert {e.name: e.number for e in prelude().errors.values()}.items() <= shipped.items()
    assert len(set(shipped.values())) == len(shipped)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('error a = 7 "x"\nerror b = 7 "y"', "7 is already the number of `a`"),
        ('error a "x"', "an error of the prelude has a number from 1 to 255"),
        ('error a = 0 "x"', "an error of the prelude has a number from 1 to 255"),
        ('error a = 256 "x"', "an error of the prelude has a number from 1 to 255"),
        ('error a = 255 "x"', ""),
    ],
)
def test_numbers_of_the_prelude_are_given_and_unique(text: str, message: str) -> None:
    reporter = Reporter(text)
    declare(parse(text, "x", reporter).declarations, Names(), reporter, prelude=True)
    assert [d.message for d in reporter.diagnostics] == ([message] if message else [])


def test_an_error_that_may_depend_on_what_the_vmm_chose_is_declared_so() -> None:
    text = (PRELUDE / "memory.tdf").read_text()
    plain = text.replace("untrusted error ram_range_invalid", "error ram_range_invalid")
    assert plain != text
    found = []
    for each in (text, plain):
        reporter = Reporter(each)
        declare(parse(each, "x", reporter).declarations, prelude([]), reporter, prelude=True)
        found.append([(d.code, d.message) for d in reporter.diagnostics])
    message = "an error of `plan_memory` may depend on `td.gpaw`, which no RTMR records"
    assert found == [[], [("E05", message)]]


def test_the_type_digest_needs_no_capability() -> None:
    known = f'const KNOWN = hex"{"00" * 48}"\n'
    flows = f"{known}flow f(d: digest) -> bool {{ let own: digest = KNOWN return d == own }}\n"
    assert told("", "require f(KNOWN)", flows) == []


def test_a_flow_does_not_choose_numbers() -> None:
    found = told("", "", 'error mine = 7 "x"\n')
    assert found == [
        ("E05", "the errors of a flow file have the numbers from 256, in order", "leave the number out")
    ]


def test_what_leaves_ram_to_the_os_is_a_capability_of_its_own() -> None:
    assert (
        "N01",
        "`accept ... rest lazily` is part of `lazy`, which this file does not use",
        "add `uses lazy`",
    ) in told("uses linux\n", "accept td up to 1 GiB, rest lazily")
