"""What do all tests share? A home of their own: no test reads or writes the caller's cache."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tdforge cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TDFORGE_CACHE", str(folder))
    return folder
