"""Where is a program of Debian's that a command needs? Installed, or unpacked into the cache without root."""

import shutil
from pathlib import Path

from host.cache import cache_dir
from tdforge.apt import Apt, Say, alone


def tool(name: str, package: str, say: Say, cache: Path | None = None) -> tuple[str, ...]:
    """The command that runs a tool: the installed one, else out of `package`, with libraries. UserError."""
    if found := shutil.which(name):
        return (found,)
    cache = cache or cache_dir()
    place = cache / "tools" / package
    with alone(cache):
        if not (place / "usr/bin" / name).exists():
            apt = Apt(cache, say)
            apt.unpack(apt.missing(package), place, only=("usr/bin/", "usr/lib/", "usr/share/", "lib/"))
    folders = sorted({str(path.parent) for path in place.rglob("*.so*")})
    return ("env", f"LD_LIBRARY_PATH={':'.join(folders)}", str(place / "usr/bin" / name))
