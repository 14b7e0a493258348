"""The page of ``mixtura detect`` in headless Chromium: it shows its data and nothing else, and where images are strange."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from browsing import check_numbers, complaints, fetched, opened
from PIL import Image

from mixtura.estimators.detection import detect
from mixtura.report import detection


@pytest.fixture(scope="module")
def found() -> dict:
    rng = np.random.default_rng(0)

    def frame(n: int) -> pd.DataFrame:
        size = rng.normal(100, 3, n).round(1)
        return pd.DataFrame({"<i>size</i>": size, "twice": 2 * size + rng.normal(0, 1, n), "k": rng.choice(["<b>u</b>", "v"], n)})

    suspects = frame(80)
    suspects.loc[[3, 7], "twice"] = 260.0
    return detect(frame(300), suspects, false_alarms=0.05).to_json()


@pytest.fixture
def page(browser, found, tmp_path):
    return opened(browser, detection.build(found, tmp_path / "page.html"))


def test_it_is_one_file_that_asks_for_nothing(page):
    assert complaints(page) == [] and fetched(page) == {page.current_url}


def test_every_number_is_that_of_the_json(page, found):
    assert len(check_numbers(page, found)) > 60


def test_names_are_text_and_the_odd_cells_are_marked(page):
    assert page.execute_script("return document.querySelectorAll('main b, main i:not(.swatch)').length") == 0
    marks = page.execute_script("return [...document.querySelectorAll('#strangest mark')].map(e => e.textContent)")
    assert sum(mark.startswith("twice = 260") for mark in marks) == 2
    assert "<i>size</i>" in page.execute_script("return document.body.innerText")


def test_the_curve_is_drawn_and_it_fits_a_phone(page):
    assert page.execute_script("return document.querySelectorAll('#curve path, #curve polyline').length") >= 2
    page.set_window_size(400, 900)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1200, 900)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_show_where_they_are_strange(channels):
    images = np.zeros((2, 8, 6, channels))
    images[0, 1, 2] = 5.0
    maps = np.zeros((2, 8, 6))
    maps[0, 4:, 3:] = 2.0
    (plain, marked), (same, unmarked) = detection.drawn(images, maps)
    plain, marked, same, unmarked = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(one.partition(",")[2])))) for one in (plain, marked, same, unmarked)
    )
    assert plain.shape == marked.shape == (96, 72, 3) and np.array_equal(same, unmarked)
    assert (plain[12:24, 24:36] == 255).all() and np.array_equal(plain[:48, :36], marked[:48, :36])
    assert (marked[50:, 40:, 0] > 150).all() and (marked[50:, 40:, 1] < 40).all()


def test_a_page_of_images_has_both(browser, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (150, 6, 6)).astype(np.uint8)
    x[:, 2] += 200
    odd = x[:20].copy()
    odd[5, :, 4] = 255
    found = detect(x[20:], odd)
    pictures = (found.pictures.images, found.pictures.maps)
    assert complaints(opened(browser, detection.build(found.to_json(), tmp_path / "page.html", pictures))) == []
    sizes = browser.execute_script("return [...document.querySelectorAll('#strangest img')].map(e => [e.naturalWidth, e.alt])")
    assert len(sizes) == 40 and all(width == 96 and alt for width, alt in sizes)
    assert found.strangest[0].row == 5 and found.pictures.maps[0][:, 4].sum() > 0.3 * found.pictures.maps[0].sum()
