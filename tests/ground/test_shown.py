"""Names from files cannot control a terminal, break the model card or the page, or change a command that is pasted."""

from __future__ import annotations

import io
import json
import re
import shlex
import subprocess

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.ground.shown import all_visible, command, kind_of, markdown, visible
from mixtura.report import build

#: red, "‮" from right to left, marks of Markdown, an element, a command
NAME = "\x1b[31ma\u202eb|*c*`<i>$(d) 'e'\x9b"
TABLE = "t\x1b[1m_*.csv"
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def study(place):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({NAME: rng.normal(size=40), "level": np.where(rng.random(40) < 0.5, NAME, "b"), "n": np.arange(40) ** 2})
    frame.to_csv(place / TABLE, index=False)
    return mixtura.run(place / TABLE, families=["marginals"], steps=5, out=place / "run \x1b's")


def test_a_run_shows_no_name_that_works(do, place, study):
    table, run = str(place / TABLE), str(study.folder)
    lines = {
        "model": ["sample", run, "--model", NAME],
        "file": ["score", run, NAME],
        "plan": ["run", table, "--dry-run"],
        "kind": ["run", table, "--kind", f"{NAME}=x"],
        "json plan": ["run", table, "--dry-run", "--json"],
        "report": ["report", run],
        "json": ["sample", run, "--json", "-n", "9"],
    }
    did = {key: do(line) for key, line in lines.items()}
    assert not [key for key, said in did.items() if UNSEEN.search(said.out + said.err)]
    assert "\\x1b[31ma\\u202eb|*c*`<i>$(d)" in did["plan"].out and "\\x1b[31ma" in did["kind"].err
    rows = json.loads(did["json"].out)["data"]
    assert set(rows[0]) == {NAME, "level", "n"} and {row["level"] for row in rows} <= {NAME, "b"}


def test_its_page_and_card_show_no_name_that_works(study):
    card, page = (study.folder / "README.md").read_text(encoding="utf-8"), build(study.folder).read_text(encoding="utf-8")
    assert not UNSEEN.search(card) and not UNSEEN.search(page)
    assert card.startswith("# t\\\\x1b\\[1m\\_\\*") and "\\u202e" in page


def test_samples_in_a_pipe_are_the_names_themselves_and_on_a_terminal_are_not(do, study, monkeypatch):
    line = ["sample", str(study.folder), "-n", "9"]
    assert pd.read_csv(io.StringIO(do(line).out)).columns[0] == NAME
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert not UNSEEN.search(do(line).out)


def test_text_is_shown_as_it_is_written():
    assert visible("a\x1bb\u202ec\x85\ud800\n\té") == "a\\x1bb\\u202ec\\x85\\ud800\n\té"
    assert all_visible({"\x1b": ["\x07", 1, None]}) == {"\\x1b": ["\\x07", 1, None]}
    assert markdown("gaussian_mixture _a_ *b* [c](d) <e> `f` g|h\ni\\j") == (
        "gaussian_mixture \\_a\\_ \\*b\\* \\[c\\](d) \\<e\\> \\`f\\` g\\|h i\\\\j"
    )


NAMES = ["plain", "two words", "it's", "$(rm x)", "a;b", "-n", "back\\slash", "t\x1b[1m\u202e'\\x", "a\nb"]


@pytest.mark.parametrize("name", NAMES)
def test_a_pasted_command_says_what_it_shows(name):
    line = command("printf", "%s.", name)
    assert not UNSEEN.search(line)
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, env={"LC_ALL": "C.UTF-8"}).stdout
    assert said == f"{name}."


def test_the_option_for_a_column_is_quoted():
    assert shlex.split(kind_of("my age", "integer")) == ["--kind", "my age=integer"]
    assert kind_of("age", "integer") == "--kind age=integer"
