"""What does a TD do when something is wrong? Either it refuses in words that reach the VMM, or the emulated
TD ends the run and names the place; never anything else.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import hobcampaign
import oracle
import pytest
from tdbox import Firmware, finish, launched

from emu.api import Report, TdParams, run

ERROR = b"\x01\0\0\0"  # the separator of a boot that failed
CI_RUNS = 90


def refusal(report: Report) -> str:
    """The text that ReportFatalError carried; nothing was handed over."""
    assert (report.end["reason"], report.met, report.handoff) == ("fatal", False, None), report.end
    told = {"ReportFatalError": 1}
    assert report.vmcalls in (told, told | {"Instruction.RDMSR": 1})  # the boot CPU's APIC id
    return str(report.end["detail"])


def test_a_kernel_that_is_no_bzimage(linux: Firmware) -> None:
    with launched(linux.config) as machine:
        base, size = linux.section("hob")
        vmm_hob = oracle.hob_list(machine.launch.hob.ljust(size, b"\0"), base)
        machine.memory.write(linux.section("payload")[0] + 0x202, b"XXXX")
        report = finish(machine, linux.config).report
    assert refusal(report) == "tdforge: kernel: not a bzImage"
    assert report.rtmr[:2] == (oracle.extended(vmm_hob, oracle.cpus(1), ERROR), oracle.extended(ERROR))


def test_no_kernel_at_all(linux: Firmware) -> None:
    assert refusal(run(replace(linux.config, kernel=None))) == "tdforge: kernel: not a bzImage"


def test_a_kernel_that_claims_more_than_its_section(linux: Firmware) -> None:
    with launched(linux.config) as machine:
        machine.memory.write(linux.section("payload")[0] + 0x1F4, struct.pack("<I", 0xFFFFFFF))
        report = finish(machine, linux.config).report
    assert refusal(report) == "tdforge: kernel: larger than its section"


def test_a_command_line_without_end(linux: Firmware) -> None:
    with launched(linux.config) as machine:
        place, size = linux.section("parameters")
        machine.memory.write(place, b"x" * size)
        report = finish(machine, linux.config).report
    assert refusal(report) == "tdforge: parameters: no NUL in the section"


def test_a_command_line_longer_than_the_kernel_takes(linux: Firmware) -> None:
    assert run(replace(linux.config, cmdline="x" * 2047)).met
    report = run(replace(linux.config, cmdline="x" * 2048))
    assert refusal(report) == "tdforge: command line: too long for kernel or page"


def test_a_td_whose_host_left_sept_ve_on(linux: Firmware) -> None:
    """The host could then inject #VE anywhere: refused before anything is read."""
    report = run(replace(linux.config, td=TdParams(attributes=0)))
    assert refusal(report) == "tdforge: SEPT_VE_DISABLE is not set"
    assert report.rtmr == (oracle.extended(ERROR),) * 2 + (bytes(48).hex(),) * 2


def test_a_hob_list_that_ends_outside_its_section(linux: Firmware) -> None:
    base, size = linux.section("hob")
    whole = hobcampaign.honest(linux, "td-shim-spec")
    beyond = whole[:48] + struct.pack("<Q", base + size + 8) + whole[56:]
    report = run(replace(linux.config, hob=beyond))
    assert refusal(report) == "tdforge: TD HOB: list does not fit its region"
    assert report.rtmr[:2] == (oracle.extended(ERROR),) * 2


def test_a_hob_list_cut_short_inside(linux: Firmware) -> None:
    """Measured as far as it goes, then refused: the END HOB is missing."""
    base, _ = linux.section("hob")
    whole = hobcampaign.honest(linux, "td-shim-spec")
    (end,) = struct.unpack_from("<Q", whole, 48)
    short = whole[:48] + struct.pack("<Q", end - 8) + whole[56:]
    report = run(replace(linux.config, hob=short))
    assert refusal(report).startswith("tdforge: TD HOB: ")
    assert report.rtmr[0] == oracle.extended(oracle.hob_list(short, base), oracle.cpus(1), ERROR)


