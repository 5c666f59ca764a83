"""Does every illegal act end the run with the right reason, naming symbol and source line?"""

from __future__ import annotations

from pathlib import Path

import guest
import pytest

from emu.api import EmuError, Report, RunConfig, run


def report(tmp_path: Path, body: str, first: str = "", **settings: object) -> Report:
    """Runs a guest with its ELF beside it."""
    made = guest.build(body, first)
    elf = tmp_path / "guest.elf"
    elf.write_bytes(made.elf)
    values = {"memory": guest.MEMORY, "until": "halt", "max_instructions": 100_000} | settings
    return run(RunConfig(image=made.image, image_name="guest.bin", elf=elf, **values))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "reason", "detail"),
    [
        ("movq 0x2000018, %rax", "sept-violation", "read from private GPA 0x2000018"),
        ("movb $1, 0x2000000", "sept-violation", "write to private GPA 0x2000000"),
        ("movl $0x10000000, %ebx; movb $1, (%rbx)", "sept-violation", "not backed by the VMM"),
        ("movl $0x2000000, %esp; pushq %rax", "sept-violation", "write to"),
        (
            "movl $6, %eax; movl $0x10000000, %ecx; .byte 0x66, 0x0f, 0x01, 0xcc",
            "sept-violation",
            "the VMM has no page",
        ),
        (
            "xorl %eax, %eax; movl $0xFC21, %ecx; .byte 0x66, 0x0f, 0x01, 0xcc",
            "illegal",
            "register mask 0xfc21",
        ),
        (
            "xorl %eax, %eax; movl $0xFC10, %ecx; .byte 0x66, 0x0f, 0x01, 0xcc",
            "illegal",
            "register mask 0xfc10",
        ),
        ("lidt zero(%rip); ud2; zero: .quad 0, 0", "triple-fault", "#UD"),
        (
            "lidt zero(%rip); movl $0x3FFFF000, %eax; shlq $20, %rax; movq (%rax), %rax; zero: .quad 0, 0",
            "triple-fault",
            "#GP",
        ),
    ],
)
def test_illegal_acts(tmp_path: Path, code: str, reason: str, detail: str) -> None:
    found = report(tmp_path, f"main:\n    nop\nculprit:\n    {code}\n    halt\n")
    assert found.end["reason"] == reason
    assert detail in str(found.end["detail"])
    assert str(found.end["symbol"]).startswith("culprit")
    assert str(found.end["source"]).startswith("g.S:")
    assert not found.met


def test_execution_of_memory_that_is_not_accepted(tmp_path: Path) -> None:
    found = report(tmp_path, "main:\n    movl $0x2000000, %eax\n    jmp *%rax\n")
    assert (found.end["reason"], found.end["rip"]) == ("sept-violation", 0x2000000)
    assert "execution of" in str(found.end["detail"])


def test_ve_before_the_idt_is_loaded(tmp_path: Path) -> None:
    found = report(tmp_path, "main: halt\n", "movl $2, %eax\nearly: cpuid\n")
    assert found.end["reason"] == "triple-fault"
    assert found.end["symbol"] == "early"
    assert "#VE" in str(found.end["detail"])


def test_tdcall_in_32_bit_mode(tmp_path: Path) -> None:
    found = report(tmp_path, "main: halt\n", "movl $1, %eax\nearly: .byte 0x66, 0x0f, 0x01, 0xcc\n")
    assert found.end["reason"] == "triple-fault"
    assert "#GP" in str(found.end["detail"])


FATAL = """
main:
    movl $0x31736675, %r14d         /* "ufs1" */
    movl $0, %r15d
    movl $0, %r12d
    xorl %ebx, %ebx
    xorl %edi, %edi
    xorl %esi, %esi
    xorl %r8d, %r8d
    xorl %r9d, %r9d
    xorl %edx, %edx
    movl $0, %r10d
    movl $0x10003, %r11d
    movl $0, %eax
    movl $0xFFCC, %ecx
    .byte 0x66, 0x0f, 0x01, 0xcc
"""


def test_report_fatal_error_ends_with_its_text(tmp_path: Path) -> None:
    found = report(tmp_path, FATAL)
    assert (found.end["reason"], found.end["detail"]) == ("fatal", "ufs1")
    assert found.vmcalls == {"ReportFatalError": 1}


