"""How do a boot report and an image look to a person?"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from tdforge.errors import printable

# What the events of the shipped flows stand for, by the beginning of their description.
COVERS = {
    "td_hob": "the VMM's description of the machine",
    "td_cpus": "the number of CPUs and their ids",
    "td_payload_info": "the kernel's command line",
    "td_entry": "where the kernel is entered",
    "secure_policy_db": "the trust anchor",
    "secure_authority": "the trust anchor, by whose key the payload is signed",
    "td_payload_svn": "the security version number of the payload",
    "td_payload": "the kernel, without what lies behind it",
    "initrd": "the initrd",
    "separator 00000000": "the firmware finished without an error",
    "separator": "the firmware failed",
}
# Escape sequences (ECMA-48): control sequences; strings up to their terminator, such as window titles; others
SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]*[0-Z`-~\\]|)")
UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\x07\x1b]{0,4096}\x1b?|[ -/]*)\Z")
HARMLESS = re.compile(r"\x1b\[[0-9;]{0,16}[A-HJKPX@m]")
NOT_REAL = "Emulated: nothing ran on TDX hardware, and these measurements attest nothing."


def out() -> Console:
    """Console on standard output; values are never wrapped or taken for markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def err() -> Console:
    """Console on standard error, for progress and summaries."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def table(rows: Sequence[Sequence[str]], headings: bool = True) -> Text:
    """Aligned columns, the first row bold if it holds `headings`; never wrapped, digests stay whole."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    text = Text("\n".join(lines), no_wrap=True, overflow="ignore")
    if headings and lines:
        text.stylize("bold", 0, len(lines[0]))
    return text


def console_text(text: str) -> str:
    """What a guest wrote, fit for a terminal: line ends kept, other control characters made visible."""
    return printable(text.replace("\r\n", "\n").replace("\r", ""), keep="\n\t")


class Terminal:
    """The same for a terminal that somebody types into: what line editing needs passes, that is carriage
    return, backspace, and the escape sequences that move the cursor within the screen, erase or colour. All
    others are dropped, above all those that the terminal would answer as if they had been typed.
    """

    def __init__(self) -> None:
        self.held = ""

    def fit(self, text: str) -> str:
        """The next piece of what the guest wrote; an unfinished sequence is kept for later."""
        made, self.held = self.held + text, ""
        if unfinished := UNFINISHED.search(made):
            made, self.held = made[: unfinished.start()], unfinished[0]
        return printable(SEQUENCE.sub(_harmless, made), keep="\n\t\r\b\x1b")


def _harmless(found: re.Match[str]) -> str:
    return found[0] if HARMLESS.fullmatch(found[0]) else ""


def print_measurements(console: Console, report: Mapping[str, Any]) -> None:
    """MRTD, RTMRs and the events behind them, from a report's JSON form."""
    rows = [("measured", "SHA-384"), ("MRTD", report["mrtd"])]
    rows += [(f"RTMR[{index}]", value) for index, value in enumerate(report["rtmr"])]
    console.print(table(rows))
    if not report["events"]:
        return
    console.print()
    rows = [("extended", "what the digest covers, and the digest")]
    for event in report["events"]:
        name = str(event["description"])
        covers = next((text for key, text in COVERS.items() if name.startswith(key)), "")
        named = ": ".join(filter(None, (name, covers)))
        rows.append((f"RTMR[{event['rtmr']}]", f"{named} ({event['type']})" if named else event["type"]))
        rows.append(("", event["digest"]))
    console.print(table(rows))


def print_run(console: Console, report: Mapping[str, Any]) -> None:
    """A few lines on what a run did: pages, calls, instructions, hand-over."""
    pages = report["pages"]
    measured = pages["extended"]
    total, vcpus = report["instructions_all"], 1 + len(report["aps"])
    counted = f"{report['instructions']:,}"
    if vcpus > 1:
        counted = f"{total:,} on all {vcpus} vCPUs, {counted} of them on vCPU 0"
    calls = ", ".join(f"{name} {count:,}" for name, count in sorted(report["tdcalls"].items()))
    rows = [
        ("instructions", counted),
        ("TDCALLs", calls or "none"),
        (
            "pages added",
            f"{pages['added']:,} of 4 KiB at launch, all in MRTD by address, {measured:,} by content",
        ),
        ("pages accepted", f"{pages['accepted_2m']:,} of 2 MiB, {pages['accepted_4k']:,} of 4 KiB"),
    ]
    small, large = pages["accepted_4k_by_payload"], pages["accepted_2m_by_payload"]
    if small or large:
        rows.append(("by the payload", f"{large:,} of 2 MiB, {small:,} of 4 KiB of these"))
    if handoff := report.get("handoff"):
        rows.append(("hand-over", hand_over(handoff)))
    rows += [("the VMM" if first else "", line) for first, line in _attacks(report)]
    console.print(table(rows, headings=False))


def hand_over(handoff: Mapping[str, Any]) -> str:
    """Where the payload began, and with what."""
    entry, params = f"entry {handoff['entry']:#x}", handoff["boot_params"]
    if params is None:
        return f"{entry}, first code outside the measured pages; no boot_params at RSI {handoff['rsi']:#x}"
    return f"{entry}, boot_params {params:#x}, {len(handoff['e820'])} E820 ranges"


def _attacks(report: Mapping[str, Any]) -> list[tuple[bool, str]]:
    """What a hostile VMM or a script did, and which line is the first."""
    return [(index == 0, printable(line)) for index, line in enumerate(report.get("hostile", ()))]


def end_line(end: Mapping[str, Any]) -> str:
    """Why a run ended, in one line."""
    where = f" at {end['rip']:#x}" if isinstance(end.get("rip"), int) else ""
    symbol = f" in {end['symbol']}" if end.get("symbol") else ""
    source = f" ({end['source']})" if end.get("source") else ""
    detail = f": {end['detail']}" if end.get("detail") else ""
    hint = f"; {end['hint']}" if end.get("hint") else ""
    return printable(f"{end['reason']}{detail}{where}{symbol}{source}{hint}")
