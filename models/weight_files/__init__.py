"""Reads a folder's weight files, one tensor at a time: safetensors, PyTorch's, or mlc-llm's."""
