"""Arms: the base class, the check of their samples, and the two kinds that run in this process, arrays and functions.

An arm never ends a run: every failure of a request is an :class:`ArmError`, one sentence that names the arm.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from mixtura.contracts import InputError
from mixtura.ground.rng import generator

#: most numbers in one sample
MOST_VALUES = 2**24
#: most characters of an arm's output in a message
SHOWN = 200
#: fields of an answer in JSON, of which it has one
ANSWERS = ("sample", "npy", "error")
#: longest pause before a repetition, seconds
LONGEST_PAUSE = 30.0


class ArmError(RuntimeError):
    """An arm gave no usable sample; one sentence says which arm and why. ``again``: whether repeating the request may help."""

    def __init__(self, sentence: str, *, again: bool = True) -> None:
        super().__init__(sentence)
        self.again = again


class Exhausted(ArmError):
    """A pool has no samples left."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, again=False)


class Arm(ABC):
    """Something that can be asked for one sample at a time.

    cost: cost of one sample, in any unit that the arms share. takes_key: a repeated request with the same key gives the same
    sample and is not charged again. repeatable: the same seed gives the same sample, and a repeated request does no harm.
    retries: how often a failed request is repeated within one :meth:`ask`. takes_context: a request may have a context, such as a
    prompt, on which the sample then depends. shape: shape of every sample; by default that of the first one.
    """

    takes_context = False

    #: seconds before the first repetition; each further one waits twice as long
    pause: float = 0.0

    def __init__(
        self, name: str, *, cost: float = 0.0, takes_key: bool = False, repeatable: bool = False, retries: int = 0
    ) -> None:
        self.name, self.cost, self.takes_key, self.repeatable, self.retries = name, cost, takes_key, repeatable, retries
        self.shape: tuple[int, ...] | None = None

    @final
    def ask(self, seed: int, key: str, context: Mapping[str, Any] | None = None) -> NDArray[Any]:
        """One sample, of any shape. ``seed``: the number of this draw of the arm, 0, 1, 2, … ``key``: the name of the request.
        ``context``: column → value, for an arm that takes one.

        Raises ArmError for every failure of the arm, and Exhausted if a pool has no samples left.
        """
        for failures in range(self.retries):
            try:
                return self._fitting(self._answer(seed, key, context))
            except ArmError as error:
                if not error.again:
                    raise
                time.sleep(min(self.pause * 2**failures, LONGEST_PAUSE))
        return self._fitting(self._answer(seed, key, context))

    def _answer(self, seed: int, key: str, context: Mapping[str, Any] | None) -> Any:
        return self._ask(seed, key) if context is None else self._ask_in(seed, key, context)

    def _fitting(self, answer: Any) -> NDArray[Any]:
        sample = checked(answer, self.name)
        if self.shape is None:
            self.shape = sample.shape
        if sample.shape != self.shape:
            raise ArmError(f"{self.name}: gave a sample of shape {sample.shape}, its first one had {self.shape}", again=False)
        return sample

    @abstractmethod
    def _ask(self, seed: int, key: str) -> Any: ...

    def _ask_in(self, seed: int, key: str, context: Mapping[str, Any]) -> Any:
        """One sample in a context. An arm that implements this sets ``takes_context``."""
        raise ArmError(f"{self.name}: takes no context", again=False)

    def close(self) -> None:  # noqa: B027  most arms keep nothing running
        """Stop everything that the arm keeps running. It may be called twice."""


