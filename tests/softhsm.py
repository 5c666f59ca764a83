"""How does a test get a PKCS#11 token? From SoftHSM, out of Debian's package softhsm2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from debian import tool
from opensslkeys import key

LABEL, PIN = "tdforge test", "0123"


def token(folder: Path, keys: Sequence[tuple[str, str]]) -> Path:
    """Puts keys, each a label and a name, on a new token LABEL; the id is the place, from 1. Its library.

    The caller sets SOFTHSM2_CONF to `folder`/softhsm2.conf.
    """
    program = tool("softhsm2-util", "softhsm2")
    library = next(
        path for path in Path(program[-1]).parents[1].rglob("libsofthsm2.so") if path.parent.name == "softhsm"
    )
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\n")

    def run(*words: str) -> None:
        command = [*program, "--module", str(library), *words, "--pin", PIN]
        environment = os.environ | {"SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
        subprocess.run(command, env=environment, check=True, capture_output=True)

    run("--init-token", "--free", "--label", LABEL, "--so-pin", "45678901")
    for number, (label, name) in enumerate(keys, 1):
        words = ("--label", label, "--id", f"{number:02x}")
        run("--import", str(key(name)), "--token", LABEL, *words)
    return library
