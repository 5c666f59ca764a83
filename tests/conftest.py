"""What do all tests share? A cache of their own where they ask for one, and no clock that fails them."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("tdforge", deadline=None)
settings.load_profile("tdforge")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tdforge cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TDFORGE_CACHE", str(folder))
    return folder
