"""What do the primitives of home `generated` do? Order and privilege around the C core and TDCALLs.

Each function follows the ABI of `dsl.model.Primitive` under the symbol `prim_<name>`. C functions are called
by their own names, TDCALL functions by theirs (gen/boot/tdcall.py).
"""

from __future__ import annotations

from collections.abc import Callable

from peachpy.x86_64 import LABEL, XOR, Label, eax

from dsl.model import Firmware, Primitive
from gen.errors import BuildError
from gen.flow.context import Context
from gen.flow.frame import Frame
from gen.flow.names import primitive_symbol
from gen.primitives import handoff, measure, memory, vmm
from gen.primitives.builder import Builder
from gen.x86 import Unit


def emit_primitives(unit: Unit, firmware: Firmware, context: Context) -> None:
    """Adds every generated primitive, and what several of them share."""
    handoff.emit_enter_payload(unit)
    generated = {name for name, each in firmware.primitives.items() if each.home == "generated"}
    for name in sorted(generated - _BODIES.keys()):
        raise BuildError(f"primitive {name} is declared as generated, but nothing generates it")
    for name, body in _BODIES.items():
        if name in generated:
            primitive = firmware.primitives[name]
            symbol = primitive_symbol(primitive)
            frame = Frame()
            with unit.code(symbol, section=f".text.{symbol}"):
                _function(Builder(firmware, context, frame, Label("fail")), primitive, body)
            frame.close()


def _function(builder: Builder, primitive: Primitive, body: Callable[[Builder], None]) -> None:
    builder.frame.open()
    body(builder)
    if primitive.fallible:
        XOR(eax, eax)
        LABEL(builder.fail)
    builder.frame.leave()


_BODIES: dict[str, Callable[[Builder], None]] = {
    "measure_platform_config": measure.measure("log_platform_config"),
    "measure_blob": measure.measure("log_blob"),
    "measure_number": measure.measure("log_number"),
    "separate": measure.separate,
    "accept": memory.accept,
    "load_linux": memory.load_linux,
    "park_aps": handoff.park_aps,
    "handoff_linux": handoff.handoff_linux,
    "print": vmm.print_line,
    "print_hex": vmm.print_hex,
    "tdvmcall": vmm.tdvmcall,
    "io_write": vmm.io_write,
    "io_read": vmm.io_read,
    "share": vmm.share,
}
