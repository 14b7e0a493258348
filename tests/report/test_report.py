"""The page's data are the run's, its figures are true, and the file asks for nothing from outside."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from mixtura.contracts import InputError
from mixtura.data.guess import guess
from mixtura.folder.io import read_tensors
from mixtura.folder.records import ranked
from mixtura.report import build, collect, figures, render
from mixtura.report.page import HERE

HOSTILE = ["</script><b>bold", '"quoted" \'twice\'', "<!--<script>", "emoji 🐧\u2028", "x" * 500, "]]>&amp;{{ 7 * 7 }}"]


class Page(HTMLParser):
    """Tags with attributes, and the text in each kind of tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.inside = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data):
        self.text.setdefault(self.inside[-1] if self.inside else "", []).append(data)

    @property
    def data(self):
        return json.loads(self.text["script"][0])


# ------------------------------------------------------------------------------------------------ collect


def test_the_data_are_the_runs(table_run):
    data = collect(table_run.folder)
    assert [s["name"] for s in data["scores"]] == [s.name for s in ranked(table_run.scores)]
    assert data["scores"][0]["nats"] == ranked(table_run.scores)[0].nats
    assert data["verdicts"] == {k: asdict(v) | {"about_refit": v.about_refit} for k, v in table_run.verdicts.items()}
    assert data["verdict"]["sentence"] == table_run.verdict.sentence and data["verdict"]["why"] == table_run.why
    splits = data["made"]["splits"]
    assert (splits["fit"], splits["select"], splits["report"], splits["folds"]) == (180, 60, 60, 5)
    assert data["made"]["rows"] == 300 and data["kind"] == "table" and data["images"] is None
    odd = next(s for s in data["scores"] if s["name"] == "odd")
    assert odd["status"] == "failed" and "no column" in odd["reason"]
    assert set(data["table"]["columns"][0]["models"]) == {"marginals", "kde", "far"}
    metrics = {m["name"] for m in data["metrics"]}
    assert {"mmd2", "marginal_distance"} <= metrics and "gain" not in metrics


def test_curves_are_of_the_final_fit_and_rise(table_run):
    curves = collect(table_run.folder)["curves"]
    history = [json.loads(line) for line in (table_run.folder / "history.jsonl").read_text().splitlines()]
    kept = [h for h in history if h["fit"] == "kde/all" and h["validation"] is not None]
    assert curves["kde"] == [[h["step"], h["seconds"], -h["validation"]] for h in kept] and kept
    assert set(curves) == {"kde"}  # marginals have a closed fit


@pytest.mark.parametrize("which", ["table_run", "image_run"])
def test_the_quadratic_at_the_choice_is_the_verdicts_value(which, request):
    study = request.getfixturevalue(which)
    q, v = collect(study.folder)["quadratic"], study.verdicts["mmd"]
    w = np.array(q["weights"]) if v.choice == "blend" else np.eye(len(q["names"]))[q["names"].index(v.best)]
    assert w @ np.array(q["Q"]) @ w - 2 * np.array(q["b"]) @ w + q["c"] == pytest.approx(v.value, abs=1e-6)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "no finished run folder"),
        ("verdict.json", None, "the run in it is not finished"),
        ("verdict.json", "{}", "damaged"),
        ("scores.jsonl", "[1]\n", "one JSON object a line"),
        ("scores.jsonl", '{"name": "kde"}\n', "damaged"),
        ("gallery.safetensors", "no", "not a safetensors file"),
        ("quadratic.json", "{}", "damaged"),
        ("schema.json", '{"fields": 3}', "damaged|schema"),
    ],
)
def test_a_damaged_folder_is_one_sentence(table_run, tmp_path, file, content, said):
    for path in table_run.folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(InputError, match=said):
        collect(tmp_path)


# ------------------------------------------------------------------------------------------------ figures


def fields(frame):
    learnt = guess(frame)
    return learnt, learnt.encode(frame).numpy()


