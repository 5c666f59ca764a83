"""What is a command of `tdforge`? Its name, its words for `--help`, its options and its work."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

# What options can be added to: a parser, or a group of one.
Options = argparse._ActionsContainer


@dataclass(frozen=True)
class Command:
    """`work` returns the exit code and raises UserError; `examples` are whole command lines."""

    name: str
    summary: str
    examples: tuple[str, ...]
    add_options: Callable[[argparse.ArgumentParser], None]
    work: Callable[[argparse.Namespace], int]
