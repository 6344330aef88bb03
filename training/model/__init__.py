"""The MobileVLM architecture in torch, for training, with the tensor names of the releases."""