N = 4_000
LAW = np.random.default_rng(0)
COLUMNS = {
    "tenths": LAW.normal(100, 3, N).round(1),
    "real": LAW.normal(100, 3, N),
    "whole": LAW.integers(0, 60, N),
    "heavy": np.where(LAW.random(N) < 0.9, 0, LAW.integers(1, 99_999, N)),
    "gaps": np.where(LAW.random(N) < 0.25, np.nan, LAW.normal(100, 3, N).round(1)),
    "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(LAW.integers(0, 90, N), "D"),
    "level": LAW.choice(list("abc"), N, p=[0.2, 0.5, 0.3]),
    "many": LAW.choice([f"v{k}" for k in range(40)], N),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_shares_are_counts_of_the_bins_that_labels_name(name):
    learnt, x = fields(pd.DataFrame({name: COLUMNS[name]}))
    field, values = learnt.modelled[0], x[:, 0]
    cut = figures.cut(field, values)
    values = values[:500]
    share = cut.share(values)
    assert share.sum() == pytest.approx(1) and len(share) == len(cut.labels) == len(set(cut.labels))
    written = np.array([figures.written(field, v) if not (np.isnan(v) or field.discrete) else "" for v in values])
    for k, label in enumerate(cut.labels):
        inside = values[cut(values) == k]
        if label == "missing":
            assert np.isnan(inside).all() and share[k] == pytest.approx(np.isnan(values).mean())
        elif " – " in label and len(inside):
            low, high = label.split(" – ")
            assert figures.written(field, inside.min()) >= low if name == "day" else inside.min() >= float(low) - 0.06
            assert figures.written(field, inside.max()) <= high if name == "day" else inside.max() <= float(high) + 0.06
        elif field.discrete and "others" not in label:
            assert share[k] == pytest.approx(np.mean(COLUMNS[name][:500] == label))
        elif label in written:
            assert share[k] == pytest.approx(np.mean(written == label))


def test_rounded_columns_do_not_comb():
    """A flat law of whole numbers has a flat histogram, however bins and steps divide."""
    for top in (23, 29, 47, 55, 101):
        frame = pd.DataFrame({"x": np.tile(np.arange(top), 40)})
        learnt, x = fields(frame)
        share = figures.cut(learnt.modelled[0], x[:, 0]).share(x[:, 0])
        assert share[1:-1].max() == pytest.approx(share[1:-1].min())


def test_categories_come_commonest_first_and_the_rare_together():
    frame = pd.DataFrame({"c": np.repeat([f"v{k}" for k in range(30)], np.arange(30, 0, -1))})
    learnt, x = fields(frame)
    cut = figures.cut(learnt.modelled[0], x[:, 0])
    assert cut.labels == (*(f"v{k}" for k in range(9)), "21 others")
    assert cut.share(x[:, 0])[:2] == pytest.approx(np.array([30, 29]) / 465)


def test_dependence_is_0_for_strangers_and_1_for_twins():
    rng = np.random.default_rng(1)
    x, y = rng.normal(100, 3, (2, N))
    assert figures.dependence(x, y) < 0.05 and figures.dependence(x, x) == pytest.approx(1)
    level = rng.integers(0, 3, N).astype(float)
    assert figures.dependence(level, 2 - level) == pytest.approx(1)
    assert figures.dependence(x, -3 * x + 7) == pytest.approx(1, abs=0.01)
    assert 0.3 < figures.dependence(x, x + rng.normal(0, 3, N)) < 0.7
    few = np.arange(4.0)
    assert figures.dependence(few, few) == figures.dependence(few, few // 2) == 0 < figures.dependence(few // 2, few // 2)
    assert figures.dependence(x, np.where(x > 100, np.nan, y)) > 0.4  # missing or not is something to depend on
    assert figures.dependence(x, np.zeros(N)) == 0
    # Bergsma 2013, section 2, by hand: 2 × 2 table 30 10 / 10 50 has φ² = 0.340
    a, b = (np.repeat(v, [30, 10, 10, 50]).astype(float) for v in ([0, 0, 1, 1], [0, 1, 0, 1]))
    phi2 = (30 * 50 - 10 * 10) ** 2 / (40 * 60 * 40 * 60)
    assert figures.dependence(a, b) == pytest.approx(np.sqrt((phi2 - 1 / 99) / (1 - 1 / 99)))


def test_pairs_are_counts_and_their_sums_the_histograms(table_run):
    table = collect(table_run.folder)["table"]
    columns = {c["name"]: c for c in table["columns"]}
    names = [(p["x"]["name"], p["y"]["name"]) for p in table["pairs"]]
    assert names[0] == ("size", "twice")
    for p in table["pairs"]:
        for name in table["rows"]["models"]:
            cells = np.array(p["models"][name])
            assert cells.sum(1) == pytest.approx(columns[p["x"]["name"]]["models"][name], abs=2e-4)
            assert cells.sum(0) == pytest.approx(columns[p["y"]["name"]]["models"][name], abs=2e-4)


def test_of_many_columns_those_furthest_from_the_real_rows():
    rng = np.random.default_rng(2)
    real = pd.DataFrame(rng.normal(100, 3, (400, 40)), columns=[f"c{k}" for k in range(40)])
    learnt, x = fields(real)
    made = x.copy()
    made[:, 10:30] += 9
    table = figures.columns(learnt.modelled, x, {"good": x, "bad": made}, "bad")
    shown = [c["name"] for c in table["columns"]]
    assert table["total"] == 40 and len(shown) == figures.COLUMNS and set(shown) >= {f"c{k}" for k in range(10, 30)}
    assert all(c["models"]["good"] == c["real"] for c in table["columns"])


@pytest.mark.parametrize(("channels", "low", "high"), [(1, 0, 16), (3, 0, 255), (1, -2.0, 3.0), (2, 0, 1)])
def test_a_tile_is_its_image(channels, low, high):
    rng = np.random.default_rng(3)
    x = torch.tensor(low + (high - low) * rng.random((30, channels, 5, 7)))
    made = figures.pictures(x, {"m": (x.flip(0), x[:4])}, low, high)
    one = made["models"]["m"]
    for sprite, images in ((made["real"], x), (one["samples"], x.flip(0)), (one["nearest"], x[:4])):
        sheet = np.array(Image.open(io.BytesIO(base64.b64decode(sprite["png"].split(",")[1]))))
        assert sprite["n"] == len(images) and (sheet.ndim == 3) == (channels == 3)
        for k in (0, len(images) - 1):
            top, left = 5 * (k // figures.ACROSS), 7 * (k % figures.ACROSS)
            tile = sheet[top : top + 5, left : left + 7].reshape(5, 7, -1)
            wanted = (images[k].permute(1, 2, 0).numpy()[..., : tile.shape[2]] - low) / (high - low) * 255
            assert np.abs(tile - wanted).max() <= 0.51


def test_many_large_images_stay_light():
    x = torch.tensor(np.random.default_rng(4).integers(0, 256, (60, 3, 96, 96))).double()
    made = figures.pictures(x, {f"m{k}": (x, x[:24]) for k in range(4)}, 0, 255)
    assert len(json.dumps(made)) < 2_100_000 and made["side"] <= 64


# ------------------------------------------------------------------------------------------------- render


@pytest.mark.parametrize("which", ["table_run", "image_run", "given_run"])
def test_the_page_stands_alone(which, request, tmp_path):
    study = request.getfixturevalue(which)
    path = build(study.folder, tmp_path / "page.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert path.stat().st_size < 3_000_000 and build(study.folder) == study.folder / "report.html"
    assert set(re.findall(r"https?://[^\s\"')]*", text)) <= {"http://www.w3.org/2000/svg"}  # a name, never asked for
    links = [a[k] for _, a in page.tags for k in ("src", "href", "action", "poster", "data") if k in a]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not [a for _, a in page.tags if "style" in a or any(k.startswith("on") for k in a)]
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    for inline in (page.text["style"][0], page.text["script"][1]):
        assert base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode() in policy
    assert page.data == json.loads(json.dumps(collect(study.folder)))
    assert page.data["verdict"]["sentence"] in "".join(page.text["p"])


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_only_ever_text(table_run, name):
    data = collect(table_run.folder)
    data["scores"][0]["reason"] = "why it was stopped"
    plain = render(data)
    data["title"] = data["verdict"]["sentence"] = data["verdict"]["choice"] = name
    data["table"]["columns"][0]["name"] = data["scores"][0]["reason"] = data["table"]["columns"][0]["labels"][0] = name
    page, before = Page(render(data)), Page(plain)
    assert page.tags[:2] == before.tags[:2] and [t for t, _ in page.tags] == [t for t, _ in before.tags]
    assert page.data["title"] == page.data["table"]["columns"][0]["name"] == name


def test_no_number_is_nan(table_run):
    data = collect(table_run.folder)
    data["verdict"]["gain"] = float("nan")
    data["scores"][0]["nats"] = -float("inf")
    page = Page(render(data))
    assert page.data["verdict"]["gain"] is None and page.data["scores"][0]["nats"] is None


def test_long_text_is_cut(table_run):
    assert figures.short("x" * 500) == "x" * 59 + "…" and figures.short("short") == "short"


def test_the_gallery_is_what_is_drawn(image_run):
    data = collect(image_run.folder)
    gallery = read_tensors(image_run.folder / "gallery.safetensors")
    sheet = np.array(Image.open(io.BytesIO(base64.b64decode(data["images"]["real"]["png"].split(",")[1]))))
    assert (sheet[:6, 6:12] == gallery["real"][1, 0].numpy()).all()
    assert data["images"]["models"]["marginals"]["nearest"]["n"] == 24 and data["images"]["real"]["n"] == 48


def test_no_script_is_long():
    assert all(len(script.read_text(encoding="utf-8").splitlines()) < 400 for script in HERE.glob("*.js"))
