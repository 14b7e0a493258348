"""Detectors that are fitted to the same rows: :class:`Panel`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from mixtura import detectors
from mixtura.contracts import Batch, ClosedForm, Energy, InputError, Model, Space, density_kind
from mixtura.data.kind import DataKind
from mixtura.data.schema import Schema
from mixtura.detectors.blended import Blended
from mixtura.detectors.detector import Detector
from mixtura.detectors.nats import OfModel
from mixtura.detectors.reasons import OddCells
from mixtura.detectors.scale import Scale
from mixtura.families import TABLE as FAMILIES
from mixtura.features.space import FeatureSpace
from mixtura.folder.io import read_tensors, write_tensors
from mixtura.folder.models import load_model, save_model
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.train.fit import Recipe, fit

#: the detector of odd cells, and the family of models it asks
ODD_CELLS, ODD_CELLS_OF = "odd_cells", "circuit"
#: seconds that a family which trains by gradients has
SECONDS = 20.0


class Panel:
    """Detectors by name, fitted to rows x (n, *shape) in data units that the schema describes.

    ``features``: as of :func:`mixtura.evaluate`, for the detectors that compare features; None: standardised columns of tables,
    principal components of images. ``failed``: name → why a detector was left out.
    """

    def __init__(self, schema: DataKind, x: Tensor, features: str | None, seed: int) -> None:
        self.schema, self.x, self.seed = schema, x, seed
        plain = isinstance(schema, Schema) and features is None
        self.space = Scale(schema.space, x) if plain else FeatureSpace.of_rows(schema, x, features, seed=seed)
        self.detectors: dict[str, Detector] = {}
        self.failed: dict[str, str] = {}

    def fit(self, names: Collection[str]) -> Self:
        """Fit detectors. InputError if one alone is asked for and fails, or if all fail."""
        for name in names:
            made = self.make(name)
            try:
                self.detectors[name] = made.fit(self._seen(made, self.x), generator(self.seed, "detector", name))
            except (InputError, ArithmeticError, ValueError, RuntimeError) as error:
                self.failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
                if len(names) == 1:
                    raise error if isinstance(error, InputError) else InputError(f"{name}: {self.failed[name]}") from error
        if not self.detectors:
            raise InputError(f"blend: no detector works on these rows ({'; '.join(self.failed.values())})")
        return self

    def make(self, name: str) -> Detector:
        """A detector that is not fitted yet."""
        if name == ODD_CELLS:
            return OddCells(_trained(ODD_CELLS_OF, self.schema.space))
        return detectors.TABLE[name].make() if name in detectors.TABLE else OfModel(_trained(name, self.schema.space))

    def scores(self, x: Tensor) -> Tensor:
        """(n, *shape) rows in data units → (n, J)."""
        features = self.space(x).double() if any(d.sees == "features" for d in self.detectors.values()) else x
        return torch.stack([d.score(x if d.sees == "rows" else features) for d in self.detectors.values()], 1)

    def _seen(self, detector: Detector, x: Tensor) -> Tensor:
        return x if detector.sees == "rows" else self.space(x).double()

    # ------------------------------------------------------------------------------------------------------- files

    def save(self, folder: Path) -> None:
        """Models and tensors, one place for each detector; a detector without a state of its own leaves nothing."""
        for name, found in self.detectors.items():
            if isinstance(found, OfModel):
                family = ODD_CELLS_OF if name == ODD_CELLS else name
                n = len(self.x) - (found.usual(self.x) if isinstance(found, OddCells) else 0)
                config = FAMILIES[family].suggest(self.schema.space, n, SECONDS)
                save_model(folder / name, found.model, family, config.model_dump(mode="json"))
            elif (state := found.state()) is not None:
                write_tensors(folder / f"{name}.safetensors", {k: v.contiguous() for k, v in state.items()})

    def restore(self, folder: Path, names: Collection[str]) -> Self:
        """The detectors that :meth:`save` wrote; those that left nothing are fitted again, to the same bits."""
        for name in names:
            made = self.make(name)
            if isinstance(made, OfModel):
                model = load_model(folder / name, self.schema.space, {})
                encoding = Columns(self.schema.space)
                encoding.prepare(self.x)
                self.detectors[name] = made.hold(model, encoding)
                if isinstance(made, OddCells):
                    made.beside(self.x)
            elif (path := folder / f"{name}.safetensors").is_file():
                self.detectors[name] = made.restore(read_tensors(path))
            else:
                self.detectors[name] = made.fit(self._seen(made, self.x), generator(self.seed, "detector", name))
        return self


def strangest_left_out(make: Callable[[Tensor], Panel], x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """The rows x without the share of them that is strangest to the others: each half is scored by a panel of the other half."""
    order = torch.randperm(len(x), generator=rng)
    halves, kept = (order[::2], order[1::2]), []
    for here, there in (halves, halves[::-1]):
        scores = make(x[there]).scores(x[here])
        strange = Blended(scores)(scores, calibration=True)
        kept.append(here[strange.argsort()[: len(here) - math.floor(share * len(here))]])
    return x[torch.cat(kept).sort().values]


def _trained(name: str, space: Space) -> Callable[[Tensor, torch.Generator], tuple[Model, Columns]]:
    """Trains a model of a family on rows in data units; gives it with its encoding. InputError if it gives neither nats nor an
    energy."""

    def train(x: Tensor, rng: torch.Generator) -> tuple[Model, Columns]:
        row, encoding = FAMILIES[name], Columns(space)
        encoding.prepare(x)
        model = row.build(space, encoding=encoding, config=row.suggest(space, len(x), SECONDS), rng=rng)
        if density_kind(model) is None and not isinstance(model, Energy):
            raise InputError(f"method: {name} can only be sampled: it says of no row how strange it is; choose another")
        if isinstance(model, ClosedForm):
            model.fit_closed(x, None, rng)
        else:
            recipe = Recipe(**{**row.recipe, **model.recipe, "seconds": SECONDS})
            for _ in fit(model, Batch(x=x), recipe, rng=rng):
                pass
        return model.eval(), encoding

    return train
