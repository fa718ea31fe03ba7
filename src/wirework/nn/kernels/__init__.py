"""Hand-written kernels and autograd functions, beside their plain references."""
