"""The devices of the VMM, one a file."""
