"""What does a row's guest say? Builds its image, starts it as a TD and reads the console."""

from __future__ import annotations

from dataclasses import dataclass

from emu.api import RunConfig, prepare, report
from emu.machine import Machine
from emu.tdx.params import Choices, TdParams
from emu.vmm.policy import Call, Policy
from formats import tdvf

from . import harness
from . import layout as at
from .rows import Row

METADATA = at.SIZE - 0x400
LIMIT = 400_000
CHOICES = ("rtmr_busy", "rtmr_free", "accept_busy", "seamverifyreport")


class Remover(Policy):
    """A host that takes a page away when the guest asks for GetTdVmCallInfo, and adds it again or not."""

    watches_calls = True

    def __init__(self, machine: Machine, gpa: int, again: bool) -> None:
        super().__init__()
        self.machine, self.gpa, self.again = machine, gpa, again

    def on_answer(self, call: Call) -> None:
        if call.name == "GetTdVmCallInfo":
            self.machine.memory.remove(self.gpa, 0x1000, self.again)


@dataclass(frozen=True)
class Result:
    """How the run ended and the quadwords the guest printed, by the names of the row."""

    values: dict[str, int]
    end: str
    detail: str
    console: str
    instructions: int


def build(row: Row) -> bytes:
    """The TDVF image of a row."""
    image = bytearray(harness.image())

    def put(address: int, content: bytes, end: int) -> None:
        assert address + len(content) <= end, f"{row.key}: too long"
        image[address - at.BASE : address - at.BASE + len(content)] = content

    script, codes = b"", b""
    for step in row.steps:
        script += step.pack(at.CODE + len(codes))
        codes += step.code + b"\xcc"
        codes += b"\xcc" * (-len(codes) % 16)
    put(at.SCRIPT, script + bytes(at.STEP_SIZE), at.CODE)
    put(at.CODE, codes, at.PRINT)
    addresses = [at.address_of(name, len(row.steps) - 1) for name in row.expect]
    put(at.PRINT, b"".join(a.to_bytes(8, "little") for a in (*addresses, 0)), at.PML4)
    return dress(image)


def dress(image: bytearray) -> bytes:
    """Adds TDVF metadata and both pointers."""
    types = tdvf.SectionType
    sections = [
        tdvf.Section(0, at.SIZE, at.BASE, at.SIZE, types.BFV, 1),
        tdvf.Section(0, 0, at.HOB, at.HOB_SIZE, types.TD_HOB, 0),
        tdvf.Section(0, 0, at.TEMP, at.TEMP_SIZE, types.TEMP_MEM, 0),
    ]
    descriptor = tdvf.descriptor(sections)
    image[METADATA : METADATA + len(descriptor)] = descriptor
    table = tdvf.guid_table(at.SIZE - METADATA - 16)
    end = at.SIZE - tdvf.FOOTER_DISTANCE + 16
    image[end - len(table) : end] = table
    image[-tdvf.POINTER_DISTANCE : -tdvf.POINTER_DISTANCE + 4] = (METADATA + 16).to_bytes(4, "little")
    return bytes(image)


def result(row: Row) -> Result:
    """Runs the row's guest."""
    settings = dict(row.td)
    host_pages = settings.pop("host_page_size", "2M")
    retry = settings.pop("map_gpa_retry", False)
    removes = settings.pop("removes", None)
    vmm = settings.pop("vmm", RunConfig.vmm)
    module, ids = settings.pop("module", "1.5.01"), settings.pop("apic_ids", "")
    named = {name: settings.pop(name) for name in CHOICES if name in settings}
    choices = Choices(stop_at_refused_vmcall=False, **named)
    params = TdParams(choices=choices, **settings)
    config = RunConfig(
        image=build(row), image_name=f"{row.key}.bin", memory=at.MEMORY, vcpus=params.vcpus,
        until="halt", max_instructions=LIMIT, host_page_size=host_pages, map_gpa_retry=retry,
        td=params, vmm=vmm, module=module, apic_ids=ids,
    )  # fmt: skip
    machine = prepare(config)
    try:
        if removes is not None:
            machine.vmm.policy = Remover(machine, *removes)
        shown = report(machine, machine.run(LIMIT, None))
    finally:
        machine.close()
    lines = shown.console.split("\n")
    printed = shown.end["reason"] == "halt"
    values = (
        {name: int(line, 16) for name, line in zip(row.expect, lines, strict=False)}
        if printed and row.expect
        else {}
    )
    return Result(
        values, str(shown.end["reason"]), str(shown.end["detail"]), shown.console, shown.instructions
    )
