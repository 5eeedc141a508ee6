"""Numba kernels (arrays in, arrays out) and the public bitmask helpers for numpy and torch.

Importing this package compiles nothing; importing one of its kernel modules imports numba.
"""
