"""Where does a firmware keep what the compiler supplies? One block of writable data, and read-only tables."""

from __future__ import annotations

from dataclasses import dataclass

from dsl.model import Firmware
from dsl.sizes import SPAN_LENGTH
from formats.units import align_up
from gen.flow.names import CONTEXT
from gen.x86 import DQ, RESERVE, Symbol, Unit


@dataclass(frozen=True)
class Context:
    """Offsets in the block `tdf_context`: the vCPU's facts, each state, the span of each carved region.

    `ap_paging`: a second page-table pool (record Paging), of the parked APs.
    """

    td: int
    states: dict[str, int]
    carved: dict[str, int]
    ap_paging: int
    size: int

    def state(self, name: str) -> Symbol:
        """The address of a state record."""
        return Symbol(CONTEXT, self.states[name])

    def region(self, name: str) -> Symbol:
        """The address of a carved region's span; empty until `accept`."""
        return Symbol(CONTEXT, self.carved[name])


def context_of(firmware: Firmware) -> Context:
    """Places every part; each starts at a multiple of 16 bytes."""
    states, offset = {}, align_up(firmware.records["VpInfo"].size, 16)
    for name, record in firmware.states:
        if record:
            states[name] = offset
            offset += align_up(firmware.records[record].size, 16)
    carved = {}
    for region in firmware.memory:
        carved[region.name] = offset
        offset += SPAN_LENGTH
    ap_paging = offset
    offset += align_up(firmware.records["Paging"].size, 16)
    return Context(0, states, carved, ap_paging, offset)


def emit_context(unit: Unit, firmware: Firmware, context: Context, page_tables_used: int) -> None:
    """The block at first: all zero but the page-table pool, which the reset code began to fill."""
    pool = next(section for section in firmware.image if section.name == "paging")
    assert pool.address is not None  # dsl/verify.py
    assert pool.size is not None
    with unit.data(CONTEXT, section=".data", align=16):
        if "paging" not in context.states:
            RESERVE(context.size, "VpInfo and states, empty at first")
            return
        before, record = context.states["paging"], firmware.records["Paging"]
        RESERVE(before, "VpInfo and states, empty at first")
        words = {"tables": (pool.address, pool.size), "used": (page_tables_used,)}
        for field in record.fields:
            for word in words[field.name]:
                DQ(word, f"paging.{field.name}, as the reset code left it")
        RESERVE(context.size - before - record.size, "further states and carved regions")
