"""What does a TD see, call by call and instruction by instruction? A conformance suite of small guests.

`harness` is one measured 64 KiB image: it keeps the registers of the reset vector, enters 64-bit mode, runs
the steps of a row (load all registers, run a few bytes, keep all registers and what the exception handler
saw) and prints the asked quadwords as hexadecimal lines through TDG.VP.VMCALL to COM1. Nothing in it knows
the emulator: the same images start in a real TD, and their serial output can be compared with the
expectations, which are literal numbers from the specification and the module's source.

`rows_*` hold the rows as data, `suite` collects them, `runner` runs one, `table` writes docs/conformance.md.
"""
