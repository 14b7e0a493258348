"""Do a finished run again from the steps that it recorded: :func:`replay`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixtura.contracts import InputError
from mixtura.data import examples, source
from mixtura.features import extractors as features
from mixtura.folder.io import content_of, read_json
from mixtura.folder.layout import RunFolder
from mixtura.job.options import check_replay, options_of_record
from mixtura.job.start import run
from mixtura.study.study import Study


def replay(folder: str | Path, out: str | Path, data: Any = None, **options: Any) -> tuple[Study, list[str]]:
    """Do a finished run again from its recorded steps, into ``out``; the study, and the files that differ in any bit
    (none, on the same machine kind, torch version and thread count). ``data``: what the run was made from; only the name of a
    bundled example is taken from the folder, which may be anybody's.
    ``options``: ``fresh``, ``device``, ``workers``, ``ray`` and ``executor``, and what no folder may bring along, a network as
    ``features``, ``models`` and ``samples``, where the run used them: to be given again."""
    check_replay(options)
    old, new = RunFolder(Path(folder)), RunFolder(Path(out))
    read_json(old.verdict_path)
    old.check_format()
    kept, made_from, fingerprint = _recorded(old.path, options)
    units = _finished_units(old)
    if data is None and made_from not in examples.names():
        raise InputError(f"{old.path}: give the data that it was made from again: mixtura run FILE --replay {old.path}")
    data = made_from if data is None else data
    if new.path.resolve() == old.path.resolve():
        raise InputError(f"{new.path}: holds the run to be replayed; give another --out")
    if not options.get("fresh") and new.holds_anything:
        raise InputError(f"{new.path}: the folder is not empty; give another --out, or --fresh to start over")
    if source.load(data, seed=kept["seed"], skip_broken=kept["skip_broken"], size=kept["size"]).fingerprint != fingerprint:
        raise InputError(f"{old.path}: was made from other data; a replay needs the same bytes")
    study = run(data, **(kept | options), stops=units, out=new.path)
    before, after = old.bits(), new.bits()
    return study, [name for name in before if before[name] != after.get(name)]


def _finished_units(folder: RunFolder) -> dict[str, dict[str, Any]]:
    """What was recorded of the fits of all models that did not fail. InputError where it is damaged."""
    state = folder.state()
    read = {
        "seconds": float, "draws": int,
        "plan": lambda plan: None if plan is None else [[int(steps), int(end)] for steps, end in plan],
    }  # fmt: skip
    with content_of(folder.state_path):
        return {
            unit: entry | {name: read[name](entry[name]) for name in read.keys() & entry.keys()}
            for unit, entry in state.units.items()
            if unit.rpartition("/")[0] not in state.failures
        }


def _recorded(folder: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], str | None, str]:
    """Of a run folder: the options to ask the same again, the file it was made from, the fingerprint of its data. InputError
    where ``given`` lacks what the run used and a folder may not bring along, or has what it did not use."""
    config = RunFolder(folder).raw_config()
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
