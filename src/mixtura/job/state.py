"""How far a run has come, over all its sittings: what state.json holds, while the run goes on."""

from __future__ import annotations

import time
from typing import Any

from mixtura.folder import records
from mixtura.folder.layout import RunFolder


class RunState:
    """units: of each fit (model/fold or model/all) what a replay needs. failures: of each model that failed why. again: of the
    models that a passing fault ended in an earlier sitting, and which have another chance in this one."""

    def __init__(self, run: RunFolder, began: float) -> None:
        self.run, self.began, self.earlier = run, began, 0.0
        self.units: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, dict[str, Any]] = {}
        self.again: dict[str, dict[str, Any]] = {}
        self.saved = time.monotonic()

    def take_up(self) -> None:
        """Go on from the folder, if a fit has begun there."""
        if not self.run.has_state:
            return
        kept = self.run.state()
        self.units, self.earlier = dict(kept.units), kept.elapsed
        self.again = {name: kept.failures[name] for name in kept.to_be_tried_again}
        self.failures = {name: failure for name, failure in kept.failures.items() if name not in self.again}

    @property
    def elapsed(self) -> float:
        """Seconds this run has had, earlier sittings included."""
        return self.earlier + time.monotonic() - self.began

    def save(self) -> None:
        """Write state.json."""
        self.run.write_state(records.SavedState(self.elapsed, self.units, {**self.again, **self.failures}))
        self.saved = time.monotonic()

    def fail(self, name: str, failure: dict[str, Any]) -> None:
        """Note that a model failed: for good, or, where the fault passes, in this sitting."""
        self.failures[name] = failure
        self.save()
