"""What does the TDX module speak? Leaves, statuses, what fixes a TD, metadata fields: each number once."""
