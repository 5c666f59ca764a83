"""What a command says when it cannot do what it was asked: one sentence, no traceback."""


class UserError(Exception):
    """A mistake or a lack that the person at the keyboard can mend. Its text is one sentence; exit code 1."""
