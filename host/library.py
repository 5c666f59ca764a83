"""How do C sources become a library that Python loads? Compiled once, kept in the cache by their content."""

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
) -> Path:
    """The library of all C files of `folder`, compiled with FLAGS and `flags` if the cache does not have it.

    `name`: its place in the cache, without the digest of what it was made of. `headers`: where `*.h` lie if
    not in `folder`; `generated`: the text of further headers by name; `against`: a library that it needs
    and finds there when it is loaded. Raises CompileError, or OSError if the cache cannot be written to.
    """
    headers, generated = headers or folder, generated or {}
    sources = sorted(folder.glob("*.c"))
    key = hashlib.sha256()
    given = [version("ziglang"), *FLAGS, *flags]
    given += [f"{name}\0{text}" for name, text in sorted(generated.items())]
    given += [f"{path.name}\0{path.read_text()}" for path in (*sources, *sorted(headers.glob("*.h")))]
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
        command = [sys.executable, "-m", "ziglang", "cc", *FLAGS, *flags, f"-I{headers}", f"-I{scratch}"]
        command += [*map(str, sources), "-o", str(made)]
        if against:
            command += [str(against), f"-Wl,-rpath,{against.parent}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise CompileError(next((line for line in said if "error" in line), said[0]))
        made.rename(target)
    return target
