"""The models of a finished run as an anomaly detector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

import torch

from mixtura.contracts import CellDensity, InputError
from mixtura.data.schema import Schema
from mixtura.detectors import conformal
from mixtura.detectors.blended import MixedNats
from mixtura.detectors.detector import finite
from mixtura.detectors.nats import OfModel
from mixtura.detectors.reasons import Reasons
from mixtura.detectors.replaced import Replaced
from mixtura.estimators.panel import ODD_CELLS_OF, Panel
from mixtura.folder.layout import RunFolder
from mixtura.ground.encode import Columns
from mixtura.ground.rng import generator
from mixtura.train.devices import one_thread

if TYPE_CHECKING:
    from mixtura.estimators.anomaly_detector import AnomalyDetector

T = TypeVar("T", bound="AnomalyDetector")

#: rows that are drawn from the choice: they stand for normal rows where reasons are asked for
DRAWN = 1_000


def of_run(cls: type[T], folder: str | Path, method: str, level: float | None, seed: int) -> T:
    """See :meth:`AnomalyDetector.of_run`."""
    run = RunFolder.finished(folder)
    columns = run.schema()
    if columns.inputs is not None:
        raise InputError(f"{folder}: is a run with targets, whose nats are of these alone; give a run of all columns")
    nats, verdicts = run.nats().report, run.verdict().verdicts
    if "nats" not in verdicts or not nats:
        raise InputError(f"{folder}: no model of this run has a density; run again with a family that has one")
    verdict, schema = verdicts["nats"], columns.modelled
    weights = {name: w for name, w in verdict.weights.items() if w > 0} if verdict.choice == "blend" else {verdict.choice: 1.0}
    if method != "blend":
        if method not in nats or len(nats[method]) != verdict.rows:
            able = [name for name, of in nats.items() if len(of) == verdict.rows]
            raise InputError(f"method: no {method!r} with nats of all report rows in this run; give blend, {', '.join(able)}")
        weights = {method: 1.0}
    made = cls(method, false_alarms=level, random_state=seed)
    rate = made._level()
    m = verdict.rows
    if rate is not None and conformal.needed(rate) > m:
        raise InputError(
            f"false_alarms: {rate:.3g} needs {conformal.needed(rate):,} calibration rows, but the run has {m:,} report rows; "
            f"give {conformal.least_level(m):.2g} or more"
        )
    with one_thread():
        models = {name: run.model(name, schema.space, {}) for name in weights}
        largest = models[max(weights, key=lambda name: weights[name])]
        normal = schema.space.clamp(largest.sample(DRAWN, rng=generator(seed, "normal rows")).double())
        made.schema_, made._normal_, made._panel_ = schema, normal, Panel(schema, normal, None, seed)
        made._panel_.detectors = {name: OfModel(_again).hold(model, Columns(schema.space)) for name, model in models.items()}
    scores = torch.stack([finite(-nats[name]) for name in weights], 1)
    made.weights_ = dict(weights)
    made._calibrate(
        scores, torch.zeros(m, dtype=torch.bool), rate, MixedNats(torch.tensor([*weights.values()], dtype=torch.float64))
    )
    made.n_seen_, made.name_ = m, Path(folder).name
    if isinstance(schema, Schema):
        with one_thread():
            circuit = run.model(ODD_CELLS_OF, schema.space, {}) if ODD_CELLS_OF in nats else None
            known = isinstance(circuit, CellDensity)
            made._explaining_ = Reasons(circuit, normal) if known else Replaced(made._score_again, normal)
    return made


def _again(*_: object) -> Never:
    raise TypeError("the models of a run are fitted already")
