"""How do debuggers and the emulator find the source line of an address? A minimal DWARF 4 compile unit.

`.loc` directives alone make a line table that no unit refers to; readers start from `.debug_info`, so each
listing carries one unit entry that points at the table and names the code's address ranges (DWARF 4, section
7.5).
"""

from __future__ import annotations

from gen.x86.code import Unit

_ABBREV = """\
\t.section .debug_abbrev,"",@progbits
.Labbrev:
\t.byte\t1, 0x11, 0        # entry 1: DW_TAG_compile_unit, no children
\t.byte\t0x03, 0x08        # DW_AT_name, DW_FORM_string
\t.byte\t0x10, 0x17        # DW_AT_stmt_list, DW_FORM_sec_offset
\t.byte\t0x11, 0x01        # DW_AT_low_pc, DW_FORM_addr
\t.byte\t0x55, 0x17        # DW_AT_ranges, DW_FORM_sec_offset
\t.byte\t0x13, 0x05        # DW_AT_language, DW_FORM_data2
\t.byte\t0, 0, 0"""

_INFO = """\
\t.section .debug_info,"",@progbits
.Linfo:
\t.long\t.Linfo_end - .Linfo_version
.Linfo_version:
\t.short\t4                # DWARF version
\t.long\t.Labbrev
\t.byte\t8                 # address size
\t.byte\t1                 # abbreviation of the unit entry
\t.asciz\t"{name}"
\t.long\t.Lline_table
\t.quad\t0                 # base of the ranges
\t.long\t.Lranges
\t.short\t0x8001           # DW_LANG_Mips_Assembler, the customary code for assembly
.Linfo_end:"""


def debug_info(unit: Unit) -> list[str]:
    """Assembly lines of the debug sections; none for a unit without code."""
    functions = [block for block in unit.blocks if block.kind == "function"]
    if not functions:
        return []
    ranges = [f"\t.quad\t{block.name}, .Lend.{block.name}" for block in functions]
    return [
        '\t.section .debug_line,"",@progbits',
        ".Lline_table:",
        *_ABBREV.splitlines(),
        *_INFO.format(name=unit.name).splitlines(),
        '\t.section .debug_ranges,"",@progbits',
        ".Lranges:",
        *ranges,
        "\t.quad\t0, 0",
    ]
