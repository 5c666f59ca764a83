"""What does a report say of a payload that is no Linux kernel, or dies at once? Foreign firmware, an event
log that comes late, a kernel that knows no #VE.
"""

from __future__ import annotations

from pathlib import Path

import guest
import pytest
from test_emu_eventlog import memory

from emu import eventlog
from emu.api import Report, RunConfig, prepare, report
from emu.debug.timeline import PHASES, Timeline
from emu.observe import Observer
from emu.vmm.loader import Launch
from emu.vmm.policy import Policy, with_content
from formats.tdvf import SectionType
from tdforge import cli, show

PAYLOAD = 0xA00000
CODE = 0x6000  # behind what `memory` holds
RSDP = 0x100
JUMP = f"main:\n    movl ${PAYLOAD + CODE:#x}, %eax\n    movl $RESULTS, %esi\n    jmp *%rax\n"
# movl $1, %r12d; TDVMCALL HLT
HALT = bytes.fromhex("41bc01000000 41ba00000000 41bb0c000000 b800000000 b900ff0000 660f01cc")


class Content(Policy):
    """The Payload section holds these bytes; nobody measures them."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data

    def launch(self, launch: Launch) -> Launch:
        return with_content(launch, SectionType.PAYLOAD, self.data)


def run(body: str, payload: bytes, observer: Observer | None = None) -> Report:
    config = RunConfig(guest.build(body).image, "guest.bin", memory=guest.MEMORY, until="halt")
    machine = prepare(config, policy=Content(payload))
    try:
        if observer:
            machine.observe(observer)
        return report(machine, machine.run(1_000_000, None))
    finally:
        machine.close()


def moved(space: bytearray) -> bytearray:
    """The tables of `memory`, whose addresses are those of the Payload section."""
    for at in (RSDP + 24, 0x200 + 36 + 8, 0x300 + 48):  # XSDT address, entry of the CCEL, log address
        value = int.from_bytes(space[at : at + 8], "little") + PAYLOAD
        space[at : at + 8] = value.to_bytes(8, "little")
    space[RSDP + 32] = (space[RSDP + 32] - sum(space[RSDP : RSDP + 36])) % 256
    return space


def late(code: bytes) -> bytes:
    """A payload that completes the RSDP only once it runs: movb $'R', PAYLOAD + RSDP."""
    space = moved(memory())
    space[RSDP] = 0
    first = b"\xc6\x04\x25" + (PAYLOAD + RSDP).to_bytes(4, "little") + b"R"
    code = first + code
    space[CODE : CODE + len(code)] = code
    return bytes(space)


def test_no_boot_params_are_said_and_the_log_is_found_at_the_end() -> None:
    found = run(JUMP, late(HALT))
    assert found.end["reason"] == "halt"
    assert found.handoff is not None
    assert (found.handoff["boot_params"], found.handoff["rsi"]) == (None, guest.RESULTS)
    assert [event["description"] for event in found.events] == ["td_hob", "td_payload"]
    assert found.event_log
    assert found.event_log_missing == ""


@pytest.mark.parametrize("header", [0x53726448, 0])
def test_a_timeline_begins_the_payload_where_boot_params_are(header: int) -> None:
    body = DEAF.replace("HEADER", hex(header)).replace("TARGET", hex(PAYLOAD))
    timeline = Timeline("guest")
    run(body, HALT, observer=timeline)
    phases = [PHASES[phase] for phase, _, _ in timeline.lanes[0].phases]
    assert phases == ["reset", "firmware", *(["decompressor"] if header else [])]
    (mark,) = (text for *_, text, kind in timeline.marks if kind == "handoff")
    assert ("first unmeasured code" in mark) == (header == 0)


@pytest.mark.parametrize("damage", [1, 30])
def test_only_a_whole_rsdp_leads_to_a_log(damage: int) -> None:
    payload = bytearray(late(HALT))
    payload[RSDP + damage] ^= 1
    found = run(JUMP, bytes(payload))
    assert found.event_log == b""
    assert "no boot_params at RSI 0x810000" in found.event_log_missing
    assert found.event_log_missing.endswith("no CCEL in memory at the end of the run")


def searched(space: bytes) -> bytes:
    return eventlog.search(lambda gpa, size: space[gpa : gpa + size], [(0, space)]).data


def test_a_log_is_searched_from_whole_rsdps_only() -> None:
    space = memory()
    assert searched(space)
    root = bytes(space[RSDP : RSDP + 36])
    space[RSDP : RSDP + 36] = bytes(36)
    assert not searched(space)
    space[RSDP + 4 : RSDP + 40] = root  # UEFI's configuration table may name any address
    assert searched(space)
    space[RSDP + 4 + 33] ^= 1  # a reserved byte: only the checksum tells
    assert not searched(space)


def test_a_run_without_a_handoff_says_so() -> None:
    found = run("main:\n    halt\n", b"")
    assert found.handoff is None
    assert found.event_log_missing == "the run ended before a handoff"


def test_an_empty_event_log_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, log = tmp_path / "guest.bin", tmp_path / "log"
    image.write_bytes(guest.build("main:\n    halt\n").image)
    options = ["--memory", "64M", "--until", "halt", "--event-log", str(log)]
    assert cli.main(["run", str(image), *options]) == 0
    assert log.read_bytes() == b""
    assert f"{log} is empty: the run ended before a handoff" in capsys.readouterr().err


# An IDT that can deliver nothing, then CPUID leaf 6, which raises #VE in every TD
DEAF = """
main:
    movq $0, RESULTS + 0x800
    movq $0, RESULTS + 0x808
    lidt RESULTS + 0x800
    movl $HEADER, RESULTS + 0x202
    movl $RESULTS, %esi
    movl $6, %eax
    movl $TARGET, %ebx
    jmp *%rbx
"""
CPUID = b"\x0f\xa2"


@pytest.mark.parametrize(
    ("header", "code", "asks"),
    [
        (0x53726448, CPUID, True),
        (0, CPUID, False),  # no Linux kernel
        (0x53726448, b"\x0f\x0b", False),  # UD2: no #VE
    ],
)
def test_a_kernel_that_dies_of_ve_at_once_is_asked_how_it_was_built(
    header: int, code: bytes, asks: bool
) -> None:
    body = DEAF.replace("HEADER", hex(header)).replace("TARGET", hex(PAYLOAD))
    found = run(body, code)
    assert found.end["reason"] == "triple-fault"
    assert ("CONFIG_INTEL_TDX_GUEST" in str(found.end["hint"])) == asks
    assert show.end_line(found.end).endswith("CONFIG_INTEL_TDX_GUEST?") == asks
