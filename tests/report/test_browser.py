"""The page in headless Chromium: it shows its data, its weights move as the formula says, and it fits a phone."""

from __future__ import annotations

import json
import re
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
from browsing import check_numbers, complaints, fetched, opened

import mixtura
from mixtura.report import build, collect, render

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; the [test] extra has it")
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402


@pytest.fixture(scope="module")
def built(table_run, image_run, given_run, wide_run):
    runs = {"table": table_run, "images": image_run, "given": given_run, "wide": wide_run}
    return {name: build(run.folder) for name, run in runs.items()}


@pytest.fixture(params=["table", "images", "given", "wide"])
def page(browser, built, request):
    """The page of a run, freshly opened; its data as ``page.data``."""
    return opened(browser, built[request.param])


@pytest.fixture
def table(browser, built):
    return opened(browser, built["table"])


def formula(q, w):
    w = np.array(w)
    return w @ np.array(q["Q"]) @ w - 2 * np.array(q["b"]) @ w + q["c"]


def weights(page):
    script = "return [...document.querySelectorAll('#sliders output')].map(e => parseFloat(e.textContent) / 100)"
    return page.execute_script(script)


def score(page):
    return float(page.find_element(By.ID, "score").get_attribute("data-value"))


def test_nothing_is_wrong_and_nothing_is_fetched(page):
    assert complaints(page) == []
    assert fetched(page) == {page.current_url}


def test_every_number_is_the_datas(page):
    page.find_element(By.ID, "every").click()
    paths = check_numbers(page, page.data)
    spoken = ("verdicts", page.data["verdict"]["objective"])
    assert {(*spoken, "gain"), (*spoken, "error"), (*spoken, "rows"), ("made", "splits", "report"), ("made", "seed")} <= paths
    for i, s in enumerate(page.data["scores"]):
        if s["nats"] is not None:
            assert ("scores", i, "nats") in paths
        told = {(name, part) for name, found in s["metrics"].items() for part in ("value", "error") if found[part] is not None}
        assert {("scores", i, "metrics", *key) for key in told} <= paths
    text = page.find_element(By.TAG_NAME, "body").text
    sentence = page.data["verdict"]["sentence"]
    assert sentence[1:] in text and "undefined" not in text and "NaN" not in text and "null" not in text
    assert all(s["reason"] in text for s in page.data["scores"] if s["status"] == "failed")


def test_every_measure_is_a_button(page):
    headings = lambda: page.find_element(By.CSS_SELECTOR, "#board thead").text  # noqa: E731
    few = headings()
    page.find_element(By.ID, "every").click()
    assert len(headings()) > len(few) and page.find_element(By.ID, "every").get_attribute("aria-pressed") == "true"
    page.find_element(By.ID, "every").click()
    assert headings() == few


def test_a_heading_sorts(table):
    read = "return [...document.querySelectorAll('#board tbody tr')].map(r => r.cells[arguments[0]]?.dataset.value)"
    headings = {h.text: (k, h) for k, h in enumerate(table.find_elements(By.CSS_SELECTOR, "#board thead th"))}
    for title, order in (("MMD²", "ascending descending ascending"), ("nats, exact", "descending ascending")):
        k, heading = headings[title]
        for direction in order.split():  # the better end first
            heading.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
            found = table.execute_script(read, k)
            values = [float(v) for v in found if v]
            assert values == sorted(values, reverse=direction == "descending") and len(values) >= 2
            assert found[-1] is None  # what failed stays last
            assert [h.get_attribute("aria-sort") for _, h in headings.values() if h.get_attribute("aria-sort")] == [direction]


@pytest.mark.parametrize("page", ["table", "images"], indirect=True)
def test_arrow_keys_move_weights_and_the_score_follows(page):
    q = page.data["quadratic"]
    marked = q["weights"]
    assert score(page) == pytest.approx(formula(q, marked), abs=1e-12)
    check_numbers(page, page.data)
    i = marked.index(max(marked))
    slider = page.find_element(By.ID, f"weight-{i}")
    slider.send_keys(Keys.ARROW_LEFT * 7)
    moved = marked[i] - 0.07
    rest = [w / (1 - marked[i]) if marked[i] < 1 else 1 / (len(marked) - 1) for w in marked]
    expected = [moved if k == i else (1 - moved) * rest[k] for k in range(len(marked))]
    assert weights(page) == pytest.approx(expected, abs=6e-4) and sum(weights(page)) == pytest.approx(1, abs=3e-3)
    assert score(page) == pytest.approx(formula(q, expected), abs=1e-9)
    text = page.find_element(By.ID, "score").text.replace("−", "-")
    assert float(text) == pytest.approx(formula(q, expected), abs=0.5 * 10 ** -len(text.partition(".")[2]) + 1e-12)
    assert slider.get_attribute("aria-valuetext") == f"{100 * moved:.1f} %"
    page.find_element(By.ID, "reset").click()
    assert score(page) == pytest.approx(formula(q, marked), abs=1e-12) and weights(page) == pytest.approx(marked, abs=6e-4)
    assert complaints(page) == []


