"""What are the example flows, and what does the compiler say of each? Reads the case files below `cases`.

A case begins with `=== title`; after its text, `--- says` begins what is expected, word for word. A case
without that line is accepted. A case that declares no firmware gets `base.tdf` and `base_flows.tdf` behind
it; one without `uses` sees the whole prelude.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from dsl.api import CheckResult, check_source

CASES = Path(__file__).with_name("cases")
SAYS = "--- says\n"


@dataclass(frozen=True)
class Case:
    file: str
    title: str
    source: str
    says: str

    @property
    def text(self) -> str:
        text = self.source
        if not re.search(r"^firmware ", text, re.MULTILINE):
            text += "".join((CASES / n).read_text() for n in ("base.tdf", "base_flows.tdf"))
        return text if re.search(r"^uses ", text, re.MULTILINE) else text + "uses linux, acpi, vmm\n"

    def check(self) -> CheckResult:
        return check_source(self.text, "case.tdf")

    def __str__(self) -> str:
        return f"{self.file}: {self.title}"


def read_cases() -> list[Case]:
    cases = []
    for path in sorted(CASES.glob("*.txt")):
        for part in re.split(r"^=== ", path.read_text(), flags=re.MULTILINE)[1:]:
            title, _, rest = part.partition("\n")
            source, _, says = rest.partition(SAYS)
            cases.append(Case(path.stem, title, source, says))
    return cases


def rendered(result: CheckResult) -> str:
    return "".join(d.render() + "\n" for d in result.diagnostics)


_CALLS = "".join(f"flow f{n}() fails {{\n    f{n + 1}()?\n    f{n + 1}()?\n}}\n" for n in range(11))
DOUBLING = Case(
    "T10",
    "calls that double at every level",
    _CALLS
    + """flow f11() fails { require true }
flow boot(td: VpInfo) -> never {
    on error fatal
    f0()?
    fail requirement_failed
}
""",
    "",
)
