"""What do the other rooms call? Checks a flow file and hands out its model; finds the flows that ship."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dsl.check import check_text
from dsl.diagnostics import Diagnostic, Reporter
from dsl.formatter import format_text
from dsl.layout import MAX_BFV
from dsl.model import Firmware, Span
from dsl.parse import parse
from formats.units import FOUR_GIB, PAGE

BYTE_ORDER_MARK = "\ufeff"  # editors put it in front, it means nothing


@dataclass(frozen=True)
class CheckResult:
    """`firmware` is None exactly if there are diagnostics."""

    diagnostics: tuple[Diagnostic, ...]
    firmware: Firmware | None

    def require(self) -> Firmware:
        """The model; raises CheckFailed with every diagnostic if there is none."""
        if self.firmware is None:
            raise CheckFailed(self.diagnostics)
        return self.firmware


class CheckFailed(Exception):
    """A flow file has mistakes; the text is all of them, rendered."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        super().__init__("\n".join(d.render() for d in diagnostics))
        self.diagnostics = diagnostics


def check_source(text: str, path: str = "<text>", disabled: frozenset[str] = frozenset()) -> CheckResult:
    """Checks the text of a flow file; `path` is what diagnostics call it. `disabled`: names of rules
    (dsl.rules.RULES) to leave out, for tests that show what a rule prevents; no command sets it."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    reporter = Reporter(text)
    firmware = None
    try:
        firmware = check_text(text, path, reporter, disabled)
    except RecursionError:  # each construct is bounded, not their product
        reporter.error("T10", Span(path, 1, 1, 1, 2), "the flows are nested too deeply to be followed")
    return CheckResult(reporter.diagnostics, firmware)


def check_file(path: Path | str) -> CheckResult:
    """Checks a flow file. A file that cannot be read is a diagnostic, too."""
    name = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        problem = Diagnostic("S01", f"cannot read the flow file: {reason}", Span(name, 1, 1, 1, 2))
        return CheckResult((problem,), None)
    return check_source(text, name)


def format_source(text: str, path: str = "<text>") -> str:
    """The text in the one way it is written. Raises CheckFailed with the syntax errors if it does not
    parse."""
    text = text.removeprefix(BYTE_ORDER_MARK)
    reporter = Reporter(text)
    parse(text, path, reporter)
    if len(reporter):
        raise CheckFailed(reporter.diagnostics)
    return format_text(text)


def flows_dir() -> Path:
    """Where the flows that ship lie."""
    return Path(__file__).with_name("flows")


def shipped_flows() -> dict[str, Path]:
    """Name (as `tdforge build` takes it) to file of each flow that ships."""
    return {p.stem: p for p in sorted(flows_dir().glob("*.tdf"))}


def check_fits(firmware: Firmware, *, stack_bytes: int | None, code_bytes: int | None) -> list[Diagnostic]:
    """The rule `fits` for what only the linker knows: deepest stack and size of the code, in bytes; None: not
    known.

    `code_bytes` is everything that goes into BFV, before it is rounded up to whole pages.
    """
    reporter = Reporter(firmware.source)
    stack = next((s for s in firmware.image if s.name == "stack"), None)
    if stack is not None and stack.size is not None and stack_bytes is not None:
        usable = stack.size - (PAGE if stack.guarded else 0)
        if stack_bytes > usable:
            need = -(-(stack_bytes + stack.size - usable) // PAGE) * PAGE >> 10
            message = f"the deepest call chain takes {stack_bytes} bytes of stack, `stack` has {usable}"
            reporter.error("T10", stack.span, message, f"give it {need} KiB")
    code = next((s for s in firmware.image if s.kind == "BFV"), None)
    if code is not None and code_bytes is not None:
        placed = (s for s in firmware.image if s.kind != "PermMem")
        ends = [s.address + s.size for s in placed if s.address is not None and s.size is not None]
        room = min(FOUR_GIB - max(ends, default=0), MAX_BFV)
        allowed = min(room, code.budget) if code.budget is not None else room
        if code_bytes > allowed:
            message = f"the code takes {code_bytes} bytes, `{code.name}` may take {allowed}"
            reporter.error("T10", code.span, message, "raise the bound, or leave a feature out of the flow")
    return list(reporter.diagnostics)
