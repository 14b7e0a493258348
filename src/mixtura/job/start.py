"""The main job: a table or images in, a verdict out.

:func:`conduct` is the long process, an iterator of records; :func:`run` plays it to the end. Both leave a
:class:`Study`; :func:`mixtura.load` makes the same from a run folder. The work itself is in ``job.py``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mixtura.contracts import InputError
from mixtura.data import examples, source
from mixtura.data.files.text_files import printable
from mixtura.data.kind import DataKind
from mixtura.data.names import listed
from mixtura.data.source import Data
from mixtura.data.tables import Table
from mixtura.features import extractors as features
from mixtura.folder import store
from mixtura.ground import machine
from mixtura.ground.machine import CannotWrite
from mixtura.job.options import Options, check_replay, make_options, options_of_record
from mixtura.job.run import Done, Judged, Planned, Progress, Record, Targets, Together, read_state, to_be_tried_again
from mixtura.study import Study, load
from mixtura.train.devices import choose_device, one_thread

__all__ = ["Done", "Judged", "Options", "Planned", "Progress", "Record", "Study", "conduct", "preview", "replay", "run"]


def run(data: Any, **options: Any) -> Study:
    """Which generative model, or which blend, is best on rows of ``data`` never seen? See :class:`Options`.

    ``data`` is a frame, an array, a path or the name of a bundled example. With ``out`` the run is kept in that
    folder and goes on where it stopped.
    """
    for record in conduct(data, make_options(options)):
        if isinstance(record, Done):
            return record.study
    raise RuntimeError("the run ended without a verdict")


def conduct(data: Any, options: Options) -> Iterator[Record]:
    """The main job as an iterator of records: :class:`Planned`, :class:`Progress` and :class:`Judged` a model, :class:`Done`."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mixtura-") as scratch, one_thread():
        loaded, schema = understand(data, options)
        out = Path(options.out) if options.out is not None else Path(scratch)
        config = _question(options, loaded, str(data) if isinstance(data, str | Path) else None)
        if _finished(out, options, config):
            yield Done(load(out, models=options.models))
            return
        job = _kind(options)(out, options, loaded, schema, began)
        try:
            job.take_up(config)  # nothing is written before all that was asked is known to fit
            yield job.planned()
            yield from job.train_all()
            study = job.verdict()
        except CannotWrite as error:
            raise CannotWrite(f"{error}; the same command goes on from here") from error
        yield Done(study if options.out is not None else replace(study, folder=None))


def _kind(options: Options) -> type[Together | Targets]:
    """A run with targets, or without."""
    return Targets if options.targets else Together


def preview(data: Any, options: Options) -> Planned:
    """The first record of :func:`conduct`, with nothing written and nothing trained."""
    with tempfile.TemporaryDirectory(prefix="mixtura-") as scratch, one_thread():
        loaded, schema = understand(data, options)
        planned = _kind(options)(Path(scratch), options, loaded, schema, time.monotonic()).planned(estimate=True)
        return replace(planned, folder=None if options.out is None else str(options.out))


def understand(data: Any, options: Options) -> tuple[Data, DataKind]:
    """Read the data and guess its columns; the columns that only tell how to split are not modelled, nor, with targets,
    inputs of a model."""
    loaded = source.load(data, seed=options.seed, skip_broken=options.skip_broken, size=options.size)
    splitting = (("--split", options.split), ("--group", options.group), ("--time", options.time))
    for flag, name in (*splitting, *(("--target", name) for name in options.targets)):
        if name is None:
            continue
        if not isinstance(loaded, Table):
            raise InputError(f"{flag}: names a column, and images have none; leave it out")
        if name not in loaded.frame.columns:
            raise InputError(f"{flag}: no column {name!r} in the data; there are {listed(loaded.frame.columns, 12)}")
    modelled = loaded
    aside = [name for flag, name in splitting if name is not None and (flag == "--split" or options.targets)]
    if isinstance(loaded, Table) and aside:
        modelled = replace(loaded, frame=loaded.frame.drop(columns=aside))
    return loaded, source.learn(modelled, kinds=options.kinds, columns=options.columns, bounds=options.bounds)


