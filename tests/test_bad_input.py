"""Whatever is wrong with what a person gives: one sentence on standard error, exit code 2, and nothing is touched."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rounding import assert_same_rows
from safetensors.torch import load_file, save_file

import mixtura
from mixtura.cli.main import main

ROWS = 60
QUICK = "--steps 20 --families marginals,autoregressive"
COLUMNS = "--columns size,colour,count"


def table(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    size, colour = rng.normal(100, 3, rows).round(1), rng.choice(["red", "green", "blue"], rows)
    frame = pd.DataFrame({"size": size, "colour": colour, "count": rng.poisson(20, rows)})
    return frame.assign(part=np.resize(["fit", "fit", "fit", "select", "report"], rows), herd=np.arange(rows) // 6)


# ------------------------------------------------------------------------------------------- what is given


def files(place: Path) -> None:
    """Tables with something wrong, each named for it; good.csv has nothing wrong."""
    good = table()
    odd = {
        "good.csv": good,
        "inf.csv": good.assign(size=["inf", *good["size"][1:]]),
        "minus_inf.csv": good.assign(size=[*good["size"][:-1], "-Infinity"]),
        "gap.csv": good.assign(size=[None, *good["size"][1:]]),
        "word.csv": good.assign(size=["large", *good["size"][1:]]),
        "narrow.csv": good.drop(columns="count"),
        "unseen.csv": good.assign(colour="octarine"),
        "header.csv": good[:0],
        "one.csv": good[:1],
        "constant.csv": good.assign(size=1, colour="red", count=2, part="fit", herd=0),
        "ids.csv": pd.DataFrame({"name": [f"person-{i:04d}" for i in range(ROWS)]}),
        "twice.csv": good.set_axis(["size", "size", "count", "part", "herd"], axis=1),
        "same_part.csv": good.assign(part="fit"),
    }
    for name, frame in odd.items():
        frame.to_csv(place / name, index=False)
    (place / "empty.csv").touch()
    (place / "binary.csv").write_bytes(bytes(range(256)) * 8)
    (place / "ragged.csv").write_text("a,b\n1,2\n3,4,5\n")
    (place / "quote.csv").write_text('a,b\n1,"2\n')
    (place / "headless.csv").write_text("1.5,2.5\n3.5,4.5\n")
    (place / "notes.docx").write_text("not a table")
    (place / "number.json").write_text("3")
    (place / "deep.json").write_text("[" * 100_000)
    (place / "nested.jsonl").write_text('{"a": [1, 2]}\n' * ROWS)
    (place / "cut.jsonl").write_text('{"a": 1}\n{"a": ')
    np.save(place / "inf.npy", np.where(np.arange(3 * ROWS).reshape(ROWS, 3) == 7, np.inf, 1.5))
    np.save(place / "cube.npy", np.zeros((4, 4, 4)))
    np.save(place / "complex.npy", np.zeros((ROWS, 2), complex))
    np.save(place / "objects.npy", np.array([["a", 1]] * ROWS, object), allow_pickle=True)
    (place / "pickle.npy").write_bytes(pickle.dumps(good))
    np.savez(place / "two.npz", a=np.zeros((ROWS, 2)), b=np.zeros((ROWS, 2)))
    good.to_parquet(place / "whole.parquet")
    for name, whole in (("cut.npz", "two.npz"), ("cut.parquet", "whole.parquet")):
        (place / name).write_bytes((place / whole).read_bytes()[:200])
    (place / "folder.csv").mkdir()
    (place / "theirs").mkdir()
    (place / "theirs" / "config.json").write_text('{"architecture": "of another program"}')
    (place / "full").mkdir()
    (place / "full" / "letter.txt").touch()


def edit(path: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the content of a JSON file."""
    return lambda run: _write(run / path, json.dumps(change(json.loads((run / path).read_text()))))


