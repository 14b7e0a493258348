"""A run folder gives back what was written to it, and names the file that is not what it should be."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, is_dataclass, replace

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError, Space
from mixtura.data import source
from mixtura.data.guess import guess
from mixtura.folder.layout import RunFolder
from mixtura.folder.models import FORMAT
from mixtura.folder.records import (
    BlendQuadratic,
    Calibration,
    Conditioning,
    DataRecord,
    Environment,
    Gallery,
    Nats,
    RowNumbers,
    RunConfig,
    SavedState,
    Score,
    Verdict,
    Verdicts,
    ranked,
)

CONFIG = RunConfig(
    FORMAT, "1.0", None, DataRecord("people", "abc", 300, 900), {"seed": 0, "budget": 60.0}, Environment("2.9", 1, "cpu")
)
SCORES = [
    Score("vae", "fitted", kind="bound", nats=-1.0, metrics={"mmd2": {"value": 0.1, "error": 0.2, "n": 3, "reason": ""}}),
    Score("kde", "failed", "no"),
    Score("flow", "fitted", kind="exact", nats=-3.5, nats_error=0.25, rows=60, diagnosis={"rate": 1.5}),
    Score("far", "samples only"),
]
VERDICT = Verdict(
    "nats", "nats a row", "blend", "flow", "bound", {"flow": 0.75, "vae": 0.25}, 1e-9, 0.5, 0.125, 0.5, 0.125, -1, 0.1, 60, "gain"
)
CONDITIONING = Conditioning(["y"], ["x"], 1.0, 0.5, None, None, None, {"crps": {"value": 1.0}})
QUADRATIC = BlendQuadratic("MMD²", ["a", "b"], [[1.0, 0.5], [0.5, 1.0]], [0.25, 0.5], 1.0, [0.5, 0.5], 0.0, 60, "columns")


def people(n=40):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"x": rng.normal(size=n), "y": rng.choice(["red", "blue"], n)})


def ranks(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture
def run(tmp_path):
    """A folder with every file that a reader reads."""
    run = RunFolder(tmp_path / "run")
    learnt = guess(people())
    rows = learnt.encode(people(), name="data")
    run.write_config(CONFIG)
    run.write_schema(learnt, ["y"])
    run.write_state(SavedState(1.5, {"flow/all": {"seconds": 2.0}}, {"kde": {"status": "failed", "reason": "no", "again": True}}))
    run.write_splits(RowNumbers(*(torch.arange(k) for k in (3, 2, 1))))
    run.write_history([{"model": "flow", "fit": "flow/all", "step": 3}])
    run.write_scores(SCORES)
    run.write_nats(Nats({"a.b": ranks(1, 2)}, {"a.b": ranks(3)}))
    run.write_quadratic(QUADRATIC)
    run.write_gallery(Gallery(rows[:, 1:], {}, {}, rows[:, :1]))
    run.write_calibration(Calibration(torch.arange(2), {"flow": {"y/z": ranks(0.5, math.nan)}}))
    run.write_portraits([{"target": 0}])
    run.write_verdict(Verdicts("nats", "asked for", 2, {"nats": VERDICT}, CONDITIONING))
    run.write_outside_rows("far", ranks([1.0], [2.0]))
    return run


def same(a, b):
    """Records, tensors and what holds them."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.nan_to_num(-7), b.nan_to_num(-7))
    if is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    return a == b


def test_what_was_written_comes_back(run):
    assert run.is_begun and run.is_finished and run.has_state and run.holds_anything
    assert RunFolder.finished(run.path) == run and RunFolder.finished(str(run.path)) == run
    assert run.config() == CONFIG and run.raw_config() == asdict(CONFIG)
    columns = run.schema()
    assert columns.target == ("y",) and [f.name for f in columns.whole.fields] == ["x", "y"]
    assert [f.name for f in columns.modelled.fields] == ["y"] and [f.name for f in columns.inputs.fields] == ["x"]
    assert run.state() == SavedState(1.5, {"flow/all": {"seconds": 2.0}}, run.state().failures)
    assert run.state().to_be_tried_again == ["kde"]
    assert same(run.splits(), RowNumbers(*(torch.arange(k) for k in (3, 2, 1))))
    assert run.history() == [{"model": "flow", "fit": "flow/all", "step": 3}]
    assert run.scores() == SCORES and [s.name for s in ranked(run.scores())] == ["flow", "vae", "far", "kde"]
    assert same(run.nats(), Nats({"a.b": ranks(1, 2)}, {"a.b": ranks(3)}))
    assert run.quadratic() == QUADRATIC and run.portraits() == [{"target": 0}]
    gallery = run.gallery(columns, [])
    assert gallery.real.shape == gallery.asked.shape == (40, 1) and gallery.samples == gallery.nearest == {}
    assert same(run.calibration(), Calibration(torch.arange(2), {"flow": {"y/z": ranks(0.5, math.nan)}}))
    assert run.verdict(conditional=True) == Verdicts("nats", "asked for", 2, {"nats": VERDICT}, CONDITIONING)
    assert same(run.outside_rows("far", Space.continuous(1)), ranks([1.0], [2.0]))


def test_a_gallery_of_images_keeps_their_type(tmp_path):
    run, learnt = RunFolder(tmp_path), source.learn(source.load(np.arange(320, dtype=np.uint8).reshape(20, 4, 4)))
    run.write_schema(learnt)
    x = torch.full((3, *learnt.space.shape), 7.0)
    run.write_gallery(Gallery(x, {"a": x[:2]}, {"a": x[1:]}))
    columns = run.schema()
    assert columns.target == () and columns.inputs is None and columns.modelled is columns.whole
    assert same(run.gallery(columns, ["a"]), Gallery(x, {"a": x[:2]}, {"a": x[1:]}))
    with pytest.raises(InputError, match="gallery.safetensors: damaged"):
        run.gallery(columns, ["b"])


