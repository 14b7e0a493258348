"""Generators from local files. Each is a function of a seed, runs in a worker process (worker.py) and loads its model once.

Nothing is downloaded, and no code or pickle of a model is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mixtura.contracts import InputError
from mixtura.ground.rng import generator, normal, seeded, uniform


def onnx(
    seed: int, *, name: str, path: str, shape: Sequence[int] | None = None, noise: Literal["normal", "uniform"] = "normal",
    inputs: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None,
) -> NDArray[Any]:  # fmt: skip
    """The first output of an .onnx generator, without its batch axis of one.

    The one input that ``inputs`` does not set gets noise: standard normal, or uniform in [0, 1). ``shape``: shape of the noise
    with its batch axis, if the file does not fix it (an open first axis is 1). A column of ``context`` with the name of an input
    is passed to it, as an array of one number.
    """
    session = _session(path)
    fed = {key: np.asarray(value) for key, value in (inputs or {}).items()}
    fed |= {i.name: np.asarray([context[i.name]]) for i in session.get_inputs() if context is not None and i.name in context}
    free = [i for i in session.get_inputs() if i.name not in fed]
    if len(free) != 1:
        names = [i.name for i in free]
        raise InputError(f"{path}: has the inputs {names} to set, expected one for the noise; set the others with `inputs`")
    size = _open_shape(free[0].shape, path) if shape is None else tuple(shape)
    draw = normal if noise == "normal" else uniform
    z = draw(size, generator(seed, "arm", name), torch.empty(0, dtype=torch.float64)).numpy()
    types = {i.name: _NUMPY_TYPES[i.type] for i in session.get_inputs()}
    fed = {key: value.astype(types[key]) for key, value in (fed | {free[0].name: z}).items()}
    out = np.asarray(session.run(None, fed)[0])
    return out[0] if out.ndim > 1 and len(out) == 1 else out


_NUMPY_TYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(uint8)": "uint8", "tensor(bool)": "bool",
}  # fmt: skip


@cache
def _session(path: str) -> Any:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _open_shape(declared: Sequence[Any], path: str) -> tuple[int, ...]:
    first, *rest = declared or [None]
    if any(not isinstance(axis, int) for axis in rest):
        raise InputError(f"{path}: takes noise of open shape {list(declared)}; give its `shape`, such as [1, 64]")
    return (first if isinstance(first, int) else 1, *rest)


def diffusers(
    seed: int, *, name: str, path: str, prompt: str | None = None, steps: int | None = None, device: str = "cpu",
    settings: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None,
) -> NDArray[Any]:  # fmt: skip
    """One image (H, W, C) in 0 … 1 from a saved pipeline. ``settings``: further arguments of its call, such as guidance_scale.
    The column ``prompt`` of a context replaces ``prompt``."""
    prompt = (context or {}).get("prompt", prompt)
    asked: dict[str, Any] = dict(settings or {})
    asked |= {} if prompt is None else {"prompt": prompt}
    asked |= {} if steps is None else {"num_inference_steps": steps}
    made = _pipeline(path, device)(generator=generator(seed, "arm", name), output_type="np", **asked)
    return np.asarray(made.images[0])


@cache
def _pipeline(path: str, device: str) -> Any:
    from diffusers import DiffusionPipeline  # pyright: ignore[reportMissingImports]

    pipeline = DiffusionPipeline.from_pretrained(path, local_files_only=True, use_safetensors=True).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def transformers(
    seed: int, *, name: str, path: str, prompt: str, embed: str, max_new_tokens: int = 64, device: str = "cpu",
    settings: Mapping[str, Any] | None = None, context: Mapping[str, Any] | None = None,
) -> NDArray[Any]:  # fmt: skip
    """The embedding (h,) of a text that a saved language model writes after ``prompt``: the mean over tokens of the last hidden
    state of the encoder saved in ``embed``. ``settings``: further arguments of generate, such as temperature. The column
    ``prompt`` of a context replaces ``prompt``."""
    prompt = (context or {}).get("prompt", prompt)
    text = _written(seed, name, path, prompt, max_new_tokens, device, settings or {})
    if not text.strip():
        raise InputError(f"{path}: wrote no text after the prompt; give another prompt, or min_new_tokens in `settings`")
    tokens, encoder = _encoder(embed, device)
    batch = tokens(text, return_tensors="pt", truncation=True).to(device)
    with torch.no_grad():
        hidden = encoder(**batch).last_hidden_state
    seen = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return ((hidden * seen).sum(1) / seen.sum(1))[0].float().cpu().numpy()


def _written(seed: int, name: str, path: str, prompt: str, most: int, device: str, settings: Mapping[str, Any]) -> str:
    tokens, model = _writer(path, device)
    batch = tokens(prompt, return_tensors="pt").to(device)
    # generate draws from the global generator of torch
    with torch.no_grad(), seeded(int(torch.randint(2**62, (), generator=generator(seed, "arm", name)))):
        out = model.generate(**batch, **({"do_sample": True, "max_new_tokens": most} | dict(settings)))
    return tokens.decode(out[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)


@cache
def _writer(path: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer  # pyright: ignore[reportMissingImports]

    model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, use_safetensors=True)
    return AutoTokenizer.from_pretrained(path, local_files_only=True), model.eval().to(device)


@cache
def _encoder(path: str, device: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer  # pyright: ignore[reportMissingImports]

    encoder = AutoModel.from_pretrained(path, local_files_only=True, use_safetensors=True)
    return AutoTokenizer.from_pretrained(path, local_files_only=True), encoder.eval().to(device)
