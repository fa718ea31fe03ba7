"""Kernels in Triton for CUDA, an option: `abs_top_k`, `sparse_product`.

Their modules import triton, so import them only after `choice.py` says so. Triton's interpreter
runs them on the CPU, for tests: the environment variable TRITON_INTERPRET=1 of a whole process.
"""
