"""The page of a detection: what ``mixtura detect --json`` prints → one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mixtura.folder.io import plain, write_document
from mixtura.ground.shown import all_visible
from mixtura.report.figures import png
from mixtura.report.page import filled

#: columns of a row that are shown; pixels of an image at least, along its longer side; the colour of strange places, its share
MOST_COLUMNS, SIDE, COLOUR, OPAQUE = 12, 96, (208, 30, 30), 0.8


def build(found: Mapping[str, Any], output: Path, pictures: tuple[np.ndarray, np.ndarray] | None = None) -> Path:
    """Write the page of what :meth:`mixtura.estimators.detection.Detection.to_json` returned to ``output``. pictures: the
    strangest images (n, H, W, 1 or 3), and the maps (n, H, W) of where they are strange."""
    write_document(output, render(found, pictures))
    return output


def render(found: Mapping[str, Any], pictures: tuple[np.ndarray, np.ndarray] | None = None) -> str:
    """The page as text."""
    data = all_visible(plain(found))
    data["title"] = f"{data['names'][1]} beside {data['names'][0]}"
    rows, examples = [], data["examples"] or [{}] * len(data["strangest"])
    for k, (strange, example) in enumerate(zip(data["strangest"], examples, strict=True)):
        reasons = {reason["column"]: j for j, reason in enumerate(strange["reasons"])}
        columns = [*reasons, *(name for name in data["columns"] if name not in reasons)][:MOST_COLUMNS]
        cells = [(name, "" if example.get(name) is None else str(example[name]), reasons.get(name)) for name in columns]
        rows.append({"k": k, "cells": cells})
    return filled("detection", data, rows=rows, images=[] if pictures is None else drawn(*pictures))


def drawn(images: np.ndarray, maps: np.ndarray) -> list[tuple[str, str]]:
    """(the image, the image with strange places in ``COLOUR``) for each, as addresses of PNGs. One scale of grey for all images,
    and one scale of strangeness for each."""
    low, high = float(images.min()), float(images.max())
    levels = (255 * (images.astype(float) - low) / (high - low or 1)).round()
    colours = np.broadcast_to(levels, (*levels.shape[:3], 3))
    larger, out = max(1, -(-SIDE // max(images.shape[1:3]))), []
    for image, strange in zip(colours, maps, strict=True):
        share = OPAQUE * (strange / (strange.max() or 1))[..., None]
        marked = (1 - share) * image + share * np.array(COLOUR)
        out.append(tuple(png(one.astype(np.uint8).repeat(larger, 0).repeat(larger, 1)) for one in (image, marked)))
    return out
