"""Tuning for a device: searches each kernel's knobs by measuring candidates on it."""
