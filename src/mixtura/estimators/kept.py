"""An anomaly detector as a folder of JSON and safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.detectors.blended import MixedNats
from mixtura.estimators.panel import Panel
from mixtura.folder.io import as_json, as_safetensors, read_json, read_tensors
from mixtura.ground.machine import write_together
from mixtura.train.devices import one_thread

if TYPE_CHECKING:
    from mixtura.estimators.anomaly_detector import AnomalyDetector

T = TypeVar("T", bound="AnomalyDetector")

#: of the folder; another is refused
FORMAT = 1


def save(found: AnomalyDetector, folder: Path) -> None:
    """Write it; the file that makes it complete is written last."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file, expected a folder; give another path")
    if isinstance(found._blended_, MixedNats):
        raise InputError("save: this detector is made of a run; keep the folder of the run")
    found._panel_.save(folder / "detectors")
    parameters = {k: v.item() if isinstance(v, np.generic) else v for k, v in found.get_params().items()}
    if not isinstance(parameters["random_state"], int):
        parameters["random_state"] = None
    record = {
        "format": FORMAT, "parameters": parameters, "schema": found.schema_.to_json(), "seed": found._panel_.seed,
        "detectors": [*found.detectors_], "failed": found.failed_, "weights": found.weights_, "level": found.false_alarms_,
        "seen": found.n_seen_, "name": found.name_, "names": list(vars(found).get("feature_names_in_", ())),
        "width": vars(found).get("n_features_in_"),
    }  # fmt: skip
    arrays = {
        "normal": found._normal_, "scores": torch.as_tensor(found._calibrating_), "odd": torch.as_tensor(found._odd_)
    }  # fmt: skip
    write_together({folder / "detector.safetensors": as_safetensors(arrays), folder / "detector.json": as_json(record)})


def load(cls: type[T], folder: Path) -> T:
    """Read it; InputError where the folder holds something else."""
    if not (folder / "detector.json").is_file():
        raise InputError(f"{folder}: holds no detector.json, so no AnomalyDetector; save one there first")
    try:
        kept, arrays = read_json(folder / "detector.json"), read_tensors(folder / "detector.safetensors")
        if kept["format"] != FORMAT:
            raise ValueError("another format")
        made = cls(**kept["parameters"])
        made.schema_ = source.from_json(kept["schema"])
        made._normal_, made.weights_ = arrays["normal"], {str(k): float(v) for k, v in kept["weights"].items()}
        with one_thread():
            panel = Panel(made.schema_, made._normal_, made.features, int(kept["seed"]))
            made._panel_ = panel.restore(folder / "detectors", [str(name) for name in kept["detectors"]])
        panel.failed = {str(k): str(v) for k, v in kept["failed"].items()}
        made.n_seen_, made.name_ = int(kept["seen"]), str(kept["name"])
        names = np.array(kept["names"], dtype=object) if kept["names"] else None
        of_sklearn = {"feature_names_in_": names, "n_features_in_": kept["width"]}
        vars(made).update({name: value for name, value in of_sklearn.items() if value is not None})
        made._calibrate(arrays["scores"], arrays["odd"], float(kept["level"]))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        why = "damaged" if isinstance(error, InputError) else type(error).__name__
        raise InputError(f"{folder}: holds no AnomalyDetector ({why}); save one there again") from error
    return made
