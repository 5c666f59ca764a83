"""Does a folder that is about to be filled or cleared lie in the checkout, as its name says?

Only the standard library is used: the nox sessions call this before anything is installed.
"""

from pathlib import Path

from tdforge.errors import UserError


def own(root: Path, place: Path) -> Path:
    """`place`, a path below `root`. Raises UserError if a link on the way leads elsewhere."""
    expected = root.resolve() / place.relative_to(root)
    for part in (*reversed(expected.parents), expected):
        if part.is_relative_to(root.resolve()) and part.is_symlink():
            raise UserError(
                f"{part} is a link to {part.resolve()}; environments are only created below "
                f"{root.resolve()}: remove the link"
            )
    return place
