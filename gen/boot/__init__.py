"""What does every firmware have? Reset vector, page tables, IDT, TDCALL stubs, accept loop, fatal."""
