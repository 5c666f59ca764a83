"""Machine code that every firmware has: reset vector, page tables, IDT, TDCALL stubs, accept loop, fatal."""
