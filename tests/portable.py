"""The suite on other processors, as far as this one can pass for them: ``make test-portable``, or ``python tests/portable.py
[--together] [arguments of pytest]`` for a part of it.

Each setting chooses, by a variable, the code that MKL, ATen, OpenBLAS or numpy run; the last needs none: ``rounding.py`` moves
results by their last bit. A look at a few results comes before each and says what took effect. A setting that changes no bit on
this machine is said so and not run. First come all of them together, which moves the most bits in one run of the suite;
``--together`` ends there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import ChainMap
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

#: in a process of its own: what each library says of itself, and the bits of a few of its results
LOOK = """
import hashlib, json, sys
import numpy as np, scipy.linalg, threadpoolctl, torch
from numpy._core import _multiarray_umath as umath

bits = lambda x: hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:8]
x = np.random.default_rng(0).normal(size=(301, 203))
f, t = x.astype(np.float32), torch.from_numpy(x)
softmax = lambda m: m.softmax(1)
pool = threadpoolctl.threadpool_info()
found = {
    "dispatch": list(umath.__cpu_dispatch__),
    "libraries": {
        "ATen": torch.backends.cpu.get_cpu_capability(),
        "OpenBLAS": " ".join(sorted({p["architecture"] for p in pool if p["internal_api"] == "openblas"})) or "none",
        "numpy": " ".join(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]) or "baseline",
        "threads": torch.get_num_threads(),
    },
    "bits": {
        "torch products": [bits(m @ m.T) for m in (t, t.float())],
        "torch functions": [bits(g(m)) for m in (t, t.float()) for g in (torch.sum, torch.sigmoid, torch.exp, softmax)],
        "torch draws": [bits(torch.randn(500, generator=torch.Generator().manual_seed(0)))],
        "numpy products": [bits(m @ m.T) for m in (x, f)] + [bits(scipy.linalg.svdvals(x))],
        "numpy functions": [bits(g(m)) for m in (x, f) for g in (np.exp, np.sin, np.tanh)] + [bits(m.sum(1)) for m in (x, f)],
    },
}
print(json.dumps(found))
"""


def environment(**variables: str) -> dict[str, str]:
    places = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places), **variables}


def look(**variables: str) -> dict[str, Any]:
    """What :data:`LOOK` finds under these variables, and what MKL says of itself where torch has it; RuntimeError where the
    libraries refuse them."""
    env = environment(MKL_VERBOSE="1", **variables)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOOK], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"])[-1])
    *told, found = done.stdout.strip().splitlines()
    modes = [word.removeprefix("CNR:") for line in told for word in line.split() if word.startswith("CNR:")]
    found = json.loads(found)
    found["libraries"]["MKL's CNR"] = modes[0] if modes else "no MKL"
    return found


def settings(features: list[str]) -> list[dict[str, str]]:
    """One dict of variables each. ``features`` are those that this numpy can do without: it refuses those of its baseline."""
    wide = [name for name in features if "AVX512" in name or name == "X86_V4"]
    oldest = [{"MKL_CBWR": "COMPATIBLE"}, {"ATEN_CPU_CAPABILITY": "default"}, {"OPENBLAS_CORETYPE": "Prescott"}]
    oldest += [{"NPY_DISABLE_CPU_FEATURES": " ".join(features)}] if features else []
    return [
        dict(ChainMap(*oldest)),
        *oldest,
        {"MKL_CBWR": "AVX2"},
        {"OPENBLAS_CORETYPE": "Haswell"},
        *([{"NPY_DISABLE_CPU_FEATURES": " ".join(wide)}] if wide else []),
        {"OMP_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2"},
    ]


def suite(arguments: list[str], **variables: str) -> list[str]:
    """Run it and show it; the lines of what failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    process = subprocess.Popen(command, cwd=HERE.parent, env=environment(**variables), stdout=subprocess.PIPE, text=True)
    failed = []
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith(("FAILED ", "ERROR ")):
            failed.append(line.rstrip())
    code = process.wait()
    return failed or ([f"pytest ended with code {code}"] if code else [])


def main(arguments: list[str]) -> int:
    usual = look()
    print("as it is:", ", ".join(f"{name} {value}" for name, value in usual["libraries"].items()), flush=True)
    results: list[tuple[str, str, list[str]]] = []
    together = "--together" in arguments
    arguments = [word for word in arguments if word != "--together"]
    for variables in settings(usual["dispatch"])[: 1 if together else None]:
        name = " ".join(f"{k}={v!r}" if " " in v else f"{k}={v}" for k, v in variables.items())
        try:
            found = look(**variables)
        except RuntimeError as error:
            results.append((name, f"not run: refused here ({error})", []))
            continue
        said = [f"{k} {v}" for k, v in found["libraries"].items() if v != usual["libraries"][k]]
        moved = [k for k, v in found["bits"].items() if v != usual["bits"][k]]
        effect = f"{', '.join(said) or 'no library names it'}; other bits in: {', '.join(moved) or 'nothing'}"
        if not moved:
            results.append((name, f"not run: nothing to see on this machine ({effect})", []))
            continue
        print(f"\n== {name}: {effect}", flush=True)
        results.append((name, effect, suite(arguments, **variables)))
    if not together:
        print("\n== another rounding", flush=True)
        results.append(("another rounding", "last bits moved by rounding.py", suite(["-p", "rounding", *arguments])))
    print("\n== summary")
    for name, effect, failed in results:
        outcome = f"{len(failed)} failed" if failed else "passed"
        print(f"{name}: {effect}" + ("" if effect.startswith("not run") else f": {outcome}"), *failed, sep="\n    ")
    return int(any(failed for *_, failed in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
