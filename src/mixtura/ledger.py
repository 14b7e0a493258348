"""The durable record of every pull: one SQLite file in write-ahead mode.

No sample that was bought is lost. A pull is recorded before its arm is asked, and its sample before it is used. After a kill, the
request that was in flight is repeated if the arm answers it with the same sample (it takes a key, or is repeatable by seed); for
any other arm, that one request is marked ``unknown``.

Several processes may use one ledger: each pull is recorded in a transaction, and a request in flight belongs to the process that
made it as long as that process lives.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mixtura.contracts import InputError
from mixtura.ground.machine import CannotWrite, alive, held, this_process

Status = Literal["asked", "told", "failed", "unknown"]

#: seconds to wait for another process's transaction
PATIENCE = 10.0
#: the errors of SQLite by which the disk or another process prevents writing now
_REFUSED = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_BUSY", "SQLITE_READONLY", "SQLITE_NOMEM")
#: what reading a file that is not a database raises; the message of SQLite repeats its bytes, which may not be text
_BROKEN = (sqlite3.Error, UnicodeDecodeError)
_number = itertools.count()
_COLUMNS = "number, arm, draw, key, status, cost, asked, told, place, shape, sample, features, reason"

_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pulls (
    number INTEGER PRIMARY KEY, arm TEXT NOT NULL, draw INTEGER NOT NULL, key TEXT NOT NULL UNIQUE, status TEXT NOT NULL,
    cost REAL NOT NULL DEFAULT 0, owner TEXT NOT NULL, asked REAL NOT NULL, told REAL, place INTEGER, shape TEXT, sample BLOB,
    features BLOB, reason TEXT NOT NULL DEFAULT '', UNIQUE (arm, draw));
CREATE INDEX IF NOT EXISTS by_status ON pulls (status, arm);
CREATE INDEX IF NOT EXISTS by_place ON pulls (place);
"""


@dataclass(frozen=True)
class Pull:
    """One request. number: 0, 1, … in the order of asking. draw: how often this arm was asked before. key: sent with the request.
    asked, told: seconds since the epoch. place: position in the order in which pulls ended, told or failed. sample: as the arm
    gave it. features (d,): as the policy saw it. reason: why there is no sample."""

    number: int
    arm: str
    draw: int
    key: str
    status: Status
    cost: float
    asked: float
    told: float | None
    place: int | None
    sample: NDArray[Any] | None
    features: NDArray[np.float32] | None
    reason: str


