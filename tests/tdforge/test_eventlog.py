"""Does `eventlog` read logs of any producer, and name the first event that does not fit, with the reason?"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from hashlib import sha384
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import edk2log as edk2
import pefile
import pytest
from complaint import said
from edk2log import ENTRIES, Entry
from hypothesis import example, given, settings
from hypothesis import strategies as st
from virt.peutils.pesign import pe_authenticode_hash

from emu.tdx.report import TdInfo, build
from formats import eventlog as declared
from gen.link.sample import sample
from tdforge import evidence, log_files, log_verify, logs
from tdforge.building import build_flow
from tdforge.cli import main
from tdforge.commands.eventlog import parse_log
from tdforge.errors import UserError
from tdforge.flows import find_flow
from tdforge.tiny import tiny_payload

TEXT = "one two"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `log`, `report` and `kernel` of a boot of linux.tdf in the emulated TD."""
    folder = tmp_path_factory.mktemp("own")
    image = build_flow(find_flow("linux"), folder / "build").image
    (folder / "kernel").write_bytes(tiny_payload())
    words = ["run", str(image), "--kernel", str(folder / "kernel"), "--cmdline", TEXT, "--memory", "256M"]
    files = ["--report", str(folder / "report"), "--event-log", str(folder / "log")]
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        assert main([*words, "--until", "handoff", *files]) == 0
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with `log` and `quote` of the synthetic boot, and its `initrd`."""
    (tmp_path / "log").write_bytes(edk2.log())
    (tmp_path / "quote").write_bytes(edk2.quote(edk2.registers()))
    (tmp_path / "initrd").write_bytes(edk2.INITRD)
    return tmp_path


def verify(folder: Path, *more: str) -> int:
    return main(["eventlog", "verify", str(folder / "log"), *more])


def findings(folder: Path, capsys: Capture, *more: str) -> list[dict[str, Any]]:
    """What `verify --json` found, once its exit code and `fits` are the same."""
    capsys.readouterr()
    code = verify(folder, "--json", *more)
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["fits"] else 1)
    assert found["fits"] == all(each["fits"] for each in found["findings"])
    return list(found["findings"])


def test_our_own_log_fits_report_and_files(own: Path, capsys: Capture) -> None:
    words = ("--against", str(own / "report"), "--kernel", str(own / "kernel"), "--cmdline", TEXT)
    assert verify(own, *words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "RTMR[0]       fits  3 events",
        "RTMR[1]       fits  3 events",
        "RTMR[2]       fits  never extended",
        "RTMR[3]       fits  never extended",
        "kernel        fits  event 3 (EV_EFI_PLATFORM_FIRMWARE_BLOB2, td_payload) has the digest of the file",
        "command line  fits  event 4 (EV_PLATFORM_CONFIG_FLAGS, td_payload_info) has the digest of the text",
    ]


def test_other_files_than_those_of_our_own_log(own: Path, capsys: Capture) -> None:
    log, report = str(own / "log"), str(own / "report")
    found = findings(own, capsys, "--kernel", log, "--initrd", report, "--cmdline", "one")
    kernel, initrd, line = found
    assert kernel["text"].startswith("event 3 (EV_EFI_PLATFORM_FIRMWARE_BLOB2, td_payload) has digest ")
    assert f" of 1,664 bytes, which {log} of 131,072 bytes (SHA-384 " in kernel["text"]
    assert initrd["text"] == "no event of the log has a digest of it, and none is of its kind"
    where = "event 4 (EV_PLATFORM_CONFIG_FLAGS, td_payload_info)"
    assert line["text"] == f'{where} has "one two", given is "one"'
    assert [each["event"] for each in found] == [3, None, 4]


def test_a_report_names_the_first_event_that_differs(own: Path, tmp_path: Path, capsys: Capture) -> None:
    report = json.loads((own / "report").read_text())
    digest = "ab" * 48
    other = [dict(event) for event in report["events"]]
    other[3]["digest"] = digest
    shorter, longer = report["events"][:-1], [*report["events"], {"rtmr": 1, "digest": digest}]
    for events, number, text in (
        (
            other,
            4,
            "td_payload_info) has digest 24ce4d15e4c2c963..., the report of a run abababababababab...",
        ),
        (shorter, 6, "separator 00000000) is in the log, but not in the report of a run"),
        (
            longer,
            None,
            "the report of a run has an event behind the last one of the log, with digest abababa",
        ),
    ):
        changed = report | {"events": events, "rtmr": [report["rtmr"][0], digest, *report["rtmr"][2:]]}
        (tmp_path / "report").write_text(json.dumps(changed))
        found = findings(own, capsys, "--against", str(tmp_path / "report"))
        assert [each["fits"] for each in found] == [True, False, True, True]
        assert found[1]["event"] == number
        assert text in found[1]["text"]


def test_show_and_replay_of_another_producers_log(files: Path, capsys: Capture) -> None:
    assert main(["eventlog", "show", str(files / "log"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [
        (each["mr_index"], each["type"], each["digest"], bytes.fromhex(each["data"])) for each in shown[1:]
    ] == [(entry.index, entry.kind, entry.digest.hex(), entry.data) for entry in ENTRIES]
    assert [each["event"] for each in shown] == list(range(len(ENTRIES) + 1))
    names = [f"{each['type_name']} {each['description']}" for each in shown]
    assert names[1:5] == [
        "EV_EFI_HANDOFF_TABLES2 TdxTable",
        "EV_EFI_PLATFORM_FIRMWARE_BLOB2 Fv(XXXXXXXX-XXXX-XXXX-XXXX-XXXXXXXXXXXX)",
        "EV_EFI_VARIABLE_DRIVER_CONFIG SecureBoot",
        "EV_EFI_VARIABLE_DRIVER_CONFIG PK",
    ]
    assert names[10] == r"EV_EFI_BOOT_SERVICES_APPLICATION \EFI\BOOT\BOOTX64.EFI"
    assert names[15:17] == ["EV_EVENT_TAG LOADED_IMAGE::LoadOptions", "EV_EVENT_TAG Linux initrd"]
    covered = [each["event"] for each in shown if each["digest_of_data"]]
    assert covered == [3, 4, 5, 7, 8, 9, 12, 13, 17, 18]
    assert main(["eventlog", "replay", str(files / "log"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rtmr"] == [each.hex() for each in edk2.registers()]


def test_show_and_replay_for_a_person(own: Path, capsys: Capture) -> None:
    assert main(["eventlog", "show", str(own / "log")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "0      none      EV_NO_ACTION Spec ID Event03, tdforge"
    assert '4      RTMR[1]   EV_PLATFORM_CONFIG_FLAGS td_payload_info "one two"' in lines
    assert f"                 {sha384(TEXT.encode()).hexdigest()} of the event data" in lines
    assert main(["eventlog", "replay", str(own / "log")]) == 0
    report = json.loads((own / "report").read_text())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == report["rtmr"]
    assert [line.split()[1] for line in lines[1:]] == ["3", "3", "0", "0"]


def test_control_characters_do_not_reach_the_terminal(files: Path, capsys: Capture) -> None:
    line = "a\x1b]0;title\x07\udc80"
    data = declared.platform_config("td_payload_info", line.encode("utf-8", "surrogateescape"))
    area = declared.spec_id_event() + declared.event(2, 0xA, bytes(48), data)
    (files / "log").write_bytes(area)
    assert main(["eventlog", "show", str(files / "log")]) == 0
    assert verify(files, "--cmdline", line) == 1
    out = capsys.readouterr().out
    assert "NOT of the event data" in out
    assert "\x1b" not in out
    assert "\x07" not in out


UNKNOWN = "unexplained before it: event 11 (EV_IPL, MokList), 1 in all"


@pytest.mark.parametrize("statement", ["quote", "report"])
def test_the_synthetic_log_fits(statement: str, files: Path, capsys: Capture) -> None:
    r0, r1, r2, r3 = edk2.registers()
    report = build(TdInfo(0, 0, bytes(48), bytes(48), bytes(48), bytes(48), (r0, r1, r2, r3)), bytes(64))
    (files / "report").write_bytes(report)
    words = ("--against", str(files / statement), "--initrd", str(files / "initrd"))
    found = findings(files, capsys, *words, "--cmdline", edk2.COMMAND_LINE)
    assert [each["fits"] for each in found] == [True] * 6
    assert [each["text"] for each in found[4:]] == [
        "event 16 (EV_EVENT_TAG, Linux initrd) has the digest of the file; " + UNKNOWN,
        f"event 13 (EV_IPL, kernel_cmdline: {edk2.GRUB_LINE}) has this text; " + UNKNOWN,
    ]


def without(number: int) -> tuple[Entry, ...]:
    return ENTRIES[:number] + ENTRIES[number + 1 :]


def put(number: int, entry: Entry) -> tuple[Entry, ...]:
    return (*ENTRIES[:number], entry, *ENTRIES[number + 1 :])


ONCE_MORE = (*ENTRIES[:4], ENTRIES[3], *ENTRIES[4:])
EXCHANGED = (*ENTRIES[:7], ENTRIES[8], ENTRIES[7], *ENTRIES[9:])
FAILED = Entry(1, 4, struct.pack("<I", 1), struct.pack("<I", 1))
LIE = replace(ENTRIES[2], data=edk2.variable("SecureBoot", b"\1"))


@pytest.mark.parametrize(
    ("log", "extended", "register", "number", "text"),
    [
        (ENTRIES, without(5), 0, 6, "ACPI DATA) is in the log, but not in the quote v4"),
        (
            ENTRIES,
            ENTRIES[:-2],
            1,
            17,
            "Invocation) is in the log, but the quote v4 has the register before it",
        ),
        (ENTRIES, ONCE_MORE, 0, 4, "PK) is once in the log, but twice in the quote v4"),
        (ONCE_MORE, ENTRIES, 0, 4, "PK) is in the log, but not in the quote v4"),
        (EXCHANGED, ENTRIES, 1, 8, "separator 00000000) is before event 9 (EV_EFI_ACTION, Calling EFI Appl"),
        (
            (*ENTRIES[:2], LIE, *ENTRIES[3:]),
            put(2, replace(LIE, measured=LIE.data)),
            0,
            3,
            "cfa4e2c606f57262... in the log, 2cded0c6f453d4c6... in the quote v4, which is that of the event",
        ),
        (ENTRIES, put(4, FAILED), 0, 5, "separator 00000000) has digest 394341b7182cd227... in the log, "),
        (
            ENTRIES,
            (*ENTRIES, FAILED),
            0,
            None,
            "the quote v4 has one more separator of value 1 than the log; the f",
        ),
        (
            ENTRIES,
            (*ENTRIES, ENTRIES[4]),
            0,
            None,
            "the quote v4 has one more separator of value 0 than the log",
        ),
        (
            ENTRIES,
            (*ENTRIES, Entry(4, 6, b"app", b"")),
            3,
            None,
            "the log has no event of it, the quote v4 has ",
        ),
        (
            ENTRIES,
            ENTRIES[10:],
            0,
            1,
            "TdxTable) is in the log, but the quote v4 has no extend of it",
        ),
        (
            ENTRIES,
            (*without(5), ENTRIES[5], ENTRIES[5]),
            0,
            None,
            ": more than one event differs, or others followed the log",
        ),
    ],
)
def test_the_first_event_that_does_not_fit(
    log: tuple[Entry, ...],
    extended: tuple[Entry, ...],
    register: int,
    number: int | None,
    text: str,
    files: Path,
    capsys: Capture,
) -> None:
    (files / "log").write_bytes(edk2.log(log))
    (files / "quote").write_bytes(edk2.quote(edk2.registers(extended)))
    found = findings(files, capsys, "--against", str(files / "quote"))
    mine = next(each for each in found if each["what"] == f"RTMR[{register}]")
    assert (mine["fits"], mine["event"]) == (False, number)
    assert text in mine["text"]
    others = [each["fits"] for each in found if each["what"].startswith("RTMR") and each != mine]
    assert others == [True] * 3 or extended == ENTRIES[10:]


def test_some_registers_alone(files: Path, capsys: Capture) -> None:
    (files / "quote").write_bytes(edk2.quote([*edk2.registers()[:3], b"r" * 48]))
    words = ("--against", str(files / "quote"))
    assert verify(files, *words) == 1
    found = findings(files, capsys, *words, "--rtmr", "2", "--rtmr", "0", "--rtmr", "2")
    assert [(each["what"], each["fits"]) for each in found] == [("RTMR[0]", True), ("RTMR[2]", True)]


def test_grub_does_not_log_the_word_that_linux_shows(files: Path, capsys: Capture) -> None:
    (files / "log").write_bytes(edk2.log((ENTRIES[12],)))
    for word, fits in (("BOOT_IMAGE=/vmlinuz ", True), ("BOOT=/vmlinuz ", False)):
        assert findings(files, capsys, "--cmdline", word + edk2.COMMAND_LINE)[0]["fits"] == fits


def test_data_that_the_digest_does_not_cover(files: Path, capsys: Capture) -> None:
    """The registers fit such a log."""
    (files / "log").write_bytes(edk2.log((*ENTRIES[:2], LIE, *ENTRIES[3:])))
    (files / "quote").write_bytes(edk2.quote(edk2.registers()))
    found = findings(files, capsys, "--against", str(files / "quote"))
    assert [each["fits"] for each in found] == [False, True, True, True, True]
    assert (found[0]["what"], found[0]["event"]) == ("event data", 3)
    assert "its digest is cfa4e2c606f57262..., its data give 2cded0c6f453d4c6..." in found[0]["text"]


def test_the_kernel_as_firmware_measures_images(files: Path, capsys: Capture) -> None:
    kernel = sample("pe")
    (files / "kernel").write_bytes(kernel)
    assert findings(files, capsys, "--kernel", str(files / "kernel"))[0]["event"] == edk2.KERNEL + 1
    digest = pe_authenticode_hash(pefile.PE(data=kernel, fast_load=True), "sha384")
    entries = put(edk2.KERNEL, replace(ENTRIES[edk2.KERNEL], other=digest))
    (files / "log").write_bytes(edk2.log(entries))
    (found,) = findings(files, capsys, "--kernel", str(files / "kernel"))
    name = r"event 14 (EV_EFI_BOOT_SERVICES_APPLICATION, \vmlinuz)"
    assert found["fits"]
    shim = r"event 10 (EV_EFI_BOOT_SERVICES_APPLICATION, \EFI\BOOT\BOOTX64.EFI)"
    assert (
        found["text"]
        == f"{name} has the digest of the image in the file; unexplained before it: {shim}, 1 in all"
    )


def test_the_register_has_the_given_file(files: Path, capsys: Capture) -> None:
    """A log whose digest of the initrd was changed."""
    (files / "log").write_bytes(edk2.log(put(15, replace(ENTRIES[15], measured=b"another"))))
    found = findings(files, capsys, "--against", str(files / "quote"), "--initrd", str(files / "initrd"))
    assert [each["event"] for each in found if not each["fits"]] == [16, 16]
    assert "in the quote v4, which is that of the given file" in found[2]["text"]


LINE = edk2.COMMAND_LINE
SHIM = "td_payload_info"


@pytest.mark.parametrize(
    ("entry", "fits", "text"),
    [
        (ENTRIES[12], True, "kernel_cmdline: /boot/vmlinuz root=/dev/vda1 ro) has this text"),
        (Entry(3, 0xD, b"k x", b"kernel_cmdline: k x\0"), False, f'k x) has "x", given is "{LINE}"'),
        (Entry(3, 0xD, b"", ENTRIES[12].data), False, f'has "{LINE}", given is "{LINE}"'),
        (ENTRIES[14], True, "the text in UTF-16, with a NUL"),
        (Entry(3, 6, f"{LINE} initrd=initrd\0".encode("utf-16-le"), ENTRIES[14].data), True, "and ` initrd="),
        (replace(ENTRIES[14], measured=b""), False, f'which "{LINE}" does not give in any encoding'),
        (
            Entry(
                2, 0xA, LINE.encode() + bytes(50), declared.platform_config(SHIM, LINE.encode() + bytes(50))
            ),
            True,
            "td_payload_info) has the digest of it in 67 bytes, zeros behind",
        ),
        (
            Entry(3, 0x8000000A, LINE.encode(), declared.blob2("command_line", 0, len(LINE))),
            True,
            "of the text",
        ),
        (
            Entry(3, 0x8000000A, LINE.encode() + bytes(9), declared.blob2("command_line", 0, len(LINE) + 9)),
            True,
            "the digest of it in 26 bytes, zeros behind",
        ),
        (
            Entry(3, 0x8000000A, LINE.encode() + bytes(9), declared.blob2("command_line", 0, len(LINE))),
            False,
            "",
        ),
        (Entry(0, 3, LINE.encode(), b""), False, "no event of the log has a digest of it"),
    ],
)
def test_the_command_line(entry: Entry, fits: bool, text: str, files: Path, capsys: Capture) -> None:
    (files / "log").write_bytes(edk2.log((entry,)))
    found = findings(files, capsys, "--cmdline", LINE)[-1]
    assert (found["what"], found["fits"]) == ("command line", fits)
    assert text in found["text"]


def vmlinux(*segments: tuple[int, bytes]) -> bytes:
    """An ELF file of these segments, by address."""
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack("<HHIQQQ", 2, 62, 1, 0x100_0000, 64, 0)
    head += struct.pack("<IHHHHHH", 0, 64, 56, len(segments), 0, 0, 0)
    offset, table, body = 64 + 56 * len(segments), b"", b""
    for address, data in segments:
        where = (offset + len(body), address, address, len(data), len(data) + 0x3000)
        table, body = table + struct.pack("<IIQQQQQQ", 1, 7, *where, 0x1000), body + data
    return head + table + body


BASE = 0x100_0000
CODE, DATA = b"code" * 100, b"data" * 100
PLACED = (CODE.ljust(0x2000, b"\0") + DATA).ljust(0x3000, b"\0")


@pytest.mark.parametrize(
    ("file", "base", "measured", "how"),
    [
        (vmlinux((BASE, CODE), (BASE + 0x2000, DATA)), BASE, PLACED, "its segments where they are loaded"),
        (vmlinux((BASE, CODE), (BASE + 0x2000, DATA)), BASE - 1, PLACED, ""),
        (vmlinux((BASE, CODE), (BASE + 0x2000, DATA)), BASE + 1, PLACED, ""),
        (vmlinux((BASE, CODE), (BASE + 0x2000, DATA + bytes(0x1000))), BASE, PLACED, "its segments where"),
        (vmlinux((BASE, CODE), (BASE + 0x2F00, DATA)), BASE, (CODE.ljust(0x2F00, b"\0") + DATA)[:0x3000], ""),
        (vmlinux((BASE, CODE)), BASE + 0x1000, CODE.ljust(0x1000, b"\0"), ""),
        (vmlinux((BASE, CODE)) + b"appended", 0, vmlinux((BASE, CODE)), "the ELF file without what follows"),
        (b"kernel", 0, b"kernel", "the file"),
        (b"kernel", 0, b"kernel".ljust(4096, b"\0"), "it in 4,096 bytes, zeros behind"),
        (b"kernel".ljust(8192, b"\0"), 0, b"kernel".ljust(4096, b"\0"), "it in 4,096 bytes, zeros behind"),
        (b"kernel" * 4096, 0, (b"kernel" * 4096)[:4096], ""),
        (b"\x7fELF", 0, b"x", ""),
    ],
)
def test_the_kernel_of_a_section(
    file: bytes, base: int, measured: bytes, how: str, files: Path, capsys: Capture
) -> None:
    (files / "kernel").write_bytes(file)
    entry = Entry(2, 0x8000000A, measured, declared.blob2("td_payload", base, len(measured)))
    (files / "log").write_bytes(edk2.log((entry,)))
    (found,) = findings(files, capsys, "--kernel", str(files / "kernel"))
    assert found["fits"] == bool(how)
    assert how in found["text"]


KERNEL = declared.blob2("td_payload", 0, 6)
RIGHT, WRONG = (Entry(2, 0x8000000A, raw, KERNEL) for raw in (b"kernel", b"wrong!"))
NAME = "event {} (EV_EFI_PLATFORM_FIRMWARE_BLOB2, td_payload)"


@pytest.mark.parametrize(
    ("entries", "number", "text"),
    [
        ((RIGHT, WRONG), None, f"{NAME.format(1)} has the digest of the file"),
        ((WRONG, RIGHT), 1, f"{NAME.format(1)} has digest "),
        ((RIGHT, replace(WRONG, index=3)), 2, f"{NAME.format(2)} has digest "),
        ((replace(WRONG, index=3), RIGHT), 1, f"{NAME.format(1)} has digest "),
        ((RIGHT, replace(WRONG, index=4)), None, f"{NAME.format(1)} has the digest of the file"),
        ((replace(RIGHT, index=4),), None, "no event of the log has a digest of it"),
        ((replace(RIGHT, data=b""),), None, "event 1 (EV_EFI_PLATFORM_FIRMWARE_BLOB2) has the digest of the"),
        ((replace(WRONG, data=b""), RIGHT), None, "; unexplained before it: event 1 (EV_EFI_PLATFORM_FIRM"),
        ((replace(WRONG, data=b"", index=3), RIGHT), None, f"{NAME.format(2)} has the digest of the file"),
        (
            (Entry(2, 0xD, b".linux\0", b".linux\0"), Entry(2, 0xD, b"kernel", b".linux\0")),
            None,
            "event 2 (EV_IPL, .linux) has the digest of the file",
        ),
    ],
)
def test_the_first_event_of_a_kind_in_each_register_decides(
    entries: tuple[Entry, ...], number: int | None, text: str, files: Path, capsys: Capture
) -> None:
    """A system that was started could extend RTMR[1] and RTMR[2] too, with what it likes."""
    (files / "kernel").write_bytes(b"kernel")
    (files / "log").write_bytes(edk2.log(entries))
    (found,) = findings(files, capsys, "--kernel", str(files / "kernel"))
    assert found["fits"] == (number is None and "no event" not in text)
    assert found["event"] == number
    assert text in found["text"]


def test_what_was_given_explains_what_came_before(files: Path, capsys: Capture) -> None:
    """A kernel in a section with zeros behind, then the initrd."""
    (files / "kernel").write_bytes(b"kernel")
    section = Entry(2, 0x8000000A, b"kernel".ljust(64, b"\0"), declared.blob2("td_payload", 0, 64))
    initrd = Entry(2, 0x8000000A, edk2.INITRD, declared.blob2("initrd", 0, len(edk2.INITRD)))
    (files / "log").write_bytes(edk2.log((section, initrd)))
    words = ("--initrd", str(files / "initrd"))
    assert "; unexplained before it: event 1 " in findings(files, capsys, *words)[0]["text"]
    found = findings(files, capsys, *words, "--kernel", str(files / "kernel"))
    assert found[1]["text"] == "event 2 (EV_EFI_PLATFORM_FIRMWARE_BLOB2, initrd) has the digest of the file"


def test_where_a_vmlinux_is_entered(files: Path, capsys: Capture) -> None:
    (files / "kernel").write_bytes(vmlinux((BASE, CODE)))
    shim = Entry(2, 0x8000000A, CODE.ljust(0x1000, b"\0"), declared.blob2("td_payload", BASE, 0x1000))
    for address, measured, fits in ((BASE, BASE, True), (BASE + 8, BASE + 8, False), (BASE, BASE + 8, False)):
        data = declared.platform_config("td_entry", struct.pack("<Q", address))
        entry = Entry(2, 0xA, struct.pack("<Q", measured), data)
        (files / "log").write_bytes(edk2.log((shim, entry)))
        *others, found = findings(files, capsys, "--kernel", str(files / "kernel"))
        assert all(each["fits"] for each in others) == (address == measured)
        assert (found["what"], found["fits"], found["event"]) == ("entry", fits, None if fits else 2)
        name = "event 2 (EV_PLATFORM_CONFIG_FLAGS, td_entry)"
        assert found["text"] == f"{name} has {address:#x}, {files / 'kernel'} 0x1000000"


def test_a_hostile_log_does_not_take_forever(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Sections are looked at up to a size."""
    (files / "kernel").write_bytes(b"kernel")
    right = Entry(2, 0x8000000A, b"kernel".ljust(5000, b"\0"), declared.blob2("td_payload", 0, 5000))
    words = ("--kernel", str(files / "kernel"))
    (files / "log").write_bytes(edk2.log((right,)))
    for limit, fits in ((5000, True), (4999, False)):
        monkeypatch.setattr(log_files, "MAX_MEASURED", limit)
        assert findings(files, capsys, *words)[0]["fits"] == fits