def verdict(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Change the verdict in nats."""
    return edit("verdict.json", lambda v: v | {"verdicts": v["verdicts"] | {"nats": change(v["verdicts"]["nats"])}})


def tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Change the largest tensor of the autoregressive model."""

    def hurt(run: Path) -> None:
        path = run / "models/autoregressive/model.safetensors"
        state = load_file(path)
        widest = max(state, key=lambda key: state[key].numel())
        save_file(state | {widest: change(state[widest]).contiguous()}, path)

    return hurt


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _replace(path: Path, make: Callable[[Path], Any]) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    make(path)


MODEL = "models/autoregressive"
#: spoilt so that no model comes out of them
MODELS: dict[str, Callable[[Path], Any]] = {
    "unfinished": lambda run: (run / "verdict.json").unlink(),
    "verdict_no_json": lambda run: _write(run / "verdict.json", "{"),
    "verdict_list": lambda run: _write(run / "verdict.json", "[1, 2]"),
    "verdict_deep": lambda run: _write(run / "verdict.json", "[" * 100_000),
    "verdict_binary": lambda run: (run / "verdict.json").write_bytes(b"\xff\xfe\x00"),
    "verdict_folder": lambda run: _replace(run / "verdict.json", Path.mkdir),
    "verdict_extra": verdict(lambda v: v | {"code": "import os"}),
    "verdict_stranger": verdict(lambda v: v | {"weights": {"../../etc": 1.0}}),
    "verdict_choice": verdict(lambda v: v | {"choice": "nobody"}),
    "verdict_weights": verdict(lambda v: v | {"weights": dict.fromkeys(v["weights"], -1.0)}),
    "verdict_words": verdict(lambda v: v | {"weights": dict.fromkeys(v["weights"], "much")}),
    "verdict_objective": edit("verdict.json", lambda v: v | {"objective": "beauty"}),
    "schema_no_json": lambda run: _write(run / "schema.json", "]"),
    "schema_list": lambda run: _write(run / "schema.json", "[]"),
    "schema_empty": lambda run: _write(run / "schema.json", '{"fields": []}'),
    "schema_kind": edit("schema.json", lambda s: {"fields": [f | {"kind": "spell"} for f in s["fields"]]}),
    "schema_words": edit("schema.json", lambda s: {"fields": [f | {"low": "low", "step": "big"} for f in s["fields"]]}),
    "schema_fewer": edit("schema.json", lambda s: {"fields": s["fields"][:2]}),
    "scores_no_json": lambda run: _write(run / "scores.jsonl", "nats"),
    "scores_path": lambda run: _write(run / "scores.jsonl", '{"name": "../../etc", "status": "fitted"}\n'),
    "scores_number": lambda run: _write(run / "scores.jsonl", '{"name": 3, "status": "fitted"}\n'),
    "no_models": lambda run: shutil.rmtree(run / "models"),
    "no_model": lambda run: shutil.rmtree(run / MODEL),
    "model_file": lambda run: _replace(run / MODEL, Path.touch),
    "model_loop": lambda run: _replace(run / MODEL, lambda path: path.symlink_to(path)),
    "family_unknown": edit(f"{MODEL}/config.json", lambda c: c | {"family": "oracle"}),
    "family_path": edit(f"{MODEL}/config.json", lambda c: c | {"family": "../../evil.py"}),
    "family_list": edit(f"{MODEL}/config.json", lambda c: c | {"family": ["flow"]}),
    "family_own": edit(f"{MODEL}/config.json", lambda c: c | {"family": None}),
    "format_other": edit(f"{MODEL}/config.json", lambda c: c | {"format": 99}),
    "config_words": edit(f"{MODEL}/config.json", lambda c: c | {"config": "huge"}),
    "config_huge": edit(f"{MODEL}/config.json", lambda c: c | {"config": dict.fromkeys(c["config"], 10**12)}),
    "context_words": edit(f"{MODEL}/config.json", lambda c: c | {"context": "all"}),
    "tensors_nan": tensors(lambda t: t * torch.nan),
    "tensors_shape": tensors(lambda t: t[..., :1]),
    "tensors_dtype": tensors(lambda t: t.double() if t.dtype != torch.float64 else t.float()),
    "tensors_cut": lambda run: os.truncate(run / MODEL / "model.safetensors", 100),
    "tensors_text": lambda run: _write(run / MODEL / "model.safetensors", "x"),
    "tensors_gone": lambda run: (run / MODEL / "model.safetensors").unlink(),
    "tensors_pickle": lambda run: (run / MODEL / "model.safetensors").write_bytes(pickle.dumps({"weight": 1})),
}
#: spoilt so that they can neither be replayed nor gone on with
RECORDS: dict[str, Callable[[Path], Any]] = {
    "config_list": lambda run: _write(run / "config.json", "[]"),
    "config_bare": edit("config.json", lambda c: c | {"asked": {}}),
    "state_list": lambda run: _write(run / "state.json", "[]"),
    "state_gone": lambda run: (run / "state.json").unlink(),
    "halfway_list": lambda run: [(run / "verdict.json").unlink(), _write(run / "state.json", "[]")],
    "halfway_words": lambda run: [(run / "verdict.json").unlink(), _write(run / "state.json", '{"units": "all"}')],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that can be given: files, the finished run ``run``, and a copy of it for every way to spoil it."""
    place = tmp_path_factory.mktemp("place")
    files(place)
    columns = ["size", "colour", "count"]
    mixtura.run(place / "good.csv", steps=20, families=["marginals", "autoregressive"], columns=columns, out=place / "run")
    for name, spoil in (MODELS | RECORDS).items():
        shutil.copytree(place / "run", place / name)
        spoil(place / name)
    return place


def contents(place: Path) -> dict[str, tuple[int, int]]:
    """Every path below, when it was written and its size."""
    return {str(p.relative_to(place)): (p.lstat().st_mtime_ns, p.lstat().st_size) for p in place.rglob("*")}


def command(line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> SimpleNamespace:
    """What ``mixtura LINE`` did there."""
    monkeypatch.chdir(place)
    capsys.readouterr()
    before, code = contents(place), 0
    try:
        main(line.split())
    except SystemExit as leave:
        code = int(leave.code or 0)
    out, err = capsys.readouterr()
    return SimpleNamespace(code=code, out=out, err=err, untouched=contents(place) == before)


# ------------------------------------------------------------------------------------------- what is said

#: a command line, and what its one sentence must say
RUN = [
    ("run", "name a file"),
    ("run penguin", "penguins"),
    ("run nowhere.csv", "give the path"),
    ("run folder.csv", "give a folder or zip"),
    ("run notes.docx", ".docx is not read"),
    ("run empty.csv", "is empty"),
    ("run binary.csv", "binary"),
    ("run ragged.csv", "line 3 has 3 fields"),
    ("run quote.csv", "repair its quotes"),
    ("run headless.csv", "add a header"),
    ("run twice.csv", "'size'"),
    ("run header.csv", "no rows"),
    ("run one.csv", "20 rows"),
    ("run constant.csv", "a column that varies"),
    ("run ids.csv", "a column that varies"),
    ("run inf.csv", "'size'"),
    ("run minus_inf.csv", "'size'"),
    ("run inf.npy", "'x1'"),
    ("run cube.npy", "every pixel is 0"),
    ("run good.csv --objective fid", "expected nats or mmd"),
    ("run good.csv --features inception", "features: 'inception' is none"),
    ("run good.csv --size 8", "is for images"),
    ("run good.csv --skip-broken", "is for images"),
    ("run digits --kind a=integer", "is for tables"),
    ("run digits --group writer", "images have none"),
    ("run complex.npy", "convert"),
    ("run objects.npy", "never loaded"),
    ("run pickle.npy", "never loaded"),
    ("run two.npz", "two.npz:a"),
    ("run two.npz:c", "it holds a, b"),
    ("run cut.npz", "write it again"),
    ("run cut.parquet", "write it again"),
    ("run cut.jsonl", "write it again"),
    ("run deep.json", "write it again"),
    ("run number.json", "one record a row"),
    ("run nested.jsonl", "flatten"),
    ("run good.csv --budget soon", "60s, 5m or 1h"),
    ("run good.csv --budget 0", "60s, 5m or 1h"),
    (f"run good.csv --budget {'9' * 400}", "60s, 5m or 1h"),
    ("run good.csv --budget -5s", "60s, 5m or 1h"),
    ("run good.csv --budget 60s --steps 5", "give one of them"),
    ("run good.csv --steps 0", "1 or more"),
    ("run good.csv --steps many", "mixtura run --help"),
    ("run good.csv --seed -1", "--seed"),
    ("run good.csv --seed 1.5", "--seed"),
    ("run good.csv --families oracle", "choose from these"),
    ("run good.csv --families ,", "leave --families out"),
    ("run good.csv --columns age", "'age'"),
    ("run good.csv --columns ,", "leave --columns out"),
    ("run good.csv --kind colour", "age=integer"),
    ("run good.csv --kind colour=spell", "categorical"),
    ("run good.csv --kind colour=integer", "'colour'"),
    ("run good.csv --kind age=integer", "'age'"),
    ("run good.csv --split colour", "fit, select or report"),
    ("run good.csv --split age", "'age'"),
    ("run good.csv --group age", "'age'"),
    ("run good.csv --group size --split part", "one way to split"),
    ("run same_part.csv --split part", "another split"),
    ("run good.csv --time colour", "column of times"),
    ("run good.csv --device cuda", "cuda"),
    ("run good.csv --device abacus", "abacus"),
    ("run good.csv --samples gan", "gan=gan.csv"),
    ("run good.csv --samples gan=nowhere.csv", "nowhere.csv"),
    ("run good.csv --samples flow=good.csv", "another name"),
    ("run good.csv --out good.csv", "another --out"),
    ("run good.csv --out good.csv/deep", "good.csv"),
    ("run good.csv --out full", "another --out"),
    ("run good.csv --out /proc/nowhere", "cannot be written"),
    (f"run good.csv {QUICK} --out run --seed 2", "--fresh"),
    (f"run narrow.csv {QUICK} --out run", "--fresh"),
    ("run good.csv --quick", "--quick"),
    ("run good.csv more.csv", "more.csv"),
    ("run good.csv --seed", "--seed"),
    ("run --replay nowhere", "no"),
    ("run --replay unfinished", "mixtura run"),
    ("run unseen.csv --replay run --out replayed", "same bytes"),
    ("run good.csv --replay run --out full", "another --out"),
    ("run good.csv --replay run --out run --fresh", "another --out"),
    ("run good.csv --replay run --steps 5", "leave it out"),
    ("run --replay config_list", "config.json"),
    ("run --replay config_bare", "config.json"),
    ("run --replay state_list", "state.json"),
    ("run --replay state_gone", "state.json"),
    (f"run good.csv {QUICK} {COLUMNS} --out halfway_list", "state.json"),
    (f"run good.csv {QUICK} {COLUMNS} --out halfway_words", "state.json"),
    (f"run good.csv {QUICK} --out config_list", "another --out"),
    (f"run good.csv {QUICK} --out theirs --fresh", "another --out"),
    ("ran good.csv", "ran"),
]
USE = [
    ("evaluate good.csv", "GENERATED"),
    ("evaluate good.csv nowhere.csv", "no file"),
    ("evaluate good.csv narrow.csv", "no column 'count'"),
    ("evaluate good.csv cube.npy", "holds images, expected a table"),
    ("evaluate one.csv one.csv", "at least 20 rows"),
    ("evaluate good.csv good.csv --features pca:0", "features: 'pca:0' is none"),
    ("evaluate good.csv good.csv --features conv:8", "table"),
    ("evaluate good.csv good.csv --features net.onnx", "no file 'net.onnx'"),
    ("evaluate good.csv good.csv -o new.docx", ".csv"),
    ("report nowhere", "no such folder"),
    ("report full", "mixtura run"),
    ("report verdict_objective", "damaged"),
    ("sample", "RUN"),
    ("sample run -n 0", "1 or more"),
    ("sample run -n -3", "1 or more"),
    ("sample run -n few", "-n"),
    ("sample run --seed -1", "--seed"),
    ("sample run --model flow", "marginals"),
    ("sample nowhere", "no such folder"),
    ("sample good.csv", "no such folder"),
    ("sample full", "mixtura run"),
    ("sample run -o new.docx", ".csv"),
    ("sample run -o new", ".csv"),
    ("sample run -o nowhere/new.csv", "no folder"),
    ("sample run -o folder.csv", "is a folder"),
    ("sample run -o new.npy", ".parquet"),
    ("sample run -o /proc/new.csv", "/proc/new.csv: cannot be written"),
    ("score run", "FILE"),
    ("score run nowhere.csv", "give the path"),
    ("score run empty.csv", "is empty"),
    ("score run header.csv", "no rows"),
    ("score run ragged.csv", "line 3"),
    ("score run narrow.csv", "'count'"),
    ("score run inf.csv", "'size'"),
    ("score run gap.csv", "'size', row 0 is missing"),
    ("score run word.csv", "'large'"),
    ("score run cube.npy", "holds images, expected a table"),
    ("score run pickle.npy", "never loaded"),
    ("score run cut.parquet", "write it again"),
    ("score run good.csv --model oracle", "there are"),
    ("score run good.csv --seed -1", "--seed"),
    ("score run good.csv -o scores.docx", ".csv"),
    ("score run good.csv -o scores.npy", ".parquet"),
    ("impute run nowhere.csv", "give the path"),
    ("impute run empty.csv", "is empty"),
    ("impute run header.csv", "no rows"),
    ("impute run narrow.csv", "'count'"),
    ("impute run gap.csv --draws 0", "1 or more"),
    ("impute run gap.csv --draws some", "--draws"),
    ("impute run gap.csv --model oracle", "there are"),
    ("impute run gap.csv --seed -1", "--seed"),
    ("impute run objects.npy", "never loaded"),
    ("impute run gap.csv -o filled.xlsx", ".csv"),
]
SPOILT = [(f"{verb} {name}{' good.csv' * (verb != 'sample')}", "") for name in MODELS for verb in ("sample", "score", "impute")]


@pytest.mark.parametrize(("line", "says"), [*RUN, *USE, *SPOILT])
def test_one_sentence_and_nothing_touched(line, says, place, monkeypatch, capsys):
    did = command(line, place, monkeypatch, capsys)
    said = did.err.splitlines()
    assert len(said) == 1 and said[0].startswith("error: ") and says in said[0], did.err
    assert (did.code, did.out, did.untouched) == (2, "", True)
    assert len(said[0]) < 400 and any(mark in said[0] for mark in (";", ",")), "it must say what to do"


@pytest.mark.parametrize("line", ["run empty.csv", "sample run -n 0", "score run inf.csv", "impute full gap.csv"])
def test_with_json_too(line, place, monkeypatch, capsys):
    did = command(f"{line} --json", place, monkeypatch, capsys)
    assert (did.code, did.out, did.untouched) == (2, "", True)
    assert did.err.startswith("error: ") and did.err.count("\n") == 1


# ------------------------------------------------------------------------------------ odd, but no mistake


@pytest.mark.parametrize("model", ["blend", "marginals"])
def test_an_unseen_category_has_finite_nats_where_there_is_a_floor(model, place, monkeypatch, capsys):
    did = command(f"score run unseen.csv --model {model} --json", place, monkeypatch, capsys)
    assert did.code == 0 and np.isfinite([row["nats"] for row in json.loads(did.out)["data"]]).all()


@pytest.mark.parametrize(
    "data",
    [
        np.random.default_rng(0).normal(size=(ROWS, 2)).astype(np.float16),
        np.random.default_rng(0).normal(size=(2, ROWS)).T,
        np.asfortranarray(np.random.default_rng(0).normal(size=(ROWS, 4)))[:, ::2],
        torch.randn(2, ROWS, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0)).T,
    ],
    ids=["float16", "transposed", "strided", "bfloat16"],
)
def test_arrays_of_any_layout_are_read(data, tmp_path):
    scored = mixtura.run(data, families=["marginals"]).best.score(data)
    whole = (data.double().numpy() if isinstance(data, torch.Tensor) else data).astype(np.float64, order="C")
    assert np.isfinite(scored["nats"]).all()
    assert_same_rows(scored, mixtura.run(whole, families=["marginals"]).best.score(whole))
