"""What does a command say when it cannot do what it was asked, and how is foreign text shown safely?"""


class UserError(Exception):
    """A mistake or a lack that the person at the keyboard can mend. Its text is one sentence; exit code 1."""


def printable(text: str, keep: str = "") -> str:
    """`text` without control characters but those in `keep`: no guest or file steers the terminal."""
    return "".join(
        char if char.isprintable() or char in keep else "\N{REPLACEMENT CHARACTER}" for char in text
    )
