"""What metrics on samples compare: rows or images → vectors of features.

:func:`parse` understands ``pixels``, ``pca:K``, ``conv:K`` and the path of a network: ONNX (.onnx, through onnxruntime) or a
program that ``torch.export`` saved (.pt2). Each is fitted once, on fit rows, and then maps (n, …) to (n, d) float32, a batch
at a time. Nothing is ever downloaded.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mixtura.contracts import InputError
from mixtura.rng import seeded

#: values of a batch
BATCH_VALUES = 2**22
#: rows that principal components are found from
MOST_FITTED = 10_000


class Features(ABC):
    """A map from rows (n, …) to features (n, d). ``name`` says which, as :func:`parse` takes it."""

    name: str

    @abstractmethod
    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Look at fit rows x (n, …) once."""

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
        """There is nothing to learn."""

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
        # an eigenvector's sign is the library's whim: the largest entry is made positive
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
    """A trained network from a local file: its first output, averaged over space if it has any, flattened.

    Images are scaled from the levels of the fit rows (0 to their highest) to 0 … 1, grey ones repeated to the network's
    channels, and resized to its height and width (bicubic with antialiasing) where those are fixed.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = path.name, path
        self.top = 1.0

    def fit(self, x: Tensor, rng: torch.Generator) -> None:
        """Learn the highest level, and try the network on one image."""
        if x.dim() != 4:
            raise InputError(f"{self.name}: is a network for images; use pca:64 or pixels for a table")
        self.top = max(float(x.max()), 1e-12)
        self(x[:1])

    def _map(self, x: Tensor) -> Tensor:
        try:
            out = torch.cat([torch.as_tensor(self._run(part)) for part in self._fitted(x / self.top).split(self._batch)])
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a foreign network raises is about this file
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

    _batch: int
    _wanted: tuple[int | None, int | None, int | None]

    @abstractmethod
    def _run(self, x: Tensor) -> Any: ...


class OnnxNetwork(Network):
    """Through onnxruntime, on the CPU."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            import onnxruntime  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError("features: an .onnx network needs onnxruntime; pip install 'mixtura[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001  onnxruntime has an exception class for each of its states
            raise InputError(f"{path.name}: onnxruntime cannot read it ({type(error).__name__}); export it again") from error
        shape = self._session.get_inputs()[0].shape
        if len(shape) != 4:
            raise InputError(f"{path.name}: takes input of shape {shape}, expected images (batch, channels, height, width)")
        batch, *rest = [axis if isinstance(axis, int) else None for axis in shape]
        self._batch, self._wanted = batch or 64, tuple(rest)  # type: ignore[assignment]

    def _run(self, x: Tensor) -> Any:
        n = len(x)
        fixed = self._session.get_inputs()[0].shape[0]
        if isinstance(fixed, int) and n < fixed:
            x = torch.cat([x, x[-1:].expand(fixed - n, -1, -1, -1)])
        return np.asarray(self._session.run(None, {self._session.get_inputs()[0].name: x.numpy()})[0])[:n]


class ExportedNetwork(Network):
    """A program saved by ``torch.export.save``: operators and weights, no Python code of the author's."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            program = torch.export.load(path)
            example = next(n.meta["val"] for n in program.graph.nodes if n.op == "placeholder" and n.name in _inputs(program))
            shape = [axis if isinstance(axis, int) else None for axis in example.shape]
        except Exception as error:  # noqa: BLE001  torch names no class for a file that is not one of its programs
            raise InputError(f"{path.name}: not a program of torch.export ({type(error).__name__}); save it again") from error
        if len(shape) != 4:
            raise InputError(f"{path.name}: takes input of shape {shape}, expected images (batch, channels, height, width)")
        self._program = program.module()
        self._batch, self._wanted = shape[0] or 64, tuple(shape[1:])  # type: ignore[assignment]
        self._fixed = shape[0]

    def _run(self, x: Tensor) -> Any:
        n = len(x)
        if self._fixed and n < self._fixed:
            x = torch.cat([x, x[-1:].expand(self._fixed - n, -1, -1, -1)])
        out = self._program(x)
        return (out[0] if isinstance(out, tuple | list) else out)[:n]


def _inputs(program: Any) -> tuple[str, ...]:
    return tuple(program.graph_signature.user_inputs)


def parse(text: str) -> Features:
    """ "pixels", "pca:64", "conv:256", or the path of an .onnx or .pt2 file → features to be fitted. Raises InputError."""
    kind, _, number = text.partition(":")
    if text == "pixels":
        return Pixels()
    if kind in ("pca", "conv") and number.isdigit() and 1 <= int(number) <= 100_000:
        return PrincipalComponents(int(number)) if kind == "pca" else RandomConvolution(int(number))
    path = Path(text)
    if path.suffix.lower() in (".onnx", ".pt2"):
        if not path.is_file():
            raise InputError(f"features: no file {text!r}; give the path of a local .onnx or .pt2 network")
        return OnnxNetwork(path) if path.suffix.lower() == ".onnx" else ExportedNetwork(path)
    raise InputError(f"features: {text!r} is none, expected pixels, pca:64, conv:256, or a local .onnx or .pt2 file")
