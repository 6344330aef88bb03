"""Tuning for a device: which of a kernel's open numbers make it fast there, found by measuring."""
