"""The page of a comparison in headless Chromium: it shows its data and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from browsing import check_numbers, complaints, fetched, opened

import mixtura
from mixtura.report import comparison


@pytest.fixture(scope="module")
def found() -> dict:
    rng = np.random.default_rng(0)

    def frame(n: int, shift: float) -> pd.DataFrame:
        level = rng.choice(["<b>u</b>", "v"], n, p=[0.5 + shift / 5, 0.5 - shift / 5])
        return pd.DataFrame({"a\u202eb": rng.normal(shift, 1, n), "<i>k</i>": level, "day": pd.date_range("2024", periods=n)})

    return mixtura.compare(frame(300, 0.0), frame(400, 1.0), method="trees").to_json()


@pytest.fixture
def page(browser, found, tmp_path):
    return opened(browser, comparison.build(found, tmp_path / "page.html"))


def test_it_is_one_file_that_asks_for_nothing(page):
    assert complaints(page) == [] and fetched(page) == {page.current_url}


def test_every_number_is_that_of_the_json(page, found):
    assert len(check_numbers(page, found)) > 25


def test_names_are_text(page):
    assert page.execute_script("return document.querySelectorAll('main b, main i:not(.swatch)').length") == 0
    text = page.execute_script("return document.body.innerText")
    assert "<i>k</i>" in text and "They differ" in text and "\u202e" not in text


def test_it_fits_a_phone(page):
    page.set_window_size(400, 900)
    assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    page.set_window_size(1200, 900)


def test_sets_that_do_not_differ_have_a_short_page(found):
    same = {**found, "differ": False, "same_rows": True, "verdict": "a and a are the same rows", "columns": [], "regions": []}
    same["most_like"] = [{"times": [], "rows": []}] * 2
    text = comparison.render(same)
    assert "The same" in text and 'id="columns"' not in text and 'id="examples"' not in text
