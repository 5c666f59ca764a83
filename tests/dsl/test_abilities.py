"""What does the compiler make of what costs nothing when it is not wanted?"""

from pathlib import Path

import pytest

from dsl import model
from dsl.api import check_source
from dsl.tree import walk

CASES = Path(__file__).with_name("cases")
BOOT = """
flow boot(td: VpInfo) -> never {{
    on error fatal
    {line}
    fail requirement_failed
}}
"""


def firmware(line: str, items: str = "") -> model.Firmware:
    base = "uses memory\n" + (CASES / "base.tdf").read_text().replace(
        "version 1.0.0", f"version 4.5.6\n{items}"
    )
    return check_source(base + BOOT.format(line=line)).require()


def calls(line: str, items: str = "") -> list[str]:
    body = firmware(line, items).flows["boot"].body
    return [node.callee for node in walk(body) if isinstance(node, model.Call)]


@pytest.mark.parametrize(
    ("level", "printed"),
    [("error", "a"), ("warning", "ab"), ("info", "abc"), ("", "abc"), ("debug", "abcd")],
)
def test_lines_above_the_log_level_make_no_code(level: str, printed: str) -> None:
    lines = 'print "!" print error "a" print warning "b" print info "c" print debug "d", hex(td.gpaw)'
    items = f"log level {level}" if level else ""
    texts = [n.value for n in walk(firmware(lines, items).flows["boot"].body) if isinstance(n, model.Literal)]
    assert texts == ["!", *printed]
    assert ("print_hex" in calls(lines, items)) is (level == "debug")


@pytest.mark.parametrize(
    ("requirement", "known"),
    [
        ("true", True),
        ("firmware.svn >= 3", True),
        ("firmware.svn == 3 and firmware.major == 4 and firmware.minor == 5 and firmware.patch == 6", True),
        ("not (firmware.svn != 3)", True),
        ("true or td.gpaw == 48", True),
        ("2 > 1 and 1 <= 2 and 1 < 2", True),
        ("td.gpaw == 48 or true", False),
        ("td.gpaw == 48 and true", False),
    ],
)
def test_a_requirement_that_constants_meet_makes_no_code(requirement: str, known: bool) -> None:
    body = firmware(f"require {requirement}", "svn 3").flows["boot"].body
    assert (len(body) == 1) is known
