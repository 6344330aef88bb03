"""Constants of activations, for the graph, its kernels and other formats."""

# Of x * sigmoid(slope * x), CLIP's approximation of the GELU.
QUICK_GELU_SLOPE = 1.702
