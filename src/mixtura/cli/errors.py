"""A wrong input is one sentence on standard error and exit code 2; an interrupt is exit code 130."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer

from mixtura.ground.shown import visible

#: "the words on the command line are wrong": typer's own class, which older versions take from click
WrongUsage: Any = typer.BadParameter.__mro__[1]
#: exit code of an interrupted command
INTERRUPTED = 130
#: characters of an error message
MAX_LENGTH = 1_200


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Errors that the person can mend become one sentence and exit code 2; bugs keep their traceback."""
    try:
        yield
    except WrongUsage as error:
        context = getattr(error, "ctx", None)
        fail(f"{error.format_message().rstrip('.')}; see {context.command_path if context else 'mixtura'} --help")
    except (KeyboardInterrupt, typer.Abort):
        stop()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        fail(f"{error.filename or 'file'}: {error.strerror or error}; check the path and the space on the disk")
    except FloatingPointError as error:  # a model gave NaN or infinity, and its message is a sentence
        fail(str(error))
    except ValueError as error:
        from mixtura.contracts import InputError

        if not isinstance(error, InputError):
            raise
        fail(str(error))
    except (MemoryError, RuntimeError) as error:
        from mixtura.ground.machine import out_of_memory

        if not out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        fail(f"too little memory ({reason}); free some, or ask for less; run and select go on where they stopped")


@contextmanager
def termination_is_an_interrupt() -> Iterator[None]:
    """Inside, what a scheduler sends before it kills (SIGTERM) ends the command as Ctrl-C does: workers end, nothing is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def fail(sentence: str) -> NoReturn:
    """Print one sentence on standard error and exit with 2. If a name or a cell makes it too long, its middle is left out,
    not what to do."""
    line = " ".join(sentence.split())
    line = line if len(line) <= MAX_LENGTH else f"{line[: MAX_LENGTH * 3 // 4]} … {line[-MAX_LENGTH // 4 :]}"
    print(visible(f"error: {line}"), file=sys.stderr)
    sys.exit(2)


def stop() -> NoReturn:
    """Say that the command was interrupted and can go on; exit with 130."""
    print("stopped; the same command goes on from here", file=sys.stderr)
    # Where the interrupt fell inside an exec of a string (a dataclass being made during an import), CPython
    # marks it as unhandled, and `python -m` would end by the signal, not by this code: any exec wipes the mark.
    exec("")
    sys.exit(INTERRUPTED)
