"""Where does what lie in and around the mailbox by which an OS wakes the APs, and sends them back?

Source of the mailbox: ACPI specification 6.6, 5.2.12.19. What lies behind it is our own.
"""

from __future__ import annotations

from formats.acpi import MP_MAILBOX, MP_MAILBOX_OURS
from formats.structs import offset_of
from formats.units import PAGE

COMMAND, APIC_ID, VECTOR, FIRMWARE = (
    offset_of(MP_MAILBOX, name) for name in ("command", "apic_id", "wakeup_vector", "firmware_reserved")
)
PARKED, RESET_VECTOR = (FIRMWARE + offset_of(MP_MAILBOX_OURS, name) for name in ("parked", "reset_vector"))

# The APs' page tables begin behind the mailbox. If it has a reset vector, they are followed by a page with an
# APIC id for each vCPU index, and a page with the reset code and its GDT.
TABLES, IDS, RESET = PAGE, 14 * PAGE, 15 * PAGE
# The parts of the reset code, from its start; those that hold addresses of its own move with the copy.
GDT_POINTER, TO_32, TO_64, NO_IDT, ENTRY = 0x20, 0x30, 0x38, 0x40, 0x50
OWN_ADDRESSES = (GDT_POINTER + 2, TO_32, TO_64)
