"""What does each VMM put into the TD, and where? One file a VMM: how it loads a kernel, its ACPI tables."""
