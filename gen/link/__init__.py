"""How do sources become one ELF file, and does the stack suffice?"""