def test_limit(tmp_path: Path) -> None:
    found = report(tmp_path, "main: jmp main\n", max_instructions=5000)
    assert found.end["reason"] == "limit"
    assert found.instructions >= 5000


def test_console_condition_and_output(tmp_path: Path) -> None:
    body = """
    main:
        movl $0x3F8, %r14d
        movl $1, %r12d
        movl $1, %r13d
        movl $'o', %r15d
        vmcall 0x1E
        movl $'k', %r15d
        vmcall 0x1E
        movl $'!', %r15d
        vmcall 0x1E
        halt
    """
    found = report(tmp_path, body, until="console:ok")
    assert (found.met, found.console, found.end["reason"]) == (True, "ok", "console")
    found = report(tmp_path, body, until="console:nothing")
    assert (found.met, found.console, found.end["reason"]) == (False, "ok!", "halt")


def test_handoff_is_the_first_fetch_outside_measured_memory(tmp_path: Path) -> None:
    body = "main:\n    movl $0xA00000, %eax\n    movl $0x810000, %esi\n    jmp *%rax\n"
    found = report(tmp_path, body, until="handoff")
    assert found.met
    assert found.handoff == {"entry": 0xA00000, "rsi": 0x810000, "boot_params": None, "e820": []}


def test_application_processors_are_found_in_their_loop(tmp_path: Path) -> None:
    first = "testl %esi, %esi\n jz 7f\npark: pause\n jmp park\n7:\n"
    found = report(tmp_path, "main: halt\n", first, vcpus=3)
    assert [(ap["index"], ap["parked"]) for ap in found.aps] == [(1, True), (2, True)]
    assert all(str(ap["symbol"]).startswith("park") for ap in found.aps)


def test_an_application_processor_that_fails_ends_the_run(tmp_path: Path) -> None:
    first = "testl %esi, %esi\n jz 7f\nwild: ud2\n7:\n"
    found = report(tmp_path, "main:\n1:  jmp 1b\n", first, vcpus=2, max_instructions=1_000_000)
    assert found.end["reason"] == "triple-fault"
    assert found.end["symbol"] == "wild"
    assert "vCPU 1" in str(found.end["detail"])


def test_instructions_of_named_symbols_are_counted_apart(tmp_path: Path) -> None:
    body = "main:\n    call hash\n    halt\nhash:\n    movl $100, %ecx\n1:  decl %ecx\n    jnz 1b\n    ret\n"
    body = body.replace("hash:\n", ".type hash, @function\nhash:\n") + ".size hash, . - hash\n"
    found = report(tmp_path, body, skip_count=("hash",))
    assert found.instructions_excluded == 202
    assert found.instructions > 202


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vmm": "bochs"}, "vmm 'bochs': expected one of td-shim"),
        ({"until": "tomorrow"}, "debug-exit, or console:TEXT"),
        ({"until": "console:"}, "debug-exit, or console:TEXT"),
        ({"memory": 4096}, "at least 16 MiB"),
        ({"vcpus": 0}, "vcpus 0"),
        ({"kernel": b"MZ" * 400}, "HdrS"),
        ({"initrd": b"x"}, "initrd without a kernel"),
        ({"cmdline": "x" * 4096}, "4097 bytes do not fit into the PayloadParam section of 4096 bytes"),
        ({"hob": bytes(0x3000)}, "TD HOB: 12288 bytes do not fit"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(EmuError) as error:
        report(tmp_path, "main: halt\n", **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_image_that_is_cut_short() -> None:
    """By its last pages: the metadata, which lie at its end, still name them."""
    image = guest.build("main: halt\n").image
    with pytest.raises(EmuError, match=r"has data up to 0x\w+, but the image ends at 0x\w+; it is cut short"):
        run(RunConfig(image=image[4096:], image_name="cut.bin"))


@pytest.mark.parametrize("image", [b"", b"TDVF", bytes(65536), bytes(range(256)) * 256])
def test_an_image_without_metadata(image: bytes) -> None:
    with pytest.raises(EmuError, match=r"garbage\.bin"):
        run(RunConfig(image=image, image_name="garbage.bin"))


def test_an_elf_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "not.elf"
    path.write_bytes(b"nothing")
    with pytest.raises(EmuError, match="not a readable ELF"):
        run(RunConfig(image=guest.build("main: halt\n").image, image_name="g", memory=guest.MEMORY, elf=path))
