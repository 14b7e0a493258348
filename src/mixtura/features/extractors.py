"""Feature extractors: maps from rows or images to the vectors that metrics on samples compare.

:func:`parse` understands ``pixels``, ``pca:K``, ``conv:K`` and the path of a network: ONNX
(.onnx, through onnxruntime), operators and weights. Formats of torch are refused: opening them unpickles, which can run
anything. Each is fitted once, on fit rows, and then maps (n, …) to (n, d) float32, a batch at a time. Nothing is ever
downloaded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.contracts import InputError
from mixtura.ground.machine import passes
from mixtura.ground.rng import seeded

#: values of a batch
BATCH_VALUES = 2**22
#: rows that principal components are found from
MOST_FITTED = 10_000
#: endings of files that torch opens by unpickling: programs of torch.export and of TorchScript, modules, checkpoints
OF_TORCH = (".pt2", ".pt", ".pth", ".ts", ".ckpt", ".bin", ".pkl")


class Features(ABC):
    """A map from rows (n, …) to features (n, d). ``name``: its text for :func:`parse`."""

    name: str

    @abstractmethod
    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Fit to rows x (n, …)."""

    def __call__(self, x: Tensor) -> Tensor:
        """(n, …) → (n, d) float32."""
        with torch.no_grad():
            return torch.cat([self._map(part.float()) for part in _batches(x)])

    @abstractmethod
    def _map(self, x: Tensor) -> Tensor: ...


