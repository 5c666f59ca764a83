"""Which GUIDs does a TD firmware meet, and what are they called?

GUIDs are stored with their first three fields little-endian: `UUID.bytes_le`.
"""

from __future__ import annotations

from uuid import UUID

# Intel TDX Virtual Firmware Design Guide, section 11 "TDVF metadata": stands 16 bytes before the descriptor.
TDX_METADATA = UUID("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae")

# edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.nasm.inc: the table that walks down from the end of the image.
TABLE_FOOTER = UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
TDX_METADATA_OFFSET = UUID("e47a6535-984a-4798-865e-4685a7bf8ec2")
SEV_ES_RESET_BLOCK = UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SEV_SECRET_BLOCK = UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
SEV_HASH_TABLE = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SEV_METADATA = UUID("dc886566-984a-4798-a75e-5585a7bf67cc")

# td-shim specification, section "TD HOB": GUID extension HOBs a VMM writes.
HOB_ACPI_TABLE = UUID("6a0c5870-d4ed-44f4-a135-dd238b6f0c8d")
HOB_PAYLOAD_INFO = UUID("b96fa412-461f-4be3-8c0d-ad805a497ac0")
# The same document, "payload HOB": written by a shim for its payload, never by a VMM.
HOB_E820_TABLE = UUID("8f8072ea-3486-4b47-86a7-2353b88a8773")

NAMES = {
    TDX_METADATA: "TDX metadata",
    TABLE_FOOTER: "OVMF table footer",
    TDX_METADATA_OFFSET: "TDX metadata offset",
    SEV_ES_RESET_BLOCK: "SEV-ES reset block",
    SEV_SECRET_BLOCK: "SEV secret block",
    SEV_HASH_TABLE: "SEV hash table",
    SEV_METADATA: "SEV metadata",
    HOB_ACPI_TABLE: "ACPI table",
    HOB_PAYLOAD_INFO: "payload info",
    HOB_E820_TABLE: "E820 table",
}


def name(stored: bytes) -> str:
    """The GUID stored in 16 bytes as text, with its name where it is known."""
    guid = UUID(bytes_le=stored)
    return f"{guid} ({NAMES[guid]})" if guid in NAMES else str(guid)