class Ledger:
    """All pulls of one selection, in one SQLite file, whose folder nobody may clear while it is open. Every method raises
    InputError if the file cannot be used, and CannotWrite if it cannot be written now."""

    def __init__(self, path: Path) -> None:
        self.path, self.owner = path, f"{this_process()}.{next(_number)}"
        self._folder = contextlib.ExitStack()
        if not self._folder.enter_context(held(path.parent, shared=True)):
            raise InputError(f"{path.parent}: another selection starts over in this folder; wait for it, or give another --out")
        try:
            self._db = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_TABLES)
            self._db.execute(f"SELECT {_COLUMNS} FROM pulls LIMIT 1").fetchall()
        except (*_BROKEN, OSError) as error:
            raise self._as_input_error(error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._folder.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to report
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
            if isinstance(error, _BROKEN):
                raise self._as_input_error(error) from error
            raise

    def _rows(self, query: str, given: Sequence[Any] = ()) -> list[Any]:
        """The rows that a query finds. Raises InputError if the file cannot answer it."""
        try:
            return self._db.execute(query, given).fetchall()
        except _BROKEN as error:
            raise self._as_input_error(error) from error

    def _pulls(self, query: str, given: Sequence[Any] = ()) -> list[Pull]:
        """The pulls that a query finds. Raises InputError if the file cannot answer it."""
        try:
            return [_pull(row) for row in self._rows(query, given)]
        except (ValueError, TypeError, OverflowError, MemoryError) as error:
            if isinstance(error, InputError):
                raise
            raise self._as_input_error(error) from error

    def _as_input_error(self, error: BaseException) -> InputError:
        """The error for the user: CannotWrite if it may pass, else InputError."""
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", "").startswith(_REFUSED):
            busy = "BUSY" in error.sqlite_errorname
            remedy = "another program has it open" if busy else "check the path and the space on the disk"
            return CannotWrite(f"{self.path}: cannot be written ({error}); {remedy}; the same command goes on from here")
        return InputError(f"{self.path}: cannot be used as a ledger, or is damaged ({error}); give another --out, or remove it")

    # ---------------------------------------------------------------------------------------------------- about

    def agree(self, question: Mapping[str, Any]) -> None:
        """Record the settings of the selection, with a unique ``identity`` of it, or check that they equal the recorded ones.
        Raises InputError, which names the first difference. Of processes that begin together, one records."""
        plain = {name: json.dumps(value, sort_keys=True) for name, value in question.items()}
        with self._transaction() as db:
            kept = dict(self._rows("SELECT name, value FROM about"))
            if not kept:
                named = {"identity": json.dumps(uuid.uuid4().hex[:12]), **plain}
                db.executemany("INSERT INTO about VALUES (?, ?)", named.items())
                return
        for name, value in plain.items():
            if kept.get(name) != value:
                raise InputError(
                    f"{self.path.parent}: holds a selection with {name} {kept.get(name)}, not {value}; give another --out, "
                    "or --fresh to start over"
                )

    def about(self) -> dict[str, Any]:
        """The recorded settings."""
        try:
            return {name: json.loads(value) for name, value in self._rows("SELECT name, value FROM about")}
        except (ValueError, TypeError, RecursionError) as error:
            raise self._as_input_error(error) from error

    # ---------------------------------------------------------------------------------------------------- pulls

    @contextmanager
    def dealing(self) -> Iterator[None]:
        """No other process can record a pull within this context: read the ledger, choose an arm, then call :meth:`intend`."""
        with self._transaction():
            yield

    def next_number(self) -> int:
        """The number of the next pull; call it within :meth:`dealing`."""
        [[number]] = self._rows("SELECT COALESCE(MAX(number), -1) + 1 FROM pulls")
        return int(number)

    def intend(self, arm: str) -> Pull:
        """Record that an arm will be asked now; call it within :meth:`dealing`."""
        number = self.next_number()
        [[draw]] = self._rows("SELECT COALESCE(MAX(draw), -1) + 1 FROM pulls WHERE arm = ?", (arm,))
        key = f"{self.about().get('identity', 'pull')}-{number}"
        now = time.time()
        self._db.execute(
            "INSERT INTO pulls (number, arm, draw, key, status, owner, asked) VALUES (?, ?, ?, ?, 'asked', ?, ?)",
            (number, arm, draw, key, self.owner, now),
        )
        return Pull(number, arm, draw, key, "asked", 0.0, now, None, None, None, None, "")

    def receive(self, pull: Pull, sample: NDArray[Any], cost: float) -> None:
        """Record the sample that an arm gave, before it is used."""
        array = np.ascontiguousarray(sample)
        about = json.dumps([array.dtype.str, list(array.shape)])
        with self._transaction() as db:
            db.execute(
                "UPDATE pulls SET cost = ?, shape = ?, sample = ? WHERE number = ? AND status IN ('asked', 'unknown')",
                (cost, about, array.tobytes(), pull.number),
            )

    def tell(self, pull: Pull, features: NDArray[np.floating]) -> None:
        """Record the features of a received sample: from now on every process counts it."""
        with self._transaction() as db:
            db.execute(
                "UPDATE pulls SET status = 'told', features = ?, told = ?, place = ? WHERE number = ? AND status != 'told'",
                (np.ascontiguousarray(features, dtype=np.float32).tobytes(), time.time(), self._next_place(), pull.number),
            )

    def fail(self, pull: Pull, reason: str, cost: float, status: Status = "failed") -> None:
        """Record that a pull gave no sample, why, and what it may have cost. One whose fate is ``unknown`` has not ended: its
        sample may still come."""
        reason = reason.encode(errors="backslashreplace").decode()  # SQLite refuses lone surrogates
        with self._transaction() as db:
            place = self._next_place() if status == "failed" else None
            db.execute(
                "UPDATE pulls SET status = ?, reason = ?, cost = ?, told = ?, place = ? WHERE number = ? AND status = 'asked'",
                (status, reason, cost, time.time(), place, pull.number),
            )

    def _next_place(self) -> int:
        [[place]] = self._rows("SELECT COALESCE(MAX(place), -1) + 1 FROM pulls")
        return int(place)

    def pulls(self, *, samples: bool = False, after: int = -1) -> list[Pull]:
        """All pulls with numbers above ``after``, in the order of asking; ``samples``: with their samples."""
        sample = "shape, sample" if samples else "NULL, NULL"
        columns = _COLUMNS.replace("shape, sample", sample)
        return self._pulls(f"SELECT {columns} FROM pulls WHERE number > ? ORDER BY number", (after,))

    def ended_after(self, place: int) -> list[Pull]:
        """The pulls that ended after position ``place``, told or failed, in the order in which they ended."""
        columns = _COLUMNS.replace("shape, sample", "NULL, NULL")
        return self._pulls(f"SELECT {columns} FROM pulls WHERE place > ? ORDER BY place", (place,))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Arm → shape of the first sample that was told of it."""
        rows = self._rows("SELECT arm, shape, MIN(number) FROM pulls WHERE status = 'told' GROUP BY arm")
        try:
            return {arm: tuple(json.loads(about)[1]) for arm, about, _ in rows}
        except (ValueError, TypeError, LookupError) as error:
            raise self._as_input_error(error) from error

    def in_flight(self) -> dict[str, int]:
        """Arm → number of requests in flight, of all processes."""
        return dict(self._rows("SELECT arm, COUNT(*) FROM pulls WHERE status = 'asked' GROUP BY arm"))

    def orphans(self) -> list[Pull]:
        """The requests in flight of processes that have ended, with the sample if it was received. They now belong to this
        process."""
        with self._transaction() as db:
            rows = self._rows("SELECT number, owner FROM pulls WHERE status = 'asked'")
            numbers = [number for number, owner in rows if not alive(str(owner).partition(".")[0])]
            db.executemany("UPDATE pulls SET owner = ? WHERE number = ?", [(self.owner, number) for number in numbers])
        return [pull for pull in self.pulls(samples=True) if pull.number in numbers]

    def release(self) -> None:
        """Give up the requests in flight, so that any process can take them over. If the ledger cannot be written, nothing
        happens: they are free when this process ends."""
        with contextlib.suppress(InputError), self._transaction() as db:
            db.execute("UPDATE pulls SET owner = '' WHERE status = 'asked' AND owner = ?", (self.owner,))

    def counts(self, arms: Sequence[str]) -> dict[str, dict[str, int]]:
        """Arm → status → number of pulls."""
        found = {arm: {"asked": 0, "told": 0, "failed": 0, "unknown": 0} for arm in arms}
        for arm, status, n in self._rows("SELECT arm, status, COUNT(*) FROM pulls GROUP BY arm, status"):
            found.setdefault(arm, {})[status] = n
        return found

    def spent(self, arm: str | None = None) -> float:
        """The cost of all pulls, or of those of one arm."""
        where, given = ("", ()) if arm is None else (" WHERE arm = ?", (arm,))
        [[total]] = self._rows(f"SELECT COALESCE(SUM(cost), 0) FROM pulls{where}", given)
        return float(total)


def _pull(row: Sequence[Any]) -> Pull:
    """The pull in a row of the file. SQLite does not enforce types: a value of a wrong type raises ValueError."""
    number, arm, draw, key, status, cost, asked, told, place, about, sample, features, reason = row
    whole = all(isinstance(v, int) for v in (number, draw)) and isinstance(place, int | None)
    texts = all(isinstance(v, str) for v in (arm, key, status, reason)) and status in get_args(Status)
    if not (whole and texts and isinstance(cost, int | float) and math.isfinite(cost) and isinstance(asked, int | float)):
        raise ValueError(f"pull {number} has a value of a wrong type")
    array = None
    if sample is not None:
        dtype, shape = json.loads(about)
        array = np.frombuffer(sample, dtype=np.dtype(dtype)).reshape(shape).copy()
    seen = None if features is None else np.frombuffer(features, dtype=np.float32).copy()
    if status == "told" and (seen is None or not np.isfinite(seen).all()):
        raise ValueError(f"pull {number} has features that are not finite numbers")
    return Pull(number, arm, draw, key, status, cost, asked, told, place, array, seen, reason)
