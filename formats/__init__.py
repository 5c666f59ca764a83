"""What do the bytes look like: one construct declaration per binary structure."""
