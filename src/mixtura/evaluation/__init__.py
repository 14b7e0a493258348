"""Two sets of rows or images without a model: every metric with its error, and whether and where they differ."""

from mixtura.evaluation.difference import Difference, compare
from mixtura.evaluation.scores import evaluate

__all__ = ["Difference", "compare", "evaluate"]
