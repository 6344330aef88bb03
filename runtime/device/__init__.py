"""The devices that models run on: memory, and copies from and to the host.

`device` is what the runtime does with one; `find` has the device of each kind.
"""
