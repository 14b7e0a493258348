"""The README says what the program prints: its first block is run, its Python block too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mixtura.cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*(?:e[-+]?\d+)?")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, flags=re.DOTALL)


def parted(line: str) -> tuple[str, dict[str, float]]:
    """A sentence without its blend, and the blend: weights by model."""
    rest, _, blend = line.partition("use the blend ")
    return rest, {model: float(weight) for weight, model in (part.split(" ") for part in blend.split(" + ") if part)}


def same_line(printed: str, shown: str) -> bool:
    """Equal but for the last digits, and for the order of weights that may tie and models that hardly have one."""
    (printed, ours), (shown, theirs) = (parted(text) for text in (printed, shown))
    if any(abs(ours.get(model, 0.0) - theirs.get(model, 0.0)) > 0.1 for model in ours | theirs):
        return False
    words = [NUMBER.sub("#", re.sub(r"\s+", " ", text)).strip() for text in (printed, shown)]
    numbers = [[float(n.replace(",", "")) for n in NUMBER.findall(text)] for text in (printed, shown)]
    return words[0] == words[1] and all(abs(a - b) <= 0.1 + 1e-9 for a, b in zip(*numbers, strict=True))


def test_the_first_block_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    command, *shown = blocks("console")[0].rstrip().splitlines()
    assert command.startswith("$ mixtura ")
    main(command.removeprefix("$ mixtura ").split())
    printed = capsys.readouterr().out.rstrip().splitlines()
    # "not converged" notes guess at times: they come and go with the machine's speed
    steady = [[line for line in text if "converged" not in line] for text in (printed, shown)]
    assert [p.split()[:1] for p in steady[0]] == [s.split()[:1] for s in steady[1]]
    for was, expected in zip(*steady, strict=True):
        assert same_line(was, expected), f"the README shows\n{expected}\nbut the command prints\n{was}"


def test_the_first_page_of_the_site_shows_the_same_block() -> None:
    page = (Path(__file__).parents[1] / "docs/index.md").read_text(encoding="utf-8")
    assert f"```console\n{blocks('console')[0]}```" in page


def test_a_wrong_number_would_be_noticed() -> None:
    shown = "kde  -17.389 ± 0.182   0.0042 ± 0.0041  0.59 ± 0.03"
    assert same_line("kde  -17.391 ± 0.180   0.0043 ± 0.0041  0.58 ± 0.03", shown)
    assert not same_line("kde  -16.389 ± 0.182   0.0042 ± 0.0041  0.59 ± 0.03", shown)
    blend = "gain 0.17 ± 0.06 nats: use the blend 0.35 kde + 0.33 flow + 0.32 vae"
    assert same_line("gain 0.17 ± 0.06 nats: use the blend 0.34 flow + 0.34 kde + 0.31 vae + 0.01 gan", blend)
    assert not same_line("gain 0.17 ± 0.06 nats: use the blend 0.68 kde + 0.32 vae", blend)
    assert not same_line("flow -17.389 ± 0.182   0.0042 ± 0.0041  0.59 ± 0.03", shown)


def test_the_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    study, network = blocks("python")
    exec(compile(study, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "unseen rows" in printed and "gaussian_mixture" in printed and "species" in printed
    exec(compile(network, "README.md", "exec"), {})
    assert "nats a row, in the units of t" in capsys.readouterr().out
