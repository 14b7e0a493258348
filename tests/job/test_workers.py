"""Who does the fits does not change the result: processes, threads, any executor; killed workers; models of one's own."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mixtura
from mixtura.contracts import ClosedForm, Density, InputError, Note
from mixtura.folder.layout import RunFolder
from mixtura.job import jobs
from mixtura.job.budget import PREPARING, SCORING, Budget
from mixtura.job.options import Options
from mixtura.job.start import conduct
from mixtura.job.workers import Processes, side_by_side

#: closed fits and trained ones, in folds and not
ASKED = {"steps": 12, "families": ["marginals", "gaussian_mixture", "autoregressive"], "seed": 1}


def people(n):
    rng = np.random.default_rng(0)
    return pd.DataFrame({"size": rng.normal(100, 3, n).round(1), "colour": rng.choice(["red", "blue"], n)})


def bits(folder):
    return RunFolder(folder).bits() | {"verdict.json": (folder / "verdict.json").read_bytes()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Rows → the bits of a run of one worker."""
    place, known = tmp_path_factory.mktemp("alone"), {}

    def of(n, **options):
        key = (n, *options)
        if key not in known:
            out = place / str(len(known))
            mixtura.run(people(n), out=out, workers=1, **(ASKED | options))
            known[key] = bits(out)
        return known[key]

    return of


@pytest.fixture(scope="module")
def processes():
    """Two that stand for all tests of this module, as an executor of the person's own does."""
    with Processes(2) as pool:
        yield pool


class Lent(Executor):
    """An executor that outlives the run."""

    def __init__(self, pool):
        self.submit = pool.submit

    def shutdown(self, wait=True, *, cancel_futures=False):
        raise AssertionError("a run does not end what it was lent")


@pytest.mark.parametrize(
    ("n", "kind"),
    [
        (1_300, "threads"), (1_300, "processes"),
        *(pytest.param(200, kind, marks=pytest.mark.slow) for kind in ("threads", "processes")),
    ],  # fmt: skip
)
def test_the_bits_are_those_of_one_worker(n, kind, alone, processes, tmp_path):
    engine = Lent(processes if kind == "processes" else ThreadPoolExecutor(3))
    mixtura.run(people(n), out=tmp_path / "run", executor=engine, workers=2, **ASKED)
    assert bits(tmp_path / "run") == alone(n) and len(alone(n)) > 6
    assert not (tmp_path / "run" / "work").exists()


def test_a_run_with_targets_has_the_same_bits(alone, processes, tmp_path):
    asked = ASKED | {"families": ["marginals", "mixture_density"], "target": "size"}
    mixtura.run(people(200), out=tmp_path / "run", executor=Lent(processes), workers=2, **asked)
    assert bits(tmp_path / "run") == alone(200, families=asked["families"], target="size")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["workers", "pool"])
def test_processes_of_the_run_and_those_of_the_standard_library(kind, alone, tmp_path):
    if kind == "workers":
        mixtura.run(people(200), out=tmp_path / "run", workers=2, **ASKED)
    else:
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
            mixtura.run(people(200), out=tmp_path / "run", executor=pool, workers=2, **ASKED)
    assert bits(tmp_path / "run") == alone(200)


# --------------------------------------------------------------------------------------------------- killed workers


def test_a_killed_worker_takes_only_its_own_job_along(alone, processes, tmp_path):
    """Its job is done again by a new process, from its checkpoint where there is one."""
    killed = []
    for record in conduct(people(1_300), Options(out=tmp_path / "run", executor=processes, workers=2, **ASKED)):
        if len(killed) < 2 and type(record).__name__ == "Progress":
            process = next(iter(processes._pools[len(killed)]._processes.values()), None)
            if process is not None:
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
    assert len(killed) == 2 and bits(tmp_path / "run") == alone(1_300)


