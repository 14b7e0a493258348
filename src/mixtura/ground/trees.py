"""Forests as tensors: many decision trees in a few arrays, evaluated for all rows and all trees at once.

:meth:`Forest.of` copies a forest fitted by scikit-learn, node by node, and sends every row to the same leaf as scikit-learn does,
including ties at thresholds and missing values (NaN). A forest consists of tensors only: saving its ``state_dict`` is enough.

Leaves hold values of any shape: the mean of a regression, the step of a boosted tree, the order statistics of a distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestRegressor,
)
from sklearn.exceptions import NotFittedError
from sklearn.tree import DecisionTreeRegressor
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from mixtura.contracts import InputError

#: rows × trees that are evaluated at a time, so that their data stay in the processor's cache
TILE_ENTRIES = 2**17
#: steps down the trees between two checks for rows that have reached a leaf
STEPS = 4

#: buffer → (its number of axes, its dtype); None: any number, one at least
LAYOUT = {
    "feature": (1, torch.int32),
    "threshold": (1, torch.float64),
    "missing_left": (1, torch.bool),
    "left": (1, torch.int32),
    "roots": (1, torch.int32),
    "value": (None, torch.float64),
    "baseline": (None, torch.float64),
    "width": (0, torch.int64),
}


class Forest(nn.Module):
    """T trees with N nodes and L leaves in all, for rows of ``width`` numbers.

    feature:      (N,) int32, the column that a node compares.
    threshold:    (N,) float64: a number ≤ threshold goes to the left child, a greater one to the right child.
    missing_left: (N,) bool: NaN goes to the left child, else to the right one.
    left:         (N,) int32, the node that is the left child; the right child is the next node. Children come after their
                  parent, so no path is endless. A leaf has its own number here, threshold +∞ and missing_left: every row stays.
    roots:        (T,) int32, the first node of every tree.
    value:        (L, *payload) float64, the values of the leaves, in the order of their nodes.
    baseline:     (K, *payload) float64, the start value of :meth:`predict`; tree t adds to its row t mod K (K classes).
    width:        () int64.

    InputError if these tensors are not a forest. They are checked when a forest is built or loaded, and whenever it is used.
    """

    feature: Tensor
    threshold: Tensor
    missing_left: Tensor
    left: Tensor
    roots: Tensor
    value: Tensor
    baseline: Tensor
    width: Tensor

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        if wrong := sorted(set(tensors) ^ set(LAYOUT)):
            raise InputError(f"a forest: expected the tensors {', '.join(LAYOUT)}; {wrong[0]!r} is unexpected or missing")
        for name in LAYOUT:
            self.register_buffer(name, tensors[name])
        self._check()

    @classmethod
    def blank(cls, width: int, trees: int = 1, payload: Sequence[int] = ()) -> Forest:
        """``trees`` trees for rows of ``width`` numbers, each a single leaf of value 0, into which a state can be loaded."""
        return cls(
            feature=torch.zeros(1, dtype=torch.int32),
            threshold=torch.full((1,), torch.inf, dtype=torch.float64),
            missing_left=torch.ones(1, dtype=torch.bool),
            left=torch.zeros(1, dtype=torch.int32),
            roots=torch.zeros(trees, dtype=torch.int32),
            value=torch.zeros(1, *payload, dtype=torch.float64),
            baseline=torch.zeros(1, *payload, dtype=torch.float64),
            width=torch.tensor(width),
        )

    @classmethod
    def of(cls, model: Any) -> Forest:
        """The trees of a fitted scikit-learn model.

        DecisionTreeRegressor, RandomForestRegressor, ExtraTreesRegressor: leaves hold the mean target, payload () or, with
        several targets, (targets,); ``predict(x) / trees`` is the model's prediction.
        HistGradientBoostingRegressor, HistGradientBoostingClassifier: leaves hold steps, learning rate included;
        ``predict(x)`` (n, K) is the raw prediction: ``decision_function``, or the ``predict`` of a regression whose loss has
        no link function.

        InputError on any other object, a model that is not fitted, and one with categorical features.
        """
        boosted = isinstance(model, (HistGradientBoostingRegressor, HistGradientBoostingClassifier))
        if not boosted and not isinstance(model, (DecisionTreeRegressor, RandomForestRegressor, ExtraTreesRegressor)):
            raise InputError(
                "a forest: expected a tree or forest regressor or a HistGradientBoosting model of scikit-learn, "
                f"got {type(model).__name__}"
            )
        try:
            check_is_fitted(model)
        except NotFittedError as error:
            raise InputError(f"a forest: this {type(model).__name__} has no trees yet; fit it first") from error
        if boosted:
            # scikit-learn moves categorical columns to the front and recodes them
            if model.is_categorical_ is not None:
                raise InputError(
                    f"a forest: this {type(model).__name__} splits by categories, expected numeric columns; "
                    "give each category a column of 0 and 1"
                )
            trees = [_boosted(predictor.nodes) for of_round in model._predictors for predictor in of_round]
            baseline = np.asarray(model._baseline_prediction, dtype=np.float64).reshape(-1)
        else:
            single = isinstance(model, DecisionTreeRegressor)
            trees = [_grown(tree.tree_) for tree in cast(Any, [model] if single else model.estimators_)]
            baseline = np.zeros((1, *trees[0]["value"].shape[1:]))
        return cls(**_flat(trees), baseline=torch.as_tensor(baseline), width=torch.tensor(cast(Any, model).n_features_in_))

    @classmethod
    def join(cls, forests: Sequence[Forest]) -> Forest:
        """The trees of several forests, one forest after the other; its prediction is the sum of their predictions.

        InputError unless width, payload and number of baselines are the same for all.
        """
        kinds = {(int(f.width), tuple(f.baseline.shape)) for f in forests}
        if len(kinds) != 1:
            got = ", ".join(f"width {width} with baseline {shape}" for width, shape in sorted(kinds)) or "none"
            raise InputError(f"a forest: expected forests of one width and one shape of values to join, got {got}")
        nodes = np.cumsum([0, *(len(f.left) for f in forests)]).tolist()

        def unchanged(name: str) -> Tensor:
            return torch.cat([getattr(f, name) for f in forests])

        def shifted(name: str) -> Tensor:
            return torch.cat([getattr(f, name) + first for f, first in zip(forests, nodes, strict=False)])

        return cls(
            **{name: unchanged(name) for name in ("feature", "threshold", "missing_left", "value")},
            **{name: shifted(name) for name in ("left", "roots")},
            baseline=torch.stack([f.baseline for f in forests]).sum(0),
            width=forests[0].width,
        )

    def holding(self, value: Tensor) -> Forest:
        """The same trees with the values (L, *payload) in the leaves, and a baseline of 0. InputError if L is wrong."""
        tensors = {name: getattr(self, name) for name in LAYOUT}
        return Forest(**tensors | {"value": value, "baseline": torch.zeros_like(value[:1])})

    @property
    def trees(self) -> int:
        """T, the number of trees."""
        return len(self.roots)

    # ----------------------------------------------------------------------------------------- using it

    def leaves(self, x: Tensor) -> Tensor:
        """Rows x (n, width) → (n, T) int64: for every tree the leaf that a row reaches, as a row number of ``value``.

        O(n · T · depth). InputError if x has another width.
        """
        self._check()
        x, feature = self._readable(x)
        tile = max(1, TILE_ENTRIES // max(self.trees, x.shape[1]))
        return self._number()[torch.cat([self._walk(part, feature, self.roots.expand(len(part), -1)) for part in x.split(tile)])]

    def sum_of(self, x: Tensor, trees: Tensor) -> Tensor:
        """Rows x (n, width), and for every row the numbers of some trees (n, m) → (n, *payload), the sum of the values of the
        leaves that it reaches in these trees. InputError if x has another width."""
        self._check()
        x, feature = self._readable(x)
        tile, number = max(1, TILE_ENTRIES // max(trees.shape[1], x.shape[1])), self._number()
        total = [self.value.new_zeros(0, *self.value.shape[1:])]
        for part, chosen in zip(x.split(tile), trees.split(tile), strict=True):
            total.append(self.value[number[self._walk(part, feature, self.roots[chosen])]].sum(1))
        return torch.cat(total)

    def _readable(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (n, width) → rows in which every comparison is one of numbers, and the column that each node compares in them."""
        width = int(self.width)
        if not isinstance(x, Tensor) or x.dim() != 2 or x.shape[1] != width:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise InputError(f"x: expected shape (n, {width}), the columns that the forest was fitted on, got {got}")
        x, feature = x.double(), self.feature
        if x.isnan().any():
            # a node that sends NaN to the left reads a second copy of the columns, in which NaN is −∞; in the first copy NaN is
            # ≤ no threshold and goes to the right
            x, feature = torch.cat([x, x.masked_fill(x.isnan(), -torch.inf)], 1), feature + width * self.missing_left.int()
        return x, feature

    def _number(self) -> Tensor:
        """(N,) the row numbers in ``value`` of the nodes that are leaves."""
        return (self.left == torch.arange(len(self.left), device=self.left.device)).cumsum(0) - 1

    def _walk(self, x: Tensor, feature: Tensor, roots: Tensor) -> Tensor:
        """Rows x (n, p), and the roots (n, m) of m trees for each → (n, m) the nodes of their leaves, where node i compares
        column ``feature`` [i]."""
        (n, p), index = x.shape, self.left.dtype
        x = x.flatten()
        # all rows in the first tree, then all rows in the second: the few nodes of a tree stay in the cache
        node = arrived = roots.T.flatten().clone()
        row = (torch.arange(n, dtype=index, device=x.device) * p).repeat(roots.shape[1])
        # positions in ``arrived`` of the rows that have not reached a leaf
        place = torch.arange(len(node), device=x.device)
        while len(node):
            before = node
            for _ in range(STEPS):
                before = node
                seen = x.index_select(0, feature.index_select(0, node).add_(row))
                # not "seen > threshold", which is False for NaN
                right = torch.le(seen, self.threshold.index_select(0, node)).logical_not_()
                node = self.left.index_select(0, node).add_(right)
            walking = (node != before).nonzero().squeeze(1)
            if 2 * len(walking) < len(node):
                arrived[place] = node
                node, row, place = node[walking], row[walking], place[walking]
        return arrived.view(roots.shape[1], n).T

    def values(self, x: Tensor) -> Tensor:
        """Rows x (n, width) → (n, T, *payload), the values of their leaves. InputError if x has another width."""
        return self.value[self.leaves(x)]

    def predict(self, x: Tensor) -> Tensor:
        """Rows x (n, width) → (n, K, *payload), the baseline plus the sum over trees of the values of their leaves.

        InputError if x has another width.
        """
        leaves = self.leaves(x)
        total = self.baseline.expand(len(x), *self.baseline.shape)
        # one tree after the other, in the order of scikit-learn: only then has the sum the same bits
        for number in leaves.split(len(self.baseline), 1):
            total = total + self.value[number]
        return total

    # ---------------------------------------------------------------------------------- checking the tensors

    def read_columns(self, columns: Sequence[int], width: int) -> Forest:
        """The same trees for rows of ``width`` numbers, of which they read ``columns`` as those that they were fitted on."""
        tensors = {name: getattr(self, name) for name in LAYOUT}
        feature = torch.tensor(list(columns), dtype=torch.int32)[self.feature.long()]
        return Forest(**tensors | {"feature": feature, "width": torch.tensor(width)})

    def _check(self) -> None:
        """InputError unless the buffers are a forest: they may come from any file."""
        for name, (axes, dtype) in LAYOUT.items():
            tensor = getattr(self, name)
            if tensor.dtype != dtype or (tensor.dim() != axes if axes is not None else tensor.dim() == 0):
                expected = f"{'some' if axes is None else axes} axes of {dtype}"
                raise InputError(f"a forest: {name} is {tensor.dtype} {tuple(tensor.shape)}, expected {expected}; fit it again")
        own, width = torch.arange(len(self.left), device=self.left.device), int(self.width)
        sizes = {name: len(getattr(self, name)) for name in ("feature", "threshold", "missing_left", "left")}
        if len(set(sizes.values())) != 1:
            raise InputError(f"a forest: expected tensors of one length, one entry a node, got {sizes}; fit it again")
        leaf = self.left == own
        inner = (self.left > own) & (self.left < len(own) - 1)
        stays = leaf & (self.threshold == torch.inf) & self.missing_left
        sound = (inner | stays) & ~self.threshold.isnan() & (self.feature >= 0) & (self.feature < width)
        if not sound.all():
            i = int((~sound).nonzero()[0])
            raise InputError(
                f"a forest: node {i} of {len(own)} has feature {int(self.feature[i])} of {width}, threshold "
                f"{float(self.threshold[i]):g} and left child {int(self.left[i])}, which is not valid; fit it again"
            )
        if not self.trees or bool(((self.roots < 0) | (self.roots >= len(own))).any()):
            got = self.roots[:9].tolist()
            raise InputError(f"a forest: expected one root or more among {len(own)} nodes, got {got}; fit it again")
        leaves, outputs = int(leaf.sum()), len(self.baseline)
        if len(self.value) != leaves or self.value.shape[1:] != self.baseline.shape[1:]:
            raise InputError(
                f"a forest: value has shape {tuple(self.value.shape)}, expected "
                f"{(leaves, *self.baseline.shape[1:])}, one row for each leaf, shaped like a row of baseline; fit it again"
            )
        if not outputs or self.trees % outputs:
            raise InputError(f"a forest: expected {outputs} trees for each round, got {self.trees} in all; fit it again")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Load a state with any number of nodes, trees and leaves: the buffers are resized to it."""
        given = {name: state_dict[prefix + name] for name in LAYOUT if prefix + name in state_dict}
        # PyTorch reports missing names itself, together with those of other modules
        if len(given) == len(LAYOUT):
            for name, tensor in Forest(**given).named_buffers():
                setattr(self, name, torch.empty_like(tensor, device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *rest)


# --------------------------------------------------------------------------------------- trees of scikit-learn

#: arrays over the nodes of one tree, by name, in scikit-learn's order; a leaf has left < 0
_Nodes = dict[str, NDArray[Any]]


def _grown(tree: Any) -> _Nodes:
    """The nodes of a ``tree_``, which rounds inputs to float32 before it compares them."""
    value = tree.value[:, :, 0]
    return {
        "feature": tree.feature,
        "threshold": _unrounded(tree.threshold),
        "missing_left": tree.missing_go_to_left,
        "left": tree.children_left,
        "right": tree.children_right,
        "value": value[:, 0] if value.shape[1] == 1 else value,
    }


def _boosted(nodes: NDArray[Any]) -> _Nodes:
    """The nodes of a HistGradientBoosting predictor, which compares inputs in float64."""
    leaf = nodes["is_leaf"] != 0
    return {
        "feature": nodes["feature_idx"],
        "threshold": nodes["num_threshold"],
        "missing_left": nodes["missing_go_to_left"],
        "left": np.where(leaf, -1, nodes["left"].astype(np.int64)),
        "right": nodes["right"].astype(np.int64),
        "value": nodes["value"],
    }


def _unrounded(threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Thresholds t (N,) → (N,) t' such that x ≤ t' in float64 exactly where float32(x) ≤ t.

    Let f be the greatest float32 ≤ t and g the next one. x rounds to f or below if it is less than their midpoint, or if it
    equals the midpoint and f is the even one of the two.
    """
    with np.errstate(over="ignore"):
        f = threshold.astype(np.float32)
    f = np.where(f > threshold, np.nextafter(f, np.float32(-np.inf)), f)
    g = np.nextafter(f, np.float32(np.inf))
    # numbers beyond the greatest float32 round as if 2^128 were the next float32
    middle = (np.clip(f.astype(np.float64), -(2.0**128), 2.0**128) + np.clip(g.astype(np.float64), -(2.0**128), 2.0**128)) / 2
    limit = np.where(f.view(np.int32) % 2 == 0, middle, np.nextafter(middle, -np.inf))
    return np.where(np.isinf(threshold), threshold, limit)


