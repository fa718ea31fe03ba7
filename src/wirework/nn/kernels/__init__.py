"""Hand-written kernels and autograd functions, next to their plain reference versions."""
