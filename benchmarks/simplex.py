"""The quadratic of a mixture on the simplex: milliseconds beside general solvers, and the worst gap of 2,000 degenerate problems.

    python benchmarks/simplex.py

Problems: two thirds of the models are Gaussians somewhere in 10 dimensions with a Gaussian kernel, whose closed form gives Q; the
order-2 Rényi entropy (linear = 0) and MMD² to a mixture of all are taken in turn. "warm" starts from the weights of the problem
before 1 % of noise, as every pull of an online selection does. Times are the best of three, medians over problems, on one thread.
A ratio is a peer's time over ours, cold; peers that are not installed are left out. Peers solve the same problem to their default
tolerances with their usual call for one problem. Wanted: 0.1 ms or less for 8 models warm, 20 ms or less for 512 cold, and a
worst gap of 1e-12 or less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mixtura.simplex.quadratic import minimise_quadratic

Array = NDArray[np.float64]

#: models → problems timed
SIZES = {8: 60, 32: 40, 128: 12, 512: 6}
DEGENERATE = 2_000
PEERS = ("cvxpy", "clarabel", "osqp", "daqp")


def gaussian_arms(m: int, rng: np.random.Generator, dims: int = 10, width: float = 3.0) -> tuple[Array, Array]:
    """Q (m, m) = E k(X_i, X_j) of Gaussians with random means and scales; linear of MMD² to one more mixture of them."""
    means, variances = rng.normal(size=(m, dims)), rng.uniform(0.1, 0.8, m) ** 2
    spread = width**2 + variances[:, None] + variances
    squares = np.square(means[:, None] - means).sum(2)
    Q = (width**2 / spread) ** (dims / 2) * np.exp(-squares / (2 * spread))
    return Q, Q @ rng.dirichlet(np.full(m, 0.3))


def problems(m: int) -> list[tuple[Array, Array]]:
    """Entropy and MMD² in turn."""
    rng = np.random.default_rng(m)
    made = [gaussian_arms(m, rng) for _ in range(SIZES[m])]
    return [(Q, linear if i % 2 else np.zeros(m)) for i, (Q, linear) in enumerate(made)]


def noisy(Q: Array, rng: np.random.Generator) -> Array:
    """Q as it might be one batch of samples later, still positive semidefinite."""
    scales = 1 + 0.01 * rng.normal(size=len(Q))
    return scales[:, None] * Q * scales


def degenerate(seed: int) -> tuple[Array, Array]:
    """Duplicates, rank one and two, zero, ones, whole numbers; 1 to 40 models."""
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 41))
    A = rng.normal(size=(k, k))
    copies = A[:, rng.integers(0, max(1, k // 2), size=k)]
    whole = np.round(A)
    Q, steep = (
        (copies.T @ copies, copies.T @ rng.normal(size=k)),
        (np.outer(A[0], A[0]), 0.1 * A[0]),
        (A[:2].T @ A[:2], rng.normal(size=k)),
        (np.zeros((k, k)), rng.normal(size=k) * rng.integers(0, 2)),
        (np.ones((k, k)), np.ones(k)),
        (whole.T @ whole, np.round(A[0])),
        ((near := copies + 1e-9 * A).T @ near, near.T @ near @ rng.dirichlet(np.ones(k))),
        (1e-12 * A.T @ A, 1e-12 * rng.normal(size=k)),
    )[seed % 8]
    return Q, steep


def milliseconds(call: Callable[[], Any]) -> float:
    """The best of three calls: other programs only ever add to a time."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1e3 * min(times)


def with_cvxpy(cvxpy: Any, Q: Array, linear: Array) -> Callable[[], Any]:
    """Model and solve, as its users do."""

    def solve() -> None:
        w = cvxpy.Variable(len(Q), nonneg=True)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.quad_form(w, cvxpy.psd_wrap(Q)) - 2 * linear @ w), [cvxpy.sum(w) == 1]).solve()

    return solve


