"""The page of a selection in headless Chromium: it shows its data, its weights move as the formula says, it fits a phone."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from browsing import check_numbers, complaints, fetched

from mixtura.arms import Function, Pool
from mixtura.contracts import InputError
from mixtura.folder.io import write_json
from mixtura.report import selection
from mixtura.selection.mixture import begin

CENTRES = {"left": -3.0, "<b>right</b>": 3.0, "far": 9.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("selection")
    rng = np.random.default_rng(0)
    arms = [Pool(name, rng.normal(c, 1, (100, 1)), cost=2.0) for name, c in CENTRES.items()]
    session = begin([*arms, Function("broken", lambda seed: None)], out, "rke", bandwidth=1.5, pulls=120)
    list(session.conduct())
    write_json(out / "selection.json", session.record(session.finish(), "toy"))
    session.close()
    return out


@pytest.fixture
def page(browser, folder):
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(selection.build(folder).as_uri())
    return browser


def inside(page):
    return json.loads(page.execute_script("return document.getElementById('data').textContent"))


def test_it_is_one_file_that_asks_for_nothing(page, folder):
    assert (folder / "report.html").stat().st_size < 3e6
    assert complaints(page) == [] and fetched(page) == {page.current_url}


def test_every_number_is_that_of_the_json(page):
    assert len(check_numbers(page, inside(page))) > 30


def test_names_are_text_and_failures_are_named(page):
    table = page.execute_script("return document.querySelector('#arms').innerText")
    assert "<b>right</b>" in table and "broken" in table and "text" not in page.execute_script("return document.title")
    assert "None" in table or "numbers" in table  # why the broken arm was closed


def score(page):
    return float(page.execute_script("return document.getElementById('score').dataset.value"))


def test_weights_move_as_the_formula_says(page):
    data = inside(page)
    q = data["quadratic"]
    K, f = np.array(q["K"]), np.array(q["f"])
    value = lambda w: 1 / (w @ K @ w + f @ w + q["c"])  # noqa: E731
    best = np.array([arm["weight"] for arm in data["arms"]])
    assert score(page) == pytest.approx(value(best)) == pytest.approx(data["value"])
    move = "const i = document.getElementById('weight-0'); i.value = arguments[0]; i.dispatchEvent(new Event('input'))"
    for to in (0.0, 0.5, 0.9):
        page.execute_script(move, to)
        w = best.copy()
        w[1:] *= (1 - to) / w[1:].sum()
        w[0] = to
        assert score(page) == pytest.approx(value(w), rel=1e-9)
        assert "worse than the best weights" in page.execute_script("return document.getElementById('against').textContent")
        page.execute_script("document.getElementById('reset').click()")
    assert score(page) == pytest.approx(data["value"])
    assert page.execute_script("return document.getElementById('against').textContent") == "the best weights"


def test_keys_move_a_weight(page):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    before = score(page)
    slider = page.find_element(By.ID, "weight-1")
    slider.send_keys(Keys.ARROW_RIGHT * 5)
    assert score(page) < before and page.execute_script("return document.getElementById('weight-1').ariaValueText").endswith("%")


def test_the_curve_tells_its_points_and_intervals_stand_at_their_weights(browser, folder, tmp_path):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    record = json.loads((folder / "selection.json").read_text())
    now = {arm["name"]: arm["weight"] for arm in record["arms"]}
    point = {"spent": 0.0, "error": 0.1, "single": "far", "single_value": 1.5, "weights": now}
    record["curve"] = [point | {"pulls": 10 * k, "value": None if k < 2 else 3 - 1 / k} for k in range(1, 9)]
    record["arms"] = [arm | {"low": 0.4 * arm["weight"], "high": 0.5 + 0.5 * arm["weight"]} for arm in record["arms"]]
    record["truth"] = {"value": 3.0, "weights": now}
    write_json(tmp_path / "selection.json", record)
    page, data, last = browser, record, 7
    page.get_log("browser")
    page.get(selection.build(tmp_path).as_uri())
    read = "return [...document.querySelectorAll('#told .num')].map(e => JSON.parse(e.dataset.key))"
    assert page.execute_script(read)[0] == ["curve", last, "pulls"]
    page.find_element(By.ID, "line").send_keys(Keys.ARROW_LEFT * 3)
    assert page.execute_script(read)[0] == ["curve", last - 3, "pulls"]
    test_every_number_is_that_of_the_json(page)
    drawn = page.execute_script("return [...document.querySelectorAll('.level path')].map(e => e.getAttribute('d'))")
    known = sorted(data["arms"], key=lambda arm: -arm["weight"])
    ends = [[float(end) / 1000 for end in re.findall(r"M(\S+) 5H(\S+?)M", d)[0]] for d in drawn]
    assert ends == [pytest.approx([arm["low"], arm["high"]]) for arm in known]
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_an_estimate_at_or_below_zero_is_said_not_shown_as_a_count(browser, folder, tmp_path):
    record = json.loads((folder / "selection.json").read_text())
    record["quadratic"]["c"] = -10.0
    write_json(tmp_path / "selection.json", record)
    browser.get_log("browser")
    browser.get(selection.build(tmp_path).as_uri())
    assert browser.execute_script("return document.getElementById('score').textContent") == "–"
    assert "too few" in browser.execute_script("return document.getElementById('against').textContent")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_a_phone(page, width):
    page.set_window_size(width, 800)
    wide = page.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.set_window_size(1200, 900)
    assert wide <= 0


def test_a_damaged_record_is_refused(folder, tmp_path):
    record = json.loads((folder / "selection.json").read_text())
    cases = [({"arms": [], "title": "x"}, "damaged"), (record | {"arms": None}, "damaged"), (None, "not finished")]
    for broken, says in cases:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        place.mkdir()
        if broken is not None:
            write_json(place / "selection.json", broken)
        with pytest.raises(InputError, match=says):
            selection.build(place)
