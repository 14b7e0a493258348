"""When `--certified` can stop: the proven bound on the excess after t pulls, in closed form.

    python benchmarks/stopping.py

For m arms asked equally often, r = √(m Δκ / t) (1 + √(2 log(4m t² / risk))) and the excess is at most 4 c r + r², with c = √Δκ,
or 2 √Δκ for a distance to a reference: what :meth:`mixtura.policies.selector.Selector.certificate` adds up then. Δκ = 1 of a
Gaussian kernel, risk 0.05. Losses of RKE lie between 0 and 1, MMD² between 0 and 2.
"""

from __future__ import annotations

import math

RISK, ARMS, PULLS, TOLERANCES = 0.05, (2, 8), (2_000, 20_000), (0.1, 0.01)


def excess(t: float, arms: int, length: float) -> float:
    """The bound after t pulls."""
    r = math.sqrt(arms / t) * (1 + math.sqrt(2 * math.log(4 * arms * t**2 / RISK)))
    return 4 * length * r + r**2


def pulls(tolerance: float, arms: int, length: float) -> float:
    """The least t with a bound of ``tolerance``."""
    low, high = 1.0, 1e18
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if excess(middle, arms, length) <= tolerance else (middle, high)
    return high


if __name__ == "__main__":
    titles = [f"after {t:,}" for t in PULLS] + [f"pulls for {x:g}" for x in TOLERANCES]
    print("objective  arms" + "".join(f"{title:>17}" for title in titles))
    for name, length in (("RKE", 1.0), ("MMD²", 2.0)):
        for arms in ARMS:
            bounds = "".join(f"{excess(t, arms, length):>17.2f}" for t in PULLS)
            print(f"{name:<9}{arms:>6}{bounds}" + "".join(f"{pulls(x, arms, length):>17.2g}" for x in TOLERANCES))
