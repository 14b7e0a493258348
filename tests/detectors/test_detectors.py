"""Every detector of the table: strange rows score higher, units, repeats, and what each is known to do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from mixtura.detectors import TABLE, diffusion_time, mpdr
from mixtura.detectors.blended import Blended
from mixtura.detectors.detector import LARGEST, finite
from mixtura.detectors.neighbours import DiffusionTime, Neighbours
from mixtura.ground.rng import generator

#: the least AUROC of rows that are four deviations away in each of two directions, which all should see
TRAINED = ("dte-c", "autoencoder", "mpdr", "mpdr-s")


@pytest.fixture
def short(monkeypatch):
    """Networks trained for a second or two."""
    monkeypatch.setattr(diffusion_time, "STEPS", 300)

    def settings(**asked):
        return SETTINGS(**{**asked, "visible_steps": 3, "steps": (200, 0 if 0 in asked.get("steps", ()) else 150)})

    monkeypatch.setattr(mpdr, "Settings", settings)


SETTINGS = mpdr.Settings


def normal(n: int, seed: int, d: int = 4) -> torch.Tensor:
    """Rows near a line in d dimensions."""
    rng = generator(seed, "normal")
    along = torch.randn(n, 1, generator=rng, dtype=torch.float64)
    return along + 0.3 * torch.randn(n, d, generator=rng, dtype=torch.float64)


def strange(n: int, seed: int, d: int = 4) -> torch.Tensor:
    """Rows off the line."""
    signs = torch.ones(d, dtype=torch.float64)
    signs[::2] = -1
    return normal(n, seed + 50, d) + 3 * signs


@pytest.mark.parametrize("name", TABLE)
def test_rows_off_the_line_are_stranger(name, short):
    x, y = normal(400, 0), torch.cat([normal(200, 1), strange(200, 2)])
    found = TABLE[name].make().fit(x, generator(3)).score(y)
    assert found.shape == (400,) and found.dtype == torch.float64 and torch.isfinite(found).all()
    labels = np.arange(400) >= 200
    assert roc_auc_score(labels, found) > (0.7 if name in TRAINED else 0.93)


@pytest.mark.parametrize("name", TABLE)
def test_the_same_seed_gives_the_same_bits_and_rows_do_not_depend_on_one_another(name, short):
    x, y = normal(120, 0), normal(50, 1)
    first, again = (TABLE[name].make().fit(x, generator(3)) for _ in range(2))
    state = torch.get_rng_state()
    whole = first.score(y)
    assert torch.equal(whole, again.score(y)) and torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(torch.cat([first.score(y[:7]), first.score(y[7:])]), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["dte-c", "autoencoder", "mpdr", "mpdr-s"])
def test_a_state_makes_the_same_detector(name, short):
    x, y = normal(120, 0), normal(50, 1)
    fitted = TABLE[name].make().fit(x, generator(3))
    state = {key: value.clone() for key, value in fitted.state().items()}
    assert torch.equal(TABLE[name].make().restore(state).score(y), fitted.score(y))


def test_without_a_state_a_detector_is_fitted_again():
    assert Neighbours().state() is None
    with pytest.raises(TypeError, match="fit it again"):
        Neighbours().restore({})


def test_distances_to_neighbours():
    x = torch.tensor([[0.0], [1.0], [3.0], [10.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [4.0]], dtype=torch.float64)
    assert Neighbours(2).fit(x, generator(0)).score(y).tolist() == [0.5, 2.0]
    assert DiffusionTime(2).fit(x, generator(0)).score(y).tolist() == [0.5, 5.0]
    assert Neighbours(9).fit(x, generator(0)).score(y).tolist() == [3.5, 3.5]  # of four rows, at most four


def test_scores_stay_within_limits():
    given = torch.tensor([math.nan, math.inf, -math.inf, 3.0, 1e300])
    assert finite(given).tolist() == [LARGEST, LARGEST, -LARGEST, 3.0, LARGEST]


# ------------------------------------------------------------------------------------------------------- blended


def test_blended_is_fishers_combination():
    """Two detectors and three calibration rows: p-values by hand."""
    blended = Blended(torch.tensor([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0]], dtype=torch.float64))
    y = torch.tensor([[2.5, 5.0], [0.0, 30.0]], dtype=torch.float64)
    plain = torch.tensor([-math.log(2 / 4) - math.log(4 / 4), -math.log(4 / 4) - math.log(2 / 4)], dtype=torch.float64)
    assert (blended(y) - plain).abs().max() < 0.03 and (blended(y) >= plain - 1e-12).all()
    own = blended(blended.ordered, calibration=True)  # the rows sorted in each column: p = 3/4, 2/4, 1/4 in both
    assert (own + 2 * torch.tensor([3 / 4, 2 / 4, 1 / 4], dtype=torch.float64).log()).abs().max() < 0.05


def test_beyond_all_calibration_rows_further_is_stranger():
    blended = Blended(torch.arange(20, dtype=torch.float64)[:, None].expand(20, 2))
    far = blended(torch.tensor([[30.0, 30.0], [300.0, 300.0], [LARGEST, LARGEST]], dtype=torch.float64))
    assert far[0] < far[1] < far[2] < math.inf


def test_the_unit_of_a_detector_does_not_matter():
    scores, y = normal(50, 0, 2), normal(30, 1, 2)
    factor = torch.tensor([1.0, 1e6], dtype=torch.float64)
    assert torch.allclose(Blended(scores)(y), Blended(scores * factor + 7)(y * factor + 7), atol=1e-6)


def test_a_constant_detector_says_nothing():
    scores = normal(50, 0, 2)
    scores[:, 1] = 3.0
    y = normal(30, 1, 2)
    y[:, 1] = 3.0
    alone = Blended(scores[:, :1])(y[:, :1])
    assert torch.equal(Blended(scores)(y).argsort(), alone.argsort())


# ---------------------------------------------------------------------------------------------------------- MPDR


def test_the_energy_of_mpdr_falls_on_rows_and_rises_off_them():
    settings = mpdr.Settings(steps=(300, 300), latent=(2,))
    found = mpdr.Recovery(settings).fit(normal(600, 0, 8), generator(1))
    assert found.notes == ()
    assert float(found.score(strange(200, 2, 8)).mean()) > float(found.score(normal(200, 1, 8)).mean()) + 0.1


def test_an_energy_that_learnt_nothing_says_so():
    settings = mpdr.Settings(energy="scalar", steps=(20, 1), rate=1e-9)
    found = mpdr.Recovery(settings).fit(normal(100, 0), generator(1))
    assert "nothing was learnt" in found.notes[0]


def test_diverged_batches_are_left_out_and_said():
    game = mpdr.Game(4, mpdr.Settings(), generator(0))
    assert not any(game._diverged(float(v)) for v in np.random.default_rng(0).normal(size=200))
    assert game._diverged(100.0) and game._diverged(math.nan) and not game._diverged(1.0)
    assert game.left_out == 2 and game.seen == 203


@pytest.mark.parametrize("sphere", [True, False])
@pytest.mark.parametrize("latent_steps", [0, 2])
def test_recovered_rows_are_finite_and_move_towards_low_energy(sphere, latent_steps):
    chain = {"latent_steps": latent_steps, "visible_noise": 0.0, "recovery": 0.0}
    settings = mpdr.Settings(sphere=sphere, latent=(2, 3), steps=(50, 0), **chain)
    found = mpdr.OfGame.fit(mpdr.Reconstruction(settings), normal(200, 0), generator(1))
    x = normal(64, 3).float()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    game = found.game
    game._begin()
    moved = game.recovered(x, game.manifolds[0], generator(5))
    still = mpdr.Game.recovered(_with(game, visible_size=0.0), x, game.manifolds[0], generator(5))
    assert torch.isfinite(moved).all() and torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        assert float(game.energy(moved).mean()) < float(game.energy(still).mean())


def _with(game: mpdr.Game, **changes: float) -> mpdr.Game:
    other = mpdr.Game(4, SETTINGS(**{**vars(game.settings), **changes}), generator(0))
    other.load_state_dict(game.state_dict())
    return other


def test_an_ensemble_and_both_energies_train():
    for energy in ("scalar", "reconstruction"):
        settings = mpdr.Settings(energy=energy, latent=(2, 3), steps=(40, 40), visible_steps=2)
        found = mpdr.Recovery(settings).fit(normal(150, 0), generator(1))
        assert torch.isfinite(found.score(normal(20, 1))).all()
