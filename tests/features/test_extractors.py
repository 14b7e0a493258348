"""Features keep what they promise: distances, directions, units; a foreign network is driven, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mixtura.contracts import InputError
from mixtura.features.extractors import parse
from mixtura.ground.rng import generator


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


def whole(n):
    """A whole number as protocol buffers write it: seven bits a byte."""
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + whole(n >> 7)


def field(number, value):
    """One field of a protocol buffer: a whole number, or bytes, or text."""
    if isinstance(value, int):
        return whole(number << 3) + whole(value)
    value = value.encode() if isinstance(value, str) else value
    return whole(number << 3 | 2) + whole(len(value)) + value


def quarters(batch):
    """An ONNX network: means of the quarters of an RGB image of 8×8 in 0 … 1, (n, 3, 2, 2) flattened."""
    fours = lambda name: field(5, field(1, name) + field(8, 4) + field(8, 4) + field(20, 7))  # noqa: E731
    pool = field(1, "x") + field(2, "p") + field(4, "AveragePool") + fours("kernel_shape") + fours("strides")
    flat = field(1, "p") + field(2, "y") + field(4, "Flatten")
    axes = lambda *sizes: b"".join(field(1, field(2 if isinstance(n, str) else 1, n)) for n in sizes)  # noqa: E731
    value = lambda name, *sizes: field(1, name) + field(2, field(1, field(1, 1) + field(2, axes(*sizes))))  # noqa: E731
    ends = field(11, value("x", batch, 3, 8, 8)) + field(12, value("y", batch, 12))
    graph = field(1, pool) + field(1, flat) + field(2, "g") + ends
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


@pytest.fixture(params=["n", 4], ids=["open", "fixed"])
def network(request, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "quarters.onnx"
    path.write_bytes(quarters(request.param))
    return path


@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 16)])
@pytest.mark.parametrize("n", [3, 9])
def test_a_network_gets_what_it_wants(network, channels, size, n):
    x = images(n, channels=channels, size=size)
    features = fitted(str(network), x)
    expected = nn.functional.adaptive_avg_pool2d((x / x.max()).expand(-1, 3, -1, -1), 2).flatten(1)
    torch.testing.assert_close(features(x).double(), expected.double(), rtol=0, atol=0.02 if size != 8 else 1e-5)


def test_a_network_refuses_what_it_cannot_take(network):
    with pytest.raises(InputError, match=r"quarters.onnx: takes 3 channels, the images have 2; give another"):
        fitted(str(network), images(5, channels=2))
    with pytest.raises(InputError, match="its first output is not finite numbers"):
        fitted(str(network), images(5) * torch.nan)


def test_too_little_memory_is_no_fault_of_the_network(network, monkeypatch):
    features = fitted(str(network), images(5))

    def fail(x):
        raise MemoryError

    monkeypatch.setattr(features, "_run", fail)
    with pytest.raises(MemoryError):
        features(images(5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pca", "is none, expected pixels"),
        ("pca:0", "is none"),
        ("conv:1", "too few features"),
        ("inception", "is none"),
        ("nowhere.onnx", "no file 'nowhere.onnx'"),
        ("nowhere.pt2", "nowhere.pt2 can run code hidden in it; export the network to .onnx"),
    ],
)
def test_unknown_features_are_refused(text, said):
    with pytest.raises(InputError, match=said):
        parse(text)


def test_files_that_are_no_networks_are_refused(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a network at all")
    with pytest.raises(InputError, match=r"x\.onnx: onnxruntime cannot read it"):
        parse(str(path))


class Trap:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("ending", ["pt2", "PT2", "pt", "pth", "ckpt", "bin"])
def test_what_torch_unpickles_is_never_opened(tmp_path, ending):
    trap = tmp_path / f"x.{ending}"
    torch.save(Trap(tmp_path / "ran"), trap)
    with pytest.raises(InputError, match=r"can run code hidden in it; export the network to \.onnx and give that"):
        parse(str(trap))
    assert not (tmp_path / "ran").exists()


def test_networks_and_convolutions_are_for_images(network):
    for text in ("conv:8", str(network)):
        with pytest.raises(InputError, match="table"):
            fitted(text, torch.zeros(10, 4))


@pytest.mark.data
def test_a_published_onnx_network_tells_digits_from_noise(shared_data):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = shared_data("extractors/imagenet_mobilenetv2.onnx")
    x = images(6)
    y = fitted(str(path), x)(torch.cat([x, torch.zeros_like(x)]))
    assert y.shape[0] == 12 and torch.cdist(y[:6], y[6:]).min() > torch.pdist(y[:6]).median()
