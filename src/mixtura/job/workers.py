"""Who does the jobs: processes of this machine, a Ray cluster, or any executor that a person hands over.

All are asked by ``submit(function, *arguments)`` and answer with a future. Retries, and workers that are lost, are the affair of
the engine; of the processes here, which know no retries, of :mod:`mixtura.job.schedule`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from multiprocessing import connection
from typing import Any, TypeVar

import torch

# joblib comes with scikit-learn. Its processes, unlike those of the standard library, do not import the script that called
# mixtura.run again, take callables that are defined in it, and end at once when they are asked to.
from joblib.externals.loky import ProcessPoolExecutor, cpu_count
from threadpoolctl import threadpool_limits

from mixtura.contracts import InputError

T = TypeVar("T")
R = TypeVar("R")
Y = TypeVar("Y")

#: so that no library of a worker starts threads of its own
ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
#: seconds between two looks at whether the process that made a worker is still there, and at what workers have done
LOOK_FOR_PARENT_EVERY, LOOK_EVERY = 0.5, 0.05
#: processes that one piece of work may take along
MOST_DEATHS = 3


def cores() -> int:
    """The cores that this process may use."""
    return cpu_count()


def use_one_thread() -> None:
    """From now on torch and the libraries of scikit-learn keep to the calling thread: the bits do not depend on the number of
    cores, and several workers do not fight over them."""
    torch.set_num_threads(1)
    threadpool_limits(1)


def side_by_side(
    function: Callable[[T], R], items: Sequence[T], engine: Executor, workers: int, lost: Callable[[T], R],
    meanwhile: Callable[[], Iterable[Y]] = tuple,
) -> Generator[Y, None, list[R]]:  # fmt: skip
    """``function`` of every item, in order, by the workers of an engine; in this process where the engine cannot take an item. An
    item whose process died has another; ``lost`` gives what is found of one that took ``MOST_DEATHS`` of them along. Yields what
    there is to be said ``meanwhile``."""
    found: dict[int, R] = {}
    waiting, running, deaths = [*range(len(items))], dict[Future[R], int](), [0] * len(items)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                k = waiting.pop(0)
                try:
                    running[engine.submit(_with_one_thread, function, items[k])] = k
                except Exception:  # an engine raises what it likes for what it cannot send
                    found[k] = function(items[k])
            for future in wait(running, LOOK_EVERY, FIRST_COMPLETED).done:
                k = running.pop(future)
                try:
                    found[k] = future.result()
                except BrokenExecutor:
                    deaths[k] += 1
                    if deaths[k] < MOST_DEATHS:
                        waiting.insert(0, k)
                    else:
                        found[k] = lost(items[k])
                except (Exception, CancelledError):  # of the engine; one of the function itself is raised again here
                    found[k] = function(items[k])
            yield from meanwhile()
    finally:
        for future in running:
            future.cancel()
    return [found[k] for k in range(len(items))]


def _with_one_thread(function: Callable[[T], R], item: T) -> R:
    use_one_thread()
    return function(item)


class Processes(Executor):
    """``n`` processes of this machine, one job at a time each. A process that dies ends the future of its own job with a
    ``BrokenExecutor``, and no other's; the next job has a new one. Ctrl-C is left to the process that made them; they end when
    it does, however it ends."""

    def __init__(self, n: int) -> None:
        self._pools: list[ProcessPoolExecutor] = []
        self._futures: list[Future[Any] | None] = [None] * n
        try:
            for _ in range(n):
                with _stops_held():
                    self._pools.append(_process())
        except BaseException:  # a stop, too: nobody else can end those that are begun
            self.shutdown()
            raise

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """RuntimeError where every process has a job."""
        free = next((k for k, future in enumerate(self._futures) if future is None or future.done()), None)
        if free is None:
            raise RuntimeError("every process has a job")
        last = self._futures[free]
        if last is not None and not last.cancelled() and last.exception() is not None or _died(self._pools[free]):
            self._pools[free].shutdown(wait=False, kill_workers=True)
            with _stops_held():
                self._pools[free] = _process()
        future = self._pools[free].submit(fn, *args, **kwargs)
        self._futures[free] = future
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes at once, whatever they do."""
        for pool in self._pools:
            pool.shutdown(wait=wait, kill_workers=True)


def _died(pool: ProcessPoolExecutor) -> bool:
    """Whether the one process of a pool is gone, noticed or not: killed between two jobs, it must not cost the next one."""
    processes = [*(pool._processes or {}).values()]  # taken out of it, a moment before the pool is broken
    # a sentinel cannot be wrong while another thread collects the exit code, as is_alive can
    return pool._flags.broken is not None or not processes or bool(connection.wait([p.sentinel for p in processes], 0))


@contextmanager
def _stops_held() -> Iterator[None]:
    """A process that is begun inside ignores Ctrl-C from its first moment: the parent ends it. SIGTERM waits until the end of the
    block: a process that is begun by halves is nobody's to end, and prints what it then lacks. Only the main thread may ask."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda sent, _: held.append(sent)),
    }
    try:
        yield
    finally:
        for sent, handler in before.items():
            signal.signal(sent, handler)
        for sent in held:
            signal.raise_signal(sent)


def _process() -> ProcessPoolExecutor:
    """A process of its own."""
    pool = ProcessPoolExecutor(max_workers=1, initializer=_begin_worker, initargs=(os.getpid(),), env=ONE_THREAD)
    pool.submit(_import_all)  # which takes seconds: now rather than with the first job
    return pool


def _begin_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when the one that made it is gone: killed, it cannot tell its workers."""
    while os.getppid() == parent:
        time.sleep(LOOK_FOR_PARENT_EVERY)
    os._exit(1)


def _import_all() -> None:
    import mixtura.job.jobs  # noqa: F401


class RayTasks(Executor):
    """Every job a task of a Ray cluster; all its machines see the run folder under the same path. Ray does a job again whose
    worker or machine was lost."""

    def __init__(self, address: str) -> None:
        """``address``: "auto" is the cluster of this machine, or the one in RAY_ADDRESS. InputError where there is none."""
        try:
            import ray  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise InputError("--ray: needs the package ray; install it: pip install 'mixtura[ray]'") from error
        self._joined = not ray.is_initialized()
        if self._joined:
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except (ConnectionError, ValueError, RuntimeError) as error:
                said = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise InputError(
                    f"--ray {address}: no cluster answers ({said}); start one with `ray start --head`, or leave --ray out"
                ) from error
        self._ray, self._tasks = ray, []

    @property
    def cores(self) -> int:
        """Of all machines of the cluster."""
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A task of one core."""
        task = self._ray.remote(fn).options(num_cpus=1, max_retries=3).remote(*args, **kwargs)
        self._tasks.append(task)
        return task.future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel what is not done, and leave the cluster, unless this process was in it before."""
        _, left = self._ray.wait(self._tasks, num_returns=len(self._tasks), timeout=0) if self._tasks else ([], [])
        for task in left:
            self._ray.cancel(task, force=True)
        if self._joined:
            self._ray.shutdown()
