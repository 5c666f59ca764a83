"""Which devices does the VMM have? One a file."""
