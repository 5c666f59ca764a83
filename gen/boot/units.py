"""Which machine code does every image carry, whatever its flow? Listings, ready to assemble and link.

Needs from the linker: sections .text*, .rodata*, .data* on page boundaries with `__text_start` ...
`__data_end`, .resetvec at 0xFFFFFFF0, .reset in the last 64 KiB; from the flow: `tdf_entry`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gen.boot.accept import emit_accept
from gen.boot.apicid import emit_apic_id_function
from gen.boot.fatal import emit_fatal, emit_fatal_accept
from gen.boot.idt import emit_idt
from gen.boot.ordinary import DATA_PAGES, emit_start
from gen.boot.paging import Mapped, PagingError, emit_tables, plan
from gen.boot.reset import emit_reset
from gen.boot.share import emit_shared
from gen.boot.standins import emit_stand_ins
from gen.boot.tdcall import emit_tdcall
from gen.x86 import Listing, Unit, listing


def units(
    regions: Sequence[Mapped],
    pool: str = "paging",
    stack: str = "stack",
    without_tdx: str | None = None,
    all_vcpus: bool = False,
) -> list[Unit]:
    """The units of `emit`, for tests that look inside."""
    first_map = plan(regions, pool, DATA_PAGES if without_tdx else 0)
    stacks = [region for region in regions if region.name == stack]
    if not stacks:
        raise PagingError(f"no region named {stack} for the stack of vCPU 0")
    reset, exceptions, tdcall = Unit("reset"), Unit("exceptions"), Unit("tdcall")
    emit_reset(reset, first_map, stacks[0], all_vcpus)
    emit_tables(reset, first_map)
    emit_idt(exceptions)
    emit_tdcall(tdcall, bool(without_tdx))
    emit_apic_id_function(tdcall, bool(without_tdx))
    emit_accept(tdcall, bool(without_tdx))
    emit_shared(tdcall, bool(without_tdx))
    emit_fatal(tdcall)
    emit_fatal_accept(tdcall)
    if without_tdx:
        hob = next(region for region in regions if region.name == without_tdx)
        emit_stand_ins(tdcall)
        emit_start(tdcall, (hob.start, hob.size))
    return [reset, exceptions, tdcall]


def emit(
    regions: Sequence[Mapped], pool: str = "paging", stack: str = "stack", all_vcpus: bool = False
) -> list[Listing]:
    """Assembly listings for the mapped `regions`; raises PagingError if they cannot be mapped.

    `all_vcpus`: a flow accepts RAM on all of them. `without_tdx` of `units`: the region of the TD HOB, if the
    image runs on an ordinary machine too.
    """
    return [listing(unit) for unit in units(regions, pool, stack, all_vcpus=all_vcpus)]
