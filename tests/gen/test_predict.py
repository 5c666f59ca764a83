"""Are the registers of a flow known exactly if the image determines them, and which step is named if not?"""

from __future__ import annotations

from hashlib import sha384

import pytest

from dsl.api import check_source, shipped_flows
from gen.predict import Unknown, registers

IMAGE = """
uses linux
firmware x {
    version 1.0.0
    svn 7
    image below 4 GiB {
        code     BFV
        low      PermMem          1 MiB  at 0x0000_0000
        log      TempMem         64 KiB  at 0x0080_0000  nvs
        stack    TempMem         32 KiB
        paging   TempMem         80 KiB
        params   PayloadParam     4 KiB
        payload  Payload         64 KiB
        main     PermMem         64 MiB
        config   CFV              4 KiB  at 0xFFDF_0000
    }
    memory below 4 GiB, top down {
        wakeup  32 KiB  nvs
        zero     8 KiB  ram
    }
}
const LINE = "quiet"
flow name(x: measured bytes, n: u64) fails {
    if n == 2 { measure LINE into RTMR[1] as blob("two") } else { measure x into RTMR[1] as blob("other") }
}
flow early() -> bool fails {
    if firmware.svn == 7 { return true }
    return false
}
flow unsure() fails {
    measure LINE into RTMR[0] as blob("unsure")
    require early()?
}
flow boot(td: VpInfo) -> never {
    on error fatal
    start_log(log)?
    let ram = plan_memory(image_memory(), td)?
    accept ram
    STEPS
    measure payload into RTMR[1] as blob("td_payload")
    let nothing = payload[0 .. 0]
    let placement = place_linux(parse_linux(payload)?, nothing, ram)?
    load_linux(placement)?
    let cpus = find_cpus(td)?
    park aps on wakeup
    zero_page(zero, placement, ram, LINE, no_acpi())?
    separate RTMR[0], RTMR[1]
    handoff linux(placement, zero)
}
"""
PAYLOAD, CONFIG = b"kernel".ljust(0x10000, b"\0"), b"\x05".ljust(0x1000, b"\0")


def predicted(steps: str) -> tuple[bytes, ...]:
    firmware = check_source(IMAGE.replace("STEPS", steps)).require()
    return registers(firmware, {"payload": PAYLOAD, "config": CONFIG})


def extended(*events: bytes) -> bytes:
    register = bytes(48)
    for event in events:
        register = sha384(register + sha384(event).digest()).digest()
    return register


ZERO = bytes(4)  # a separator


@pytest.mark.parametrize(
    ("steps", "rtmr0", "rtmr1", "rtmr2"),
    [
        ("", [], [], []),
        ('measure "abc" into RTMR[0] as platform_config("x")', [b"abc"], [], []),
        ('measure hex"00ff" into RTMR[2] as blob("x")', [], [], [b"\0\xff"]),
        ('measure firmware.svn into RTMR[1] as number("x")', [], [b"\7" + bytes(7)], []),
        ('measure config[0 .. 2] into RTMR[0] as blob("x")', [b"\5\0"], [], []),
        ('let c = config measure c into RTMR[0] as blob("x")', [CONFIG], [], []),
        ('let n = config.size measure n into RTMR[0] as number("x")', [b"\0\x10" + bytes(6)], [], []),
        ('require td.attributes & DEBUG == 0 measure "a" into RTMR[0] as blob("x")', [b"a"], [], []),
        ('for r in ram.ranges { print "r" }', [], [], []),
        ("match td.vcpu_index { 0 -> { } _ -> { fail requirement_failed } }", [], [], []),
        ('try let n = u8_at("a", 9) { print "a" } on _ { print "b" }', [], [], []),
        ('measure config[0 .. 0] into RTMR[1] as blob("x")', [], [b""], []),
        ('measure config[0 .. 0] into RTMR[0] as blob("x") unless empty', [], [], []),
        ('measure config into RTMR[0] as blob("x") unless empty', [CONFIG], [], []),
        ('if td.vcpu_index == 1 { measure "a" into RTMR[0] as blob("x") fail out_of_bounds }', [], [], []),
        ('if td.vcpu_index == 1 and early()? { print "1" } else { print "2" }', [], [], []),
        ("require early()?", [], [], []),
    ],
)
def test_what_a_flow_measures_of_constants(
    steps: str, rtmr0: list[bytes], rtmr1: list[bytes], rtmr2: list[bytes]
) -> None:
    expected = (extended(*rtmr0, ZERO), extended(*rtmr1, PAYLOAD, ZERO), extended(*rtmr2), bytes(48))
    assert predicted(steps) == expected


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (
            'measure td.vcpu_index into RTMR[0] as number("x")',
            "line 39: `measure_number` of what only a run has",
        ),
        ('measure params into RTMR[0] as blob("x")', "line 39: `measure_blob` of what only a run has"),
        (
            'if td.vcpu_index == 0 { measure "a" into RTMR[0] as blob("x") }',
            "2 different ways end in a handoff",
        ),
        (
            'for r in ram.ranges { measure "a" into RTMR[0] as blob("x") }',
            "a measurement for each item of a list",
        ),
        (
            'try unsure() { print "a" } on _ { print "b" }',
            "an error may come before a measurement or behind it",
        ),
        ('measure config[0 .. 0x2000] into RTMR[0] as blob("x")', "line 39: a part that ends outside of its"),
        ("name(config, 3)?", "2 different ways end in a handoff"),
        ('let n = 1 n = 2 measure n into RTMR[0] as number("x")', "`measure_number` of what only a run has"),
    ],
)
def test_what_only_a_run_has_is_named(steps: str, says: str) -> None:
    with pytest.raises(Unknown, match=says):
        predicted(steps if "name(" not in steps else 'measure config into RTMR[0] as blob("c") ' + steps)


@pytest.mark.parametrize("name", ["linux", "qemu", "vmlinux", "alioth"])
def test_what_a_list_of_the_vmm_is_part_of_is_not_known(name: str) -> None:
    with pytest.raises(Unknown, match="of what only a run has"):
        registers(check_source(shipped_flows()[name].read_text()).require(), {})