def test_without_targets_nothing_is_said_of_them(tmp_path):
    run = RunFolder(tmp_path)
    run.write_schema(guess(people()))
    run.write_verdict(Verdicts("nats", "asked for", 0, {"nats": VERDICT}))
    assert "target" not in (tmp_path / "schema.json").read_text() + (tmp_path / "verdict.json").read_text()
    assert run.verdict().conditioning is None
    with pytest.raises(InputError, match="verdict.json: damaged"):
        run.verdict(conditional=True)


def test_a_run_that_goes_on_has_no_verdict_until_it_ends(run):
    run.page_path.write_text("page")
    run.reopen()
    assert not run.is_finished and not run.page_path.exists()
    with pytest.raises(InputError, match="is not finished; the same `mixtura run` command goes on with it"):
        RunFolder.finished(run.path)
    run.clear()
    assert not run.holds_anything


def test_what_a_replay_must_give_again(run):
    run.write_example(people(3))
    assert list(run.bits()) == ["nats.safetensors", "gallery.safetensors", "samples.csv"]
    assert run.bits()["samples.csv"] == (run.path / "samples.csv").read_bytes()


def test_the_example_rows_are_in_one_file(run):
    run.write_example(people(3))
    run.write_example(pd.DataFrame({"z": [1, "1"]}))  # text cannot tell these labels apart
    assert [path.name for path in run.path.glob("samples.*")] == ["samples.jsonl"]


@pytest.mark.parametrize("part", ["real", "asked"])
def test_a_gallery_without_rows_is_refused(run, part):
    full = run.gallery(run.schema(), [])
    run.write_gallery(replace(full, **{part: getattr(full, part)[:0]}))
    with pytest.raises(InputError, match=f"gallery.safetensors: damaged.*'{part}' holds no rows"):
        run.gallery(run.schema(), [])


READERS = {
    "config.json": RunFolder.config, "schema.json": RunFolder.schema, "state.json": RunFolder.state,
    "splits.safetensors": RunFolder.splits, "history.jsonl": RunFolder.history, "scores.jsonl": RunFolder.scores,
    "nats.safetensors": RunFolder.nats, "quadratic.json": RunFolder.quadratic,
    "gallery.safetensors": lambda run: run.gallery(run.schema(), []), "calibration.safetensors": RunFolder.calibration,
    "portraits.json": RunFolder.portraits, "verdict.json": lambda run: run.verdict(conditional=True),
    "samples/far.safetensors": lambda run: run.outside_rows("far", Space.continuous(1)),
    "encoding.safetensors": RunFolder.encoding,
    "inputs.safetensors": lambda run: run.inputs(run.schema().inputs),
}  # fmt: skip


OBJECT = b'{"target": 3, "elapsed": "x", "verdicts": []}'
#: what these readers take: JSON of any kind, lines of any objects, none included
FREE = {("portraits.json", b"[3]"), ("portraits.json", OBJECT), ("history.jsonl", OBJECT), ("history.jsonl", b"")}
DAMAGES = [(n, c) for n in READERS for c in (None, b"", b"[3]", b"\xff\xfe\x00", OBJECT) if (n, c) not in FREE]


@pytest.mark.parametrize(("name", "content"), DAMAGES)
def test_a_file_that_is_gone_or_damaged_is_named(run, name, content):
    path = run.path / name
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=path.name) as caught:
        READERS[name](run)
    assert "\n" not in str(caught.value)


def edited(record, **changes):
    return {**asdict(record), **changes}


def form(**changes):
    return lambda run: run.write_quadratic(BlendQuadratic(**edited(QUADRATIC, **changes)))


@pytest.mark.parametrize(
    ("write", "read", "said"),
    [
        (form(b=[0.5]), RunFolder.quadratic, "a form of 2 models"),
        (form(weights=[1.0]), RunFolder.quadratic, "a form of 2 models"),
        (lambda run: run.write_scores([Score("k\nde", "fitted")]), RunFolder.scores, r"'k\nde' is no name of one model"),
        (lambda run: run.write_scores([Score("../kde", "fitted")]), RunFolder.scores, "'../kde' is no name of one model"),
        (lambda run: run.write_scores([SCORES[0], SCORES[0]]), RunFolder.scores, "'vae' is no name of one model"),
        (lambda run: run.write_scores([SCORES[1]]), RunFolder.scores, "no model"),
        (lambda run: run.write_verdict(Verdicts("mmd", "", 0, {"nats": VERDICT})), RunFolder.verdict, "objective 'mmd'"),
        (lambda run: run.write_state(SavedState("soon", {}, {})), RunFolder.state, "elapsed"),
        (lambda run: run.write_state(SavedState(0, {"a": 1}, {})), RunFolder.state, "units.a"),
        (lambda run: run.write_config(RunConfig(**edited(CONFIG, data={"name": 1}))), RunFolder.config, "data"),
        (lambda run: run.write_config(RunConfig(**edited(CONFIG, format=2))), RunFolder.check_format, "format 2, this one reads"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(run, write, read, said):
    write(run)
    with pytest.raises(InputError, match="run again with --fresh") as caught:
        read(run)
    assert said in str(caught.value)
    if read is not RunFolder.check_format:
        assert ".json" in str(caught.value)
