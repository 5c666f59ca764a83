"""Is all of a run in a snapshot? Python objects, the native core's structures, and what is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import guest
import pytest
from cffi import FFI

from emu.api import RunConfig, prepare, report, run
from emu.cpu import engine
from emu.machine import Machine
from emu.signals import EmuError
from emu.snapshot import file as snapshot
from emu.snapshot import objects
from emu.vmm.devices.debugcon import DebugConsole
from emu.vmm.devices.power import DebugExit

# Two vCPUs that print, accept pages and wait for each other, with timers on
BODY = """
main:
    movl %esi, %ebp
    movl $40, %ebx
1:  movl $1, %r12d
    movl $1, %r13d
    movl $0x3F8, %r14d
    leal 65(%rbp), %r15d
    vmcall 0x1E
    rdtsc
    pause
    pause
    decl %ebx
    jnz 1b
    halt
"""
LIMIT = 100_000
ON_Q35 = ("qemu", "hostile-fw_cfg:6")


def config(**settings: object) -> RunConfig:
    image = guest.build(BODY).image
    image = guest.for_qemu(image) if settings.get("vmm") in (*ON_Q35, "alioth") else image
    plain = RunConfig(image, "guest.bin", memory=guest.MEMORY, until="halt", vcpus=2)
    return dataclasses.replace(plain, **settings)  # type: ignore[arg-type]


def facts(machine: Machine, limit: int = LIMIT) -> dict[str, object]:
    return report(machine, machine.run(limit, None)).to_json()


@pytest.mark.parametrize(
    "vmm",
    ["td-shim-spec", "cloud-hypervisor", "qemu", "hostile-fw_cfg:6", *(f"hostile:{n}" for n in range(8))],
)
def test_a_run_goes_on_from_its_middle(vmm: str) -> None:
    machine = prepare(config(vmm=vmm))
    try:
        machine.run(300, None)
        middle = snapshot.save(machine)
        first = facts(machine)
        for _ in range(2):
            snapshot.restore(machine, middle)
            assert snapshot.save(machine) == middle
            assert facts(machine) == first
    finally:
        machine.close()


def parts(value: object) -> list[object]:
    """All objects of the state below one, itself among them."""
    if type(value) not in objects.PARTS:
        items = (
            value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        )
        return [found for item in items for found in parts(item)]
    inner = (part for name, part in vars(value).items() if name not in objects.PARTS[type(value)])
    return [value, *(found for part in inner for found in parts(part))]


WATCHERS = ("observer", "keyboard", "listener")
CONSTANT = ("epoch", "port", "switches", "cmos", "names", "version", "mask", "items", "late", "writable")
STATELESS = (DebugConsole, DebugExit)


def is_no_state(name: str, value: object) -> bool:
    """What may be left out: what runs, native handles, other parts, what never changes, who watches."""
    if name in WATCHERS or callable(value) or "cffi" in type(value).__module__:
        return True
    if value is None and name in ("topology", "device"):
        return True
    if name in CONSTANT:
        return isinstance(value, str | dict | int | bytes | frozenset | tuple)
    if isinstance(value, list | tuple):
        return all(type(item) in objects.PARTS or type(item) in STATELESS for item in value)
    frozen = dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    return type(value) in objects.PARTS or frozen or isinstance(value, FFI | FFI.CData)


def test_only_what_is_no_state_is_left_out() -> None:
    machine = prepare(config(vmm="hostile:1"))
    plain, q35 = prepare(config(vmm="cloud-hypervisor")), prepare(config(vmm="qemu"))
    lying = prepare(config(vmm=ON_Q35[1]))  # and its chipset is another
    every = [machine, plain, q35, lying, prepare(config(vmm="alioth"))]
    try:
        found = {type(part): part for whole in every for part in parts(whole)}
        assert set(found) == set(objects.PARTS)
        for kind, part in found.items():
            for name in objects.PARTS[kind]:
                assert is_no_state(name, vars(part)[name]), (kind, name)
    finally:
        for whole in every:
            whole.close()


@pytest.mark.parametrize("value", [lambda: 0, object(), 2j, re.compile("x")], ids=lambda v: type(v).__name__)
def test_what_nobody_knows_is_refused_by_its_place(value: object) -> None:
    machine = prepare(config())
    try:
        machine.console.extra = value  # type: ignore[attr-defined]
        with pytest.raises(EmuError, match=rf"machine\.console\.extra is a {type(value).__name__}"):
            snapshot.save(machine)
    finally:
        machine.close()


def test_an_object_with_two_homes_is_refused() -> None:
    machine = prepare(config())
    try:
        machine.vmm.msrs[0, 0] = machine.vcpus[1].apic  # type: ignore[assignment]
        with pytest.raises(EmuError, match=r"machine\.vcpus\[1\]\.apic is machine\.vmm\.msrs.*, too"):
            snapshot.save(machine)
    finally:
        machine.close()


def test_data_of_another_machine_is_refused() -> None:
    machine, other = prepare(config(vmm="hostile:1")), prepare(config())
    try:
        with pytest.raises(EmuError, match="a Hostile in place of a Policy"):
            snapshot.restore(other, snapshot.save(machine))
        data = objects.capture(other.console)
        del data["Console"]["reached"]
        with pytest.raises(EmuError, match="a Console with other fields"):
            objects.restore(data, other.console)
    finally:
        machine.close()
        other.close()


def test_another_build_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(config(until="console:AB"), save=tmp_path / "s")
    snapshot.read(tmp_path / "s")
    monkeypatch.setattr(snapshot, "build", lambda: "another")
    with pytest.raises(EmuError, match="made with another build of the emulator; create it again"):
        snapshot.read(tmp_path / "s")


def test_a_build_is_its_python_files_and_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = snapshot.build.__wrapped__
    whole = build()
    assert whole == snapshot.build()
    monkeypatch.setattr(engine, "identity", lambda: "another")
    assert build() != whole
    monkeypatch.setattr(snapshot, "ROOT", tmp_path)
    file = tmp_path / "emu" / "cpu" / "apic.py"
    file.parent.mkdir(parents=True)
    found = set()
    for text in ("x = 1", "x = 2"):
        file.write_text(text)
        found.add(build())
    file.rename(file.with_name("other.py"))
    found.add(build())
    assert len(found) == 3


def test_a_run_with_a_script_is_not_saved(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def on_launched(machine):\n    raise SystemExit('it ran')\n")
    with pytest.raises(EmuError, match=r"script .*script\.py cannot be saved"):
        run(config(script=script), save=tmp_path / "s")
    assert not (tmp_path / "s").exists()


# Members of the native core's structures: what a snapshot holds, and why it does not hold the others.
SAVED = {
    "td_vcpu": "count excluded tsc_offset last_rep rep_continues shadow paused spins fault handoff_armed pass"
    " random env",
    "td_layout": "ram shared pages tsc_step_num tsc_step_den last_tsc sept_ve_disable",
    "td_vm": "m",
}
OTHERS = {
    "td_vcpu": {
        "of the machine": "vm uc context env_size index ranges range_count debug",
        "translations": "sites site_hooks site_count sites_full code blocks removals_seen",
        "of one td_run": "limit current rescan stop stopped exception miss alias regs regs_loaded"
        " shadow_before",
        "set before each turn": "window spin_limit",
    },
    "td_layout": {"of the machine": "span shared_bit"},
    "td_vm": {
        "of the machine": "limit_mask vcpus vcpu_count",
        "translations, and who holds them": "executors writers removals",
    },
}


def members(source: str, name: str) -> set[str]:
    """The names of a structure's members in C."""
    found = re.search(rf"struct {name} \{{(.*?)\n\}};|typedef struct \{{([^}}]*)\}} {name};", source, re.S)
    assert found is not None
    body = re.sub(r"/\*.*?\*/", "", found[1] or found[2], flags=re.S)
    body = re.sub(r"struct \{.*?\}", "struct", body, flags=re.S)
    names = (
        re.sub(r"\[.*?\]", "", one).split()[-1].lstrip("*") for one in re.split(r"[;,]", body) if one.strip()
    )
    return set(names)


@pytest.mark.parametrize("name", SAVED)
def test_each_member_of_a_native_structure_is_saved_or_made_anew(name: str) -> None:
    source = "".join((engine.NATIVE / file).read_text() for file in ("api.h", "core.h"))
    listed = SAVED[name].split() + [word for words in OTHERS[name].values() for word in words.split()]
    assert sorted(listed) == sorted(members(source, name))
    snapshots = (engine.NATIVE / "snapshot.c").read_text()
    if name == "td_vcpu":
        for member in set(SAVED[name].split()) - {"env"}:
            assert f"p->{member} = " in snapshots
            assert f"v->{member} = p->{member};" in snapshots
