"""What do all tests share? A home of their own (none writes the caller's cache) and no clock that fails one."""

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
