"""How do C and Zig sources become a library that Python loads? Compiled once, kept by their content."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from host.cache import cache_dir

# For any x86-64: the cache may be shared with a machine of another kind.
FLAGS = ("-mcpu=baseline", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
ZIG_FLAGS = ("-target", "x86_64-linux", "-mcpu=baseline", "-fPIC", "-fsingle-threaded", "-fno-stack-check")


class CompileError(Exception):
    """The sources do not compile; the text is the compiler's first error."""


def shared_library(
    name: str,
    folder: Path,
    flags: Sequence[str],
    *,
    headers: Path | None = None,
    generated: Mapping[str, str] | None = None,
    against: Path | None = None,
    checked: bool = False,
) -> Path:
    """The library of all C and Zig files of `folder`, compiled with FLAGS and `flags` if the cache lacks it.

    `name`: its place in the cache, without the digest of what it was made of. `headers`: where `*.h` lie if
    not in `folder`; `generated`: the text of further headers by name; `against`: a library that it needs
    and finds there when it is loaded; `checked`: Zig's own checks end the process when one fails. Raises
    CompileError, or OSError if the cache cannot be written to.
    """
    headers, generated = headers or folder, generated or {}
    sources, zig = sorted(folder.glob("*.c")), sorted(folder.glob("*.zig"))
    zig_flags = (*ZIG_FLAGS, "-O", "ReleaseSafe" if checked else "ReleaseSmall")
    key = hashlib.sha256()
    given = [version("ziglang"), *FLAGS, *flags, *(zig_flags if zig else ())]
    given += [f"{name}\0{text}" for name, text in sorted(generated.items())]
    given += [f"{path.name}\0{path.read_text()}" for path in (*sources, *zig, *sorted(headers.glob("*.h")))]
    if against:
        given.append(f"{against}\0{against.stat().st_size}")
    for part in given:
        key.update(part.encode() + b"\0")
    target = cache_dir() / f"{name}-{key.hexdigest()[:24]}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for each, text in generated.items():
            (Path(scratch) / each).write_text(text)
        made = Path(scratch) / "made.so"
        objects = [f"{scratch}/{path.stem}.o" for path in zig]
        for path, made_of in zip(zig, objects, strict=True):
            _ziglang("build-obj", str(path), *zig_flags, f"-femit-bin={made_of}", "--cache-dir", scratch)
        command = ["cc", *FLAGS, *flags, f"-I{headers}", f"-I{scratch}", *map(str, sources), *objects]
        if against:
            command += [str(against), f"-Wl,-rpath,{against.parent}"]
        _ziglang(*command, "-o", str(made))
        made.rename(target)
    return target


def _ziglang(*command: str) -> None:
    """Runs the wheel's compiler; CompileError with its first error if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", *command], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise CompileError(next((line for line in said if "error" in line), said[0]))
