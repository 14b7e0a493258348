"""Arms that are other programs, which exchange lines of JSON with this process. A program that hangs, crashes or writes without
end fails one request, not the run.

Request: ``{"seed": 0, "key": "…"}``. Answer: ``{"sample": [...]}``, ``{"npy": base64}`` or ``{"error": "…"}``.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from numpy.typing import NDArray

from mixtura.arms.arm import Arm, ArmError, answered, shown

TIMEOUT = 60.0
#: most bytes of one answer
LIMIT = 2**28
#: bytes of standard error that are kept for the message
KEPT = 4_096
#: seconds between two checks that a silent program still runs; seconds that a program has to end after its last answer
POLL, GRACE = 0.1, 1.0

WORKER = Path(__file__).with_name("worker.py")


class Command(Arm):
    """A program: ``argv`` is started in ``folder`` for each request, or once for all of them (``persistent``).

    timeout: seconds for an answer, start included; after that the program and its process group are killed. limit: most bytes of
    an answer. The message of a failure shows what the program wrote to standard error.
    """

    takes_context = True

    def __init__(
        self, name: str, argv: Sequence[str], *, folder: Path | None = None, persistent: bool = False, timeout: float = TIMEOUT,
        retries: int = 0, limit: int = LIMIT, cost: float = 0.0, takes_key: bool = False, repeatable: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(name, cost=cost, takes_key=takes_key, repeatable=repeatable, retries=retries)
        self.argv, self.folder, self.persistent, self.timeout, self.limit = list(argv), folder, persistent, timeout, limit
        self._running: _Program | None = None
        self._turn = threading.Lock()  # a program answers one request at a time

    def _ask(self, seed: int, key: str) -> NDArray[Any]:
        return self._request({"seed": seed, "key": key})

    def _ask_in(self, seed: int, key: str, context: Mapping[str, Any]) -> NDArray[Any]:
        return self._request({"seed": seed, "key": key, "context": dict(context)})

    def _request(self, request: dict[str, Any]) -> NDArray[Any]:
        with self._turn:
            deadline = time.monotonic() + self.timeout
            answers = False
            try:
                if self._running is None:
                    self._running = _Program(self.name, self.argv, self.folder)
                self._running.request(json.dumps(request).encode() + b"\n", last=not self.persistent)
                line = self._running.answer(deadline, self.timeout, self.limit, last=not self.persistent)
                answers = True
            finally:
                if not (answers and self.persistent):
                    self._end(min(GRACE, deadline - time.monotonic()) if answers else 0.0)
        return answered(line, self.name)

    def _end(self, grace: float) -> None:
        if self._running is not None:
            self._running.end(grace)
            self._running = None

    def close(self) -> None:
        """End a persistent program: close its input, and kill it if it still runs after a second."""
        with self._turn:
            self._end(GRACE)


def program(
    name: str, target: str, *, folder: Path | None = None, options: Mapping[str, Any] | None = None, timeout: float = TIMEOUT,
    retries: int = 0, limit: int = LIMIT, cost: float = 0.0, takes_key: bool = False, repeatable: bool = False,
) -> Command:  # fmt: skip
    """A Python function ``module:function``, from ``folder`` or an installed package, called as ``f(seed, **options)`` in a
    process of its own, which imports it once."""
    argv = [sys.executable, "-P", str(WORKER), str(folder or Path.cwd()), target, json.dumps(dict(options or {}))]
    return Command(
        name, argv, folder=folder, persistent=True, timeout=timeout, retries=retries, limit=limit, cost=cost, takes_key=takes_key,
        repeatable=repeatable,
    )  # fmt: skip


class _Program:
    """A started program and its three pipes."""

    def __init__(self, name: str, argv: Sequence[str], folder: Path | None) -> None:
        self.name = name
        try:
            self._process = subprocess.Popen(
                argv, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                start_new_session=True,  # a process group of its own, which can be killed as a whole
            )  # fmt: skip
        except (OSError, ValueError) as error:
            raise ArmError(f"{name}: {argv[0]!r} cannot be started ({shown(str(error))})", again=False) from error
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._in, self._out, self._err = (_unblocked(pipe) for pipe in pipes)
        self._said, self._answered = b"", False
        self._select = selectors.DefaultSelector()
        for pipe in (self._out, self._err):
            self._select.register(pipe, selectors.EVENT_READ)

    def request(self, line: bytes, last: bool) -> None:
        """Send a line, and close the pipe if it is the ``last``. A program may answer the first request before it arrives, and
        end; after that, output without a request is an error."""
        early = self._read(self._out) if self._answered else None
        if early:
            raise ArmError(f"{self.name}: wrote {shown(early)!r} without a request{self._last_words()}")
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._in, line)
        if last and self._process.stdin is not None:
            self._process.stdin.close()

    def answer(self, deadline: float, timeout: float, limit: int, last: bool) -> bytes:
        """The one line that answers a request. After the ``last`` request, reading goes on until the program ends or ``GRACE`` is
        over, so that a late second line is found. Raises ArmError; later answers would then belong to earlier requests, so the
        program must be ended."""
        line, whole, until = bytearray(), False, deadline
        while not (whole and (not last or time.monotonic() >= until)):
            if time.monotonic() >= deadline:
                raise ArmError(f"{self.name}: no answer within {timeout:g} s{self._last_words()}")
            if len(line) > limit:
                raise ArmError(f"{self.name}: its answer has more than {limit:,} bytes{self._last_words()}", again=False)
            gone = self._process.poll() is not None  # checked before reading: output from before the end is still read
            ready = self._select.select(POLL)
            if any(key.fileobj == self._err for key, _ in ready):
                self._read_errors()
            part = self._read(self._out)
            line += part or b""
            if not whole and b"\n" in (part or b""):
                whole, until = True, min(deadline, time.monotonic() + GRACE)
            if part == b"" or (gone and not part):
                break
        self._answered = True
        return self._one_line(bytes(line), deadline)

    def _one_line(self, line: bytes, deadline: float) -> bytes:
        first, _, rest = line.partition(b"\n")
        if not first.strip():
            how = self._how_it_ended(deadline)
            raise ArmError(f"{self.name}: {how} without an answer{self._last_words()}")
        if rest.strip():
            raise ArmError(f"{self.name}: wrote more than one line for one request: then {shown(rest)!r}{self._last_words()}")
        return first

    def _how_it_ended(self, deadline: float) -> str:
        with suppress(subprocess.TimeoutExpired):
            code = self._process.wait(max(0.0, min(GRACE, deadline - time.monotonic())))
            return f"ended with code {code}" if code >= 0 else f"was ended by signal {_named(-code)}"
        return "closed its output"

    def _read(self, pipe: int) -> bytes | None:
        """The bytes that can be read now, b"" at the end of the output, None if there are none yet."""
        try:
            return os.read(pipe, 2**20)
        except BlockingIOError:
            return None

    def _read_errors(self) -> None:
        said = self._read(self._err)
        self._said = (self._said + (said or b""))[-KEPT:]
        if said == b"":
            self._select.unregister(self._err)

    def _last_words(self) -> str:
        if self._err in {key.fileobj for key in self._select.get_map().values()}:
            self._read_errors()
        lines = [line for line in self._said.decode(errors="replace").splitlines() if line.strip()]
        return f"; it said: {shown(' | '.join(lines[-3:]))}" if lines else ""

    def end(self, grace: float) -> None:
        """Close the pipes, wait ``grace`` seconds, kill the process group, and wait for its end."""
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._select.close()
        if grace > 0:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _named(number: int) -> str:
    """The name of a signal, such as SIGKILL; the number if it has no name (between SIGRTMIN and SIGRTMAX)."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


def _unblocked(pipe: IO[bytes] | None) -> int:
    number = cast(IO[bytes], pipe).fileno()
    os.set_blocking(number, False)
    return number
