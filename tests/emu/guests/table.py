"""Writes docs/conformance.md: `python -m tests.emu.guests.table` from the project's folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .rows import Row
from .sources import OTHERS, TAG, lines
from .suite import suite

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
HEAD = """# Conformance of the emulated TD

The behaviour of the TDX module and the CPU that a guest can observe, row by row. Each row that is not absent
is a small guest of `tests/emu/guests`: one measured 64 KiB image whose harness loads the registers, executes
the bytes in question, saves the registers and the exception handler's record, and prints them through
TDG.VP.VMCALL to COM1. Expected results are literal numbers from public sources; nothing in the guests depends
on the emulator, so the same images can start in a real TD (trust domain) and their output can be compared.
None of them has run on TDX hardware yet. `tests/emu/test_conformance.py` runs all of them in the emulated TD.
The [glossary](glossary.md) explains the abbreviations.

- **exact**: agrees with the sources, as far as a guest can observe.
- **simplified**: the row states how the answer differs from that of a CPU or module.
- **absent**: there is no answer; the row states the reason.

Sources: file names are those of intel/tdx-module, Linux (KVM) and QEMU; [Definitions](#definitions) has the
line where each function and table of the module begins. GHCI is Intel's Guest-Hypervisor Communication
Interface; Base spec is the TDX Module Base specification; CPU architecture is the Intel SDM (Software
Developer's Manual), whose section numbers here and in the sources are those of the edition of December 2023.
Where a real TD would exit to the host, which then has to act, the run ends with a diagnosis; the row calls
this a TD exit.

Sections 8.1 to 8.6 are QEMU's q35 with the options that [`emulator.md`](emulator.md) gives, as QEMU 10.2 and
later answer; in the width of port accesses, as QEMU 11. `tests/emu/test_q35_real.py` asks the QEMU of Debian
the same questions.

`python -m tests.emu.guests KEY FILE` writes the image of a row (TDVF, 64 KiB, for any VMM that takes one) and
prints the lines that its serial port must show: hexadecimal quadwords, then a halt.

`python -m tests.emu.guests.table` writes this page; a test compares it with the rows.
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _line(row: Row) -> str:
    state = row.status if row.status == "exact" else f"{row.status}: {row.why}"
    return f"| `{row.key}` | {_cell(row.what)} | {_cell(row.source)} | {_cell(state)} |"


def document() -> str:
    """The whole page."""
    rows = suite()
    count = Counter(row.status for row in rows)
    sections = sorted({row.section for row in rows}, key=_order)
    text = [HEAD, "| Section | exact | simplified | absent |", "|---|---|---|---|"]
    for section in sections:
        here = Counter(row.status for row in rows if row.section == section)
        text.append(f"| {section} | {here['exact']} | {here['simplified']} | {here['absent']} |")
    text.append(
        f"| **{len(rows)} rows** | **{count['exact']}** | **{count['simplified']}** | **{count['absent']}** |"
    )
    for section in sections:
        text += ["", f"## {section}", "", "| Row | What | Source | State |", "|---|---|---|---|"]
        text += [_line(row) for row in rows if row.section == section]
    return "\n".join([*text, *_definitions()]) + "\n"


def _definitions() -> list[str]:
    """Where the functions and tables are that rows name."""
    text = ["", "## Definitions", "", f"File and line of intel/tdx-module, tag {TAG}:", ""]
    text += ["| Name | Place |", "|---|---|", *lines(), ""]
    text += [
        "Functions of newer modules, Linux and QEMU have no line here, it changes from release to release:",
        "",
    ]
    return [
        *text,
        "| File | Where |",
        "|---|---|",
        *(f"| {file} | {where} |" for file, where in OTHERS.items()),
    ]


def _order(section: str) -> tuple[list[int], str]:
    number, _, name = section.partition(" ")
    return [int(part) for part in number.split(".")], name


if __name__ == "__main__":
    DOCUMENT.write_text(document())
