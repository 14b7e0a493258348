"""The typer app, and the arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixtura.job.options import TABLE

app = typer.Typer(
    name="mixtura",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which generative model, or which blend of models, is best on rows never seen?",
)

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output (docs/cli-json.md).")]
Seed = Annotated[int, typer.Option(min=0, help=TABLE["seed"].help)]
Folder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `mixtura run` wrote.")]
Model = Annotated[str | None, typer.Option(help="One model of the run, or blend; the verdict's choice by default.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="File to write: .csv .tsv .parquet .json .jsonl")]
Numbers = Annotated[
    Path | None, typer.Option("--output", "-o", help="File to write: .csv .tsv .parquet .json .jsonl; of numbers alone .npy .npz")
]
Rows = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="File to write, as for predict; images to .npz .npy .zip or a folder"),
]
Reference = Annotated[str | None, typer.Option(help="Real rows or images, which most terms compare with.")]
Features = Annotated[str | None, typer.Option(help=TABLE["features"].help)]
SkipBroken = Annotated[bool, typer.Option("--skip-broken", help=TABLE["skip_broken"].help)]
