"""A run ends with a verdict on every table of real data: what has been trained is never refused by a check of our own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import mixtura

#: cheap ones; the marginals always join
FAMILIES = ["gaussian_mixture", "kde"]
#: columns of 0 and 1, eight to a byte
PACKED = ("train", "d")
#: file → the arrays of it that are columns, side by side; None for a file that is a table.
TABLES: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(
        f"tables/{name}" for name in ("adult_train32561.parquet", "adult_test16281.parquet", "california_housing.parquet",
                                       "german_credit.parquet", "insurance.parquet", "mushrooms.parquet", "penguins.csv")
    ),
    **dict.fromkeys(
        (f"adbench/{name}.npz" for name in (
            "11_donors", "15_Hepatitis", "17_InternetAds", "19_landsat", "1_ALOI", "21_Lymphography", "23_mammography", "25_musk",
            "27_PageBlocks", "29_Pima", "31_satimage-2", "33_skin", "35_SpamBase", "37_Stamps", "39_vertebral", "41_Waveform",
            "43_WDBC", "45_wine", "47_yeast", "5_campaign", "7_Cardiotocography")),
        ("X",),
    ),
    **dict.fromkeys(
        (f"uci_regression/{name}.npz" for name in (
            "bostonHousing", "concrete", "energy", "kin8nm", "naval-propulsion-plant", "power-plant",
            "protein-tertiary-structure", "wine-quality-red", "yacht")),
        ("X", "y"),
    ),
    **dict.fromkeys((f"binary/{name}.npz" for name in ("accidents", "bbc", "dna", "jester", "nltcs", "plants")), PACKED),
    "power/power_hourly.npz": ("x",),
    "power/power_subset.npz": ("train",),
    "miniboone_maf/miniboone.npz": ("train_head_raw",),
}  # fmt: skip


def frame(path, arrays):
    if arrays is None:
        return path
    with np.load(path) as stored:
        if arrays == PACKED:
            return pd.DataFrame(np.unpackbits(stored["train"], axis=1)[:, : int(stored["d"])]).add_prefix("x")
        columns = [np.asarray(stored[name], dtype=float).reshape(len(stored[name]), -1) for name in arrays]
    return pd.DataFrame(np.concatenate(columns, 1)).add_prefix("x")


def judged(data, seed, out):
    study = mixtura.run(data, steps=5, families=FAMILIES, seed=seed, out=out)
    assert set(study.verdicts) == {"nats", "mmd"}
    assert all(v.choice in {"blend", *v.weights} and v.sentence for v in study.verdicts.values())


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", TABLES)
def test_a_table_comes_to_a_verdict(name, seed, shared_data, tmp_path):
    judged(frame(shared_data(name), TABLES[name]), seed, tmp_path / "run")