def test_kernel_and_initrd_in_one_payload(files: Path, capsys: Capture) -> None:
    """docs/decisions/0007-payload-bundle.md, by hand."""
    kernel = tiny_payload()
    head = UUID("7d1b3c52-86a4-4e0f-9d3a-5c1fe2b0a764").bytes_le + struct.pack("<Q", len(edk2.INITRD))
    payload = kernel.ljust(4096, b"\0") + head.ljust(4096, b"\0") + edk2.INITRD
    (files / "kernel").write_bytes(kernel + b"appended")
    entry = Entry(2, 0x8000000A, payload, declared.blob2("td_payload", 0, len(payload)))
    (files / "log").write_bytes(edk2.log((entry,)))
    words = ("--kernel", str(files / "kernel"), "--initrd", str(files / "initrd"))
    for found in findings(files, capsys, *words):
        assert found["fits"]
        assert found["text"].endswith("td_payload) has the digest of kernel and initrd in one payload")
    assert [each["fits"] for each in findings(files, capsys, *words[:2])] == [False]


def test_a_kernel_as_hosts_give_it(files: Path, capsys: Capture) -> None:
    """The commands of docs/event-log.md, for a setup part of more than a page."""
    kernel = bytearray(tiny_payload().ljust(0x2000, b"k"))
    setup = 4608
    kernel[0x1F1], kernel[0x1F4:0x1F8] = setup // 512 - 1, (100).to_bytes(4, "little")
    kernel[0x211] |= 0x80
    for at, size in ((0x1FA, 2), (0x210, 1), (0x218, 8), (0x224, 2), (0x228, 4), (0x250, 8)):
        kernel[at : at + size] = b"h" * size
    (files / "kernel").write_bytes(bytes(kernel))
    true = bytearray(kernel[: setup + 1600])
    cases = [(bytes(true), "the file up to its true length")]
    for at, size in ((0x1FA, 2), (0x210, 1), (0x218, 8), (0x224, 2), (0x228, 4), (0x250, 8)):
        true[at : at + size] = bytes(size)
    true[0x211] &= 0x7F
    cases.append((bytes(true), "the file without what a host writes into it"))
    true[4096:setup] = bytes(setup - 4096)
    cases.append((bytes(true), "the file as Alioth gives it"))
    for measured, how in cases:
        entry = Entry(2, 0x8000000A, measured, declared.blob2("td_payload", 0, 5))
        (files / "log").write_bytes(edk2.log((entry,)))
        (found,) = findings(files, capsys, "--kernel", str(files / "kernel"))
        assert found["text"].endswith(f"has the digest of {how}"), found["text"]


