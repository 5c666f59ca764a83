"""Do the commands of docs/event-log.md print the digests that the log holds?"""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

from debian import kernel, vmlinux

from formats import elf, eventlog, hob, linux
from formats.eventlog import EventType
from formats.structs import offset_of, size_of

PAGE = Path(__file__).parents[2] / "docs" / "event-log.md"
# Of the setup header: what a host writes, but for loadflags
WRITTEN = (
    "vid_mode",
    "type_of_loader",
    "ramdisk_image",
    "ramdisk_size",
    "heap_end_ptr",
    "cmd_line_ptr",
    "setup_data",
)


def as_alioth_gives(image: bytes) -> bytes:
    """The kernel without what Alioth keeps of it, and without what a host writes into it."""
    known, start = linux.kernel(image), linux.SETUP_HEADER_OFFSET
    setup = (image[start] + 1) * linux.SECTOR_SIZE
    whole = bytearray(image[:4096].ljust(setup, b"\0") + image[setup : known.true_length])
    for name in WRITTEN:
        at, size = start + offset_of(linux.SETUP_HEADER, name), size_of(linux.SETUP_HEADER, name)
        whole[at : at + size] = bytes(size)
    whole[start + offset_of(linux.SETUP_HEADER, "loadflags")] &= ~linux.LoadFlags.CAN_USE_HEAP & 0xFF
    return bytes(whole)


def test_every_command_prints_the_digest_it_promises(tmp_path: Path) -> None:
    image = kernel().read_bytes()
    (tmp_path / "vmlinuz").write_bytes(image)
    unpacked = vmlinux()
    (tmp_path / "vmlinux").write_bytes(unpacked)
    listed = hob.write(0x80_0000, [hob.Resource(hob.ResourceType.UNACCEPTED, 0, 0x4000_0000)])
    data = eventlog.platform_config("td_hob", listed)
    event = eventlog.event(1, EventType.PLATFORM_CONFIG_FLAGS, hashlib.sha384(listed).digest(), data)
    (tmp_path / "log").write_bytes((eventlog.spec_id_event() + event).ljust(0x1000, b"\xff"))
    separator = eventlog.Event(1, EventType.SEPARATOR, hashlib.sha384(bytes(4)).digest(), bytes(4))
    promised = [
        hashlib.sha384(image[: linux.kernel(image).true_length]).hexdigest(),
        hashlib.sha384(as_alioth_gives(image)).hexdigest(),
        hashlib.sha384(unpacked[: elf.true_length(unpacked)]).hexdigest(),
        hashlib.sha384(b"console=ttyS0").hexdigest(),
        hashlib.sha384(listed).hexdigest(),
        hashlib.sha384(bytes(4)).hexdigest(),
        eventlog.replay([separator])[0].hex(),
    ]
    printed = [
        subprocess.run(["sh", "-c", block], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        for block in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    ]
    assert [text.split()[0] for text in printed] == promised
