"""`--refine`: samples come nearer to real rows, or the run says that they do not."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.contracts import Estimate, InputError, Model, Space
from mixtura.features.space import FeatureSpace
from mixtura.folder.layout import RunFolder
from mixtura.ground.rng import generator
from mixtura.job.comparison import Comparison
from mixtura.job.refining import gains, refine
from mixtura.job.splits import Splits


def ring(n: int, seed: int) -> pd.DataFrame:
    """Rows on a ring about (100, 100): no Gaussian has it."""
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, n), 3 + 0.1 * rng.standard_normal(n)
    sides = {"side": np.where(np.cos(angle) > 0, "left", "right")}
    part = np.select([np.arange(n) % 20 < 12, np.arange(n) % 20 < 15], ["fit", "select"], "report")
    return pd.DataFrame({"x": 100 + radius * np.cos(angle), "y": 100 + radius * np.sin(angle), **sides, "part": part})


@pytest.fixture(scope="module")
def refined(tmp_path_factory: pytest.TempPathFactory) -> mixtura.Study:
    out = tmp_path_factory.mktemp("refined") / "run"
    return mixtura.run(ring(4_000, 0), steps=20, families=["marginals"], split="part", refine=True, workers=1, out=out)


def radii(rows: pd.DataFrame) -> np.ndarray:
    return np.hypot(rows["x"] - 100, rows["y"] - 100)


def test_samples_of_margins_are_accepted_on_the_ring(refined):
    found = refined.refinement
    assert found.delivered and found.model == "marginals" and found.trees > 0 and found.rows == 1_000
    assert found.gain > 2 * found.gain_error and found.mmd2_after < found.mmd2_before / 2
    assert found.c2st_after + 2 * found.c2st_after_error < found.c2st_before and 0.05 < found.kept < 0.95
    assert found.sentence.startswith("gain from refining marginals: MMD² ") and f"{found.kept:.0%} are kept" in found.sentence
    made, plain = refined.sampler.sample(1_000, seed=1), refined.best.sample(1_000, seed=1)
    assert refined.sampler.name == "refined" and np.abs(radii(made) - 3).mean() < np.abs(radii(plain) - 3).mean() / 2
    assert not made.duplicated().any()
    written = pd.read_csv(refined.folder / "samples.csv")
    assert np.abs(radii(written) - 3).mean() < 0.35
    assert "refinement.safetensors" in RunFolder(refined.folder).bits()


def test_the_folder_gives_it_back_and_a_replay_repeats_it(refined, tmp_path):
    again = mixtura.load(refined.folder)
    assert again.refinement == refined.refinement
    pd.testing.assert_frame_equal(again.sampler.sample(50, seed=3), refined.sampler.sample(50, seed=3))
    pd.testing.assert_frame_equal(again.model("refined").sample(50, seed=3), refined.sampler.sample(50, seed=3))
    replayed, different = mixtura.replay(refined.folder, tmp_path / "again", ring(4_000, 0))
    assert different == [] and replayed.refinement == refined.refinement
    assert refined.refinement.sentence in (refined.folder / "README.md").read_text(encoding="utf-8")


def test_the_density_stays_that_of_the_model(refined):
    assert refined.density.name == "marginals"
    with pytest.raises(InputError, match="refined: it has samples but no density"):
        refined.sampler.score(ring(5, 1))


def test_commands_use_it_and_say_it(refined, place, do):
    found = do(f"sample {refined.folder} -n 300 -o new.csv")
    assert found.code == 0 and np.abs(radii(pd.read_csv(place / "new.csv")) - 3).mean() < 0.35
    plain = json.loads(do(f"sample {refined.folder} -n 300 --model marginals --json").out)["data"]
    assert np.abs(radii(pd.DataFrame(plain)) - 3).mean() > 0.5
    again = do("run table.csv --steps 5 --families marginals --split part --refine --workers 1 --json")
    assert json.loads(again.out)["refinement"]["sentence"].startswith("gain from refining marginals: MMD² ")
    page = do(f"report {refined.folder}")
    assert page.code == 0 and "Gain from refining marginals" in (refined.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def place(tmp_path):
    ring(4_000, 0).to_csv(tmp_path / "table.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("mmd", "told", "sure"),
    [(3, 0, True), (0, 3, True), (3, -1, True), (3, -3, False), (-3, 3, False), (1, 1, False), (0, 0, False)],
)
def test_a_gain_is_sure_in_one_measure_and_no_loss_in_the_other(mmd, told, sure):
    assert gains(Estimate(0.1 * mmd, 0.1, 10), Estimate(0.02 * told, 0.02, 10)) == sure


def test_everything_is_drawn_anew():
    """What trees learn from, what says how many there are, and what is measured."""

    class Drawn(Model):
        def __init__(self):
            super().__init__(Space.continuous(1))
            self.seen = []

        def stages(self):
            return ()

        def _sample(self, n, context, rng):
            self.seen.append(torch.randn(n, 1, generator=rng, dtype=torch.float64))
            return self.seen[-1]

    model, x = Drawn(), 2 + torch.randn(900, 1, generator=generator(0), dtype=torch.float64)
    rows = torch.arange(900)
    splits = Splits(rows[:500], rows[500:700], rows[700:], "at random", 0, 0)
    features = FeatureSpace.of_samples(x, None)
    refined, found = refine("drawn", model, x, splits, lambda _: Comparison.plain(features), features, seed=0)
    firsts = [float(drawn[0]) for drawn in model.seen]
    assert refined is not None and found.delivered and found.rows == 200 and len(set(firsts)) == len(firsts) >= 4


def test_a_handful_of_unseen_rows_cannot_show_a_gain(tmp_path):
    rows = ring(400, 3)
    rows.loc[4:, "part"] = np.where(np.arange(396) % 3 == 0, "select", "fit")
    rows.loc[:4, "part"] = "report"
    study = mixtura.run(
        rows, steps=20, families=["marginals"], split="part", refine=True, workers=1, out=tmp_path / "run"
    )
    assert study.refinement.sentence == "no gain from refining marginals: 5 unseen rows are too few to measure one"


def test_a_model_of_ones_own_cannot_have_its_name():
    with pytest.raises(InputError, match="the name 'refined' is taken"):
        mixtura.run(ring(200, 0), steps=5, models={"refined": lambda space: None})


def test_a_model_that_is_right_says_no_gain(tmp_path):
    rng = np.random.default_rng(2)
    rows = pd.DataFrame(100 + 3 * rng.standard_normal((4_000, 2)), columns=["a", "b"])
    study = mixtura.run(rows, steps=20, families=["gaussian_mixture"], refine=True, workers=1, out=tmp_path / "run")
    found = study.refinement
    assert not found.delivered and found.sentence.startswith("no gain from refining ") and study.sampler is study.best
    assert not (tmp_path / "run" / "refinement.safetensors").exists()
    assert mixtura.load(tmp_path / "run").refinement == found


def test_it_is_for_columns_that_are_modelled_together(tmp_path):
    with pytest.raises(InputError, match="--refine: compares samples, but with --target"):
        mixtura.run(ring(100, 0), target="x", refine=True)
    with pytest.raises(InputError, match="--refine: trees look at the columns of a table, not at pixels"):
        mixtura.run("digits", steps=5, families=["marginals"], refine=True, out=tmp_path / "run")


def test_a_damaged_file_is_one_sentence(refined, tmp_path):
    import shutil

    folder = tmp_path / "damaged"
    shutil.copytree(refined.folder, folder)
    (folder / "refinement.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"refinement\.safetensors"):
        mixtura.load(folder)
