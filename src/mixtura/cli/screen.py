"""What is shown on standard error while a run lasts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mixtura.cli.numbers import format_duration, format_number
from mixtura.cli.tables import show_plan
from mixtura.cli.work import at_work

if TYPE_CHECKING:  # torch and pandas wait until a command needs them: --help is quick
    from rich.console import Console

    from mixtura.job.start import Options


class RunScreen:
    """The progress of a run on standard error: a live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console, options: Options) -> None:
        self.console, self.options = console, options
        self.rows: dict[str, dict[str, Any]] = {}
        self.live: Any = None

    def show(self, record: Any) -> None:
        """Show one record of the run."""
        from mixtura.job.start import Judged, Planned, Progress

        if isinstance(record, Planned):
            show_plan(self.console, record)
            self.rows = {name: {"done": 0.0} for name in record.families}
            if self.console.is_terminal:
                from rich.live import Live

                self.live = Live(self._table(), console=self.console, refresh_per_second=8)
                self.live.start()
        elif isinstance(record, Progress):
            row = self.rows.setdefault(record.name, {"done": 0.0})
            if row["done"] == 0 and "begun" not in row:
                row["begun"] = time.monotonic()
                if self.live is None:
                    self.console.print(f"{record.name}: training", highlight=False)
            row |= {"done": record.done, "left": record.left, "note": record.note}
            if "status" not in row:  # of one that is judged, and fitted again, the nats of the select rows stay
                row["nats"] = record.validation
        elif isinstance(record, Judged):
            row = self.rows.setdefault(record.name, {})
            row |= {"done": 1.0, "left": None, "status": record.status, "note": record.reason, "nats": record.select_nats}
            if self.live is None:
                nats = record.select_nats
                fitted = record.reason or "fitted" if nats is None else f"{format_number(nats, 3)} nats on the select rows"
                result = fitted if record.status == "fitted" else f"{record.status}, {record.reason}"
                self.console.print(f"{record.name}: {result}")
        if self.live is not None:
            self.live.update(self._table())

    def close(self) -> None:
        """Leave the last state on the screen."""
        if self.live is not None:
            self.live.stop()

    def _table(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name, justify in (("model", "left"), ("", "left"), ("nats", "right"), ("left", "right"), ("", "left")):
            table.add_column(name, justify=justify, no_wrap=name != "" or justify == "right")  # type: ignore[arg-type]
        for name, row in self.rows.items():
            bar = ProgressBar(total=1, completed=row.get("done", 0.0), width=20)
            table.add_row(name, bar, format_number(row.get("nats"), 3), format_duration(row.get("left")), row.get("note", ""))
        return table


def shown_on(records: Iterator[Any], screen: RunScreen) -> Iterator[Any]:
    """The same records; each is shown on the screen before it is handed on."""
    try:
        with at_work("reading"):  # the first record comes when the data is understood
            first = next(records, None)
        for record in itertools.chain([] if first is None else [first], records):
            screen.show(record)
            yield record
    finally:
        screen.close()
