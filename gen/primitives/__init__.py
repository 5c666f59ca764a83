"""What do the primitives of home `generated` do? Order and privilege around the C core and TDCALLs.

Each function follows the ABI of `dsl.model.Primitive` under the symbol `prim_<name>`. C functions are called
by their own names, TDCALL functions by theirs (gen/boot/tdcall.py).
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from peachpy.x86_64 import LABEL, XOR, Label, eax

from dsl.capabilities import CORE, capabilities
from dsl.model import Firmware, Primitive
from gen.flow.context import Context
from gen.flow.frame import Frame
from gen.flow.names import primitive_symbol
from gen.primitives.builder import Body, Builder
from gen.primitives.memory import emit_image_memory
from gen.x86 import Unit


def emit_primitives(unit: Unit, firmware: Firmware, context: Context) -> None:
    """Adds every generated primitive; the file of its capability says what it does."""
    for name, primitive in firmware.primitives.items():
        if primitive.home == "generated":
            symbol = primitive_symbol(primitive)
            frame = Frame()
            with unit.code(symbol, section=f".text.{symbol}"):
                _function(Builder(firmware, context, frame, Label("fail")), primitive, bodies()[name])
            frame.close()
    if "image_memory" in firmware.primitives:
        emit_image_memory(unit, firmware)


@cache
def bodies() -> dict[str, Body]:
    """What each generated primitive does, out of the file that is called as its capability."""
    found: dict[str, Body] = {}
    for capability in (CORE, *capabilities()):
        if find_spec(f"{__name__}.{capability}"):
            found |= import_module(f"{__name__}.{capability}").BODIES
    return found


def _function(builder: Builder, primitive: Primitive, body: Body) -> None:
    builder.frame.open()
    body(builder)
    if primitive.fallible:
        XOR(eax, eax)
        LABEL(builder.fail)
    builder.frame.leave()
