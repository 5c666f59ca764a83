"""How do a boot report and an image look to a person?"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from tdforge.errors import printable

NOT_REAL = "Emulated: nothing ran on TDX hardware, and these measurements attest nothing."


def out() -> Console:
    """Console on standard output; values are never wrapped or taken for markup."""
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=True)


def err() -> Console:
    """Console on standard error, for progress and summaries."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)


def table(rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """A plain table; the first row holds the headings."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False, show_header=bool(rows))
    for heading in rows[0] if rows else ():
        made.add_column(heading, overflow="fold", no_wrap=False)
    for row in rows[1:]:
        made.add_row(*(printable(cell) for cell in row))
    return made


def console_text(text: str) -> str:
    """What a guest wrote, fit for a terminal: line ends kept, other control characters made visible."""
    return printable(text.replace("\r\n", "\n").replace("\r", ""), keep="\n\t")


def print_measurements(console: Console, report: Mapping[str, Any]) -> None:
    """MRTD, RTMRs and the events behind them, from a report's JSON form."""
    rows = [("register", "SHA-384"), ("MRTD", report["mrtd"])]
    rows += [(f"RTMR[{index}]", value) for index, value in enumerate(report["rtmr"])]
    console.print(table(rows, "What was measured"))
    console.print()
    events = [("RTMR", "event", "covers", "digest")]
    for event in report["events"]:
        register = "-" if event["rtmr"] is None else str(event["rtmr"])
        events.append((register, str(event["type"]), event["description"], f"{event['digest'][:32]}..."))
    console.print(table(events, "Event log"))


def print_run(console: Console, report: Mapping[str, Any]) -> None:
    """A few lines on what a run did: pages, calls, instructions, hand-over."""
    pages = report["pages"]
    calls = ", ".join(f"{name} {count}" for name, count in sorted(report["tdcalls"].items()))
    rows = [
        ("", ""),
        ("instructions", f"{report['instructions']:,}"),
        ("TDCALLs", calls or "none"),
        ("pages added at launch", f"{pages['added']:,}, {pages['extended']:,} of them measured into MRTD"),
        ("pages accepted", f"{pages['accepted_2m']:,} of 2 MiB, {pages['accepted_4k']:,} of 4 KiB"),
    ]
    if handoff := report.get("handoff"):
        entry, params = handoff["entry"], handoff["boot_params"]
        rows.append(
            ("hand-over", f"entry {entry:#x}, boot_params {params:#x}, {len(handoff['e820'])} E820 ranges")
        )
    made = table(rows)
    made.show_header = False
    console.print(made)


def end_line(end: Mapping[str, Any]) -> str:
    """Why a run ended, in one line."""
    where = f" at {end['rip']:#x}" if isinstance(end.get("rip"), int) else ""
    symbol = f" in {end['symbol']}" if end.get("symbol") else ""
    source = f" ({end['source']})" if end.get("source") else ""
    detail = f": {end['detail']}" if end.get("detail") else ""
    return printable(f"{end['reason']}{detail}{where}{symbol}{source}")


def stdout_is_terminal() -> bool:
    """True if a person, not a program, reads standard output."""
    return sys.stdout.isatty()
