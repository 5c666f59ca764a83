"""How does a command read the files it is given and write those it makes? Every failure is a UserError."""

from collections.abc import Callable
from pathlib import Path

from formats import tdvf
from formats.errors import FormatError
from formats.igvm import is_igvm
from formats.units import GIB, MIB
from tdforge.errors import UserError

MAX_INPUT = GIB  # bytes; more than any image, kernel or initrd that a TD below 4 GiB can take


def read(path: Path, what: str) -> bytes:
    """The content of `path`. Raises UserError that calls it `what`."""
    try:
        size = path.stat().st_size
        data = b""
        if size <= MAX_INPUT:
            with path.open("rb") as file:
                data = file.read(-1 if size else MAX_INPUT + 1)  # a device has no size, and may have no end
        if max(size, len(data)) > MAX_INPUT:
            raise UserError(f"{what} {path} is larger than {MAX_INPUT // MIB} MiB")
        return data
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror}") from error


def write(path: Path, data: bytes) -> None:
    """Write an output file, making its folder. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_image(path: Path, metadata: Callable[..., tdvf.Metadata] = tdvf.metadata) -> bytes:
    """An image file with TDVF metadata, as `metadata` finds it. Raises UserError."""
    return checked(read(path, "image"), path, metadata)


def checked(data: bytes, path: Path, metadata: Callable[..., tdvf.Metadata] = tdvf.metadata) -> bytes:
    """The content of an image file that `metadata` finds its way in. Raises UserError."""
    if is_igvm(data):
        raise UserError(f"{path} is an IGVM file; this takes the TDVF image that was built with it")
    try:
        metadata(data, place=str(path))
    except FormatError as error:
        why = str(error).removeprefix(str(path)).lstrip(": ")  # the name is said once
        raise UserError(f"{path} is not a TD image, or is cut short: {why}") from error
    return data
