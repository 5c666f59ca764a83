"""From objects to an ELF file, and the proof that the stack suffices."""
