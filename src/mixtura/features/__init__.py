"""Samples as vectors that metrics, blends and selections compare: extractors, and the one feature space of a run."""
