"""Which machine code carries out a checked flow? The flows, their constants, context, entry and error end."""

from __future__ import annotations

from dsl.model import Firmware
from gen.flow.context import context_of, emit_context
from gen.flow.entry import emit_entry
from gen.flow.pool import Pool
from gen.flow.statement import emit_flow
from gen.x86 import Unit


def flow_unit(firmware: Firmware, page_tables_used: int) -> Unit:
    """The object of a firmware's flows.

    `page_tables_used`: pages of the `paging` section that the reset code has filled.
    """
    unit = Unit("flow")
    context, pool = context_of(firmware), Pool(firmware)
    emit_entry(unit, firmware, context)
    for flow in firmware.flows.values():
        emit_flow(unit, firmware, flow, context, pool)
    pool.emit(unit)
    emit_context(unit, firmware, context, page_tables_used)
    return unit
