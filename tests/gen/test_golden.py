"""Is the generated code still the code that was reviewed?"""

from __future__ import annotations

import pytest
from golden import FOLDER, texts


@pytest.mark.parametrize("name", sorted(texts()))
def test_listing_is_the_reviewed_one(name: str) -> None:
    reviewed = (FOLDER / name).read_text()
    assert texts()[name] == reviewed, "changed: run `PYTHONPATH=. python tests/gen/golden.py` and review"


def test_listing_is_the_same_every_time() -> None:
    assert texts() == texts()
