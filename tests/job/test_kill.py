"""A run that is killed goes on as if nothing had happened: same bits. A timed run can be replayed from its record."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.job.replay import replay

KILLS = int(os.environ.get("MIXTURA_KILLS", "2"))
STEPS = 80
#: a closed fit beside the floor, a bound, and exact densities that race with it
FAMILIES = ["marginals", "forest", "autoregressive", "vae"]
RUN = """
import sys, mixtura
mixtura.run(
    sys.argv[1], steps=int(sys.argv[2]), seed=1, out=sys.argv[3], workers=int(sys.argv[4]), families=sys.argv[5].split(",")
)
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,500 rows of mixed columns: enough not to be cross-fitted, so that every fit takes a while."""
    rng = np.random.default_rng(0)
    kind = rng.choice(["a", "b", "c"], 1500)
    size = np.round(100 + 3 * rng.standard_normal(1500) + 5 * (kind == "a"), 1)
    frame = pd.DataFrame({"kind": kind, "size": size, "count": rng.poisson(20, 1500), "real": rng.standard_normal(1500)})
    frame.loc[::17, "size"] = np.nan
    path = tmp_path_factory.mktemp("kill") / "table.csv"
    frame.to_csv(path, index=False)
    return path


def bits(folder: Path) -> dict[str, bytes]:
    """The files that must not differ."""
    wanted = [
        *folder.glob("models/*/*"),
        folder / "nats.safetensors",
        folder / "verdict.json",
        folder / "samples.csv",
        folder / "splits.safetensors",
    ]
    return {str(p.relative_to(folder)): p.read_bytes() for p in wanted}


def start(table: Path, out: Path, workers: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", RUN, str(table), str(STEPS), str(out), str(workers), ",".join(FAMILIES)]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that it made to do its jobs."""
    tasks = Path(f"/proc/{process.pid}/task")
    children = [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]
    return [pid for pid in children if b"popen_loky" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_killed_runs_end_with_the_same_bits(table: Path, tmp_path: Path) -> None:
    """Whether the run itself is killed or one of its workers, with one worker or two in each sitting."""
    began = time.monotonic()
    assert start(table, tmp_path / "calm", 1).wait() == 0
    whole = time.monotonic() - began
    moments = random.Random(7)
    kills, folder = 0, tmp_path / "killed"
    process = start(table, folder, 2)
    while kills < KILLS:
        # the first seconds only import; the later kills come ever nearer to the end
        time.sleep(moments.uniform(0.2, 0.8) * whole)
        if process.poll() is None:
            victim = moments.choice([process.pid, *workers_of(process)])
            os.kill(victim, signal.SIGKILL)
            kills += 1
            if victim != process.pid:
                continue
            process.wait()
        elif (folder / "verdict.json").exists():
            folder = tmp_path / f"killed{kills}"
        process = start(table, folder, moments.choice([1, 2]))
    process.wait()
    assert start(table, folder, 1).wait() == 0
    calm = bits(tmp_path / "calm")
    assert len(calm) > 10
    assert bits(folder) == calm


def test_a_timed_run_is_replayed_bit_for_bit(table: Path, tmp_path: Path) -> None:
    mixtura.run(table, budget="8s", families=["autoregressive", "kde"], seed=3, out=tmp_path / "timed")
    study, different = replay(tmp_path / "timed", tmp_path / "again", table)
    assert different == []
    assert (tmp_path / "again" / "models" / "autoregressive" / "model.safetensors").exists()
    assert study.verdict.rows == 300
