"""What is a command of `tdforge`? Its examples for `--help`, its options and its work."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

# What options can be added to: a parser, or a group of one.
Options = argparse._ActionsContainer


@dataclass(frozen=True)
class Command:
    """`work` returns the exit code and raises UserError; `examples` are whole command lines."""

    examples: tuple[str, ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    work: Callable[[argparse.Namespace], int]


class Once(argparse.Action):
    """What an option stores; a second value is an error, where argparse would forget the first."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Stores the value."""
        if getattr(namespace, self.dest) is not self.default:
            raise argparse.ArgumentError(self, "given twice")
        setattr(namespace, self.dest, values)