def test_an_exception_in_the_firmware_is_a_refusal_too(linux: Firmware) -> None:
    report = run(linux.patched("parse_hob", b"\x0f\x0b"))  # UD2
    assert report.end["reason"] == "fatal"
    assert "#UD" in str(report.end["detail"])
    assert "parse_hob" in str(report.end["detail"])
    assert report.end["fault"]
    assert report.rtmr[1] == oracle.extended(ERROR)


@pytest.mark.parametrize("place", ["guard page", "nowhere", "code"])
def test_an_exception_without_a_stack_is_a_refusal_too(linux: Firmware, place: str) -> None:
    """RSP where nothing can be pushed: below the stack, not canonical, in memory that is not writable."""
    stack, _ = linux.section("stack")
    rsp = {"guard page": stack + 0x800, "nowhere": 1 << 63, "code": linux.symbols()["parse_hob"]}[place]
    report = run(
        linux.patched("parse_hob", b"\x48\xbc" + struct.pack("<Q", rsp) + b"\x50")
    )  # mov rsp; push rax
    assert report.end["reason"] == "fatal"
    # RSP that is not canonical is #SS on hardware; the emulated CPU raises #GP (docs/conformance.md).
    vectors = ("tdforge: #GP", "tdforge: #SS") if place == "nowhere" else ("tdforge: #PF",)
    assert str(report.end["detail"]).startswith(vectors)
    assert report.rtmr[1] == oracle.extended(ERROR)


def test_a_firmware_that_forgets_to_accept_is_found_out(linux: Firmware) -> None:
    """accept_next says at once that nothing is left: the carved regions are then touched too early."""
    nothing_left = (
        b"\x49\xc7\x00\0\0\0\0"  # mov qword [r8], 0: the run's start
        b"\x49\xc7\x40\x08\0\0\0\0"  # its count
        b"\x49\xc7\x40\x10\0\0\0\0"  # its level
        b"\x49\xc7\x40\x18\0\0\0\0"  # what to clear
        b"\x49\xc7\x40\x20\0\0\0\0"  # how much of it
        b"\x31\xc0\xc3"  # xor eax, eax; ret
    )
    report = run(linux.patched("accept_next", nothing_left))
    assert report.end["reason"] == "sept-violation"
    assert report.end["symbol"]
    assert report.end["source"]
    assert "not accepted" in str(report.end["detail"])


def test_a_firmware_that_writes_its_own_code_is_found_out(linux: Firmware) -> None:
    """W^X: the store ends in the firmware's own exception handler."""
    report = run(
        linux.patched("parse_hob", b"\x48\x8d\x05\0\0\0\0\xc6\x00\x90")
    )  # lea rax, [rip]; mov byte [rax], 0x90
    assert report.end["reason"] == "fatal"
    assert "#PF (error code 0x3" in str(report.end["detail"])
    assert "parse_hob" in str(report.end["detail"])


def test_a_firmware_that_executes_its_stack_is_found_out(linux: Firmware) -> None:
    report = run(linux.patched("parse_hob", b"\xff\xe4"))  # jmp rsp
    assert report.end["reason"] == "fatal"
    assert "#PF (error code 0x11" in str(report.end["detail"])


def test_mutated_hobs_end_in_handoff_or_refusal(linux: Firmware) -> None:
    outcome = hobcampaign.campaign(linux, CI_RUNS)
    assert outcome.runs == CI_RUNS
    assert not outcome.wrong, outcome.wrong[0]
    assert outcome.by_end["handoff"] > 10
    assert outcome.by_end["fatal"] > 10
    assert len(outcome.by_detail) >= 5  # the mutations reach different refusals
    assert len(outcome.lists) > CI_RUNS // 2


@pytest.mark.parametrize("vmm", hobcampaign.BASES)
def test_the_honest_hobs_are_taken(linux: Firmware, vmm: str) -> None:
    report = run(replace(linux.config, hob=hobcampaign.honest(linux, vmm)))
    assert report.met, report.end
