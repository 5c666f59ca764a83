"""Which commands are there? Each file is one: its options, its work, its words."""
