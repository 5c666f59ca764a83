"""How does a TD accept a page and ask for its attributes? (intel/tdx-module TDX_1.5.01,
tdg_mem_page_accept.c, tdg_mem_page_attr_rd.c, tdg_mem_page_attr_wr.c)
"""

from __future__ import annotations

from emu.cpu import pagestate
from emu.signals import End
from emu.tdx.module import TdxModule, VcpuModel
from formats.registers import R8, RCX, RDX, Gpr
from formats.tdx import status
from formats.units import GIB, LARGE_PAGE, PAGE

NOT_RETIRED = (1 << 64) - 1  # td_accept: the VMM has nothing to map
SIZES = (PAGE, LARGE_PAGE, GIB)  # by level
LEVEL, RESERVED = 7, 0xFF8 | 0xFFF << 52
PENDING = 1 << 62  # of the mapping that ATTR.RD and ATTR.WR give


def operand_gpa(module: TdxModule, operand: int, levels: int) -> int | None:
    """GPA of a "GPA and level" operand with one of the first `levels` levels, None where the module refuses
    it.
    """
    level, gpa = operand & LEVEL, operand & ~(LEVEL | RESERVED)
    if level >= levels or operand & RESERVED or gpa % SIZES[level]:
        return None
    return gpa if module.gpa_valid(gpa, may_be_shared=False) else None


def accept(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 6; level 2 (1 GiB) is refused like a reserved value."""
    gpa, level = operand_gpa(module, r[RCX], levels=2), r[RCX] & LEVEL
    if gpa is None:
        return status.OPERAND_INVALID | status.RCX
    state = module.memory.state(gpa)
    inside = level == 0 and state & pagestate.LARGE and state & pagestate.STATE == pagestate.MAPPED
    # The walk that ends above the level asked for takes no lock
    if not inside and module.busy("accept", module.params.choices.accept_busy):
        return status.OPERAND_BUSY | status.RCX
    result = int(module.memory.lib.td_accept(module.memory.vm, gpa, level))
    if result == NOT_RETIRED:
        what = f"TDG.MEM.PAGE.ACCEPT of GPA {gpa:#x} level {level}"
        raise End("sept-violation", f"{what}: the VMM has no page there")
    if result == status.SUCCESS:
        module.accepted_4k += level == 0
        module.accepted_2m += level == 1
    return result


def _leaf(module: TdxModule, gpa: int, what: str) -> tuple[int, bool]:
    """Level of the SEPT leaf that maps a private GPA and whether it is pending; without one the TD exits."""
    state = module.memory.state(gpa)
    kind = state & pagestate.STATE
    if kind not in (pagestate.MAPPED, pagestate.PENDING):
        raise End("sept-violation", f"{what} of GPA {gpa:#x}, where the VMM has no private page")
    return int(bool(state & pagestate.LARGE)), kind == pagestate.PENDING


def _has_table(module: TdxModule, gpa: int, level: int) -> bool:
    """Whether the SEPT entry of this level leads to smaller pages."""
    if level == 0 or gpa >= module.memory.span:
        return False
    size = min(SIZES[level], module.memory.span - gpa)
    if level == 1 and module.memory.state(gpa) & pagestate.LARGE:
        return False
    return any(module.memory.states(gpa, size))


def attr_rd(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 23: the mapping; attributes exist for nested VMs only, so RDX is zero."""
    gpa, r[RDX] = r[RCX], 0
    r[RCX] = 0
    if not module.gpa_valid(gpa, may_be_shared=False):
        return status.OPERAND_INVALID | status.RCX
    level, pending = _leaf(module, gpa, "TDG.MEM.PAGE.ATTR.RD")
    r[RCX] = gpa & ~(SIZES[level] - 1) | level | (PENDING if pending else 0)
    return status.SUCCESS


def attr_wr(module: TdxModule, vcpu: VcpuModel, r: Gpr) -> int:
    """Leaf 24 in a TD without nested VMs: no attribute may be named, the page must be there at that level."""
    operand, attributes, flags = r[RCX], r[RDX], r[R8]
    r[RCX] = r[RDX] = 0
    for word in range(4):
        if attributes >> 16 * word & 0xFFFF:
            return status.OPERAND_INVALID | status.RDX
        if flags >> 16 * word & 0xFFFF:
            return status.OPERAND_INVALID | status.R8
    gpa = operand_gpa(module, operand, levels=3)
    if gpa is None:
        return status.OPERAND_INVALID | status.RCX
    wanted = operand & LEVEL
    if _has_table(module, gpa, wanted):
        return status.PAGE_SIZE_MISMATCH | wanted
    level, pending = _leaf(module, gpa, "TDG.MEM.PAGE.ATTR.WR")
    if wanted != level:
        raise End("sept-violation", f"TDG.MEM.PAGE.ATTR.WR of GPA {gpa:#x}: its page is a larger one")
    r[RCX] = operand | (PENDING if pending else 0)
    return status.SUCCESS
