"""Sentences for a wrong input that a person can meet and that belong to no test of their room."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura import MixtureDensityRegressor
from mixtura.arms import load_arms
from mixtura.cli.main import main
from mixtura.contracts import Column, InputError, Space
from mixtura.families import mixture_density
from mixtura.ground.rng import generator
from mixtura.ground.trees import Forest

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(60, 2))
PEOPLE = pd.DataFrame({"size": ROWS[:, 0].round(1), "colour": np.resize(["red", "blue"], 60)})
LARGE = np.full((3, 4, 4), 2**60) + np.arange(3)[:, None, None]


def broken_images(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "broken.zip", "w") as archive:
        archive.writestr("a.png", b"no image")
    return folder / "broken.zip"


def aliases(folder: Path) -> Path:
    """Each line stands for ten of the line before."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{now}: &{now} [{', '.join([f'*{old}'] * 10)}]" for old, now in zip("abcdefg", "bcdefgh", strict=True)]
    (folder / "arms.yaml").write_text("\n".join(lines))
    return folder / "arms.yaml"


def written(folder: Path, text: str) -> Path:
    (folder / "arms.yaml").write_text(text)
    return folder / "arms.yaml"


def save_onto_a_file(folder: Path) -> None:
    fitted = MixtureDensityRegressor(components=1, steps=3).fit(ROWS[:, :1], ROWS[:, 1])
    (folder / "file").touch()
    fitted.save(folder / "file")


WRONG = {
    "a reference with words": (
        lambda _: mixtura.select({"a": ROWS, "b": ROWS}, "mmd", reference=PEOPLE),
        "reference: has columns without numbers, but arms give numbers; encode them first",
    ),
    "levels beyond 2^53": (lambda _: mixtura.evaluate(LARGE, LARGE), "image 0 has a level of 1152921504606846976"),
    "no image can be read": (
        lambda folder: mixtura.run(broken_images(folder), skip_broken=True, steps=1),
        "broken.zip: none of its 1 image files can be read (",
    ),
    "a gap in a column without gaps": (
        lambda _: mixtura.evaluate(PEOPLE, PEOPLE.assign(size=[None, *PEOPLE["size"][1:]])),
        "column 'size', row 0 is missing, but the column was learnt without missing values",
    ),
    "an estimator onto a file": (save_onto_a_file, "file: is a file, expected a folder; give another path"),
    "an estimator from an empty folder": (
        lambda folder: MixtureDensityRegressor.load(folder), "holds no estimator.json, so no MixtureDensityRegressor"
    ),
    "an estimator with odd settings": (
        lambda _: MixtureDensityRegressor(components=-1).fit(ROWS[:, :1], ROWS[:, 1]), "got -1; give another value"
    ),
    "a mixture density of images": (
        lambda _: mixture_density.build(
            Space.image(1, 4, 4, low=0, high=255, resolution=1), context_shape=(1,), config=mixture_density.Config(),
            rng=generator(0),
        ),
        "mixture_density: images have too many entries for one mixture; use vae or autoregressive",
    ),
    "a space with columns too few": (
        lambda _: Space((3,), (Column(),)), "a space of shape (3,) needs 3 columns, got 1; give one for each entry"
    ),
    "complex rows": (
        lambda _: Space.continuous(1).check(torch.zeros(2, 1, dtype=torch.complex64)),
        "x: expected real numbers, got torch.complex64; convert them",
    ),
    "no forest": (lambda _: Forest.of(ROWS), "a forest: expected a tree or forest regressor or a HistGradientBoosting model"),
    "an alias of aliases": (lambda folder: load_arms(aliases(folder)), "arms.yaml: stands for more than"),
    "an arm without its command": (
        lambda folder: load_arms(written(folder, "arms:\n- {name: a, kind: command}")), "missing, expected"
    ),
    "an arm that is a model": (
        lambda folder: load_arms(written(folder, "arms:\n- {name: a, kind: model, path: .}")), "opens models of run folders"
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_the_sentence_says_what_is_wrong(case, tmp_path):
    act, said = WRONG[case]
    with pytest.raises(InputError) as caught:
        act(tmp_path)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_of_your_own_that_is_none_is_a_failure_with_its_reason(tmp_path):
    study = mixtura.run(PEOPLE, steps=3, models={"odd": lambda space: 3}, families=["marginals"], out=tmp_path / "run")
    [odd] = [score for score in study.scores if score.name == "odd"]
    assert odd.status != "fitted" and "models: expected a callable Space → mixtura.Model, got int" in odd.reason


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "penguins", "--kind", "age"], "--kind age: expected NAME=VALUE, as in --kind age=integer"),
        (["run", "penguins", "--kind", "sex=label", "--kind", "sex=text"], "--kind: 'sex' is given twice; give it once"),
        (["run", "penguins", "--bounds", "year=a:b"], "--bounds year=a:b: expected year=LOW:HIGH, as in year=0:120"),
    ],
)
def test_words_on_the_command_line(words, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2 and said in capsys.readouterr().err
