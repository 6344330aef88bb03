"""What runs on the device: artifact, images, tokens, engine and chat.

Nothing here imports tvm, torch or the packages that compile.
"""
