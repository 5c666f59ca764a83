"""Writes the image of one row, to start it in a real TD: `python -m tests.emu.guests KEY FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from . import runner
from .suite import suite


def main(words: list[str]) -> int:
    """Writes the image and prints what its serial output must be."""
    rows = {row.key: row for row in suite() if row.status != "absent"}
    if len(words) != 2 or words[0] not in rows:
        print("usage: python -m tests.emu.guests KEY FILE; keys are in docs/conformance.md", file=sys.stderr)
        return 2
    row = rows[words[0]]
    Path(words[1]).write_bytes(runner.build(row))
    print(f"{row.what}; TD_PARAMS {dict(row.td) or 'as usual'}; ends with {row.end}")
    for name, value in row.expect.items():
        print(f"{value:x}    {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
