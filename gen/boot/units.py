"""Which machine code does every image carry, whatever its flow? Listings, ready to assemble and link.

Needs from the linker: sections .text*, .rodata*, .data* on page boundaries with `__text_start` ...
`__data_end`, .resetvec at 0xFFFFFFF0, .reset in the last 64 KiB; from the flow: `tdf_entry`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gen.boot.accept import emit_accept
from gen.boot.fatal import emit_fatal
from gen.boot.idt import emit_idt
from gen.boot.paging import Mapped, PagingError, emit_tables, plan
from gen.boot.reset import emit_reset
from gen.boot.tdcall import emit_tdcall
from gen.x86 import Listing, Unit, listing


def units(regions: Sequence[Mapped], pool: str = "paging", stack: str = "stack") -> list[Unit]:
    """The units of `emit`, for tests that look inside."""
    first_map = plan(regions, pool)
    stacks = [region for region in regions if region.name == stack]
    if not stacks:
        raise PagingError(f"no region named {stack} for the stack of vCPU 0")
    reset, exceptions, tdcall = Unit("reset"), Unit("exceptions"), Unit("tdcall")
    emit_reset(reset, first_map, stacks[0])
    emit_tables(reset, first_map)
    emit_idt(exceptions)
    emit_tdcall(tdcall)
    emit_accept(tdcall)
    emit_fatal(tdcall)
    return [reset, exceptions, tdcall]


def emit(regions: Sequence[Mapped], pool: str = "paging", stack: str = "stack") -> list[Listing]:
    """Assembly listings for the mapped `regions`; raises PagingError if they cannot be mapped."""
    return [listing(unit) for unit in units(regions, pool, stack)]
