"""What runs on the device: artifact, pictures, tokens, session and chat.

Nothing here imports tvm, torch or the packages that compile.
"""
