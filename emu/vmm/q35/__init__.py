"""What machine is QEMU's q35? Its fw_cfg items, its ACPI tables and its devices put together."""
