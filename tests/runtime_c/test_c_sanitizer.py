"""Does undefined behaviour in the core end a test, as the tests of this folder take for granted?"""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest
from ccore import CORE

from dsl.capabilities import prelude


@pytest.mark.parametrize(("sanitize", "end"), [(True, signal.SIGILL), (False, signal.SIGSEGV)])
def test_only_the_sanitized_core_checks_a_pointer(sanitize: bool, end: signal.Signals) -> None:
    """A read at NULL: the check traps before the processor faults."""
    core = f"from gen.core.hostlib import load; core = load(sanitize={sanitize})"
    code = f"{core}; core.lib.tdf_memcmp(core.ffi.NULL, core.ffi.NULL, 1)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -end, done.stderr


def test_structures_are_as_aligned_as_declared() -> None:
    assert CORE.alignment == max(record.align for record in prelude().records.values())
    kept = [CORE.new("ram") for _ in range(8)]
    assert [CORE.address(each) % CORE.alignment for each in kept] == [0] * 8
    assert not any(b"".join(bytes(CORE.ffi.buffer(each)) for each in kept))
