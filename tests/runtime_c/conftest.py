"""Which keys sign for the tests of the C core? One of each kind."""

from __future__ import annotations

import pytest
from keys import EcKey, RsaKey


@pytest.fixture(scope="session")
def ec() -> EcKey:
    return EcKey("p384")


@pytest.fixture(scope="session")
def rsa() -> RsaKey:
    return RsaKey("rsa")
