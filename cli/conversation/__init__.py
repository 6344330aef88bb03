"""What the chat talks to: a model on this machine, or a server.

`conversation` has the protocol, which is all that the chat's loop knows; `local` and `remote`
satisfy it. `exchange` is a question with its answer.
"""
