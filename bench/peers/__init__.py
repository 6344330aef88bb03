"""Other tools beside ours: one file a tool, and the contest between them.

Every tool runs in a child process of its own (`worker`), which the contest asks for one piece of
work at a time (`child`), in turns: ours, theirs, ours, theirs.
"""
