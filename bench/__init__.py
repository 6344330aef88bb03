"""Measurements of a compiled model: `mvlm bench` and device reports; `studies/` write docs."""
