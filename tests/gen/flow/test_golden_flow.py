"""Is the code of a small flow still the reviewed code? `PYTHONPATH=. python <this file>` writes it anew."""

from __future__ import annotations

from pathlib import Path

from dsl.api import check_source
from gen.flow.context import context_of
from gen.flow.pool import Pool
from gen.flow.statement import emit_flow
from gen.x86 import Unit, listing

GOLDEN = Path(__file__).resolve().parents[2] / "golden/flow.s"
FLOW = """\
flow largest(vmm: Vmm, list: bytes, least: u64) -> u64 fails {
    let found = least
    for each in vmm.resources {
        if each.kind == 0 and each.size > found {
            found = each.size
        }
    }
    require found != least
    try let table = hob_extent(list) {
        found = found + table.size
    } on hob_truncated {
        print "no list"
    } on _ {
        fail hob_malformed
    }
    return found
}

flow boot(td: VpInfo) -> never {
    on error fatal
    fail requirement_failed
}

firmware small {
    version 1.0.0
    svn     1
    image below 4 GiB {
        code    BFV
        hob     TD_HOB   64 KiB  at 0x0080_0000
        paging  TempMem  48 KiB
        stack   TempMem  32 KiB  guarded
    }
}
uses memory
"""


def text() -> str:
    firmware = check_source(FLOW, "small.tdf").require()
    unit, pool = Unit("flow"), Pool(firmware)
    emit_flow(unit, firmware, firmware.flows["largest"], context_of(firmware), pool)
    return listing(unit).text


def test_the_listing_is_the_reviewed_one() -> None:
    assert text() == GOLDEN.read_text(), "changed: write it anew and review the difference"


if __name__ == "__main__":
    GOLDEN.write_text(text())
