"""The text of command line arguments as Python values: names, pairs, numbers, bounds."""

from __future__ import annotations

import csv

from mixtura.cli.errors import fail


def parse_names(texts: list[str] | None, flag: str) -> list[str] | None:
    """Names with commas between, from an option that may be repeated; a name that has a comma stands in quotes, as in CSV."""
    if not texts:
        return None
    names = [part.strip() for row in csv.reader(texts, skipinitialspace=True) for part in row if part.strip()]
    if not names:
        fail(f"{flag} {','.join(texts)!r}: no name was given; write them with commas between, or leave {flag} out for all")
    return names


def parse_numbers(text: str | None, flag: str) -> list[float] | None:
    """Numbers with commas between; None where the option was not given."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        fail(f"{flag} {text!r}: expected numbers with commas between, as in 1,2.5,0")


def parse_bounds(texts: list[str] | None, flag: str) -> dict[str, tuple[float | None, float | None]]:
    """Column → (low, high), from COL=LOW:HIGH; an end that is left out is None."""
    bounds = {}
    for column, ends in parse_pairs(texts, flag).items():
        try:
            low, high = (float(end) if end.strip() else None for end in ends.split(":"))
        except ValueError:
            fail(f"{flag} {column}={ends}: expected {column}=LOW:HIGH, as in {column}=0:120, {column}=0: or {column}=:120")
        bounds[column] = (low, high)
    return bounds


def parse_pairs(texts: list[str] | None, flag: str) -> dict[str, str]:
    """Name → value, from an option NAME=VALUE that may be repeated."""
    # the name of a column may hold "=", and so may the path of --samples
    pairs = [text.split("=", 1) if flag == "--samples" else text.rsplit("=", 1) for text in texts or []]
    for pair in pairs:
        if len(pair) != 2 or not all(pair):
            example = "age=integer" if flag == "--kind" else "gan=gan.csv"
            fail(f"{flag} {'='.join(pair)}: expected NAME=VALUE, as in {flag} {example}")
    twice = next((name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i])), None)
    if twice is not None:
        fail(f"{flag}: {twice!r} is given twice; give it once")
    return {name: value for name, value in pairs}
