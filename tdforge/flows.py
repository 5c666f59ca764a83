"""Which file does a person mean by the name of a flow, and how is a path shown?"""

import difflib
from pathlib import Path

from dsl.api import shipped_flows
from tdforge.errors import UserError

SUFFIX = ".tdf"


def short(path: Path) -> Path:
    """`path` as a person would type it: relative if it lies below the current folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def find_flow(name: str) -> Path:
    """The flow file `name`: a path, or the name of a shipped flow. Raises UserError with a suggestion."""
    path = Path(name)
    if path.exists() and not path.is_dir():
        return path
    shipped = shipped_flows()
    if name.removesuffix(SUFFIX) in shipped:
        return short(shipped[name.removesuffix(SUFFIX)])
    if not name:
        raise UserError("the name of the flow is empty")
    if path.is_dir():
        raise UserError(f"{name} is a folder, expected a flow file")
    if len(path.parts) > 1:
        raise UserError(f"no flow file {name}")
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else f"shipped flows: {', '.join(shipped) or 'none'}"
    raise UserError(f"no flow named {name}; {hint}")
