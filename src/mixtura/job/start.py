"""The main job: a table or images in, a verdict out.

:func:`conduct` is the long process, an iterator of records; :func:`run` plays it to the end. Both leave a
:class:`Study`; :func:`mixtura.load` makes the same from a run folder. The work itself is in :mod:`mixtura.job.run`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from mixtura.contracts import InputError
from mixtura.data import source
from mixtura.data.files.text_files import printable
from mixtura.data.kind import DataKind
from mixtura.data.names import listed
from mixtura.data.source import Data
from mixtura.data.tables import Table
from mixtura.families import TABLE
from mixtura.folder.io import plain
from mixtura.folder.layout import RunFolder
from mixtura.folder.models import FORMAT
from mixtura.folder.records import DataRecord, Environment, RunConfig
from mixtura.ground import machine
from mixtura.ground.machine import CannotWrite
from mixtura.job.all_columns import AllColumnsRun
from mixtura.job.budget import WORTH_WORKERS
from mixtura.job.given_columns import GivenColumnsRun
from mixtura.job.options import Options, make_options
from mixtura.job.records import Done, Judged, Planned, Progress, Record
from mixtura.job.workers import Processes, RayTasks, cores
from mixtura.study.study import Study, load
from mixtura.train.devices import choose_device, one_thread

__all__ = ["Done", "Judged", "Options", "Planned", "Progress", "Record", "Study", "conduct", "preview", "run"]


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
    """The main job as an iterator of records: :class:`Planned`, then :class:`Progress` and :class:`Judged` of each model,
    :class:`Done`."""
    began = time.monotonic()
    with ExitStack() as held:
        temporary = held.enter_context(machine.temporary_folder())
        held.enter_context(one_thread())
        folder = RunFolder(Path(options.out) if options.out is not None else temporary)
        engine, workers = _asked_engine(options)
        if engine is None and workers is not None and workers > 1 and (options.fresh or not folder.is_finished):
            engine = Processes(workers)  # which import for seconds: while the data are read
        if engine is not None and engine is not options.executor:
            held.callback(engine.shutdown)
        loaded, schema = understand(data, options)
        config = _config(options, loaded, str(data) if isinstance(data, str | Path) else None)
        if _is_finished(folder, options, config):
            yield Done(load(folder.path, models=options.models))
            return
        job = _kind(options)(folder, options, loaded, schema, began)
        workers = workers or job.worth_workers()
        if engine is None and workers > 1:
            engine = Processes(workers)
            held.callback(engine.shutdown)
        try:
            held.enter_context(folder.held())  # nothing is written before all that was asked is known to fit
            if _is_finished(folder, options, config):  # by a run that had the folder while this one looked at its data
                yield Done(load(folder.path, models=options.models))
                return
            job.take_up(config)
            yield job.planned(workers)
            yield from job.fit_all(engine, workers)
            study = yield from job.verdict(engine, workers)
        except CannotWrite as error:
            raise CannotWrite(f"{error}; the same command goes on from here") from error
        yield Done(study if options.out is not None else replace(study, folder=None))


def _asked_engine(options: Options) -> tuple[Executor | None, int | None]:
    """Who does the fits, where a person said so, and how many at a time, where that is known before the data are."""
    if options.ray is not None:
        cluster = RayTasks(options.ray)
        return cluster, options.workers or cluster.cores
    if options.executor is not None:
        return options.executor, options.workers or cores()
    long = options.seconds is not None and options.seconds > WORTH_WORKERS and choose_device(options.device).type == "cpu"
    named = [*(options.families or TABLE), *(options.models or ())]
    trained = any(name not in TABLE or TABLE[name].fit == "trained" for name in named)  # closed fits may be short
    return None, options.workers or (cores() if long and trained else None)


def _kind(options: Options) -> type[AllColumnsRun | GivenColumnsRun]:
    """A run with targets, or without."""
    return GivenColumnsRun if options.targets else AllColumnsRun


def preview(data: Any, options: Options) -> Planned:
    """The first record of :func:`conduct`, with nothing written and nothing trained."""
    with machine.temporary_folder() as temporary, one_thread():
        loaded, schema = understand(data, options)
        job = _kind(options)(RunFolder(temporary), options, loaded, schema, time.monotonic())
        planned = job.planned(options.workers or job.worth_workers(), estimate=True)
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


def _config(options: Options, data: Data, path: str | None) -> RunConfig:
    """What config.json holds: what is asked, of which data, on which machine."""
    return RunConfig(
        FORMAT,
        _version(),
        None if path is None else printable(path),
        DataRecord(data.name, data.fingerprint, len(source.rows_of(data)), data.rows_total),
        options.asked(),
        Environment(torch.__version__, torch.get_num_threads(), str(choose_device(options.device))),
    )


def _is_finished(folder: RunFolder, options: Options, config: RunConfig) -> bool:
    """Whether the folder holds a finished run of the same question; InputError if it holds anything else. Only what
    is known to be a run is ever started over: other programs write a config.json too."""
    out = folder.path
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file, expected a folder to write the run to; give another --out")
    if not folder.holds_anything:
        return False
    kept = folder.raw_config()
    if not isinstance(kept, dict) or not {"format", "data", "asked"} <= kept.keys():
        raise InputError(f"{out}: the folder is not empty and holds no run; give another --out")
    if options.fresh:
        return False
    folder.check_format()
    for part, what in ((asdict(config.data), "data"), (config.asked, "asked")):
        if kept[what] != plain(part):
            raise InputError(
                f"{out}: holds a run on other {'data' if what == 'data' else 'options'}; "
                "give another --out, or --fresh to start over"
            )
    return folder.is_finished and not folder.state().to_be_tried_again


def _version() -> str:
    try:
        return metadata.version("mixtura")
    except metadata.PackageNotFoundError:
        return "unreleased"
