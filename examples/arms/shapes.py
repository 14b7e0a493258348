# shapes.py
import numpy as np


def ring(seed, radius):
    """One point (2,) of a circle, a little blurred."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi)
    return radius * np.array([np.cos(angle), np.sin(angle)]) + rng.normal(0, 0.1, 2)
