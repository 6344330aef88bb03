"""The devices that models run on: memory, copies from and to the host, what they must have.

`requirements` is what an artifact may ask of a device, and loads no library; `device` is what the
runtime does with one; `find` has the device of each kind. To add a kind: a module with its
`Device`, and an entry in the tables of `requirements` and `find`.
"""
