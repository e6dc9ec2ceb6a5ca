"""benchbox: what native, container and virtual machine cost on this very host."""

__version__ = "0.1.0"
