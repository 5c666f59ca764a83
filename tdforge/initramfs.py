"""How is an initrd made without root? A cpio archive of our own writing, around Debian's static busybox."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from host.cache import cache_dir
from tdforge.apt import Apt, Say, alone

DIRECTORY, CHARACTER, PROGRAM, LINK = 0o40755, 0o20600, 0o100755, 0o120777  # st_mode

# For a person who wants to look around; `poweroff`, which asks init, ends the run.
SHELL = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /etc; echo "::once:/bin/sh -c 'setsid cttyhack sh; poweroff'" > /etc/inittab
exec init
"""
# What a program gets: a look around by itself.
TOUR = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
echo "tour: command line: $(cat /proc/cmdline)"
for entry in /sys/firmware/memmap/*; do
    echo "tour: memory: $(cat $entry/start) to $(cat $entry/end): $(cat $entry/type)"
done
echo "tour: ACPI tables: $(cd /sys/firmware/acpi/tables; ls -d [A-Z]* | tr '\\n' ' ')"
echo "tour: event log: $(stat -c %s /sys/firmware/acpi/tables/data/CCEL) bytes"
echo "tour: processors: $(nproc)"
for module in /modules/*; do [ -e $module ] && insmod $module; done
for disk in /sys/block/vd*; do
    [ -e $disk ] && echo "tour: disk ${disk##*/}: $(sha256sum /dev/${disk##*/} | cut -c 1-64)"
done
echo "tour: done"
poweroff -f
"""


@dataclass(frozen=True)
class Entry:
    """One file of the archive; `device`: major and minor number of a character device."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: Sequence[Entry]) -> bytes:
    """A newc archive (Linux Documentation/driver-api/early-userspace/buffer-format.rst)."""
    packed = [_pack(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join(packed) + _pack(0, Entry("TRAILER!!!", 0))


def _pack(number: int, entry: Entry) -> bytes:
    path = entry.name.encode() + b"\0"
    fields = (number, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, *entry.device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
    return head + bytes(-len(head) % 4) + entry.data + bytes(-len(entry.data) % 4)


def with_init(
    init: bytes,
    busybox: bytes | None = None,
    modules: Mapping[str, bytes] = MappingProxyType({}),
    files: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """An initrd that starts the program or script `init`; busybox goes to /bin, modules to /modules, files
    to the root.
    """
    entries = [Entry("dev", DIRECTORY), Entry("dev/console", CHARACTER, device=(5, 1))]
    if busybox is not None:
        entries += [Entry(name, DIRECTORY) for name in ("bin", "proc", "sys")]
        entries += [Entry("bin/busybox", PROGRAM, busybox), Entry("bin/sh", LINK, b"busybox")]
    if modules:
        entries.append(Entry("modules", DIRECTORY))
    entries += [Entry(f"modules/{name}", PROGRAM, content) for name, content in modules.items()]
    entries += [Entry(name, PROGRAM, content) for name, content in files.items()]
    return archive([*entries, Entry("init", PROGRAM, init)])


def busybox(say: Say, cache: Path | None = None) -> bytes:
    """Debian's static busybox, fetched into the cache once. UserError."""
    cache = cache or cache_dir()
    place = cache / "tools" / "busybox-static"
    with alone(cache):
        if not list(place.rglob("bin/busybox")):
            Apt(cache, say).unpack(["busybox-static"], place)
    return next(iter(sorted(place.rglob("bin/busybox")))).read_bytes()
