"""What a user types: one command line, thin over the language, the generator and the emulated TD."""

__version__ = "0.1.0"
