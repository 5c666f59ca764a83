"""What does a command say when it cannot do what it was asked, and how is foreign text shown safely?"""

import sys
from collections.abc import Callable

OK, FAILED, INTERRUPTED = 0, 1, 130


class UserError(Exception):
    """A mistake or a lack that the person at the keyboard can mend. Its text is one sentence; exit code 1."""


class UsageError(UserError):
    """The words of a command line do not go together; exit code 2."""


def exit_code(work: Callable[[], int]) -> int:
    """What `work` returns, or the exit code of what stopped it; never a traceback for what a person did.

    A UsageError passes: who parsed the words shows the usage with it.
    """
    try:
        return work()
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone; nothing is left to be said to it
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:  # who opens a file reports it; this is a name that is none, or the output
        what = error.filename or "cannot write the output"
        print(f"tdforge: {what}: {error.strerror}", file=sys.stderr)
        return FAILED
    except UsageError:
        raise
    except UserError as error:
        print(f"tdforge: {error}", file=sys.stderr)
        return FAILED


def printable(text: str, keep: str = "") -> str:
    """`text` without control characters but those in `keep`: no guest or file steers the terminal."""
    return "".join(
        char if char.isprintable() or char in keep else "\N{REPLACEMENT CHARACTER}" for char in text
    )
