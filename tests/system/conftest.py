"""What do the tests of whole images share? One build of linux.tdf, the small payload, Debian's kernel."""

from __future__ import annotations

import pytest
from debian import kernel as debian_kernel
from tdbox import LINUX, Firmware, made

from tdforge.tiny import tiny_payload


@pytest.fixture(scope="session")
def tiny() -> bytes:
    """A bzImage of 2 KiB: hashing Debian's takes a second of emulation."""
    return tiny_payload()


@pytest.fixture(scope="session")
def kernel() -> bytes:
    """Debian's TDX-enabled kernel, as its package has it."""
    return debian_kernel().read_bytes()


@pytest.fixture(scope="session")
def linux(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    """The image of dsl/flows/linux.tdf."""
    return made(LINUX, tmp_path_factory.mktemp("linux"), tiny)
