"""`mixtura mix`: the best mixture of generators, from samples at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixtura.cli.app import Features, Json, Reference, Seed, SkipBroken
from mixtura.cli.arguments import parse_numbers
from mixtura.cli.deliver import collected_notes, deliver, emit
from mixtura.cli.errors import fail
from mixtura.cli.numbers import format_to_error
from mixtura.cli.tables import make_console
from mixtura.cli.work import at_work

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.mixing import BestMixture


def mix(
    samples: Annotated[list[str], typer.Argument(metavar="SAMPLES...", help="One file, FILE.npz:KEY, or folder a generator.")],
    objective: Annotated[
        str, typer.Option(help="Terms with + between: rke, mmd, kid, precision, density, loglik, cost, frechet, vendi, fld.")
    ] = "rke",
    reference: Reference = None,
    bandwidth: Annotated[float | None, typer.Option(help="Of Gaussian kernels; the median distance by default.")] = None,
    features: Features = None,
    costs: Annotated[str | None, typer.Option(help="What a sample of each costs, in order: 1,2.5,0.")] = None,
    at_most: Annotated[float | None, typer.Option(help="What a sample of the mixture may cost on average.")] = None,
    cap: Annotated[float | None, typer.Option(help="The largest weight allowed.")] = None,
    floor: Annotated[float | None, typer.Option(help="The least weight of each.")] = None,
    size: Annotated[int | None, typer.Option(help="At most so many generators in use.")] = None,
    pareto: Annotated[str | None, typer.Option(help="Scales of the last term, one mixture each: 0,0.1,0.5.")] = None,
    skip_broken: SkipBroken = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The best mixture of generators, from samples at hand: weights, value, gap, intervals."""
    from mixtura import mixing

    names = [mixing.name_of(path) for path in samples]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        fail(f"mix: two generators would be called {twice!r}; rename a file, or take keys of one .npz")
    options: dict[str, Any] = {"reference": reference, "bandwidth": bandwidth, "features": features, "seed": seed}
    options |= {"costs": parse_numbers(costs, "--costs"), "at_most": at_most, "cap": cap, "floor": floor, "size": size}
    named = dict(zip(names, samples, strict=True))
    with collected_notes() as notes, at_work("mixing"):
        if pareto is None:
            found = mixing.mix(named, objective, skip_broken=skip_broken, **options)
        else:
            table = mixing.pareto(named, objective, parse_numbers(pareto, "--pareto") or [], skip_broken=skip_broken, **options)
    if pareto is not None:
        deliver(table, None, as_json, {"objective": objective, "notes": notes})
        return
    emit({**found.record(), "notes": notes}, as_json, lambda: _show_mixture(make_console(stderr=False), found))


def _show_mixture(console: Console, o: BestMixture) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="dim")
    for name in ("generator", "samples", "weight", "95 % interval"):
        table.add_column(name, justify="left" if name == "generator" else "right", no_wrap=True)
    for name, weight in sorted(o.by_name.items(), key=lambda item: -item[1]):
        low, high = (o.intervals_by_name or {}).get(name, (None, None))
        table.add_row(name, f"{o.samples[name]:,}", f"{weight:.3f}", "" if low is None else f"{low:.2f} – {high:.2f}")
    console.print(table)
    console.print()
    console.print(o.sentence, style="bold", soft_wrap=True)
    better = "higher" if o.higher else "lower"
    value = f"{format_to_error(o.value, o.error)} {o.unit}, {better} is better; gap {o.gap:.1g}"
    console.print(f"{o.objective}: {value}", soft_wrap=True)
    console.print(f"best alone: {o.best} with {format_to_error(o.best_value, o.best_error)}", soft_wrap=True)
    if len(o.terms) > 1:
        parts = ", ".join(f"{name} {format_to_error(value, error)}" for name, (value, error) in o.terms.items())
        console.print(f"of which {parts}", soft_wrap=True)
    for a, b in o.flat[:3]:
        console.print(f"flat: all weight of {a} could go to {b}, as far as these samples tell", style="dim", soft_wrap=True)
    if not o.exact:
        console.print("so few of so many were searched, not enumerated: a better set may exist", style="dim", soft_wrap=True)
    width = "" if o.bandwidth is None else f", bandwidth {o.bandwidth:.4g}"
    console.print(f"features {o.features}{width}; the gain is of halves that chose nothing", style="dim", soft_wrap=True)
