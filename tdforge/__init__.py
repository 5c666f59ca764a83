"""What does a user type? One command line, thin over the language, the generator and the emulated TD."""

__version__ = "0.1.0"
