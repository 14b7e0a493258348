"""Features keep what they promise: distances, directions, units; a foreign network is driven, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mixtura.contracts import InputError
from mixtura.features import parse
from mixtura.rng import generator


def images(n, seed=0, channels=1, size=8):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(np.clip(rng.normal(100, 40, (n, channels, size, size)), 0, 255)).round()


def fitted(text, x, seed=0):
    features = parse(text)
    features.fit(x, generator(seed))
    return features


@pytest.mark.parametrize("text", ["pixels", "pca:5", "conv:6"])
def test_a_row_has_the_same_features_alone_and_among_others(text):
    x = images(40)
    features = fitted(text, x)
    both = features(x)
    assert both.dtype == torch.float32 and len(both) == 40 and torch.isfinite(both).all()
    torch.testing.assert_close(torch.cat([features(x[i : i + 7]) for i in range(0, 40, 7)]), both, rtol=1e-4, atol=1e-4)
    again = fitted(text, x)(x)
    assert torch.equal(again, both)


@pytest.mark.parametrize("n", [20, 200])
def test_all_principal_components_keep_distances_and_few_keep_the_most(n):
    x = images(n)
    flat = x.flatten(1).double()
    seen = fitted("pca:64", x)(x).double()
    torch.testing.assert_close(torch.cdist(seen, seen), torch.cdist(flat, flat), rtol=1e-3, atol=1e-2)
    kept = fitted("pca:3", x)(x).var(0).sum()
    best = torch.linalg.eigvalsh(torch.cov(flat.T)).flip(0)[:3].sum()
    torch.testing.assert_close(kept.double(), best, rtol=1e-4, atol=1e-3)


def test_random_convolution_is_standardised_and_sees_texture():
    x = images(300)
    features = fitted("conv:32", x)
    y = features(x)
    assert y.shape == (300, 32) and y.mean(0).abs().max() < 1e-4 and (y.std(0) - 1).abs().max() < 0.05
    smooth = nn.functional.avg_pool2d(x, 3, 1, 1)
    assert (features(smooth).mean(0).abs() > 1).float().mean() > 0.3
    assert not torch.equal(fitted("conv:32", x, seed=1)(x), y)


class Tiny(nn.Module):
    """Means of the quarters of an RGB image in 0 … 1."""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("net") / "tiny.pt2"
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(Tiny(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes={"x": {0: batch}}), path)
    return path


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 16)])
def test_an_exported_network_gets_what_it_wants(exported, channels, size):
    x = images(5, channels=channels, size=size)
    features = fitted(str(exported), x)
    expected = nn.functional.adaptive_avg_pool2d((x / x.max()).expand(-1, 3, -1, -1), 2).flatten(1)
    torch.testing.assert_close(features(x).double(), expected.double(), rtol=0, atol=0.02 if size != 8 else 1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pca", "is none, expected pixels"),
        ("pca:0", "is none"),
        ("conv:1", "too few features"),
        ("inception", "is none"),
        ("nowhere.onnx", "no file 'nowhere.onnx'"),
    ],
)
def test_unknown_features_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse(text)


@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_files_that_are_no_networks_are_refused(tmp_path, ending):
    if ending == "onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / f"x.{ending}"
    path.write_bytes(b"not a network at all")
    with pytest.raises(InputError, match=rf"x\.{ending}: "):
        parse(str(path))


def test_networks_and_convolutions_are_for_images(exported):
    for text in ("conv:8", str(exported)):
        with pytest.raises(InputError, match="table"):
            fitted(text, torch.zeros(10, 4))


@pytest.mark.data
def test_a_published_onnx_network_tells_digits_from_noise(shared_data):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = shared_data("extractors/imagenet_mobilenetv2.onnx")
    x = images(6)
    y = fitted(str(path), x)(torch.cat([x, torch.zeros_like(x)]))
    assert y.shape[0] == 12 and torch.cdist(y[:6], y[6:]).min() > torch.pdist(y[:6]).median()