class Pool(Arm):
    """An array of samples (n, …), which are given out one by one.

    With replacement, draw t is a random row that depends on ``seed`` and t only. Without replacement, ``seed`` shuffles the rows,
    draw t is the t-th of them, and draw n raises Exhausted.
    """

    def __init__(
        self, name: str, samples: NDArray[Any], *, replacement: bool = False, seed: int = 0, cost: float = 0.0
    ) -> None:
        super().__init__(name, cost=cost, repeatable=True)
        if samples.ndim < 1 or not samples.size or samples.dtype.kind not in "biuf":
            raise InputError(
                f"{name}: expected an array of numbers (samples, …) with at least one sample, got {samples.dtype} of shape "
                f"{samples.shape}; convert it"
            )
        self.samples, self.replacement, self.seed = samples, replacement, seed
        self._order = None if replacement else torch.randperm(len(samples), generator=generator(seed, "pool")).tolist()

    def _ask(self, seed: int, key: str) -> NDArray[Any]:
        n = len(self.samples)
        if self._order is None:
            return np.array(self.samples[int(torch.randint(n, (), generator=generator(self.seed, "pool", seed)))])
        if seed >= n:
            raise Exhausted(f"{self.name}: all {n:,} samples of the pool were drawn; give more, or set replacement to true")
        return np.array(self.samples[self._order[seed]])


class Function(Arm):
    """A Python function ``f(seed) -> array`` that is called in this process. With ``takes_context``, a request with a context
    calls ``f(seed, context=...)``. The function can hang or crash the process; :func:`program` runs it in a process of its
    own."""

    def __init__(
        self, name: str, f: Callable[..., Any], *, cost: float = 0.0, repeatable: bool = False, retries: int = 0,
        takes_context: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, cost=cost, repeatable=repeatable, retries=retries)
        self._f, self.takes_context = f, takes_context

    def _ask(self, seed: int, key: str) -> Any:
        return self._call(seed)

    def _ask_in(self, seed: int, key: str, context: Mapping[str, Any]) -> Any:
        return self._call(seed, context=context)

    def _call(self, seed: int, **context: Any) -> Any:
        try:
            return self._f(seed, **context)
        except (Exception, SystemExit) as error:  # a foreign function may raise anything
            raise ArmError(f"{self.name}: raised {type(error).__name__}: {shown(str(error))}") from error


# ---------------------------------------------------------------------------------------- checks of answers


def checked(value: Any, name: str) -> NDArray[Any]:
    """``value`` as an array of 1 to ``MOST_VALUES`` finite numbers. Raises ArmError."""
    try:
        sample = np.asarray(value)
    except (ValueError, TypeError, OverflowError, MemoryError, RuntimeError) as error:
        raise ArmError(f"{name}: gave no array of numbers ({shown(str(error))})", again=False) from error
    if sample.dtype.kind not in "biuf":
        given = "text" if sample.dtype.kind in "US" else f"values of type {sample.dtype}"
        raise ArmError(f"{name}: gave {given}, expected numbers", again=False)
    if not 1 <= sample.size <= MOST_VALUES:
        raise ArmError(f"{name}: gave a sample of {sample.size:,} numbers, expected 1 to {MOST_VALUES:,}", again=False)
    finite = np.isfinite(sample)
    if not finite.all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ArmError(f"{name}: gave {sample[place]} at index {list(place)}, expected finite numbers", again=False)
    return sample


def answered(line: bytes, name: str) -> NDArray[Any]:
    """The array in one answer of the protocol, in JSON: ``{"sample": [...]}``, ``{"npy": base64}`` or ``{"error": text}``."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArmError(f"{name}: wrote {shown(line)!r}, expected one line of JSON on its standard output") from error
    if not isinstance(answer, dict) or len(answer.keys() & {*ANSWERS}) != 1:
        fields = ", ".join(f'"{field}"' for field in ANSWERS)
        raise ArmError(f"{name}: wrote {shown(line)!r}, expected a JSON object with one of {fields}")
    if "error" in answer:
        raise ArmError(f"{name}: reports: {shown(str(answer['error']))}")
    if "sample" in answer:
        return checked(answer["sample"], name)
    try:
        packed = io.BytesIO(base64.b64decode(answer["npy"], validate=True))
        return checked(np.lib.format.read_array(packed, allow_pickle=False), name)
    except (binascii.Error, ValueError, TypeError, EOFError, MemoryError) as error:
        raise ArmError(f'{name}: its "npy" is not a numpy file in base64 ({shown(str(error))})', again=False) from error


def shown(said: str | bytes) -> str:
    """The output of an arm, on one line and short enough for a message."""
    text = said[: 4 * SHOWN].decode(errors="replace") if isinstance(said, bytes) else said
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + " …"
