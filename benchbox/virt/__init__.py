"""Guests: libvirt in a process of its own, domain XML, the boot of one guest, the proof of an accelerator."""
