"""How is a run saved at one point and resumed many times? Memory, page states, vCPUs, state of the models."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emu.config import RunConfig
from emu.cpu import engine
from emu.machine import Machine
from emu.signals import EmuError
from emu.snapshot import objects as state
from formats.units import PAGE

FORMAT, VERSION = "tdforge snapshot", 3
ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("emu", "formats")  # whose Python files make the state what it is
LAYOUT = ("tsc_step_num", "tsc_step_den", "last_tsc", "sept_ve_disable")
LEVEL = 1  # of compression: page contents are large and often change


@dataclass(frozen=True)
class Pages:
    """The pages of a memory that are not all zeros: their numbers (32-bit, ascending) and contents."""

    numbers: bytes
    content: bytes


@dataclass(frozen=True)
class Snapshot:
    """All that a run is, at one point. `vcpus` holds CPU state and progress of each."""

    models: Any
    vcpus: tuple[tuple[bytes, bytes], ...]
    states: bytes
    ram: Pages
    shared: Pages
    layout: tuple[int, ...]

    @property
    def handed_over(self) -> bool:
        """Whether the payload had begun."""
        return self.models["Machine"]["handoff"] is not None


def _gather(machine: Machine, base: Any) -> Pages:
    ffi, lib, span = machine.ffi, machine.lib, machine.memory.span
    room = int(lib.td_used_pages(base, span, ffi.NULL, 0))
    numbers = ffi.new("uint32_t[]", max(room, 1))
    used = min(room, int(lib.td_used_pages(base, span, numbers, room)))
    content = bytearray(used * PAGE)
    lib.td_gather_pages(base, numbers, used, ffi.from_buffer("uint8_t[]", content))
    return Pages(bytes(ffi.buffer(numbers, used * 4)), bytes(content))


def save(machine: Machine) -> Snapshot:
    """The machine as it stands between two instructions. EmuError if a part of it cannot be saved."""
    ffi, lib, layout = machine.ffi, machine.lib, machine.memory.layout
    vcpus = []
    for vcpu in machine.vcpus:
        size, progress = ffi.new("uint64_t *"), ffi.new("td_progress *")
        raw = lib.td_cpu_state(vcpu.handle, size)
        lib.td_get_progress(vcpu.handle, progress)
        vcpus.append((bytes(ffi.buffer(raw, size[0])), bytes(ffi.buffer(progress))))
    states = bytes(ffi.buffer(layout.pages, machine.memory.span // PAGE))
    return Snapshot(
        json.loads(json.dumps(state.capture(machine))),
        tuple(vcpus),
        states,
        _gather(machine, layout.ram),
        _gather(machine, layout.shared),
        tuple(int(getattr(layout, name)) for name in LAYOUT),
    )


def restore(machine: Machine, snapshot: Snapshot) -> None:
    """Puts a machine of the same configuration where the snapshot was taken. EmuError if it is another."""
    ffi, lib, memory = machine.ffi, machine.lib, machine.memory
    if len(snapshot.states) != memory.span // PAGE or len(snapshot.vcpus) != len(machine.vcpus):
        raise EmuError("the snapshot is of a machine with other memory or another number of vCPUs")
    for base, pages in ((memory.layout.ram, snapshot.ram), (memory.layout.shared, snapshot.shared)):
        numbers = ffi.from_buffer("uint32_t[]", pages.numbers)
        content = ffi.from_buffer("uint8_t[]", pages.content)
        lib.td_restore_pages(base, memory.span, numbers, len(pages.numbers) // 4, content)
    ffi.memmove(memory.layout.pages, snapshot.states, len(snapshot.states))
    for name, value in zip(LAYOUT, snapshot.layout, strict=True):
        setattr(memory.layout, name, value)
    state.restore(snapshot.models, machine)
    for vcpu, (cpu, progress) in zip(machine.vcpus, snapshot.vcpus, strict=True):
        kept = ffi.new("td_progress *")
        size = ffi.new("uint64_t *")
        lib.td_cpu_state(vcpu.handle, size)
        if len(cpu) != size[0] or len(progress) != ffi.sizeof("td_progress"):
            raise EmuError("the snapshot was made with another CPU engine")
        ffi.memmove(kept, progress, len(progress))
        lib.td_resume_from(vcpu.handle, ffi.from_buffer("uint8_t[]", cpu), kept)


# -- files


@functools.cache
def build() -> str:
    """Names this build of the emulator and its CPU engine: what one has saved, another may not read."""
    digest = hashlib.sha256(engine.identity().encode())
    for file in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def check(config: RunConfig) -> None:
    """EmuError: a run that cannot be saved, before it is run."""
    if config.script:
        raise EmuError(f"a run with script {config.script} cannot be saved: its variables would be lost")


def write(path: Path, config: RunConfig, snapshot: Snapshot) -> None:
    """A file that holds the whole run, its image and kernel included. EmuError when it cannot be written."""
    check(config)
    plain, blobs = {}, {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, bytes):
            blobs[f"config/{field.name}"] = value
        else:
            plain[field.name] = state.capture(str(value) if isinstance(value, Path) else value, field.name)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "build": build(),
        "config": plain,
        "layout": snapshot.layout,
        "vcpus": len(snapshot.vcpus),
    }
    blobs |= {
        "head.json": json.dumps(head).encode(),
        "models.json": json.dumps(snapshot.models).encode(),
        "states": snapshot.states,
        "ram/pages": snapshot.ram.numbers,
        "ram/content": snapshot.ram.content,
        "shared/pages": snapshot.shared.numbers,
        "shared/content": snapshot.shared.content,
    }
    for index, (cpu, progress) in enumerate(snapshot.vcpus):
        blobs |= {f"vcpu/{index}/cpu": cpu, f"vcpu/{index}/progress": progress}
    try:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=LEVEL) as file:
            for name, data in blobs.items():
                file.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED, LEVEL)
    except OSError as error:
        raise EmuError(f"cannot write {path}: {error.strerror}") from None


def read(path: Path) -> tuple[RunConfig, Snapshot]:
    """Configuration and snapshot of a file. EmuError when it is none, or of another build of the emulator."""
    try:
        with zipfile.ZipFile(path) as file:
            head = json.loads(file.read("head.json"))
            if head.get("format") != FORMAT or head.get("version") != VERSION:
                raise EmuError(f"{path}: not a snapshot of this version")
            if head["build"] != build():
                raise EmuError(f"{path}: made with another build of the emulator; create it again")
            return _config(head["config"], file), _snapshot(head, file)
    except OSError as error:
        raise EmuError(f"cannot read {path}: {error.strerror}") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, RecursionError) as error:
        raise EmuError(f"{path}: not a snapshot, or damaged: {error}") from None


def _config(plain: dict[str, Any], file: zipfile.ZipFile) -> RunConfig:
    values = {name: state.restore(data) for name, data in plain.items()}
    if values.get("elf") is not None:
        elf = Path(values["elf"])
        values["elf"] = elf if elf.is_file() else None
    for name in file.namelist():
        if name.startswith("config/"):
            values[name.removeprefix("config/")] = file.read(name)
    return RunConfig(**values)


def _snapshot(head: dict[str, Any], file: zipfile.ZipFile) -> Snapshot:
    vcpus = range(head["vcpus"])
    return Snapshot(
        json.loads(file.read("models.json")),
        tuple((file.read(f"vcpu/{n}/cpu"), file.read(f"vcpu/{n}/progress")) for n in vcpus),
        file.read("states"),
        Pages(file.read("ram/pages"), file.read("ram/content")),
        Pages(file.read("shared/pages"), file.read("shared/content")),
        tuple(head["layout"]),
    )
