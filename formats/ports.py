"""Which I/O ports do firmware and VMM both know?"""

from __future__ import annotations

COM1, COM1_IRQ, COM1_PORTS = 0x3F8, 4, 8  # IBM PC/AT: the first 16550 UART
DEBUG_PORT = 0x402  # QEMU hw/char/debugcon.c, as OVMF and SeaBIOS use it
