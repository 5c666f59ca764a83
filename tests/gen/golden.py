"""Write the reviewed listings anew: `PYTHONPATH=. python tests/gen/golden.py`, then read the git diff."""

from __future__ import annotations

from pathlib import Path

from cpu import REGIONS

from gen.boot.units import emit

FOLDER = Path(__file__).resolve().parents[1] / "golden"


def texts() -> dict[str, str]:
    """File name -> listing, for the regions of the shipped Linux flow."""
    return {f"{listing.name}.s": listing.text for listing in emit(REGIONS)}


if __name__ == "__main__":
    for name, text in texts().items():
        (FOLDER / name).write_text(text)
