"""Can a VMM change what a payload is shown without a trace in the registers? An adversary that writes flows.

`scope` says what stands where in an accepted flow, `maker` writes typed expressions and statements,
`moves` and the files it builds on break rules on purpose, `hints` follows what the compiler advises,
`generator` makes flows of these. `trial` builds a flow and runs it under VMMs that differ only in what a
VMM may choose (`emu.oracle` compares), `shrink` makes a counterexample small, and
`interferencecampaign.py` beside this folder drives it all.
"""
