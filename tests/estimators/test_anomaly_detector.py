"""AnomalyDetector and detect: signs, guarantees, reasons, what is new in a row, and what cannot be used."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.utils.estimator_checks import check_estimator

import mixtura
from mixtura import AnomalyDetector, InputError
from mixtura.contracts import Note
from mixtura.estimators.detection import detect, share_of
from mixtura.families import TABLE as FAMILIES
from mixtura.folder.layout import RunFolder


def people(n: int, seed: int) -> pd.DataFrame:
    """Wages that depend on the job, with gaps; whole ages; around 100 with a deviation of 3 where nothing else is said."""
    rng = np.random.default_rng(seed)
    job = rng.choice(["clerk", "driver", "nurse"], n)
    wage = 100 + 3 * rng.standard_normal(n) + 30 * (job == "nurse")
    wage[rng.random(n) < 0.1] = np.nan
    return pd.DataFrame({"age": rng.normal(40, 10, n).round(), "job": job, "wage": wage.round(2)})


@pytest.fixture(scope="module")
def fitted() -> AnomalyDetector:
    return AnomalyDetector().fit(people(1_000, 0))


@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks():
    check_estimator(AnomalyDetector("knn"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_as_it_comes():
    check_estimator(AnomalyDetector())


def test_the_signs_are_those_of_scikit_learn(fitted):
    x = people(200, 1)
    scores, decided, called = fitted.score_samples(x), fitted.decision_function(x), fitted.predict(x)
    assert np.array_equal(decided, scores - fitted.offset_)
    assert np.array_equal(called, np.where(decided < 0, -1, 1)) and set(called) == {-1, 1}
    assert np.array_equal(called < 0, fitted.p_value(x) <= 0.05) and fitted.false_alarms_ == 0.05


def test_wrong_jobs_and_wages_are_found_with_their_cells(fitted):
    x = people(300, 2)
    odd = x.copy()
    odd["wage"] = np.where(odd["job"] == "nurse", 99.0, 131.0)
    assert roc_auc_score(np.arange(600) >= 300, -fitted.score_samples(pd.concat([x, odd]))) > 0.9
    why = fitted.explain(odd)
    assert list(why) == ["age", "job", "wage"] and why.shape == (300, 3)
    assert (why[["job", "wage"]].max(axis=1) > why["age"]).mean() > 0.95


@pytest.mark.parametrize("method", ["blend", "isolation_forest", "circuit"])
def test_the_rate_of_false_alarms_holds(method):
    """Mean over splits at most α, and at least α − 1/(m + 1), within 3 standard errors."""
    rates, level = [], 0.1
    for seed in range(20):
        found = AnomalyDetector(method, false_alarms=level, random_state=seed).fit(people(150, 10 + seed))
        rates.append(np.mean(found.predict(people(300, 500 + seed)) < 0))
    error, m = np.std(rates) / np.sqrt(20), len(found.calibration_)
    assert level - 1 / (m + 1) - 3 * error < np.mean(rates) < level + 3 * error


def test_new_levels_are_ranked_beside_those_that_calibration_rows_have_alone():
    """Half of the rows have a level of their own: a level never seen is then nothing special."""
    rng = np.random.default_rng(0)
    def table(n, at):
        return pd.DataFrame({"x": rng.normal(size=n), "id": [f"name {at + k}" if k % 2 else "none" for k in range(n)]})
    found = AnomalyDetector("circuit").fit(table(300, 0))
    assert 0.0 < np.mean(found.predict(table(300, 10_000)) < 0) < 0.12


def test_a_cell_that_is_missing_where_none_was_is_as_strange_as_can_be(fitted):
    x = people(5, 3)
    x.loc[2, "age"] = np.nan
    with np.errstate(all="raise"):
        assert fitted.predict(x)[2] == -1 and fitted.p_value(x)[2] == pytest.approx(1 / 301)
        assert fitted.explain(x).idxmax(axis=1)[2] == "age"
    assert np.isfinite(fitted.decision_function(x)).all()


def test_the_same_seed_gives_the_same_bits_and_clones(fitted):
    x = people(50, 4)
    again = clone(fitted).fit(people(1_000, 0))
    assert np.array_equal(again.score_samples(x), fitted.score_samples(x))
    other = AnomalyDetector(random_state=1).fit(people(1_000, 0))
    assert not np.array_equal(other.score_samples(x), fitted.score_samples(x))


def test_rows_do_not_depend_on_one_another(fitted):
    x = people(60, 5)
    order = np.random.default_rng(0).permutation(60)
    assert np.allclose(fitted.score_samples(x.iloc[order]), fitted.score_samples(x)[order])
    assert np.allclose(fitted.explain(x.iloc[order]), fitted.explain(x).iloc[order])


def test_units_do_not_matter():
    x, y = (np.random.default_rng(s).normal(100, 3, (300, 3)) for s in (0, 1))
    y[:50] += 9
    at = [AnomalyDetector(method).fit(x * unit).p_value(y * unit) for method in ("blend",) for unit in (1.0, 2.0**20)]
    assert np.allclose(*at)


@pytest.mark.parametrize("name", [name for name, row in FAMILIES.items() if row.context != "needs"])
def test_every_family_with_nats_or_an_energy_is_a_detector(name, monkeypatch):
    from mixtura.estimators import panel

    levels = name == "boltzmann"
    monkeypatch.setattr(panel, "SECONDS", 5.0 if levels else 1.0)
    x, y = people(200, 0), people(100, 1)
    if levels:
        x, y = x[["job"]].assign(other=x["job"], more=x["age"] > 40), y[["job"]].assign(other=y["job"], more=y["age"] > 40)
        odd = y.assign(other=y["job"].map({"clerk": "nurse", "driver": "clerk", "nurse": "driver"}))
    else:
        odd = y.assign(wage=300.0)
    found = AnomalyDetector(name).fit(x)
    assert roc_auc_score(np.arange(200) >= 100, -found.score_samples(pd.concat([y, odd]))) > 0.8


def test_images_and_files_are_taken(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (60, 8, 8)).astype(np.uint8)
    images[:, 2:6, 2:6] += 150
    found = AnomalyDetector("knn").fit(images[:40])
    odd = images[40:].copy()
    odd[:10] = odd[:10].transpose(0, 2, 1)[:, ::-1] // 2
    assert found.decision_function(odd)[:10].max() < np.median(found.decision_function(odd)[10:])
    assert found.explain(odd).shape == (20, 8, 8)
    people(200, 0).to_csv(tmp_path / "a.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert AnomalyDetector().fit(str(tmp_path / "a.csv")).predict(people(20, 1)).shape == (20,)


@pytest.mark.parametrize(
    ("settings", "x", "said"),
    [
        ({"method": "nope"}, people(50, 0), "method: 'nope' is unknown, expected one of blend, "),
        ({"method": 3}, people(50, 0), "method: 3 is unknown"),
        ({"false_alarms": 0.0}, people(50, 0), "false_alarms: expected a share above 0 and below 1, got 0.0"),
        ({"false_alarms": True}, people(50, 0), "false_alarms: expected a share"),
        ({"trim": 0.5}, people(50, 0), "trim: expected a share, 0 or above and below 0.5, got 0.5"),
        ({"trim": True}, people(50, 0), "trim: expected a share"),
        ({"false_alarms": 0.01}, people(150, 0), "0.01 needs 99 calibration rows, but half of the 150 rows are 75"),
        ({}, people(9, 0), "X: 9 rows are too few, expected 10 or more"),
        ({}, pd.DataFrame({"a": [1.0] * 50}), "no column is left to model"),
        ({"method": "boltzmann"}, people(50, 0), "boltzmann"),
        ({"features": 3}, people(50, 0), "features: expected the name of features"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(settings, x, said):
    with pytest.raises(InputError, match=said) as caught:
        AnomalyDetector(**settings).fit(x)
    assert "\n" not in str(caught.value)


def test_rows_that_do_not_fit_are_one_sentence(fitted):
    for x, said in (
        (people(5, 0).drop(columns="job"), "job"), (people(5, 0).assign(age="old"), "expected a number"),
        (people(5, 0).assign(wage=np.inf), "infinite"), (people(0, 0), "no rows"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            fitted.predict(x)
    with pytest.raises(NotFittedError):
        AnomalyDetector().predict(people(5, 0))


def test_the_highest_rate_of_few_rows_is_what_they_carry():
    found = AnomalyDetector("knn").fit(np.random.default_rng(0).normal(size=(20, 2)))
    assert len(found.calibration_) == 6 and found.false_alarms_ == pytest.approx(1 / 7)


def test_a_detector_that_fails_is_left_out_and_said(monkeypatch):
    from mixtura.detectors.neighbours import Neighbours

    monkeypatch.setattr(Neighbours, "fit", lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    found = AnomalyDetector().fit(people(100, 0))
    assert found.failed_ == {"nearest": "broken"} and [*found.detectors_] == ["gaussian_mixture"]
    assert found.weights_ == {"gaussian_mixture": 1.0}
    with pytest.raises(InputError, match="knn: broken"):
        AnomalyDetector("knn").fit(people(100, 0))


def test_without_a_circuit_reasons_are_by_replacement(monkeypatch):
    """As of a table with more columns than a circuit takes."""
    from mixtura.detectors.reasons import OddCells

    monkeypatch.setattr(OddCells, "fit", lambda *_: (_ for _ in ()).throw(InputError("too wide")))
    found = AnomalyDetector().fit(people(300, 0))
    why = found.explain(people(40, 2).assign(wage=400.0))
    assert list(why) == ["age", "job", "wage"] and (why.idxmax(axis=1) == "wage").mean() > 0.9


def test_where_no_detector_works_it_is_one_sentence(monkeypatch):
    from mixtura.detectors.nats import OfModel
    from mixtura.detectors.neighbours import Neighbours

    for made in (Neighbours, OfModel):
        monkeypatch.setattr(made, "fit", lambda *_: (_ for _ in ()).throw(ValueError("broken")))
    with pytest.raises(InputError, match=r"^blend: no detector works on these rows \(broken; broken\)$"):
        AnomalyDetector().fit(people(60, 0))


# ------------------------------------------------------------------------------------- known anomalies, rows left out


def test_too_few_rows_to_weigh_by_are_said():
    with pytest.raises(InputError, match="anomalies: 14 rows to learn from are too few to weigh detectors"):
        AnomalyDetector().fit(people(20, 0), anomalies=people(3, 1))


def test_known_anomalies_weigh_the_detectors_that_find_them():
    """Rows inside of a ring: near no row, but a Gaussian takes them for the most normal of all."""
    def ring(n, seed):
        angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, n)
        noise = np.random.default_rng(seed + 1).normal(0, 0.5, (n, 2))
        return 100 + 9 * np.stack([np.cos(angle), np.sin(angle)], 1) + noise
    inside = np.random.default_rng(5).normal(100, 1, (110, 2))
    x = np.concatenate([ring(200, 7), inside[10:]])
    even = AnomalyDetector().fit(ring(600, 0))
    found = AnomalyDetector().fit(ring(600, 0), anomalies=inside[:10])
    assert sum(found.weights_.values()) == pytest.approx(2.0) and even.weights_ == {"nearest": 1.0, "gaussian_mixture": 1.0}
    assert 0 <= min(found.weights_.values()) and found.weights_ != even.weights_
    areas = [roc_auc_score(np.arange(300) >= 200, -d.score_samples(x)) for d in (found, even)]
    assert areas[0] >= areas[1] - 1e-3
    assert np.mean(found.predict(ring(2_000, 50)) < 0) < 0.1


def test_the_strangest_rows_are_left_out():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (380, 4)), rng.normal(0, 5, (20, 4))])
    asked = np.concatenate([rng.normal(0, 1, (200, 4)), rng.normal(0, 5, (200, 4))])
    plain, trimmed = (AnomalyDetector(trim=share).fit(x) for share in (0.0, 0.05))
    areas = [roc_auc_score(np.arange(400) >= 200, -d.score_samples(asked)) for d in (plain, trimmed)]
    assert areas[1] > areas[0]
    assert len(trimmed._normal_) == len(plain._normal_) - 14 and len(trimmed.calibration_) == 114
    assert np.mean(trimmed.predict(asked[200:]) < 0) > np.mean(plain.predict(asked[200:]) < 0)
    assert np.mean(plain.predict(asked[:200]) < 0) < np.mean(trimmed.predict(asked[:200]) < 0) < 0.12


# ------------------------------------------------------------------------------------------------ files, other libraries


@pytest.mark.parametrize("method", ["blend", "knn", "dte-c", "odd_cells", "circuit"])
def test_a_saved_detector_is_the_same(method, tmp_path, monkeypatch):
    from mixtura.detectors import diffusion_time

    monkeypatch.setattr(diffusion_time, "STEPS", 50)
    x = people(80, 1)
    found = AnomalyDetector(method, false_alarms=0.04).fit(people(300, 0))
    found.save(tmp_path / "d")
    assert not [path for path in (tmp_path / "d").rglob("*") if path.is_file() and path.suffix not in (".json", ".safetensors")]
    again = AnomalyDetector.load(tmp_path / "d")
    assert np.array_equal(again.score_samples(x), found.score_samples(x)) and again.offset_ == found.offset_
    assert np.array_equal(again.predict(x), found.predict(x)) and np.array_equal(again.p_value(x), found.p_value(x))
    assert again.get_params() == found.get_params() and again.weights_ == found.weights_
    pd.testing.assert_frame_equal(again.explain(x), found.explain(x))
    with pytest.raises(ValueError, match="job"):
        again.predict(x.drop(columns="job"))


def test_saved_detectors_of_arrays_and_images(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3))
    found = AnomalyDetector("knn").fit(x)
    found.save(tmp_path / "a")
    again = AnomalyDetector.load(tmp_path / "a")
    assert np.array_equal(again.decision_function(x), found.decision_function(x))
    with pytest.raises(ValueError, match="features"):
        again.predict(x[:, :2])
    images = np.random.default_rng(0).integers(0, 9, (60, 4, 4)).astype(np.uint8)
    found = AnomalyDetector("knn").fit(images)
    found.save(tmp_path / "b")
    assert np.array_equal(AnomalyDetector.load(tmp_path / "b").score_samples(images), found.score_samples(images))


def test_what_is_no_saved_detector(tmp_path, fitted):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        fitted.save(tmp_path / "file")
    with pytest.raises(InputError, match=r"holds no detector\.json"):
        AnomalyDetector.load(tmp_path)
    AnomalyDetector("knn").fit(people(60, 0)).save(tmp_path / "d")
    whole = (tmp_path / "d/detector.json").read_text()
    for odd in ("{}", "[", whole.replace('"knn"', '"../../x"'), whole.replace('"format": 1', '"format": 9')):
        (tmp_path / "d/detector.json").write_text(odd)
        with pytest.raises(InputError, match="holds no AnomalyDetector"):
            AnomalyDetector.load(tmp_path / "d")


def test_the_names_and_signs_of_pyod(fitted):
    x = people(100, 1)
    view = fitted.to_pyod()
    assert np.array_equal(view.decision_function(x), -fitted.score_samples(x))
    assert np.array_equal(view.predict(x), (fitted.predict(x) < 0).astype(int))
    assert np.array_equal(view.predict(x), (view.decision_function(x) > view.threshold_).astype(int))
    assert view.labels_.mean() <= view.contamination == 0.05 and len(view.decision_scores_) == 300
    assert np.allclose(view.predict_proba(x).sum(1), 1) and np.allclose(view.predict_proba(x)[:, 0], fitted.p_value(x))
    other = AnomalyDetector("knn").fit(people(60, 3)).to_pyod().fit(people(60, 4))
    assert np.array_equal(other.decision_function(x), AnomalyDetector("knn").fit(people(60, 4)).to_pyod().decision_function(x))
    with pytest.raises(NotFittedError):
        AnomalyDetector().to_pyod()


# ------------------------------------------------------------------------------------------------------------ of a run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("run")
    mixtura.run(people(600, 0), steps=20, families=["gaussian_mixture", "circuit", "vae"], out=place / "people")
    return place / "people"


def test_the_models_of_a_run_are_a_detector(run_folder):
    odd = people(100, 2).assign(wage=400.0)
    found = AnomalyDetector.of_run(run_folder)
    study = mixtura.load(run_folder)
    assert len(found.calibration_) == study.verdicts["nats"].rows and sum(found.weights_.values()) == pytest.approx(1.0)
    assert np.mean(found.predict(people(1_000, 9)) < 0) < 0.09 and (found.predict(odd) < 0).all()
    assert (found.explain(odd).idxmax(axis=1) == "wage").mean() > 0.9
    one = AnomalyDetector.of_run(run_folder, "circuit", false_alarms=0.1)
    nats = RunFolder(run_folder).nats().report["circuit"].numpy()
    assert np.allclose(np.sort(one.calibration_), np.sort(-nats)) and one.weights_ == {"circuit": 1.0}


def test_detect_asks_a_run(run_folder):
    suspects = people(50, 3)
    suspects.loc[4, "wage"] = 500.0
    found = detect(str(run_folder), suspects, false_alarms=0.05)
    assert found.strangest[0].row == 4 and found.strangest[0].reasons[0].column == "wage" and found.names[0] == "people"
    assert set(found.weights) == set(found.parts) <= {"gaussian_mixture", "circuit", "vae"}


def test_what_a_run_cannot_do(run_folder, tmp_path):
    for ask, said in (
        (lambda: detect(str(run_folder), people(5, 0), trim=0.1), "trim: is for detectors that learn"),
        (lambda: detect(str(run_folder), people(5, 0), anomalies=people(5, 1)), "anomalies: is for detectors that learn"),
        (lambda: AnomalyDetector.of_run(run_folder, "knn"), "no 'knn' with nats of all report rows"),
        (lambda: AnomalyDetector.of_run(run_folder, false_alarms=1e-4), "needs 9,999 calibration rows"),
        (lambda: AnomalyDetector.of_run(run_folder).save(tmp_path / "x"), "keep the folder of the run"),
        (lambda: AnomalyDetector.of_run(tmp_path / "none"), "no such folder"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said):
            ask()


def test_a_run_without_a_circuit_gives_reasons_by_replacement_and_its_images_maps(tmp_path):
    mixtura.run(people(300, 0), steps=20, families=["gaussian_mixture"], out=tmp_path / "plain")
    odd = people(40, 2).assign(wage=400.0)
    assert (AnomalyDetector.of_run(tmp_path / "plain").explain(odd).idxmax(axis=1) == "wage").mean() > 0.9
    rng = np.random.default_rng(0)
    images = rng.integers(0, 9, (120, 4, 4)).astype(np.uint8)
    mixtura.run(images, steps=5, families=["gaussian_mixture", "marginals"], out=tmp_path / "images")
    bright = images[:5].copy()
    bright[:, 0, 0] = 200
    found = AnomalyDetector.of_run(tmp_path / "images", false_alarms=0.1)
    where = found.explain(bright)
    assert where.shape == (5, 4, 4) and all(int(one.argmax()) == 0 for one in where) and (found.predict(bright) < 0).all()


def test_runs_that_are_no_detector(tmp_path):
    mixtura.run(people(200, 0), steps=5, families=["mixture_density"], target="wage", out=tmp_path / "given")
    with pytest.raises(InputError, match="is a run with targets"):
        detect(str(tmp_path / "given"), people(5, 0))
    mixtura.run(people(200, 0), steps=5, families=["gaussian_mixture"], out=tmp_path / "samples")
    path = tmp_path / "samples/verdict.json"
    record = json.loads(path.read_text())
    record["verdicts"] = {"mmd": record["verdicts"]["mmd"]}
    path.write_text(json.dumps(record | {"objective": "mmd"}))
    with pytest.raises(InputError, match="no model of this run has a density"):
        AnomalyDetector.of_run(tmp_path / "samples")


def test_a_folder_of_images_may_hold_the_config_of_another_program(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for k in range(30):
        Image.fromarray(rng.integers(0, 255, (5, 5)).astype(np.uint8)).save(tmp_path / f"{k:02d}.png")
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(Note, match=r"left out config\.json"):
        assert detect(str(tmp_path), str(tmp_path), method="knn").rows == (30, 30)


# ------------------------------------------------------------------------------------------------------------ detect


def test_detect_says_how_many_why_and_by_whom():
    suspects = people(100, 6)
    suspects.loc[7, "wage"] = 900.0
    found = detect(people(600, 0), suspects, false_alarms=0.02)
    assert found.rows == (600, 100) and found.expected == pytest.approx(2.0) and found.calibration == 180
    first = found.strangest[0]
    assert first.row == 7 and first.reasons[0].column == "wage" and first.reasons[0].value == "900.0"
    assert found.scores["anomaly"].sum() == found.anomalies >= 1 and found.scores["reasons"][7].startswith("wage = 900.0")
    assert (found.scores["p_value"] <= 0.02).sum() == found.anomalies
    assert set(found.agreement) == set(found.parts) == {"nearest", "gaussian_mixture"}
    assert all(0 <= share <= 1 for share in found.agreement.values()) and found.curve[-1] == (1.0, 1.0)
    assert f"{found.anomalies} of 100 rows are strange at 2 % false alarms" in found.verdict
    json.dumps(found.to_json())


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), (" 5 % ".strip(), 0.05), ("0.1", 0.1)])
def test_shares_as_people_write_them(text, share):
    assert share_of(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["0", "100%", "1", "-1%", "x", "", "nan"])
def test_what_is_no_share(text):
    with pytest.raises(InputError, match="--false-alarms: expected a share"):
        share_of(text)
