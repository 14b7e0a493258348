"""Serve one Python function in the protocol of a command: ``worker.py FOLDER MODULE:FUNCTION OPTIONS``.

It is started by its path, so that a plain function needs no import of this library or torch.
"""

from __future__ import annotations

import base64
import io
import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np


def main(folder: str, target: str, options: str) -> None:
    """Answer requests until standard input ends."""
    answers = os.dup(1)
    os.dup2(2, 1)  # what the function prints goes to standard error, not into the answers
    requests: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_queue_requests, args=(requests,), daemon=True).start()
    sys.path[:0] = [folder]
    sys.path.append(str(Path(__file__).parents[2]))  # the folder of this library, for the functions of local.py
    f, settings = resolve_name(target), json.loads(options)
    with os.fdopen(answers, "w", encoding="utf-8") as out:
        while True:
            out.write(json.dumps(_answer(f, json.loads(requests.get()), settings)) + "\n")
            out.flush()


def _queue_requests(requests: queue.Queue[str]) -> None:
    """Queue the requests. At the end of standard input the parent is gone: exit at once, even if the function hangs."""
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)


def _answer(f: Callable[..., Any], request: dict[str, Any], settings: dict[str, Any]) -> dict[str, str]:
    context = {"context": request["context"]} if "context" in request else {}
    try:
        packed = io.BytesIO()
        np.lib.format.write_array(packed, np.asarray(f(request["seed"], **settings, **context)), allow_pickle=False)
        return {"npy": base64.b64encode(packed.getvalue()).decode()}
    except Exception as error:  # the error is sent back as a sentence
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    main(*sys.argv[1:])
