"""Do generated headers say what the model says? Asked of the C compiler, with a prelude of the test's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dsl.api import check_file
from dsl.capabilities import prelude
from dsl.model import (
    Bytes,
    Constant,
    Enumeration,
    EnumRef,
    ErrorCode,
    ListOf,
    Parameter,
    Primitive,
    Provenance,
    Record,
    RecordField,
    RecordRef,
    Scalar,
    Unit,
)
from formats import ports
from formats.cstructs import c_header
from formats.hob import PayloadImage
from formats.tdx import td
from formats.units import LARGE_PAGE, PAGE
from gen.core.headers import primitives_h, snake_case

PROJECT = Path(__file__).resolve().parents[2]
U8, U32, U64 = Scalar("u8", 8), Scalar("u32", 32), Scalar("u64", 64)
TRUSTED = Provenance.TRUSTED


def compiles(text: str, folder: Path) -> str:
    """The compiler's first error, or an empty text."""
    (folder / "primitives.h").write_text(text)
    (folder / "formats.h").write_text(c_header())
    (folder / "use.c").write_text('#include "primitives.h"\n')
    include = [f"-I{PROJECT / 'runtime-c/include'}", f"-I{folder}"]
    flags = ["-std=c17", "-Wall", "-Wextra", "-Werror"]
    done = subprocess.run(
        [sys.executable, "-m", "ziglang", "cc", *flags, *include, "-c", "use.c", "-o", "use.o"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return next((line for line in done.stderr.splitlines() if "error:" in line), "")


def test_the_shipped_prelude_compiles(tmp_path: Path) -> None:
    firmware = check_file(PROJECT / "dsl/flows/linux.tdf").require()
    text = primitives_h(
        firmware.records, firmware.enumerations, firmware.errors, firmware.constants, firmware.primitives
    )
    assert compiles(text, tmp_path) == ""
    c_primitives = [name for name, each in firmware.primitives.items() if each.home == "c"]
    assert c_primitives
    assert all(f" {name}(" in text for name in c_primitives)


def small(offset: int = 8, size: int = 24, align: int = 8) -> dict[str, Record]:
    """`Outer` needs `Inner`, but comes first."""
    inner = Record("Inner", (RecordField("a", U8, 0), RecordField("b", U32, 4)), 8, 4)
    fields = (
        RecordField("kind", EnumRef("Kind"), 0),
        RecordField("items", ListOf(RecordRef("Inner"), 1), offset),
    )
    return {"Outer": Record("Outer", fields, size, align), "Inner": inner}


def header(records: dict[str, Record]) -> str:
    primitives = {
        "take": Primitive(
            "take",
            (
                Parameter("data", Bytes(), TRUSTED),
                Parameter("outer", RecordRef("Outer"), TRUSTED, mutable=True),
                Parameter("kind", EnumRef("Kind"), TRUSTED),
                Parameter("layout", RecordRef("layout"), TRUSTED, state=True),
            ),
            U64,
            TRUSTED,
            "c",
            ("too_long",),
            doc="Takes it.",
        ),
        "note": Primitive("note", (Parameter("a", U8, TRUSTED),), Unit(), TRUSTED, "c", ()),
        "emitted": Primitive("emitted", (), Unit(), TRUSTED, "generated", ()),
    }
    enumerations = {"Kind": Enumeration("Kind", (("one", 1), ("two", 2)))}
    errors = [ErrorCode("too_short", 1, "too short"), ErrorCode("too_long", 2, "too long")]
    return primitives_h(records, enumerations, errors, {"LIMIT": Constant("LIMIT", 4096)}, primitives)


def test_everything_is_declared_by_the_abi(tmp_path: Path) -> None:
    text = header(small())
    assert compiles(text, tmp_path) == ""
    for line in (
        "status_t take(const struct span *data, struct outer *outer, uint32_t kind, "
        "const struct layout *layout, uint64_t *out);",
        "void note(uint8_t a);",
        "    TDF_E_TOO_LONG = 2,",
        "    TDF_KIND_TWO = 2,",
        "#define TDF_LIMIT UINT64_C(0x1000)",
        "    struct { uint64_t count; struct inner items[1]; } items;",
        "/* Takes it.",
    ):
        assert line in text.splitlines(), line
    assert "emitted" not in text


@pytest.mark.parametrize(
    ("records", "complaint"),
    [
        (small(offset=16), "Outer.items: offset"),
        (small(size=32), "Outer: size"),
    ],
)
def test_a_layout_that_c_would_not_give_is_refused(
    records: dict[str, Record], complaint: str, tmp_path: Path
) -> None:
    assert complaint in compiles(header(records), tmp_path)


def test_larger_alignment(tmp_path: Path) -> None:
    records = small(size=64, align=64)
    assert compiles(header(records), tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "expected"), [("VpInfo", "vp_info"), ("Ram", "ram"), ("RamState", "ram_state")]
)
def test_names(name: str, expected: str) -> None:
    assert snake_case(name) == expected


def test_the_preludes_numbers_are_those_of_formats() -> None:
    """The prelude is written in the language, which imports nothing: this holds the two together."""
    same = {"SEPT_VE_DISABLE": td.SEPT_VE_DISABLE, "DEBUG": td.DEBUG, "COM1": ports.COM1}
    same["COM1_IRQ"] = ports.COM1_IRQ
    same["PAYLOAD_VMLINUX"] = PayloadImage.RAW_VMLINUX
    levels = {"LEVEL_4K": 0, "LEVEL_2M": 1}  # of TDG.MEM.PAGE.ACCEPT: PAGE << 9 * level
    own = {"MAX_CPUS": 1024, "NO_POWER_OFF": 0xFF}  # of the firmware, of no specification
    assert {name: each.value for name, each in prelude().constants.items()} == same | levels | own
    assert [PAGE << 9 * level for level in levels.values()] == [PAGE, LARGE_PAGE]
