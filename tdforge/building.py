"""How does a command build a flow, and how does it show what is wrong with one?"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.status import Status

from dsl.api import CheckFailed
from dsl.diagnostics import Diagnostic
from formats.errors import FormatError
from tdforge import show
from tdforge.errors import UserError

if TYPE_CHECKING:
    from gen.build import BuildResult


def build_flow(flow: Path, out: Path, *, igvm: bool = False, payload: Path | None = None) -> "BuildResult":
    """Build `flow` into folder `out`, with `igvm` as an IGVM file too, around `payload` if the flow takes
    one; a spinner on standard error meanwhile. Raises UserError.
    """
    from gen.build import build  # PeachPy: who only runs or checks need not have it
    from gen.errors import BuildError

    with Status(f"building {flow.stem}", console=show.err()) as status:
        try:
            out.mkdir(parents=True, exist_ok=True)
            return build(
                flow,
                out.absolute(),
                lambda text: status.update(f"building {flow.stem}: {text}"),
                igvm=igvm,
                payload=payload,
            )
        except CheckFailed as error:
            status.stop()
            print_diagnostics(error.diagnostics)
            raise UserError(f"{flow}: {counted(error.diagnostics)}; nothing was built") from error
        except (BuildError, FormatError) as error:
            text = str(error)
            raise UserError(text if text.startswith(f"{flow}:") else f"{flow}: {text}") from error
        except OSError as error:
            raise UserError(f"cannot build in {out}: {error.strerror}") from error


def counted(diagnostics: Sequence[Diagnostic]) -> str:
    """How many: "1 error", "3 errors"."""
    return f"{len(diagnostics)} error{'' if len(diagnostics) == 1 else 's'}"


def print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Diagnostics with caret and hint on standard error, in colour on a terminal."""
    for diagnostic in diagnostics:
        print(diagnostic.render(color=sys.stderr.isatty()), file=sys.stderr)
