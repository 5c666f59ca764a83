"""What did a command say on standard error? One line of tdforge's, if it refused something."""

import pytest


def said(captured: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error."""
    text = captured.readouterr().err
    assert text.startswith("tdforge: "), text
    assert text.count("\n") == 1, text
    return text
