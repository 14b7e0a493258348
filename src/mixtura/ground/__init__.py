"""Numerics that the other rooms use and that depend on no model: generators, encoding, kernels, distributions, networks."""
