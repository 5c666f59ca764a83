"""How do the host's ACPI tables come in? The chipset first, for the host makes them of its registers; then
files by fw_cfg.
"""

from __future__ import annotations

from peachpy.x86_64 import LEA, MOV, r8, rax, rcx, rdi, rdx, rsi

from dsl.sizes import SPAN_DATA, SPAN_SIZE
from gen.primitives.builder import Body, Builder
from gen.primitives.fw_cfg import transfers
from gen.primitives.q35 import configure
from gen.x86 import rsp


def fw_cfg_acpi(b: Builder) -> None:  # (window, store, td, paging, out)
    """What is used of the store comes back."""
    window, store, td, paging, out = b.save(rdi, rsi, rdx, rcx, r8)
    configure(b)

    def ask(fetch: int, request: int) -> None:
        LEA(rdi, [rsp + fetch])
        MOV(rsi, [rsp + window])
        MOV(rdx, [rsp + store])
        LEA(rcx, [rsp + request])
        b.checked("tables_next")

    fetch = transfers(b, window, td, paging, "TableFetch", ask)
    MOV(rcx, [rsp + out])
    MOV(rdx, [rsp + store])
    MOV(rax, [rdx + SPAN_DATA])
    MOV([rcx + SPAN_DATA], rax)
    MOV(rax, [rsp + fetch + b.offset("TableFetch", "used")])
    MOV([rcx + SPAN_SIZE], rax)


BODIES: dict[str, Body] = {"fw_cfg_acpi": fw_cfg_acpi}