@pytest.mark.parametrize("page", ["table", "images"], indirect=True)
def test_dragging_moves_weights_and_the_score_follows(page):
    q = page.data["quadratic"]
    n = len(q["names"])
    slider = page.find_element(By.ID, f"weight-{n - 1}")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", slider)
    box = slider.rect
    start = round((q["weights"][n - 1] - 0.5) * (box["width"] - 20))
    drag = webdriver.ActionChains(page, duration=0).move_to_element_with_offset(slider, start, 0).click_and_hold()
    drag.move_to_element_with_offset(slider, 0, 0).release().perform()
    w = float(slider.get_attribute("value"))
    assert w == pytest.approx(0.5, abs=0.02)
    rest = q["weights"][:-1] if q["weights"][-1] < 1 else [1.0] * (n - 1)
    expected = [*(np.array(rest) * (1 - w) / sum(rest)), w]
    assert score(page) == pytest.approx(formula(q, expected), abs=1e-9)


def test_all_to_one_and_back_keeps_the_others_proportions(table):
    q = table.data["quadratic"]
    first = table.find_element(By.ID, "weight-0")
    before = spread(table)
    first.send_keys(Keys.PAGE_UP * 10)
    assert weights(table)[0] == 1 and score(table) == pytest.approx(formula(q, np.eye(len(before))[0]), abs=1e-12)
    first.send_keys(Keys.PAGE_DOWN * 5)
    after = weights(table)
    assert np.array(after[1:]) / sum(after[1:]) == pytest.approx(np.array(before[1:]) / sum(before[1:]), abs=4e-3)


def spread(page):
    """Weights, all positive and no two alike, whatever they were."""
    sliders = page.find_elements(By.CSS_SELECTOR, "#sliders input")
    for k, slider in enumerate(sliders):
        slider.send_keys(Keys.HOME + Keys.PAGE_UP * (k + 2))
    found = weights(page)
    assert min(found) > 0.05 and len(set(found)) == len(found)
    return found


def test_the_blend_is_drawn_with_the_weights_as_they_stand(table):
    Select(table.find_element(By.ID, "model")).select_by_value("/bench")
    w = spread(table)
    column = next(c for c in table.data["table"]["columns"] if c["name"] == "size")
    mixed = sum(v * column["models"][name][2] for v, name in zip(w, table.data["quadratic"]["names"], strict=True))
    told = []
    for _ in range(50):  # it is redrawn in the next frame, and a card that was found may be gone
        with suppress(StaleElementReferenceException):
            card = next(c for c in table.find_elements(By.CSS_SELECTOR, ".card") if c.get_attribute("aria-label") == "size")
            card.send_keys(Keys.ARROW_RIGHT * 3)
            told = re.findall(r"real ([\d.]+) %, the blend above ([\d.]+) %", card.find_element(By.CSS_SELECTOR, ".readout").text)
        if told:
            break
    assert float(told[0][0]) == pytest.approx(100 * column["real"][2], abs=0.051)
    assert float(told[0][1]) == pytest.approx(100 * mixed, abs=0.11)


@pytest.mark.parametrize("page", ["table", "images"], indirect=True)
def test_samples_of_each_model_and_of_the_blend(page):
    select = Select(page.find_element(By.ID, "model"))
    drawn = {}
    for option in [o.get_attribute("value") for o in select.options]:
        select.select_by_value(option)
        drawn[option] = page.execute_script("return document.getElementById('seen').innerHTML")
        assert complaints(page) == []
    judged = [s["name"] for s in page.data["scores"] if s["status"] != "failed"]
    assert {*judged, "/bench"} <= set(drawn)
    assert len(set(drawn.values())) >= len(judged)