HELD = """
import os, signal, sys
from joblib.externals.loky import ProcessPoolExecutor
from mixtura.job.workers import Processes

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = ProcessPoolExecutor._adjust_process_count

    def stopped(self):
        begin(self)
        if AT:
            os.kill(os.getpid(), signal.SIGTERM)
        AT.append("begun")

    AT = [] if sys.argv[1] == "second" else ["begun"]
    ProcessPoolExecutor._adjust_process_count = stopped
    try:
        with Processes(2):
            print("all were begun")
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_stop_while_a_worker_begins_waits_for_it_and_ends_it(which, tmp_path):
    """A worker that was begun by halves printed a traceback on standard output."""
    (tmp_path / "held.py").write_text(HELD)
    ended = subprocess.run([sys.executable, "held.py", which], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


class Deadly(Density, ClosedForm):
    """Its fit ends the process, whichever it is."""

    def fit_closed(self, x, context, rng):
        os.kill(os.getpid(), signal.SIGKILL)

    def _sample(self, n, context, rng):
        raise NotImplementedError

    def _log_prob(self, x, context):
        raise NotImplementedError


def test_a_model_that_kills_every_worker_fails_alone(processes, tmp_path):
    asked = ASKED | {"families": ["marginals"], "models": {"deadly": Deadly}}
    study = mixtura.run(people(1_300), out=tmp_path / "run", executor=processes, workers=2, **asked)
    scores = {score.name: score for score in study.scores}
    assert scores["marginals"].status == "fitted" and scores["deadly"].status == "failed"
    assert scores["deadly"].reason.startswith("its process was killed 3 times") and (tmp_path / "run" / "work").exists()


def test_an_executor_of_ones_own_that_breaks_is_one_sentence_and_a_new_one_goes_on(alone, tmp_path):
    class Breaks(ThreadPoolExecutor):
        def submit(self, fn, /, *args, **kwargs):
            from concurrent.futures import BrokenExecutor

            def broken():
                raise BrokenExecutor("a child process terminated abruptly")

            return super().submit(broken) if args[1] == "autoregressive/2" else super().submit(fn, *args, **kwargs)

    with pytest.raises(InputError, match="executor: one of its workers died .* with a new one the same command goes on"):
        mixtura.run(people(200), out=tmp_path / "run", executor=Breaks(2), workers=2, **ASKED)
    mixtura.run(people(200), out=tmp_path / "run", executor=ThreadPoolExecutor(2), workers=2, **ASKED)
    assert bits(tmp_path / "run") == alone(200)


RUN = """
import sys, mixtura
mixtura.run(sys.argv[1], steps=100, families=["marginals", "autoregressive"], seed=1, out=sys.argv[2], workers=2)
"""


def test_killed_parents_leave_no_worker_behind_and_lose_nothing_finished(alone, tmp_path):
    people(1_300).to_csv(tmp_path / "people.csv", index=False)
    asked = ASKED | {"steps": 100, "families": ["marginals", "autoregressive"]}
    mixtura.run(tmp_path / "people.csv", out=tmp_path / "alone", workers=1, **asked)
    command = [sys.executable, "-c", RUN, str(tmp_path / "people.csv"), str(tmp_path / "run")]
    work, began = tmp_path / "run" / "work", time.monotonic()
    process = subprocess.Popen(command)
    while not list(work.glob("*.outcome.json")) and process.poll() is None and time.monotonic() - began < 120:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    done = {path: path.stat().st_mtime_ns for path in work.glob("*.outcome.json")}
    assert done and not (tmp_path / "run" / "verdict.json").exists()
    gone = time.monotonic() + 60
    while any(_runs(pid) for pid in children) and time.monotonic() < gone:
        time.sleep(0.1)
    assert not [pid for pid in children if _runs(pid)]
    for record in conduct(tmp_path / "people.csv", Options(out=tmp_path / "run", workers=1, **asked)):
        if type(record).__name__ == "Judged":
            assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert bits(tmp_path / "run") == bits(tmp_path / "alone")


def _runs(pid):
    """Whether any thread of the process does: the first may be gone while others still close its files."""
    try:
        states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return _runs(pid)  # a thread ended meanwhile
    return not set(states) <= set("ZX")


# ------------------------------------------------------------------------------------------------ scoring for the verdict


def _where(here, item):
    """Not the process of the test; dies in any other where the item says so, the first time or always."""
    if item == "dies" and os.getpid() != here or isinstance(item, Path) and not item.exists():
        if isinstance(item, Path):
            item.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if item == "raises":
        raise ValueError("of its own")
    return item, os.getpid() == here


def _lost(item):
    return item, "lost"


def _scored(function, items, engine, said=tuple):
    """What side_by_side finds, and what it yields meanwhile."""
    waits, told = side_by_side(function, items, engine, 2, _lost, said), []
    while True:
        try:
            told.append(next(waits))
        except StopIteration as ended:
            return ended.value, told


def test_an_item_whose_worker_dies_has_others_and_never_this_process(processes, tmp_path):
    once, asked = tmp_path / "once", ["a", "dies", "b", tmp_path / "once"]
    found, told = _scored(functools.partial(_where, os.getpid()), asked, processes, lambda: ["waiting"])
    assert found == [("a", False), ("dies", "lost"), ("b", False), (once, False)]
    assert {*told} == {"waiting"}


def test_what_cannot_be_sent_is_scored_here(processes):
    lock = threading.Lock()  # which nothing can send
    found, _ = _scored(lambda item: (item, lock.locked()), [1, 2], processes)
    assert found == [(1, False), (2, False)]


def test_an_error_of_the_function_is_raised(processes):
    with pytest.raises(ValueError, match="of its own"):
        _scored(functools.partial(_where, os.getpid()), ["a", "raises"], processes)


# ---------------------------------------------------------------------------------------------- later sittings, idle workers


def test_workers_use_the_device_of_the_sitting_that_they_serve(tmp_path, monkeypatch):
    """The folder may have been begun on another machine."""
    devices, perform = [], jobs.perform

    def noted(files, material, job, own):
        devices.append(str(material.device))
        return perform(files, material, job, own)

    monkeypatch.setattr(jobs, "perform", noted)
    asked = {"out": tmp_path / "run", "workers": 1, **ASKED}
    with ThreadPoolExecutor(1) as threads:
        for record in conduct(people(1_300), Options(device="cpu", executor=threads, **asked)):
            if type(record).__name__ == "Judged":
                break
    first = len(devices)
    mixtura.run(people(1_300), device="cpu:0", executor=ThreadPoolExecutor(1), **asked)
    assert {*devices[:first]} == {"cpu"} and {*devices[first:]} == {"cpu:0"}


def test_a_process_that_died_between_two_jobs_is_replaced():
    with Processes(1) as pool:
        first = pool.submit(os.getpid).result()
        os.kill(first, signal.SIGKILL)
        while _runs(first):
            time.sleep(0.01)
        assert pool.submit(os.getpid).result() != first


# ------------------------------------------------------------------------------------------------ models of one's own


class Own(Density, ClosedForm):
    """A constant."""

    def fit_closed(self, x, context, rng):
        pass

    def _sample(self, n, context, rng):
        import torch

        return 100 + torch.randn(n, 2, generator=rng, dtype=torch.float64)

    def _log_prob(self, x, context):
        return x[:, 0] * 0 - 7.0


def test_a_callable_that_cannot_be_sent_is_fitted_here_and_said(alone, processes, tmp_path):
    lock = threading.Lock()  # which nothing can send

    def own(space):
        with lock:
            return Own(space)

    asked = ASKED | {"families": ["marginals"], "models": {"own": own}}
    with pytest.warns(Note, match="own: cannot be sent to a worker .* so it is fitted in this process"):
        mixtura.run(people(1_300), out=tmp_path / "run", executor=Lent(processes), workers=2, **asked)
    mixtura.run(people(1_300), out=tmp_path / "alone", workers=1, **asked)
    assert bits(tmp_path / "run") == bits(tmp_path / "alone")


# ------------------------------------------------------------------------------------------------------ the budget


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
@pytest.mark.parametrize(("models", "folds"), [(1, 0), (3, 0), (4, 5), (7, 0)])
def test_fits_that_take_their_share_end_in_the_budget_and_fill_it(workers, models, folds):
    """Simulated: every worker takes the next fit when it is free."""
    names = [f"model{k}" for k in range(models)]
    budget = Budget(100.0, 0.16, workers, folds, names, 0.0)
    free, begun = [0.0] * workers, set()
    for name in names:
        for fold in [*map(str, range(folds)), "all"]:
            worker = min(range(workers), key=free.__getitem__)
            free[worker] += budget.share(begun, {}, [], free[worker])
            begun.add(f"{name}/{fold}")
    deadline = 84.0 - (SCORING * (1 + 1 / workers) + PREPARING / workers) * 100 * models
    assert max(free) <= deadline + 1e-9
    assert max(free) >= 0.99 * deadline


@pytest.mark.slow
def test_a_timed_run_of_two_workers_ends_in_its_budget(processes, tmp_path):
    began = time.monotonic()
    asked = {"budget": 6, "families": ASKED["families"]}
    study = mixtura.run(people(200), out=tmp_path / "run", executor=Lent(processes), workers=2, **asked)
    assert time.monotonic() - began < 1.5 * 6
    assert {score.status for score in study.scores} == {"fitted"}


def test_many_models_are_shown_at_once(processes, tmp_path):
    asked = ASKED | {"families": ["autoregressive", "flow"], "steps": 100}
    records = list(conduct(people(1_300), Options(out=tmp_path / "run", executor=Lent(processes), workers=2, **asked)))
    names = [record.name for record in records if type(record).__name__ == "Progress" and 0 < record.done < 1]
    assert set(names) == {"autoregressive", "flow"}
    first, last = ([k for k, name in enumerate(names) if name == model] for model in ("autoregressive", "flow"))
    assert min(last) < max(first) or min(first) < max(last)
    assert next(record for record in records if type(record).__name__ == "Planned").workers == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "workers: expected a whole number, 1 or more, got 0"),
        ({"workers": 1.5}, "workers: expected a whole number, 1 or more, got 1.5"),
        ({"ray": "auto", "executor": ThreadPoolExecutor(1)}, "ray and executor: give one of them"),
    ],
)
def test_what_cannot_be_asked(options, said):
    with pytest.raises(InputError, match=said):
        Options(**options)


# ---------------------------------------------------------------------------------------------------- several machines


@pytest.mark.slow
def test_dask_gives_the_same_bits(alone, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask: pip install dask distributed")
    with distributed.Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:
        mixtura.run(people(200), out=tmp_path / "run", executor=client.get_executor(), workers=2, **ASKED)
    assert bits(tmp_path / "run") == alone(200)


@pytest.mark.slow
def test_a_ray_cluster_of_two_nodes_one_of_them_killed_gives_the_same_bits(alone, tmp_path):
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'mixtura[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        options = Options(out=tmp_path / "run", ray=cluster.address, **(ASKED | {"steps": 60}))
        for record in conduct(people(200), options):
            if second is not None and type(record).__name__ == "Progress" and record.done > 0.2:
                cluster.remove_node(second, allow_graceful=False)
                second = None
        assert second is None and bits(tmp_path / "run") == alone(200, steps=60)
    finally:
        ray.shutdown()
        cluster.shutdown()


class ToyRay(types.ModuleType):
    """The part of the interface of ray that a run uses."""

    def __init__(self, joined):
        super().__init__("ray")
        self.joined, self.cancelled = joined, []

    def is_initialized(self):
        return self.joined

    def init(self, **options):
        self.joined = True

    def shutdown(self):
        self.joined = False

    def cluster_resources(self):
        return {"CPU": 1.0}

    def wait(self, tasks, num_returns, timeout):
        return tasks, []

    def remote(self, fn):
        def task(*args, **kwargs):
            future = Future()
            future.set_result(fn(*args, **kwargs))
            return types.SimpleNamespace(future=lambda: future)

        return types.SimpleNamespace(options=lambda **options: types.SimpleNamespace(remote=task))


@pytest.mark.parametrize("joined", [False, True])
def test_a_run_leaves_the_cluster_that_it_joined_and_no_other(joined, alone, tmp_path, monkeypatch):
    ray = ToyRay(joined)
    monkeypatch.setitem(sys.modules, "ray", ray)
    records = conduct(people(1_300), Options(out=tmp_path / "run", ray="auto", **ASKED))
    assert type(next(records)).__name__ == "Planned" and ray.joined
    assert type([*records][-1]).__name__ == "Done" and ray.joined is joined
    assert bits(tmp_path / "run") == alone(1_300)


def test_without_ray_a_sentence_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"--ray: needs the package ray; install it: pip install 'mixtura\[ray\]'"):
        mixtura.run(people(200), out=tmp_path / "run", ray="auto", **ASKED)
    assert not (tmp_path / "run").exists()