@pytest.mark.parametrize(
    ("words", "data", "says"),
    [
        (["show", "{}"], b"", "offset 0x0: found 0 bytes, expected 32 bytes of cc_pcr_event"),
        (
            ["replay", "{}"],
            b"CCEL" + bytes(52),
            "found the ACPI table CCEL, expected the log area that it names",
        ),
        (
            ["show", "{}"],
            edk2.log()[:200],
            "offset 0xad: found 27 bytes, expected 66 bytes of cc_event_header",
        ),
        (["verify", "{}", "--cmdline", "x"], edk2.quote(edk2.registers()), "found type 0x81, "),
        (
            ["verify", "LOG", "--against", "{}"],
            edk2.log(),
            "found version 1, expected a quote of version 4 or",
        ),
        (["verify", "LOG", "--against", "{}"], b"{", "found a text that begins with `{` but is no JSON, exp"),
        (["verify", "LOG", "--against", "{}"], b"{" * 100_000, "found a text that begins with `{` but is no"),
        (
            ["verify", "LOG", "--against", "{}"],
            b"{}",
            "rtmr: found NoneType, expected a list, as `tdforge run",
        ),
        (
            ["verify", "LOG", "--against", "{}"],
            b'{"rtmr": [], "events": []}',
            "rtmr: found 0 values, expected 4",
        ),
        (
            ["verify", "LOG", "--against", "{}"],
            b'{"rtmr": [1, 2, 3, 4]}',
            "rtmr 0: found 1, expected 96 hexadec",
        ),
        (["verify", "{}/no", "--cmdline", "x"], b"", "cannot read event log"),
        (["verify", "LOG", "--kernel", "{}/no"], b"", "cannot read kernel"),
    ],
)
def test_what_cannot_be_read(
    words: Sequence[str], data: bytes, says: str, files: Path, capsys: Capture
) -> None:
    (files / "given").write_bytes(data)
    replaced = [word.replace("LOG", str(files / "log")).format(files / "given") for word in words]
    assert main(["eventlog", *replaced]) == 1
    assert says in said(capsys)