def test_a_histogram_tells_its_bins_by_pointer_and_by_keys(table):
    column = next(c for c in table.data["table"]["columns"] if c["name"] == "size")
    Select(table.find_element(By.ID, "model")).select_by_value("kde")
    card = next(c for c in table.find_elements(By.CSS_SELECTOR, ".card") if c.get_attribute("aria-label") == "size")
    card.send_keys(Keys.ARROW_RIGHT * 3)
    readout = card.find_element(By.CSS_SELECTOR, ".readout").text
    assert readout == f"{column['labels'][2]}: real {100 * column['real'][2]:.1f} %, kde {100 * column['models']['kde'][2]:.1f} %"
    check_numbers(table, table.data)
    picture = card.find_element(By.CSS_SELECTOR, "svg")
    table.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", picture)
    webdriver.ActionChains(table, duration=0).move_to_element(picture).perform()
    assert card.find_element(By.CSS_SELECTOR, ".readout").text.split(":")[0] in column["labels"][3:-1]


def test_curves_tell_their_values(table):
    name, curve = next(iter(table.data["curves"].items()))
    says = table.find_element(By.ID, "curves")
    assert name in says.text and f"{curve[-1][2]:.2f}".replace("-", "−") in says.text
    table.find_element(By.ID, "by-steps").click()
    assert "steps" in says.text and table.find_element(By.ID, "by-seconds").get_attribute("aria-pressed") == "false"
    table.find_element(By.ID, "curves").send_keys(Keys.ARROW_RIGHT)
    assert f"{curve[0][2]:.2f}".replace("-", "−") in says.text
    check_numbers(table, table.data)


def test_commands_can_be_copied(table):
    button = table.find_elements(By.CSS_SELECTOR, ".copy")[0]
    button.click()
    assert table.execute_script("return getSelection().toString()") == table.data["next"][0]["command"]


