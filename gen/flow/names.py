"""What are the symbols that generated code, the C core and the linker script share?"""

from __future__ import annotations

from dsl.model import Primitive

ENTRY = "tdf_entry"
FATAL_STATUS = "tdf_fatal"
ORDINARY_START = "ordinary_start"  # of images that run without TDX
LAYOUT = "tdf_layout"
DESCRIBED = ".rodata.described"  # the linker keeps what nothing points to
IMAGE_MEMORY = "tdf_image_memory"  # the sections as a list of memory
CONTEXT = "tdf_context"


def described_symbol(name: str) -> str:
    """Where a TD_INFO or TD_PARAMS section lies."""
    return f"tdf_described_{name}"


def flow_symbol(name: str) -> str:
    """The symbol of a flow."""
    return f"flow_{name}"


def primitive_symbol(primitive: Primitive) -> str:
    """A C primitive has its own name; a generated one is set apart from the TDCALL functions."""
    return primitive.name if primitive.home == "c" else f"prim_{primitive.name}"


def region_symbols(name: str) -> tuple[str, str]:
    """Absolute symbols of an image section: first address and end (exclusive)."""
    return f"region_{name}_start", f"region_{name}_end"
