"""Writes docs/conformance.md: `python -m tests.emu.guests.table` from the project's folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from .rows import Row
from .suite import suite

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "conformance.md"
HEAD = """# Conformance of the emulated TD

What a guest sees of the TDX module and the CPU, row by row. Each row that is not absent is a small guest of
`tests/emu/guests`: one measured 64 KiB image whose harness loads the registers, executes the bytes in
question, keeps the registers and what the exception handler saw, and prints them through TDG.VP.VMCALL to
COM1. Expected results are literal numbers from public sources; nothing in the guests knows the emulator, so
the same images can start in a real TD and their output can be compared. `tests/emu/test_conformance.py` runs
them all.

- **exact**: what the sources say, as far as a guest can see it.
- **simplified**: the row says where the answer stops short of a CPU or module.
- **absent**: there is no answer; the row says why.

Sources: file names are those of intel/tdx-module, tag TDX_1.5.01; "KVM tdx.c" is Linux arch/x86/kvm/vmx/tdx.c
(6.16 and later), "x86.c" beside it arch/x86/kvm/x86.c; "QEMU tdx.c" is target/i386/kvm/tdx.c (10.1 and
later). GHCI is Intel's Guest-Hypervisor Communication Interface; Base spec is the TDX Module Base
specification; CPU architecture is the Intel SDM. An answer that a real TD would give as a TD exit (the host
has to act) ends the run with a diagnosis, which the row names as TD exit.

`python -m tests.emu.guests KEY FILE` writes the image of a row (TDVF, 64 KiB, for any VMM that takes one) and
prints the lines that its serial port must show: hexadecimal quadwords, then a halt.

This page is written by `python -m tests.emu.guests.table`; a test compares it with the rows.
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
    return "\n".join(text) + "\n"


def _order(section: str) -> tuple[list[int], str]:
    number, _, name = section.partition(" ")
    return [int(part) for part in number.split(".")], name


if __name__ == "__main__":
    DOCUMENT.write_text(document())
