"""What is a processor here? Engine, memory, decoder, local APIC."""
