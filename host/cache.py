"""Where does tdforge keep what it downloaded or compiled?

Only the standard library is used: the nox sessions call this before anything is installed.
"""

import os
from pathlib import Path


def cache_dir() -> Path:
    """`$TDFORGE_CACHE`, else `$XDG_CACHE_HOME/tdforge`, else `~/.cache/tdforge`; it need not exist."""
    if chosen := os.environ.get("TDFORGE_CACHE"):
        return Path(chosen).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "tdforge"
