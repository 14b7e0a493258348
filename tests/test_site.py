"""The site: every page is in its menu, every room and public name has its reference, and mkdocs builds it without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import mixtura

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
#: pages that docs/hook.py makes of files at the top of the repository
MADE = {"contributing.md", "changelog.md"}
BUILDERS = ("mkdocs", "material", "mkdocstrings", "griffe")


def in_menu(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in in_menu(part)]


def test_every_page_is_in_the_menu_once():
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert sorted(in_menu(SITE["nav"])) == sorted(pages | MADE)


def test_every_room_has_its_reference():
    rooms = {path.stem for path in (ROOT / "src/mixtura").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md") if path.stem != "index"}
    assert set(pages) == rooms - {"__init__", "__main__"}
    assert all(re.findall(r"^::: (.*)$", text, re.MULTILINE) == [f"mixtura.{room}"] for room, text in pages.items())


def test_every_public_name_has_its_reference():
    text = (DOCS / "reference/index.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: mixtura\.(\w+)$", text, re.MULTILINE)) == sorted(mixtura.__all__)


@pytest.mark.skipif(any(find_spec(name) is None for name in BUILDERS), reason="mkdocs is not installed; `make docs` installs it")
def test_mkdocs_builds_the_site_without_a_warning(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (built.returncode, built.stdout) == (0, ""), built.stderr
    page = (tmp_path / "site/reference/index.html").read_text(encoding="utf-8")
    assert "docs/hook.py looks for what a page would fetch" and not re.search(r"""<script[^>]+src=["']?https?:""", page)
    assert all(f'id="mixtura.{mixtura._HOME[name]}.{name}"' in page for name in mixtura.__all__)
