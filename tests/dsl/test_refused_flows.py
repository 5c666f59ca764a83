"""Is every attack flow in `flows/refuse` refused, with the right code in the right line?

The first line of each says what is expected: `// T01 at line 42, T06 at line 43: what the VMM would gain`.
"""

import re
from pathlib import Path

import pytest

from dsl.api import check_source

FLOWS = sorted((Path(__file__).parent / "flows" / "refuse").glob("*.tdf"))
EXPECTED = re.compile(r"([A-Z]\d\d) at line (\d+)")


@pytest.mark.parametrize("path", FLOWS, ids=lambda p: p.stem)
def test_an_attack_is_refused_where_it_stands(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    first = text.splitlines()[0]
    wanted = [(code, int(line)) for code, line in EXPECTED.findall(first.partition(": ")[0])]
    assert wanted
    found = check_source(text, path.name)
    assert [(d.code, d.span.line) for d in found.diagnostics] == wanted
    assert found.firmware is None