REGISTERS = ["00" * 48] * 4


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ({"rtmr": REGISTERS}, "events: found NoneType, expected a list"),
        ({"rtmr": REGISTERS, "events": [3]}, "events 0: found register None, expected 0 to 3"),
        ({"rtmr": REGISTERS, "events": [{"rtmr": 4}]}, "events 0: found register 4, expected 0 to 3"),
        ({"rtmr": REGISTERS, "events": [{"rtmr": True}]}, "events 0: found register True, expected 0 to 3"),
        (
            {"rtmr": REGISTERS, "events": [{"rtmr": 1}]},
            "events 0: found None, expected 96 hexadecimal digits",
        ),
        ({"rtmr": REGISTERS, "events": [{"rtmr": 1, "digest": "xy"}]}, "events 0: found 'xy', expected 96"),
        ({"rtmr": REGISTERS, "events": []}, "mrtd: found None, expected 96 hexadecimal digits"),
    ],
)
def test_a_report_that_is_none(report: object, says: str, files: Path, capsys: Capture) -> None:
    (files / "report").write_text(json.dumps(report))
    assert verify(files, "--against", str(files / "report")) == 1
    assert says in said(capsys)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["verify", "log"], "verify needs --against, --kernel, --initrd or --cmdline"),
        (["verify", "log", "--rtmr", "1", "--cmdline", "x"], "--rtmr needs --against"),
        (["show", "log", "--cmdline", "x"], "show takes LOG and --json alone"),
        (["verify", "log", "--cmdline", "x", "--cmdline", "y"], "argument --cmdline: given twice"),
        (["verify", "log", "--rtmr", "4"], "invalid choice: 4"),
        (["print", "log"], "invalid choice: 'print'"),
    ],
)
def test_wrong_words(words: Sequence[str], says: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["eventlog", *words])
    assert ended.value.code == 2
    assert says in capsys.readouterr().err


