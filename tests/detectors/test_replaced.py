"""Reasons by replacement, and maps of images."""

from __future__ import annotations

import torch

from mixtura.detectors.replaced import Replaced, maps


def normal(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_cell_that_is_far_is_the_reason():
    x = normal(20, 4, 1)
    x[torch.arange(20), torch.arange(20) % 4] = 9.0
    found = Replaced(lambda rows: rows.square().sum(1), normal(300, 4, 0))(x)
    assert found.shape == (20, 4) and torch.equal(found.argmax(1), torch.arange(20) % 4) and float(found.amax(1).min()) > 3


def test_one_is_what_one_cell_in_ten_reaches_and_units_do_not_matter():
    usual, x = normal(105, 3, 0), normal(4_000, 3, 2)
    found = Replaced(lambda rows: rows.square().sum(1), usual)(x)
    assert (0.03 < (found > 1).double().mean(0)).all() and ((found > 1).double().mean(0) < 0.2).all()
    scaled = Replaced(lambda rows: 1e6 * rows.square().sum(1), usual)(x)
    assert torch.allclose(scaled, found)


def test_rows_do_not_depend_on_one_another(monkeypatch):
    from mixtura.detectors import replaced

    explain = Replaced(lambda rows: rows.square().sum(1), normal(50, 3, 0))
    x = normal(10, 3, 1)
    whole = explain(x)
    monkeypatch.setattr(replaced, "TILE", 1)
    assert torch.equal(explain(x), whole)


def test_maps_show_the_patch_and_nothing_where_nothing_is_strange():
    clean = torch.zeros(5, 1, 12, 10, dtype=torch.float64)
    x = clean[:2].clone()
    x[0, 0, 8:11, 2:4] = 1.0
    found = maps(lambda images: images.flatten(1).square().sum(1), x, clean)
    assert found.shape == (2, 12, 10) and float(found[1].abs().max()) == 0.0
    i, j = divmod(int(found[0].argmax()), 10)
    assert 7 <= i <= 11 and 1 <= j <= 4 and float(found[0, :5].max()) == 0.0


def test_images_smaller_than_a_patch_are_one_patch():
    x = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    assert maps(lambda images: images.flatten(1).sum(1), x, torch.zeros_like(x)).tolist() == [[[2.0, 2.0]]]
