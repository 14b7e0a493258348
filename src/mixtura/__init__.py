"""mixtura: which generative model, or which blend, is best on rows never seen.

>>> import mixtura
>>> study = mixtura.run("penguins", families=["marginals", "gaussian_mixture"], budget="60s")
>>> len(study.best.sample(5, seed=0))
5

Names are loaded when first used, so that ``import mixtura`` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "run": "job.start", "evaluate": "evaluation.scores", "compare": "evaluation.difference",
    "Difference": "evaluation.difference", "load": "study.study", "replay": "job.replay",
    "Study": "study.study", "FittedModel": "study.fitted",
    "InputError": "contracts", "Space": "contracts", "Column": "contracts", "Model": "contracts", "ClosedForm": "contracts",
    "Density": "contracts", "LowerBound": "contracts", "Conditional": "contracts", "Conditioned": "contracts",
    "Latent": "contracts", "NoisyDecoder": "contracts", "Stepwise": "contracts", "Reparameterised": "contracts", "Scored":
    "contracts", "Energy": "contracts", "Learner": "contracts", "Stage": "contracts", "Phase": "contracts",
    "Optimiser": "contracts", "Turn": "contracts", "Batch": "contracts", "single_stage": "contracts",
    "mix": "mixing", "pareto": "mixing", "Weights": "simplex.weights", "Selector": "policies.selector",
    "select": "selection.start",
    **dict.fromkeys(("RKE", "MMD", "KID", "Precision", "LogLikelihood", "Cost", "Frechet", "Vendi", "FLD"),
        "objectives.terms"),
    "AnomalyDetector": "estimators.anomaly_detector",
    "DensityRatio": "estimators.density_ratio", "MixtureDensityRegressor": "estimators.mixture_density",
    "MixtureDensity": "ground.distributions", "MixtureDensityHead": "ground.nets.heads",
    "fit": "train.fit", "Recipe": "train.fit", "blend": "blending.blend", "stack": "simplex.stacking",
}  # fmt: skip

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixtura' has no attribute {name!r}")
    return getattr(import_module(f"mixtura.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
