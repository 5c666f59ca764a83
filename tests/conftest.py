"""What do all tests share? A cache of their own where they ask for one, no clock that fails them, one folder
of keys for all processes of a run, and a garbage collector that leaves alone what lives to the end.
"""

import gc
from pathlib import Path

import opensslkeys
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


def pytest_configure() -> None:
    """Before other processes are started, so that they have the same keys."""
    opensslkeys.folder()


def pytest_collection_finish() -> None:
    """Thousands of collected tests and all modules stay: looking through them again and again takes time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
