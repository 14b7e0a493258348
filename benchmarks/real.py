"""The real tables of the benchmarks, as frames. They live beside the project (../shared/data, or MIXTURA_DATA)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

HOME = Path(os.environ.get("MIXTURA_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def _bits(name: str, part: str) -> np.ndarray:
    with np.load(HOME / "binary" / f"{name}.npz", allow_pickle=False) as file:
        return np.unpackbits(file[part], axis=1)[:, : int(file["d"])]


def binary(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(train, valid, test) rows of 0 and 1 of a standard binary set."""
    return _bits(name, "train"), _bits(name, "valid"), _bits(name, "test")


def _named(values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[f"x{j}" for j in range(values.shape[1])])


def _power() -> pd.DataFrame:
    with np.load(HOME / "power" / "power_subset.npz", allow_pickle=False) as file:
        codes, scale, columns = file["train"], file["scale"], file["columns"]
    decimals = np.maximum(0, np.round(-np.log10(scale))).astype(int)
    return pd.DataFrame({str(c): np.round(codes[:, j] * scale[j], decimals[j]) for j, c in enumerate(columns)})


def _uci(name: str) -> pd.DataFrame:
    with np.load(HOME / "uci_regression" / f"{name}.npz", allow_pickle=False) as file:
        return _named(file["X"]).assign(y=file["y"])


def _anomaly(name: str) -> pd.DataFrame:
    with np.load(HOME / "adbench" / f"{name}.npz", allow_pickle=False) as file:
        return _named(file["X"]).assign(anomaly=file["y"])


def _two_columns() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    angle, radius = rng.uniform(0, 2 * np.pi, 200), 100 + 3 * rng.standard_normal(200)
    return pd.DataFrame({"x": radius * np.cos(angle), "y": radius * np.sin(angle)})


def _one_column() -> pd.DataFrame:
    return pd.read_parquet(HOME / "tables" / "california_housing.parquet", columns=["median_income"])


def _table(name: str) -> Callable[[], pd.DataFrame]:
    return lambda: pd.read_parquet(HOME / "tables" / f"{name}.parquet")


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "penguins": lambda: pd.read_csv(HOME / "tables" / "penguins.csv"),
    "adult": _table("adult_train32561"),
    "german_credit": _table("german_credit"),
    "california": _table("california_housing"),
    "power": _power,
    "mushrooms": _table("mushrooms"),
    "nltcs": lambda: _named(np.concatenate(binary("nltcs"))),
    "yacht": lambda: _uci("yacht"),
    "mammography": lambda: _anomaly("23_mammography"),
    "two_columns": _two_columns,
    "one_column": _one_column,
}