def _flat(trees: Sequence[_Nodes]) -> dict[str, Tensor]:
    """The nodes of all trees in the order of :class:`Forest`: tree after tree, level after level, siblings together."""
    sizes = [len(tree["left"]) for tree in trees]
    roots = np.cumsum([0, *sizes])[:-1]
    tree_of = np.repeat(np.arange(len(trees)), sizes)
    nodes = {name: np.concatenate([tree[name] for tree in trees]) for name in trees[0]}
    leaf = nodes["left"] < 0
    children = np.stack([nodes["left"], nodes["right"]], 1) + roots[tree_of][:, None]
    levels = [roots]
    while len(levels[-1]):
        levels.append(children[levels[-1][~leaf[levels[-1]]]].reshape(-1))
    order = np.concatenate(levels)
    order = order[np.argsort(tree_of[order], kind="stable")]
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    leaf, own = leaf[order], np.arange(len(order))
    left = np.where(leaf, own, place[np.where(leaf, 0, children[order, 0])])
    return {
        "feature": torch.as_tensor(np.where(leaf, 0, nodes["feature"][order]).astype(np.int32)),
        "threshold": torch.as_tensor(np.where(leaf, np.inf, nodes["threshold"][order])),
        "missing_left": torch.as_tensor(leaf | (nodes["missing_left"][order] != 0)),
        "left": torch.as_tensor(left.astype(np.int32)),
        "roots": torch.as_tensor(place[roots].astype(np.int32)),
        "value": torch.as_tensor(nodes["value"][order[leaf]].astype(np.float64)),
    }
