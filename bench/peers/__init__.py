"""Other tools relative to ours: one file a tool, and the benchmark of them all.

Every tool runs in a child process of its own (`worker`), which the benchmark asks for one piece of
work at a time (`tool_process`), interleaved: ours, theirs, ours, theirs.
"""
