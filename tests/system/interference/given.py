"""What does a flow want to start? An executable, a signed file, or the kernel that its campaign brings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha384
from pathlib import Path

from opensslkeys import numbers, signed_payload

from dsl.model import Firmware
from emu.oracle.contents import changed_kernel
from formats import bundle, cfv, linux
from formats.units import FOUR_GIB
from gen.link.sample import sample

ANCHORS = "anchors"  # the CFV for a trust anchor
KEY, OTHER = "rsa", "other"  # RSA is verified in a fraction of the time that P-384 takes
PES = ("payload", "signed_executable")  # the firmwares that get a PE file; the others get ELF
# Which of `signed` the anchor's key has not signed
UNSIGNED = (3, 4)
INITRD = b"initrd that is signed" * 100


def starts_executable(firmware: Firmware) -> bool:
    """Whether a flow of it does."""
    return "handoff executable(" in firmware.source


def wants_signed(firmware: Firmware) -> bool:
    """Whether a flow of it looks for a signed file."""
    return "signed_payload(" in firmware.source


def executable(firmware: Firmware) -> bytes:
    """The sample, as ELF or PE by the firmware's name, which no change of a campaign touches."""
    named = re.search(r"^firmware (\w+)", firmware.source, re.M)
    return sample("pe" if named and named[1] in PES else "elf")


def executable_file(firmware: Firmware, folder: Path) -> Path | None:
    """The file that its build takes, if it takes one."""
    if not any(section.chosen for section in firmware.image):
        return None
    file = folder / "executable"
    file.write_bytes(executable(firmware))
    return file


@cache
def signed(payload: bytes) -> Sequence[tuple[str, bytes]]:
    """Keys whose anchor a VMM enrolls, and the file it gives with it: by that key with two SVNs, by another,
    changed behind its signature, without any, and by the key with an initrd if it can have one.
    """
    good = signed_payload(KEY, payload)
    found = [(KEY, good), (KEY, signed_payload(KEY, payload, svn=2)), (OTHER, signed_payload(OTHER, payload))]
    at = len(good) - len(numbers(KEY)) - 384  # behind the payload
    found += [(KEY, good[: at - 1] + changed_kernel(good[at - 1 : at], 2) + good[at:]), (KEY, payload)]
    if linux.is_marked(payload):
        found.append((KEY, signed_payload(KEY, bundle.write(payload, INITRD))))
    return found


def enrolled(image: bytes, key: str, address: int, size: int) -> bytes:
    """The image with the trust anchor of a key in its CFV."""
    volume = cfv.write(size, [(cfv.ANCHOR_FILE, cfv.anchor(sha384(numbers(key)).digest()))])
    at = address - FOUR_GIB + len(image)
    return image[:at] + volume + image[at + size :]
