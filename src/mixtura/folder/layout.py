"""The run folder: all that the command line, the report and a colleague's machine share. :class:`RunFolder` knows its files.

    config.json           what was asked, of which data, on which machine; written first
    schema.json           the columns; in a run with targets, which these are
    state.json            how far the run has come: seconds, and the steps of every fit (what a replay needs)
    models/NAME/          config.json (family and configuration) and model.safetensors; refits/NAME/: fitted again, as delivered
    samples/              rows of outside generators
    encoding.safetensors  the encoding that all models share: warps, centres, scales
    splits.safetensors    the numbers of the rows that fit, select and report
    nats.safetensors      log-densities of select and report rows, per model
    gallery.safetensors   unseen real rows, samples, training rows nearest to some samples; in a run with targets, inputs and
                          targets of unseen rows
    quadratic.json        MMD² of any blend on the report rows, w'Qw − 2 b'w + c; not in a run with targets
    refinement.safetensors    only where refining gained: the trees by which samples of the choice are accepted
    inputs.safetensors, calibration.safetensors, portraits.json    only in a run with targets: the encoding of the inputs, the
                          ranks of true targets among draws, densities of the verdict's choice
    history.jsonl         training records        scores.jsonl   one line a model
    verdict.json          verdicts by objective: weights, gain, sentence; written last
    samples.csv           rows of the verdict's choice (.jsonl: labels that text cannot tell apart; .npz: images)
    README.md             the model card
    report.html           the page, written by the command line
    work/                 checkpoints and folds, while the run goes on; kept where a family is to be tried again
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from mixtura.contracts import InputError, Model, Space
from mixtura.data import source
from mixtura.data.inputs import InputColumns, split_target
from mixtura.data.kind import Content, DataKind
from mixtura.data.schema import Schema
from mixtura.folder.io import (
    checked,
    content_of,
    read_json,
    read_lines,
    read_tensors,
    write_document,
    write_json,
    write_lines,
    write_tensors,
)
from mixtura.folder.models import FORMAT, load_model, save_model
from mixtura.folder.records import (
    BlendQuadratic,
    Calibration,
    Conditioning,
    Gallery,
    Nats,
    Refinement,
    RowNumbers,
    RunConfig,
    RunSchema,
    SavedState,
    Score,
    Verdict,
    Verdicts,
)
from mixtura.ground import machine


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, each with a reader and a writer. A reader raises InputError, one sentence that names the file, where
    it is absent, damaged, or of another run or version."""

    path: Path

    @staticmethod
    def finished(folder: str | Path) -> RunFolder:
        """The folder of a finished run. InputError where it is none, or is not finished, or was written by another version."""
        run = RunFolder(Path(folder))
        if not run.path.is_dir():
            raise InputError(f"{run.path}: no such folder; give a folder that `mixtura run` wrote")
        if run.is_begun and not run.is_finished:
            raise InputError(f"{run.path}: the run in it is not finished; the same `mixtura run` command goes on with it")
        run.check_format()
        return run

    # --------------------------------------------------------------------------------------- how far the run has come

    @property
    def holds_anything(self) -> bool:
        """Whether there is a file, drafts of files aside."""
        return self.path.is_dir() and not all(machine.is_draft(path) for path in self.path.iterdir())

    @property
    def is_begun(self) -> bool:
        """Whether there is a config.json. Other programs write one too."""
        return self.config_path.exists()

    @property
    def is_finished(self) -> bool:
        """Whether there is a verdict."""
        return self.verdict_path.exists()

    def check_format(self) -> None:
        """InputError where the folder was written by another version, whose schema and options mean something else."""
        config = read_json(self.config_path)
        found = config.get("format") if isinstance(config, dict) else None
        if found != FORMAT and isinstance(found, int):
            raise InputError(
                f"{self.path}: was written by another version of mixtura (format {found}, this one reads {FORMAT}); "
                "run again with --fresh"
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, this process alone works in the folder. InputError where another does."""
        with machine.held(self.path) as alone:
            if not alone:
                raise InputError(f"{self.path}: another run works in this folder; wait for it, or give another --out")
            yield

    def clear(self) -> None:
        """Delete all files of the run, config.json last, so that a folder that is cleared halfway still says what it is."""
        machine.clear(self.path, last="config.json")

    def reopen(self) -> None:
        """Delete the verdict and what follows from it: they are out of date where a finished run goes on."""
        for path in (self.verdict_path, self.refinement_path, self.page_path):
            path.unlink(missing_ok=True)

    def clear_work(self) -> None:
        """Delete what only a run that goes on needs."""
        shutil.rmtree(self.work_path, ignore_errors=True)

    # ----------------------------------------------------------------------------------------- what was asked, and when

    def config(self) -> RunConfig:
        """What was asked, of which data, on which machine."""
        return checked(RunConfig, read_json(self.config_path), self.config_path)

    def raw_config(self) -> Any:
        """config.json as it stands; None where there is none. It may be of another version, or of another program."""
        return read_json(self.config_path) if self.is_begun else None

    def write_config(self, config: RunConfig) -> None:
        """The first file of a run."""
        write_json(self.config_path, asdict(config))

    @property
    def has_schema(self) -> bool:
        """Whether the columns are written."""
        return (self.path / "schema.json").exists()

    def schema(self) -> RunSchema:
        """The columns, and which of them are targets."""
        path = self.path / "schema.json"
        with content_of(path):
            plain = read_json(path)
            whole = source.from_json(plain)
            if "target" not in plain:
                return RunSchema(whole, (), whole, None)
            modelled, inputs = split_target(whole, plain["target"])
            return RunSchema(whole, tuple(plain["target"]), modelled, inputs)

    def write_schema(self, whole: DataKind, target: Sequence[str] = ()) -> None:
        """``target``: the names of the columns that are modelled given the others."""
        write_json(self.path / "schema.json", whole.to_json() | ({"target": list(target)} if target else {}))

    def state(self) -> SavedState:
        """How far the run has come."""
        return checked(SavedState, read_json(self.state_path), self.state_path)

    def write_state(self, state: SavedState) -> None:
        """Written again and again while the run goes on."""
        write_json(self.state_path, asdict(state))

    @property
    def has_state(self) -> bool:
        """Whether a fit has begun."""
        return self.state_path.exists()

    def splits(self) -> RowNumbers:
        """The numbers of the rows that fit, select and report."""
        path = self.path / "splits.safetensors"
        with content_of(path):
            parts = read_tensors(path)
            return RowNumbers(parts["fit"], parts["select"], parts["report"])

    def write_splits(self, rows: RowNumbers) -> None:
        """The numbers of the rows that fit, select and report."""
        write_tensors(self.path / "splits.safetensors", {"fit": rows.fit, "select": rows.select, "report": rows.report})

    def history(self) -> list[dict[str, Any]]:
        """Training records: the fields of ``train.fit.Step``, with ``model`` and ``fit`` (model/fold or model/all)."""
        return read_lines(self.history_path)

    def write_history(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Of all fits."""
        write_lines(self.history_path, records)

    # ------------------------------------------------------------------------------------------------------ the models

    def model(self, name: str, space: Space, own: Mapping[str, Callable[..., Model]], *, refit: bool = False) -> Model:
        """A fitted model, on the CPU; a person's own models must be passed in ``own``."""
        return load_model(self.model_path(name, refit=refit), space, own)

    def write_model(self, name: str, model: Model, family: str | None, config: Mapping[str, Any] | None, *, refit: bool) -> None:
        """``family`` None marks a person's own model."""
        save_model(self.model_path(name, refit=refit), model, family, config)

    def model_path(self, name: str, *, refit: bool = False) -> Path:
        """The folder of a model."""
        return self.path / ("refits" if refit else "models") / name

    def outside_rows(self, name: str, space: Space) -> Tensor:
        """The rows (n, *shape) of an outside generator, in data units."""
        path = self.path / "samples" / f"{name}.safetensors"
        with content_of(path):
            return space.check(read_tensors(path)["rows"], name="rows")

    def write_outside_rows(self, name: str, rows: Tensor) -> None:
        """The rows (n, *shape) of an outside generator, in data units."""
        write_tensors(self.path / "samples" / f"{name}.safetensors", {"rows": rows})

    def encoding(self) -> dict[str, Tensor]:
        """The state of the encoding that all models share."""
        return read_tensors(self.path / "encoding.safetensors")

    def write_encoding(self, state: Mapping[str, Tensor]) -> None:
        """The state of the encoding that all models share."""
        write_tensors(self.path / "encoding.safetensors", state)

    def inputs(self, schema: Schema) -> InputColumns:
        """In a run with targets: the columns that they are modelled given, and their encoding."""
        path = self.path / "inputs.safetensors"
        with content_of(path):
            return InputColumns.restore(schema, read_tensors(path))

    def write_inputs(self, inputs: InputColumns) -> None:
        """The encoding of the inputs; their schema is part of schema.json."""
        write_tensors(self.path / "inputs.safetensors", inputs.inputs.state_dict())

    # ----------------------------------------------------------------------------------------------------- what was found

    def scores(self) -> list[Score]:
        """One a model, as they were written; :func:`mixtura.folder.records.ranked` orders them."""
        path = self.path / "scores.jsonl"
        with content_of(path):
            scores = [checked(Score, record, path) for record in read_lines(path)]
            names = [score.name for score in scores if score.has_samples]
            odd = next((n for n in names if not _is_file_name(n) or names.count(n) > 1), None)
            if odd is not None or not names:
                raise ValueError("no model" if odd is None else f"{odd!r} is no name of one model")
        return scores

    def write_scores(self, scores: Iterable[Score]) -> None:
        """One line a model."""
        write_lines(self.path / "scores.jsonl", [asdict(score) for score in scores])

    def nats(self) -> Nats:
        """Log-densities of select and report rows, of every model that has any."""
        path = self.path / "nats.safetensors"
        found: dict[str, dict[str, Tensor]] = {"select": {}, "report": {}}
        with content_of(path):
            for key, nats in sorted(read_tensors(path).items()):
                name, _, part = key.rpartition(".")
                found[part][name] = nats
        return Nats(found["select"], found["report"])

    def write_nats(self, nats: Nats) -> None:
        """Log-densities of select and report rows, of every model that has any."""
        both = (("select", nats.select), ("report", nats.report))
        write_tensors(self.path / "nats.safetensors", {f"{name}.{part}": x for part, of in both for name, x in of.items()})

    def verdict(self, *, conditional: bool = False) -> Verdicts:
        """All verdicts of the run. ``conditional``: that of a run with targets, which has a ``conditioning``."""
        path = self.verdict_path
        plain = read_json(path)
        with content_of(path):
            verdicts = {name: checked(Verdict, v, path) for name, v in plain["verdicts"].items()}
            if plain["objective"] not in verdicts:
                raise ValueError(f"no verdict by the objective {plain['objective']!r}")
            conditioning = checked(Conditioning, plain["conditioning"], path) if conditional else None
            refinement = checked(Refinement, plain["refinement"], path) if "refinement" in plain else None
            return Verdicts(plain["objective"], str(plain["why"]), int(plain["duplicates"]), verdicts, conditioning, refinement)

    def write_verdict(self, verdicts: Verdicts) -> None:
        """The last file of a run: a folder that has it is finished."""
        write_json(self.verdict_path, {name: value for name, value in asdict(verdicts).items() if value is not None})

    def refinement(self) -> dict[str, Tensor]:
        """The trees by which samples of the choice are accepted."""
        return read_tensors(self.refinement_path)

    def write_refinement(self, tensors: Mapping[str, Tensor]) -> None:
        """The trees by which samples of the choice are accepted."""
        write_tensors(self.refinement_path, tensors)

    def quadratic(self) -> BlendQuadratic:
        """MMD² of any blend on the report rows."""
        path = self.path / "quadratic.json"
        with content_of(path):
            found = checked(BlendQuadratic, read_json(path), path)
            if {len(found.b), len(found.weights), len(found.Q), *map(len, found.Q)} != {len(found.names)}:
                raise ValueError(f"expected a form of {len(found.names)} models")
        return found

    def write_quadratic(self, quadratic: BlendQuadratic) -> None:
        """MMD² of any blend on the report rows."""
        write_json(self.path / "quadratic.json", asdict(quadratic))

    def gallery(self, schema: RunSchema, names: Sequence[str]) -> Gallery:
        """What the report shows of the models in ``names``; in a run with targets, inputs and targets of unseen rows instead."""
        path, space = self.gallery_path, schema.modelled.space
        with content_of(path):
            found = read_tensors(path)
            real = _rows(found, "real", space)
            if schema.inputs is not None:
                return Gallery(real, {}, {}, _rows(found, "asked", schema.inputs.space))
            samples = {name: _rows(found, f"samples.{name}", space) for name in names}
            return Gallery(real, samples, {name: _rows(found, f"nearest.{name}", space) for name in names}, None)

    def write_gallery(self, gallery: Gallery) -> None:
        """What the report shows, in data units."""
        both = (("samples", gallery.samples), ("nearest", gallery.nearest))
        tensors = {f"{kind}.{name}": rows for kind, of in both for name, rows in of.items()}
        asked = {} if gallery.asked is None else {"asked": gallery.asked}
        write_tensors(self.gallery_path, {"real": gallery.real, **asked, **tensors})

    def calibration(self) -> Calibration:
        """In a run with targets: ranks of true targets among the draws of each model."""
        path = self.calibration_path
        with content_of(path):
            found = read_tensors(path)
            rows, ranks = found.pop("rows"), dict[str, dict[str, Tensor]]()
            for key, of_one in sorted(found.items()):  # a file of tensors has no order
                name, _, target = key.partition("/")
                ranks.setdefault(name, {})[target] = of_one
        return Calibration(rows, ranks)

    def write_calibration(self, found: Calibration) -> None:
        """Ranks of true targets among the draws of each model."""
        ranks = {f"{name}/{target}": x for name, of in found.ranks.items() for target, x in of.items()}
        write_tensors(self.calibration_path, {"rows": found.rows, **ranks})

    def portraits(self) -> list[dict[str, Any]]:
        """In a run with targets: densities of the targets given the inputs, as the job that draws them describes."""
        return read_json(self.portraits_path)

    def write_portraits(self, portraits: Sequence[Mapping[str, Any]]) -> None:
        """Densities of the targets given the inputs, as plain data."""
        write_json(self.portraits_path, list(portraits))

    # ------------------------------------------------------------------------------------------------- what people read

    def write_card(self, text: str) -> None:
        """The model card, Markdown."""
        write_document(self.path / "README.md", text)

    def write_example(self, rows: Content) -> None:
        """Rows of the verdict's choice: samples.npz for images, else samples.csv, or .jsonl where text cannot tell labels
        apart."""
        if not isinstance(rows, pd.DataFrame):
            return source.write(rows, self.path / "samples.npz")
        try:
            source.write(rows, self.path / "samples.csv")
        except machine.CannotWrite:
            raise
        except InputError:
            (self.path / "samples.csv").unlink(missing_ok=True)
            source.write(rows, self.path / "samples.jsonl")

    def bits(self) -> dict[str, bytes]:
        """The content, by name, of the files that a replay of the run must give again: tensors of the models that it scored,
        nats, gallery, rows of the choice. Another model can have left its file before it failed."""
        names = sorted(score.name for score in self.scores() if score.has_samples)
        folders = [self.model_path(name, refit=refit) for refit in (False, True) for name in names]
        models = [path for folder in folders for path in sorted(folder.rglob("*.safetensors"))]
        others = [self.path / "nats.safetensors", self.gallery_path, self.refinement_path, *sorted(self.path.glob("samples.*"))]
        return {str(path.relative_to(self.path)): path.read_bytes() for path in (*models, *others) if path.exists()}

    # --------------------------------------------------------------------- paths that a message or another room must name

    @property
    def verdict_path(self) -> Path:
        """The last file of a run."""
        return self.path / "verdict.json"

    @property
    def config_path(self) -> Path:
        """The first file of a run."""
        return self.path / "config.json"

    @property
    def state_path(self) -> Path:
        """How far the run has come."""
        return self.path / "state.json"

    @property
    def gallery_path(self) -> Path:
        """What the report shows in data units."""
        return self.path / "gallery.safetensors"

    @property
    def calibration_path(self) -> Path:
        """Ranks of true targets in a run with targets."""
        return self.path / "calibration.safetensors"

    @property
    def history_path(self) -> Path:
        """Training records."""
        return self.path / "history.jsonl"

    @property
    def refinement_path(self) -> Path:
        """The trees by which samples of the choice are accepted."""
        return self.path / "refinement.safetensors"

    @property
    def portraits_path(self) -> Path:
        """Densities of the verdict's choice in a run with targets."""
        return self.path / "portraits.json"

    @property
    def page_path(self) -> Path:
        """Where the report stands by default."""
        return self.path / "report.html"

    @property
    def work_path(self) -> Path:
        """The folder of what only a run that goes on needs."""
        return self.path / "work"


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in (".", "..") and name.isprintable()


def _rows(tensors: Mapping[str, Tensor], key: str, space: Space) -> Tensor:
    """Rows of this space, one at least."""
    space.check(tensors[key].double(), name=key)
    if len(tensors[key]) == 0:
        raise ValueError(f"{key!r} holds no rows")
    return tensors[key]