def _batches(x: Tensor) -> Iterator[Tensor]:
    return iter(x.split(max(1, BATCH_VALUES // max(1, x[:1].numel()))))


class Pixels(Features):
    """The rows as they are, flattened."""

    name = "pixels"

    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Nothing is fitted."""

    def _map(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class PrincipalComponents(Features):
    """The K directions in which fit rows vary most, unscaled: distances are those of the rows, as far as K directions see."""

    def __init__(self, k: int) -> None:
        self.name, self.k = f"pca:{k}", k
        self.mean, self.directions = torch.zeros(1), torch.zeros(1, 1)

    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Eigenvectors of the covariance of at most ``MOST_FITTED`` rows."""
        rows = x[torch.randperm(len(x), generator=rng)[:MOST_FITTED]].flatten(1).double()
        self.mean = rows.mean(0)
        rows = rows - self.mean
        # of the smaller of the two Gram matrices; both have the same non-zero eigenvalues
        if rows.shape[1] <= len(rows):
            vectors = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)[:, : self.k]
        else:
            values, left = torch.linalg.eigh(rows @ rows.T)
            kept = values.flip(0)[: self.k].clamp(min=0).sqrt()
            vectors = rows.T @ left.flip(1)[:, : self.k] / kept.clamp(min=1e-9 * float(kept[0]) + 1e-30)
        # the sign of an eigenvector is arbitrary: the largest entry is made positive
        largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
        self.directions = vectors * torch.where(largest < 0, -1.0, 1.0)

    def _map(self, x: Tensor) -> Tensor:
        return ((x.flatten(1).double() - self.mean) @ self.directions).float()


class RandomConvolution(Features):
    """A convolutional network with random weights (He et al. 2015, section 2.2): a cheap stand-in for a trained one, which
    sees texture and shape but no meaning. The mean and the deviation over the image of each of the K / 2 channels of every
    layer's end, standardised on fit rows."""

    def __init__(self, k: int) -> None:
        if k < 2:
            raise InputError(f"features: conv:{k} has too few features, expected 2 or more, as in conv:256")
        self.name, self.k = f"conv:{k}", k
        self.net: nn.Module | None = None
        self.mean, self.scale = torch.zeros(1), torch.ones(1)

    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Build the network for images like x (n, C, H, W) and standardise its features."""
        if x.dim() != 4:
            raise InputError("features: conv is for images; use pca:64 or pixels for a table")
        widths = [x.shape[1], 32, 64, math.ceil(self.k / 2)]
        self.levels = (float(x.mean()), max(float(x.std()), 1e-12))
        with seeded(int(torch.randint(2**62, (), generator=rng))):
            layers: list[nn.Module] = []
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
                convolution = nn.Conv2d(a, b, 3, stride=1 if i == 0 else 2, padding=1)
                nn.init.kaiming_normal_(convolution.weight)
                nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
                layers += [convolution, nn.ReLU()]
            self.net = nn.Sequential(*layers).eval()
        self.mean, self.scale = torch.zeros(1), torch.ones(1)
        raw = self(x)
        self.mean, self.scale = raw.mean(0), raw.std(0).clamp(min=1e-6)

    def _map(self, x: Tensor) -> Tensor:
        if self.net is None:
            raise InputError("features: conv must be fitted before it is used")
        out = self.net((x - self.levels[0]) / self.levels[1]).flatten(2)
        both = torch.cat([out.mean(2), out.std(2, correction=0)], 1)[:, : self.k]
        return (both - self.mean) / self.scale


class Network(Features):
    """A trained network from a local .onnx file, through onnxruntime on the CPU: its first output, averaged over space if it
    has any, flattened.

    Images are scaled from the levels of the fit rows (0 to their highest) to 0 … 1, grey ones repeated to the network's
    channels, and resized to its height and width (bicubic with antialiasing) where those are fixed.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.top = path.name, 1.0
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError("features: an .onnx network needs onnxruntime; pip install 'mixtura[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception class for each of its states
            raise InputError(f"{path.name}: onnxruntime cannot read it ({type(error).__name__}); export it again") from error
        taken = self._session.get_inputs()[0]
        if len(taken.shape) != 4:
            raise InputError(f"{path.name}: takes input of shape {taken.shape}, expected images (batch, channels, height, width)")
        self._input = taken.name
        self._batch, *self._wanted = [axis if isinstance(axis, int) else None for axis in taken.shape]

    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Learn the highest level, and try the network on one image."""
        if x.dim() != 4:
            raise InputError(f"{self.name}: is a network for images; use pca:64 or pixels for a table")
        self.top = max(float(x.max()), 1e-12)
        self(x[:1])

    def _map(self, x: Tensor) -> Tensor:
        try:
            out = torch.cat([torch.as_tensor(self._run(part)) for part in self._fitted(x / self.top).split(self._batch or 64)])
        except InputError:
            raise
        except Exception as error:  # a foreign network may raise anything
            if passes(error):
                raise
            reason = (str(error).splitlines() or [""])[0][:160]
            shape = tuple(x.shape[1:])
            raise InputError(f"{self.name}: cannot take images of shape {shape} ({type(error).__name__}: {reason})") from error
        if not torch.is_floating_point(out) or not torch.isfinite(out).all():
            raise InputError(f"{self.name}: its first output is not finite numbers; give a network whose output is features")
        return (out.mean((2, 3)) if out.dim() == 4 else out.flatten(1)).float()

    def _fitted(self, x: Tensor) -> Tensor:
        channels, height, width = self._wanted
        if channels not in (None, x.shape[1]):
            if x.shape[1] != 1:
                raise InputError(f"{self.name}: takes {channels} channels, the images have {x.shape[1]}; give another network")
            x = x.expand(-1, channels, -1, -1)
        size = (height or x.shape[2], width or x.shape[3])
        if size != tuple(x.shape[2:]):
            x = nn.functional.interpolate(x, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        return x.contiguous()

    def _run(self, x: Tensor) -> np.ndarray:
        n, least = len(x), self._batch or 0
        if n < least:
            x = torch.cat([x, x[-1:].expand(least - n, -1, -1, -1)])
        return np.asarray(self._session.run(None, {self._input: x.numpy()})[0])[:n]


def parse(text: str) -> Features:
    """ "pixels", "pca:64", "conv:256", or the path of an .onnx file → features to be fitted. Raises InputError."""
    if not isinstance(text, str):
        raise InputError(f"features: expected the name of features or of a file, got {text!r}; give pixels, pca:64 or conv:256")
    kind, _, number = text.partition(":")
    if text == "pixels":
        return Pixels()
    if kind in ("pca", "conv") and number.isdigit() and 1 <= int(number) <= 100_000:
        return PrincipalComponents(int(number)) if kind == "pca" else RandomConvolution(int(number))
    path = Path(text)
    if path.suffix.lower() in OF_TORCH:
        raise InputError(f"features: opening {path.name} can run code hidden in it; export the network to .onnx and give that")
    if not is_file(text):
        raise InputError(f"features: {text!r} is none, expected pixels, pca:64, conv:256, or a local .onnx file")
    if not path.is_file():
        raise InputError(f"features: no file {text!r}; give the path of a local .onnx network")
    return Network(path)


def is_file(text: str) -> bool:
    """Whether features are named by the path of a network."""
    return Path(text).suffix.lower() == ".onnx"
