"""A processor: engine, memory, decoder, local APIC."""
