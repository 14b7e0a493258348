"""Policies choose which arm to ask next. A policy is a class with ``choose``, and one line in :data:`TABLE`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mixtura.contracts import InputError
from mixtura.policies import bandit
from mixtura.policies.bandit import Policy
from mixtura.policies.sparse import Sparse

__all__ = ["TABLE", "Row", "of_name"]


@dataclass(frozen=True)
class Row:
    """One line of the table. learns_mixture: whether the weights can hold more than one arm. needs_truth: whether the policy
    needs the true objective, which only an experiment has."""

    name: str
    make: Callable[[], Policy]
    learns_mixture: bool
    needs_truth: bool
    summary: str


def _cab_code() -> Policy:
    return bandit.Cab("code")


def _ogd_code() -> Policy:
    return bandit.Ogd("code")


TABLE: dict[str, Row] = {
    row.name: row
    for row in (
        Row("variance_ucb", bandit.VarianceUcb, True, False, "optimism from the measured deviation, and tracking: the default"),
        Row("cab", bandit.Cab, True, False, "Mixture-UCB-CAB with the constants of the theory"),
        Row("cab_code", _cab_code, True, False, "Mixture-UCB-CAB with the constants of its authors' code"),
        Row("ogd", bandit.Ogd, True, False, "Mixture-UCB-OGD with the constants of the theory"),
        Row("ogd_code", _ogd_code, True, False, "Mixture-UCB-OGD with the constants of its authors' code"),
        Row("greedy", bandit.Greedy, True, False, "no optimism: fast, and unsafe where arms differ little"),
        Row("epsilon_greedy", bandit.EpsilonGreedy, True, False, "greedy with random pulls that become rarer"),
        Row("sparse", Sparse, True, False, "the default with at most three arms in the mixture"),
        Row("uniform", bandit.Uniform, True, False, "each arm equally often; weights from the samples seen"),
        Row("vanilla_ucb", bandit.VanillaUcb, False, False, "the best single arm by upper confidence bounds"),
        Row("successive_halving", bandit.SuccessiveHalving, False, False, "the best single arm by halving the field"),
        Row("one_arm_oracle", bandit.OneArmOracle, False, True, "the truly best single arm"),
        Row("mixture_oracle", bandit.MixtureOracle, True, True, "the truly best mixture"),
    )
}


def of_name(name: str) -> Policy:
    """A new policy of this name. Raises InputError, which lists the names, if there is none."""
    if name not in TABLE:
        raise InputError(f"policy: {name!r} is unknown, expected one of {', '.join(TABLE)}; choose one of these")
    return TABLE[name].make()
