"""The version, in the one place where all floors may read it."""

__version__ = "0.1.0"