def _question(options: Options, data: Data, path: str | None) -> dict[str, Any]:
    """What config.json holds: what is asked, of which data, on which machine."""
    device = str(choose_device(options.device))
    return {
        "format": store.FORMAT,
        "mixtura": _version(),
        "source": None if path is None else printable(path),
        "data": {
            "name": data.name, "fingerprint": data.fingerprint, "rows": len(source.rows_of(data)), "rows_total": data.rows_total
        },  # fmt: skip
        "asked": options.asked(),
        "same_bits": {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": device},
    }


def _finished(out: Path, options: Options, config: Mapping[str, Any]) -> bool:
    """Whether the folder holds a finished run of the same question; InputError if it holds anything else. Only what
    is known to be a run is ever started over: other programs write a config.json too."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, expected a folder to write the run to; give another --out")
    if not _holds_anything(out):
        return False
    kept = store.read_json(out / "config.json") if (out / "config.json").exists() else None
    if not isinstance(kept, dict) or not {"format", "data", "asked"} <= kept.keys():
        raise InputError(f"{out}: the folder is not empty and holds no run; give another --out")
    if options.fresh:
        return False
    store.check_format(out)
    for part, what in (("data", "other data"), ("asked", "other options")):
        if kept[part] != store.plain(config[part]):
            raise InputError(f"{out}: holds a run on {what}; give another --out, or --fresh to start over")
    return (out / "verdict.json").exists() and not to_be_tried_again(out)


def _holds_anything(out: Path) -> bool:
    return out.is_dir() and not all(machine.is_draft(path) for path in out.iterdir())


def _version() -> str:
    try:
        return metadata.version("mixtura")
    except metadata.PackageNotFoundError:
        return "unreleased"


def replay(folder: str | Path, out: str | Path, data: Any = None, **options: Any) -> tuple[Study, list[str]]:
    """Do a finished run again from its recorded steps, into ``out``; the study, and the files that differ in any bit
    (none, on the same machine kind, torch version and thread count). ``data``: what the run was made from; only the name of a
    bundled example is taken from the folder, which may be anybody's.
    ``options``: ``fresh`` and ``device``, and what no folder may bring along, a network as ``features``, ``models`` and
    ``samples``, where the run used them: to be given again."""
    check_replay(options)
    folder, out = Path(folder), Path(out)
    store.read_json(folder / "verdict.json")
    store.check_format(folder)
    kept, made_from, fingerprint = _recorded(folder, options)
    units, _, _ = read_state(folder)
    if data is None and made_from not in examples.names():
        raise InputError(f"{folder}: give the data that it was made from again: mixtura run FILE --replay {folder}")
    data = made_from if data is None else data
    if out.resolve() == folder.resolve():
        raise InputError(f"{out}: holds the run to be replayed; give another --out")
    if not options.get("fresh") and _holds_anything(out):
        raise InputError(f"{out}: the folder is not empty; give another --out, or --fresh to start over")
    if source.load(data, seed=kept["seed"], skip_broken=kept["skip_broken"], size=kept["size"]).fingerprint != fingerprint:
        raise InputError(f"{folder}: was made from other data; a replay needs the same bytes")
    study = run(data, **(kept | options), stops=units, out=out)
    weights = sorted(p.relative_to(folder) for p in (folder / "models").rglob("*.safetensors"))
    same = [*weights, Path("nats.safetensors"), Path("gallery.safetensors"), *(Path(p.name) for p in folder.glob("samples.*"))]
    return study, [str(p) for p in same if (folder / p).read_bytes() != (out / p).read_bytes()]


def _recorded(folder: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, str]:
    """Of a run folder: the options to ask the same again, the file it was made from, the fingerprint of its data. InputError
    where ``given`` lacks what the run used and a folder may not bring along, or has what it did not use."""
    config = store.read_json(folder / "config.json")
    try:
        asked = config["asked"]
        kept = options_of_record(asked) | {"features": asked["features"]}
        network = asked["features"] if asked["features"] is not None and features.is_file(asked["features"]) else None
        models, samples = sorted(asked["models"]), dict(asked["samples"])
        made_from, fingerprint = config["source"], config["data"]["fingerprint"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder}/config.json: damaged ({type(error).__name__}: {error}); replay another run") from error
    if network is not None and not features.is_file(given.get("features") or ""):
        raise InputError(f"{folder}: compared samples by a network, and no folder may name one to open; give --features again")
    if network is None and given.get("features") is not None:
        raise InputError(f"{folder}: compared samples by no network of a file; leave --features out")
    if models != sorted(given.get("models") or {}):
        names = ", ".join(models) or "none"
        raise InputError(f"{folder}: the models of your own that it used ({names}) are to be given again, in Python with models=")
    if samples != {name: source.load(where).fingerprint for name, where in (given.get("samples") or {}).items()}:
        names = " ".join(f"--samples {name}=FILE" for name in samples) or "leave --samples out"
        raise InputError(f"{folder}: the samples that it judged are to be given again, the same bytes: {names}")
    return kept, made_from, fingerprint
