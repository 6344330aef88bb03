"""Measurements of a compiled model, and how they are taken."""
