"""Models made of models when they are sampled: a blend of them, weights that depend on the context, gaps that they fill."""
