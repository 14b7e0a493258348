"""What the tests of every page ask of the browser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def opened(browser: Any, path: Path) -> Any:
    """The browser with a page that was opened afresh; its data as ``data``."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    browser.data = json.loads(browser.execute_script("return document.getElementById('data').textContent"))
    return browser


def complaints(page: Any) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def fetched(page: Any) -> set[str]:
    """The addresses that were asked for, those that hold their data aside."""
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = {m["params"]["request"]["url"] for m in sent if m["method"] == "Network.requestWillBeSent"}
    return {url for url in urls if not url.startswith("data:")}


def shown(page: Any) -> list[tuple[list[Any], float, str]]:
    """[path, scale, text] of every number on the page that says where it comes from."""
    script = "return [...document.querySelectorAll('[data-key]')].map(e => [e.dataset.key, e.dataset.scale, e.textContent])"
    return [(json.loads(key), float(scale or 1), text) for key, scale, text in page.execute_script(script)]


def check_numbers(page: Any, data: Mapping[str, Any]) -> set[tuple[Any, ...]]:
    """The paths of the numbers on the page, each of which is that of the data."""
    numbers = shown(page)
    for path, scale, text in numbers:
        value: Any = data
        for key in path:
            value = value[key]
        plain = text.replace("−", "-").replace(",", "").removesuffix(" %")
        if value is None:
            assert text == "–", path
            continue
        decimals = len(plain.partition(".")[2])
        assert abs(float(plain) - scale * value) <= 0.5 * 10**-decimals * (1 + 1e-6), (path, text, value)
    return {tuple(path) for path, _, _ in numbers}