def with_clarabel(clarabel: Any, Q: Array, linear: Array) -> Callable[[], Any]:
    """Σw = 1 in the zero cone, −w ≤ 0."""
    sparse, k = import_module("scipy.sparse"), len(Q)

    def solve() -> None:
        A = sparse.csc_matrix(np.vstack([np.ones((1, k)), -np.eye(k)]))
        settings = clarabel.DefaultSettings()
        settings.verbose = False
        cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(k)]
        P = sparse.triu(sparse.csc_matrix(2 * Q), format="csc")
        clarabel.DefaultSolver(P, -2 * linear, A, np.append(1.0, np.zeros(k)), cones, settings).solve()

    return solve


def with_osqp(osqp: Any, Q: Array, linear: Array) -> Callable[[], Any]:
    """l ≤ Aw ≤ u."""
    sparse, k = import_module("scipy.sparse"), len(Q)

    def solve() -> None:
        A = sparse.csc_matrix(np.vstack([np.ones((1, k)), np.eye(k)]))
        solver = osqp.OSQP()
        P = sparse.triu(sparse.csc_matrix(2 * Q), format="csc")
        lower, upper = np.append(1.0, np.zeros(k)), np.ones(k + 1)
        solver.setup(P, -2 * linear, A, lower, upper, verbose=False)
        solver.solve()

    return solve


def with_daqp(daqp: Any, Q: Array, linear: Array) -> Callable[[], Any]:
    """Bounds first, then Σw; sense 5 is equality. It asks for a positive definite Q."""
    k = len(Q)
    H, f = 2 * Q + 1e-9 * np.eye(k), -2 * linear
    upper, lower = np.ones(k + 1), np.append(np.zeros(k), 1.0)
    sense = np.append(np.zeros(k), 5).astype(np.int32)
    return lambda: daqp.solve(H, f, np.ones((1, k)), upper, lower, sense)


CALLS: dict[str, Callable[[Any, Array, Array], Callable[[], Any]]] = {
    "cvxpy": with_cvxpy, "clarabel": with_clarabel, "osqp": with_osqp, "daqp": with_daqp,
}  # fmt: skip


def installed() -> dict[str, Any]:
    """Peers by name; those that are absent are named on the screen."""
    found = {}
    for name in PEERS:
        try:
            found[name] = import_module(name)
        except ImportError:
            print(f"{name} is not installed and is left out; pip install {name}")
    return found


@threadpool_limits.wrap(limits=1)
def main() -> None:
    """Print both."""
    peers = installed()
    names = [f"{name:>10}" for name in peers]
    print(f"{'models':>6} {'weights > 0':>12} {'cold ms':>9} {'warm ms':>9} {'worst gap':>10}", *names)
    for m in SIZES:
        rng = np.random.default_rng(0)
        cold, warm, gaps, used = [], [], [], []
        beside: dict[str, list[float]] = {name: [] for name in peers}
        for i, (Q, linear) in enumerate(problems(m)):
            found = minimise_quadratic(Q, linear)
            later, start = noisy(Q, rng), np.array(found.weights)
            cold.append(milliseconds(lambda Q=Q, linear=linear: minimise_quadratic(Q, linear)))
            warm.append(milliseconds(lambda Q=later, f=linear, a=start: minimise_quadratic(Q, f, start=a, psd=True)))
            gaps.append(found.gap / max(np.abs(Q).max(), np.abs(linear).max()))
            used.append(sum(w > 0 for w in found.weights))
            for name, module in peers.items():
                # two are enough where a peer takes seconds
                if i < 2 or m < 512:
                    beside[name].append(milliseconds(CALLS[name](module, Q, linear)))
        ratios = (f"{statistics.median(beside[name]) / statistics.median(cold):9.2f}x" for name in peers)
        middle = [statistics.median(x) for x in (used, cold, warm)]
        print(f"{m:6d} {middle[0]:12.0f} {middle[1]:9.3f} {middle[2]:9.3f} {max(gaps):10.1e}", *ratios)
    relative = []
    for seed in range(DEGENERATE):
        Q, linear = degenerate(seed)
        relative.append(minimise_quadratic(Q, linear).gap / (max(np.abs(Q).max(), np.abs(linear).max()) or 1.0))
    print(f"worst gap of {DEGENERATE} degenerate problems, relative to the largest coefficient: {max(relative):.1e}")


if __name__ == "__main__":
    main()
