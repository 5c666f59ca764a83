"""What does the TDX module answer that firmware acts on? Classes of completion status."""

from __future__ import annotations

# Bits 63:32 of RAX: Intel TDX module, tdx_error_codes_defs.h.
OPERAND_BUSY = 0x8000_0200
PAGE_ALREADY_ACCEPTED = 0x0000_0B0A  # low bits of the status: the level at which the page is mapped
PAGE_SIZE_MISMATCH = 0xC000_0B0B

BUSY_RETRIES = 1000
"""How often one call is repeated while the module finds its operand locked; after that it has failed."""
