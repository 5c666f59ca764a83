"""Which file does a person mean by the name of a flow?"""

import difflib
from pathlib import Path

from tdforge.errors import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "dsl" / "flows"
SUFFIX = ".tdf"


def shipped_flows(folder: Path = SHIPPED) -> dict[str, Path]:
    """Name to file of every flow that comes with tdforge."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


def find_flow(name: str, folder: Path = SHIPPED) -> Path:
    """The flow file `name`: a path, or the name of a shipped flow. Raises UserError with a suggestion."""
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_flows(folder)
    if name.removesuffix(SUFFIX) in shipped:
        return shipped[name.removesuffix(SUFFIX)]
    if path.suffix == SUFFIX and len(path.parts) > 1:
        raise UserError(f"no flow file {name}")
    close = difflib.get_close_matches(path.stem, shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else f"shipped flows: {', '.join(shipped) or 'none'}"
    raise UserError(f"no flow named {name}; {hint}")