PLACE = Path("log")


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=4), st.integers(0, 2500))
@example([], 2500)
def test_a_mutated_log_fits_or_is_refused(changes: list[tuple[int, int]], end: int) -> None:
    """And a register fits if, and only if, its value is the same."""
    area = bytearray(edk2.log()[:end])
    for at, value in changes:
        area[at : at + 1] = bytes([value])
    events, complaint = None, ""
    try:
        events = parse_log(bytes(area), PLACE)
    except UserError as error:
        complaint = str(error)
    if events is None:
        assert "\n" not in complaint
        assert ": found " in complaint
        return
    given = (
        log_files.command_line(LINE),
        log_files.kernel(b"MZ", PLACE, []),
        log_files.initrd(b"", PLACE, []),
    )
    assert [each.what for each in log_files.find(events, given)] == ["command line", "kernel", "initrd"]
    stated = evidence.parse(edk2.quote(edk2.registers()), Path("quote"))
    found = list(log_verify.registers(events, stated, range(4), log_files.alternatives(events, given)))
    assert [each.fits for each in found] == [
        mine == theirs for mine, theirs in zip(declared.replay(events), edk2.registers(), strict=True)
    ]


def test_a_folder_of_logs(files: Path, own: Path, capsys: Capture) -> None:
    other, alone = files / "other", files / "alone"
    for folder in (other, alone):
        folder.mkdir()
    (other / "log").write_bytes(edk2.log(without(5)))
    (other / "quote").write_bytes(edk2.quote(edk2.registers()))
    (alone / "log").write_bytes(edk2.log())
    (alone / "cut").write_bytes(edk2.log()[:100])
    (files / "other quote").write_bytes(edk2.quote([bytes(48)] * 4))
    assert logs.main([str(files)]) == 1
    lines = [
        line.removeprefix(f"{files}/").split(maxsplit=2) for line in capsys.readouterr().out.splitlines()
    ]
    assert [line[:2] for line in lines] == [
        ["alone/cut", "BAD"],
        ["alone/log", "good"],
        ["log", "good"],
        ["other/log", "BAD"],
    ]
    assert "found 35 bytes, expected 66 bytes of cc_event_header" in lines[0][2]
    assert lines[1][2] == "19 events, no quote beside it"
    assert lines[2][2] == "19 events, quote (quote v4): fits"
    assert lines[3][2].startswith("18 events, quote (quote v4): RTMR[0]: the log gives ")
    assert logs.main([str(own)]) == 0
    assert "7 events, report (report of a run): fits" in capsys.readouterr().out


def test_a_folder_with_a_log_that_lies(files: Path, capsys: Capture) -> None:
    """Its registers fit, one event's data are not what was measured."""
    (files / "log").write_bytes(edk2.log((*ENTRIES[:2], LIE, *ENTRIES[3:])))
    assert logs.main([str(files)]) == 1
    lies, fits = capsys.readouterr().out.splitlines()
    assert "BAD   event 3 (EV_EFI_VARIABLE_DRIVER_CONFIG, SecureBoot): its digest is " in lies
    assert fits.endswith("good  19 events, quote (quote v4): fits")


def test_a_folder_without_logs(tmp_path: Path, capsys: Capture) -> None:
    assert logs.main([str(tmp_path)]) == 1
    assert said(capsys) == f"tdforge: no event log in {tmp_path}\n"
    assert logs.main([str(tmp_path / "no")]) == 1
    assert said(capsys) == f"tdforge: {tmp_path}/no is no folder\n"
