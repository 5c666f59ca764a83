"""Is a library for this machine compiled once for each content, and a mistake in it one clear line?"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from host.cache import cache_dir
from host.library import CompileError, shared_library

ANSWER = '#include "number.h"\nint answer(void);\nint answer(void) { return NUMBER; }\n'


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.c").write_text(ANSWER)
    return folder


def answer(library: Path) -> int:
    return int(ctypes.CDLL(str(library)).answer())


def test_a_content_is_compiled_once(cache: Path, sources: Path, tmp_path: Path) -> None:
    (sources / "number.h").write_text("#define NUMBER 41\n")
    first = shared_library("made/answer", sources, ())
    time = first.stat().st_mtime_ns
    moved = sources.rename(tmp_path / "moved")
    assert shared_library("made/answer", moved, ()) == first
    assert (first.stat().st_mtime_ns, answer(first)) == (time, 41)
    assert first.parent == cache / "made"
    (moved / "number.h").write_text("#define NUMBER 42\n")
    second = shared_library("made/answer", moved, ())
    assert (second != first, answer(second)) == (True, 42)


def test_generated_headers_and_flags_count(cache: Path, sources: Path) -> None:
    two = "#define NUMBER 2"
    found = [
        shared_library("answer", sources, flags, generated={"number.h": text})
        for flags, text in (((), "#define NUMBER 1"), ((), two), (("-DX=1",), two))
    ]
    assert [answer(each) for each in found] == [1, 2, 2]
    assert len(set(found)) == 3
    assert sorted(cache.iterdir()) == sorted(found)  # nothing else is left behind


def test_a_mistake_is_the_first_error(cache: Path, sources: Path) -> None:
    with pytest.raises(CompileError, match=r"answer.c.*error.*number.h") as caught:
        shared_library("answer", sources, ())
    assert "\n" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_zig_is_compiled_too(cache: Path, sources: Path) -> None:
    """Its own checks are there if they are asked for."""
    (sources / "number.h").write_text("int sum(int a, int b);\n#define NUMBER sum(41, 1)\n")
    (sources / "sum.zig").write_text("export fn sum(a: i32, b: i32) i32 { return a + b; }\n")
    found = [shared_library("answer", sources, (), checked=checked) for checked in (False, True)]
    assert ([answer(each) for each in found], found[0] != found[1]) == ([42, 42], True)
    code = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).sum(2**31 - 1, 1)"
    codes = [
        subprocess.run([sys.executable, "-c", code, str(each)], check=False).returncode for each in found
    ]
    assert (codes[0], codes[1] < 0) == (0, True)
    (sources / "sum.zig").write_text("export fn sum(a: i32) i32 { return b; }\n")
    with pytest.raises(CompileError, match=r"sum.zig.*error.*'b'"):
        shared_library("answer", sources, ())
    assert sorted(cache.iterdir()) == sorted(found)


def test_the_cache_moves_with_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TDFORGE_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("TDFORGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "tdforge"
