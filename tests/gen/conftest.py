"""Which fixtures do the tests of generated code share?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from cpu import FLOW_ENTRY, REGIONS
from machinecode import SCRIPT, Link, Linked, check_block, zig

from gen.boot.units import emit
from gen.x86 import Listing, Unit

CFLAGS = ("-target", "x86_64-freestanding-none", "-ffreestanding", "-fno-sanitize=undefined", "-O2")
LDFLAGS = ("--fatal-warnings", "--entry=0xFFFFFFF0")


@pytest.fixture(scope="session")
def check_unit() -> Callable[[Unit], int]:
    """Check all code of a unit; returns the number of instructions."""
    return lambda unit: sum(check_block(block) for block in unit.blocks if block.kind == "function")


@pytest.fixture(scope="session")
def link(tmp_path_factory: pytest.TempPathFactory) -> Link:
    """Assemble listings (and further assembly or C sources) and link them as a boot image would be."""

    def run(listings: Sequence[Listing], extra: dict[str, str] | None = None, script: str = SCRIPT) -> Linked:
        folder = tmp_path_factory.mktemp("link")
        sources = {f"{item.name}.s": item.text for item in listings} | (extra or {})
        objects = []
        for name, text in sources.items():
            (folder / name).write_text(text)
            objects.append(str(folder / f"{name}.o"))
            zig("cc", *CFLAGS, "-c", str(folder / name), "-o", objects[-1])
        (folder / "boot.ld").write_text(script)
        elf = folder / "boot.elf"
        zig("ld.lld", "-T", str(folder / "boot.ld"), *LDFLAGS, *objects, "-o", str(elf))
        return Linked(elf)

    return run


@pytest.fixture(scope="session")
def image(link: Link) -> Linked:
    """The machine code of an ordinary image, linked, with a flow that does nothing."""
    return link(emit(REGIONS), FLOW_ENTRY)
