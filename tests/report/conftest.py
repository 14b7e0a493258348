"""Two small finished runs: a table with an outside generator and one that fails, and images; and a browser to look at them."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest

import mixtura


def people(n, seed=0, centre=100.0):
    rng = np.random.default_rng(seed)
    size = rng.normal(centre, 3, n).round(1)
    frame = pd.DataFrame({"size": size, "twice": 2 * size + rng.normal(0, 1, n), "colour": rng.choice(["red", "blue", None], n)})
    return frame.assign(day=pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 90, n), "D"))


def bars(n, seed=0, size=6):
    """uint8 images of one bright bar, lying or standing."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (n, size, size))
    for image in x:
        (image if rng.random() < 0.5 else image.T)[rng.integers(size)] += 200
    return x.astype(np.uint8)


@pytest.fixture(scope="session")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed; the [test] extra has it")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = "headless=new no-sandbox disable-gpu disable-dev-shm-usage window-size=1200,900 force-prefers-reduced-motion"
    for flag in flags.split():
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield window
    window.quit()


@pytest.fixture(scope="session")
def table_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "people"
    outside = {"far": people(300, 6, centre=105.0), "odd": pd.DataFrame({"other": [1.0]})}
    return mixtura.run(people(300), steps=20, families=["kde"], samples=outside, out=out)


@pytest.fixture(scope="session")
def image_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("report") / "bars"
    return mixtura.run(bars(1_260), steps=20, families=["gaussian_mixture"], out=out)


@pytest.fixture(scope="session")
def given_run(tmp_path_factory):
    """y given x alone, one branch up and one down."""
    draw = np.random.default_rng(0)
    x = draw.uniform(0, 2, 400)
    frame = pd.DataFrame({"x": x, "y": 100 + draw.choice([-1, 1], 400) * (1 + x) + draw.normal(0, 0.2, 400)})
    out = tmp_path_factory.mktemp("report") / "given"
    return mixtura.run(frame, target="y", steps=60, families=["linear_gaussian", "autoregressive"], out=out)


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory):
    """Two targets given three inputs of three kinds."""
    frame = people(300).assign(other=np.random.default_rng(1).normal(size=300))
    return mixtura.run(frame, target=["twice", "colour"], steps=5, families=["linear_gaussian"],
                       out=tmp_path_factory.mktemp("report") / "wide")  # fmt: skip