RATIO = """
const [a, b] = [arguments[0], arguments[1]].map((name) => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const probe = document.body.appendChild(document.createElement('i'));
  probe.style.color = `var(${name})`;
  canvas.fillStyle = getComputedStyle(probe).color;
  probe.remove();
  canvas.fillRect(0, 0, 1, 1);
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
});
return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_have_the_contrast_that_reading_needs(table, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    table.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ratio = lambda a, b: table.execute_script(RATIO, a, b)  # noqa: E731
    for text in ("--ink", "--quiet", "--accent"):
        assert ratio(text, "--paper") >= 4.5 and ratio(text, "--card") >= 4.5, text  # WCAG 2.2, 1.4.3
    assert ratio("--on-accent", "--accent") >= 4.5
    for line in range(8):
        assert ratio(f"--c{line}", "--paper") >= 3, line  # 1.4.11
    paper = "return getComputedStyle(document.body).backgroundColor"
    before, button = table.execute_script(paper), table.find_element(By.ID, "theme")
    assert (sum(map(int, re.findall(r"\d+", before)[:3])) < 200) == (scheme == "dark")
    assert button.text == {"light": "Dark", "dark": "Light"}[scheme]
    button.click()
    assert (sum(map(int, re.findall(r"\d+", table.execute_script(paper))[:3])) < 200) == (scheme == "light")
    table.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.parametrize("width", [360, 768])
def test_a_phone_scrolls_one_way_only(page, width):
    metrics = {"width": width, "height": 780, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page.find_element(By.ID, "every").click()
        wide = "return [document.documentElement.scrollWidth, innerWidth]"
        assert page.execute_script(wide) == [width, width]
        sizes = "return [...document.querySelectorAll('p, td, dd, figcaption')].map(e => getComputedStyle(e).fontSize)"
        assert min(float(size.removesuffix("px")) for size in page.execute_script(sizes)) >= 12
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("page", ["table", "images"], indirect=True)
def test_paper_gets_the_table_whole_and_light(page):
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    sheet = {"width": 794, "height": 1123, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sheet)
    try:
        assert page.find_element(By.CSS_SELECTOR, "#board thead button").is_displayed()
        assert not page.find_element(By.ID, "reset").is_displayed()
        assert page.execute_script("return document.documentElement.scrollWidth") == 794
        assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})


def test_everything_has_a_name_and_can_be_reached(page):
    nameless = """
    const named = (e) => e.ariaLabel || e.textContent.trim() || (e.labels && e.labels.length);
    return [...document.querySelectorAll('button, select, input, a, [role=img], [role=group], [role=region]')]
      .filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 80));
    """
    assert page.execute_script(nameless) == []
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    targets = page.execute_script("return [...document.querySelectorAll('a[href]')].map(e => e.getAttribute('href').slice(1))")
    assert set(targets) <= set(ids)


@pytest.mark.parametrize("name", ["</script><b id=bad>x</b>", "\"'><img src=x onerror=alert(1)>", "{{7*7}} 🐧 <!--"])
def test_hostile_names_are_shown_as_they_are(browser, table_run, tmp_path, name):
    data = collect(table_run.folder)
    text = json.dumps(data).replace('"size"', json.dumps(name)).replace('"kde"', json.dumps(name))
    path = tmp_path / "hostile.html"
    path.write_text(render(json.loads(text)), encoding="utf-8")
    page = opened(browser, path)
    assert complaints(page) == [] and page.find_elements(By.CSS_SELECTOR, "#bad, main img") == []
    assert name in page.find_element(By.ID, "board").text and name in page.find_element(By.ID, "seen").text


def test_one_model_is_a_page_too(browser, tmp_path):
    frame = pd.DataFrame({"constructor": np.arange(60) % 7, "__proto__": np.linspace(97, 103, 60)})
    mixtura.run(frame, steps=1, families=["marginals"], out=tmp_path / "run")
    page = opened(browser, build(tmp_path / "run"))
    assert complaints(page) == [] and page.find_elements(By.CSS_SELECTOR, "#weights, #learning") == []
    check_numbers(page, page.data)
    assert "__proto__" in page.find_element(By.ID, "seen").text


def test_without_javascript_verdict_and_leaderboard_stand(browser, table_run, built):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(built["table"].as_uri())
        text = browser.find_element(By.TAG_NAME, "main").text
        assert table_run.verdict.sentence[1:] in text and "marginals" in browser.find_element(By.ID, "board").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


# ------------------------------------------------------------------------------------------------ runs with targets


def test_calibration_of_each_model_and_its_readout(browser, built):
    page = opened(browser, built["given"])
    select = Select(page.find_element(By.ID, "model"))
    [y] = page.data["given"]["calibrated"]
    assert {o.get_attribute("value") for o in select.options} == set(y["models"])
    drawn = set()
    for name in y["models"]:
        select.select_by_value(name)
        bars = page.execute_script("return document.querySelectorAll('#ranks path.bin').length")
        card = page.find_element(By.CSS_SELECTOR, "#ranks figure[tabindex]")
        card.send_keys(Keys.ARROW_RIGHT * 10)  # from no place at all to the tenth level
        level, share = re.findall(r"intervals of (\d+) % hold ([\d.]+) %", card.text)[0]
        assert bars == 10 and int(level) == 50 and float(share) == pytest.approx(100 * y["models"][name]["coverage"][9], abs=0.06)
        drawn.add(page.execute_script("return document.querySelector('#ranks svg').innerHTML"))
    assert len(drawn) == len(y["models"]) and complaints(page) == []
    check_numbers(page, page.data)


def test_the_density_stands_under_its_rows(browser, built):
    page = opened(browser, built["given"])
    [p] = page.data["given"]["portraits"]
    points = page.find_elements(By.CSS_SELECTOR, "#portraits .field i.point")
    assert len(points) == len(p["points"]) and page.find_elements(By.CSS_SELECTOR, "#portraits .field rect")
    box = page.find_element(By.CSS_SELECTOR, "#portraits .field").rect
    for point, (x, y) in list(zip(points, p["points"], strict=True))[:5]:
        middle = [point.rect[at] + point.rect[size] / 2 for at, size in (("x", "width"), ("y", "height"))]
        assert middle[0] == pytest.approx(box["x"] + box["width"] * x / p["x"]["cells"], abs=2)
        assert middle[1] == pytest.approx(box["y"] + box["height"] * (1 - y / p["y"]["cells"]), abs=2)
    assert len(page.find_elements(By.CSS_SELECTOR, "#portraits .cards figure")) == len(p["rows"]) == 6


@pytest.mark.parametrize("name", ["</script><b id=bad>x</b>", "{{7*7}} 🐧 <!--"])
def test_hostile_targets_are_shown_as_they_are(browser, wide_run, tmp_path, name):
    text = json.dumps(collect(wide_run.folder)).replace('"twice"', json.dumps(name)).replace('"size"', json.dumps(name))
    path = tmp_path / "hostile.html"
    path.write_text(render(json.loads(text)), encoding="utf-8")
    page = opened(browser, path)
    assert complaints(page) == [] and page.find_elements(By.CSS_SELECTOR, "#bad, main img") == []
    assert name in page.find_element(By.ID, "portraits").text
