"""What do the tests of whole images share? One build of a flow, the small payload, Debian's kernel."""

from __future__ import annotations

from dataclasses import replace

import pytest
from debian import kernel as debian_kernel
from tdbox import EXECUTABLE, LINUX, QEMU, Firmware, made

from gen.link.sample import sample
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


@pytest.fixture(scope="session")
def qemu(tmp_path_factory: pytest.TempPathFactory, tiny: bytes) -> Firmware:
    """The image of dsl/flows/qemu.tdf, with QEMU as its host."""
    firmware = made(QEMU, tmp_path_factory.mktemp("qemu"), tiny)
    return replace(firmware, config=replace(firmware.config, vmm="qemu"))


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """The image of tests/dsl/flows/executable.tdf, and the sample that the VMM gives it."""
    return made(EXECUTABLE, tmp_path_factory.mktemp("executable"), sample("elf"))


@pytest.fixture
def shipped(request: pytest.FixtureRequest, vmm: str) -> Firmware:
    """The flow for the VMM of this test, and a configuration with it."""
    firmware: Firmware = request.getfixturevalue("qemu" if vmm == "qemu" else "linux")
    return replace(firmware, config=replace(firmware.config, vmm=vmm))
