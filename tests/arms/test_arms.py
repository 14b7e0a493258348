"""Black boxes: what they give is right, a fault costs a sentence and at most the timeout, and no process stays behind."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import mixtura
from mixtura.arms import Arm, ArmError, Command, Exhausted, Function, Pool, Service, load_arms, local, program
from mixtura.arms.entries import KINDS
from mixtura.contracts import InputError, Note
from mixtura.data.images import write_images
from mixtura.ground.rng import generator
from mixtura.selection.start import open_model

ROOT = Path(__file__).parents[2]
ROWS = np.random.default_rng(0).normal(100, 3, (50, 2))
NEEDS_PROC = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes in /proc, which this system lacks")


def shell(code: str, **options) -> Command:
    """A command arm that is a few lines of Python."""
    return Command("box", [sys.executable, "-S", "-c", textwrap.dedent(code)], **{"timeout": 60.0, **options})


def children() -> set[int]:
    """Processes, zombies included, whose parent this one is."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def write_arms(folder: Path, *arms: dict) -> Path:
    path = folder / "arms.json"
    path.write_text(json.dumps({"arms": list(arms)}))
    return path


# --------------------------------------------------------------------------------------------------------- pools


def test_a_pool_without_replacement_deals_every_row_once():
    first, again, other = (Pool("p", ROWS, seed=s) for s in (1, 1, 2))
    dealt = np.array([first.ask(t, "") for t in range(50)])
    assert sorted(map(tuple, dealt)) == sorted(map(tuple, ROWS)) and not np.array_equal(dealt, ROWS)
    assert np.array_equal(dealt, [again.ask(t, "") for t in reversed(range(50))][::-1])
    assert not np.array_equal(dealt, [other.ask(t, "") for t in range(50)])
    with pytest.raises(Exhausted, match="p: all 50 samples"):
        first.ask(50, "")


def test_a_pool_with_replacement_is_uniform_and_decided_by_the_draw():
    pool = Pool("p", np.arange(5.0), replacement=True, seed=3)
    dealt = np.array([pool.ask(t, "") for t in range(2_000)])
    counts = np.bincount(dealt.astype(int), minlength=5)
    assert ((counts - 400) ** 2 / 400).sum() < 23.5  # chi-square, 4 degrees of freedom, p = 1e-4
    assert np.array_equal(dealt[::-1], [pool.ask(t, "") for t in reversed(range(2_000))])


def test_what_a_pool_gives_is_the_asker_s_own():
    pool = Pool("p", ROWS.copy())
    pool.ask(0, "")[:] = 0
    assert pool.ask(0, "").min() > 50


# ------------------------------------------------------------------------------------------------- what came back


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([1.0, float("nan")], r"gave nan at index \[1\]"),
        ([[1.0, float("-inf")]], r"gave -inf at index \[0, 1\]"),
        ("red", "gave text"),
        (None, "values of type object"),
        ([1, "a"], "gave text"),
        ([[1, 2], [3]], "no array of numbers"),
        ([1j], "values of type complex"),
        ([10**400], "values of type object"),
        ([], "a sample of 0 numbers"),
        (np.broadcast_to(np.int8(0), (2**24 + 1,)), "a sample of 16,777,217 numbers"),
    ],
)
def test_what_is_no_sample_is_refused(value, said):
    with pytest.raises(ArmError, match=f"^f: .*{said}"):
        Function("f", lambda seed: value).ask(0, "")


@pytest.mark.parametrize(("value", "shape"), [(3, ()), ([1, 2], (2,)), (np.zeros((2, 2, 3), np.uint8), (2, 2, 3)), (True, ())])
def test_samples_have_any_shape(value, shape):
    assert Function("f", lambda seed: value).ask(0, "").shape == shape


def test_a_sample_keeps_the_shape_of_the_first():
    arm = Function("f", lambda seed: np.zeros(2 if seed == 1 else 3))
    arm.ask(0, "")
    with pytest.raises(ArmError, match=r"shape \(2,\), its first one had \(3,\)"):
        arm.ask(1, "")
    assert arm.ask(2, "").shape == (3,)


def test_only_a_request_that_may_succeed_is_repeated():
    calls = []

    class Flaky(Arm):
        def _ask(self, seed, key):
            calls.append(key)
            if len(calls) < 3:
                raise ArmError("busy")
            return [float("nan")] if seed else [1.0]

    assert Flaky("f", retries=2).ask(0, "k") == [1.0] and calls == ["k"] * 3
    calls.clear()
    with pytest.raises(ArmError, match="busy"):
        Flaky("f", retries=1).ask(0, "k")
    with pytest.raises(ArmError, match="nan"):
        Flaky("f", retries=9).ask(1, "k")
    assert len(calls) == 3  # a sample that was bought and is bad is not bought again


# ------------------------------------------------------------------------------------------------------- commands

ECHO = """
    import json, os, sys
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps({"sample": [asked["seed"], len(asked["key"]), os.getpid()]}), flush=True)
"""

HEAD = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }".ljust(117) + b"\n"
PACKED = base64.b64encode(b"\x93NUMPY\x01\x00v\x00" + HEAD + np.array([100.0, 3.0]).tobytes()).decode()


@pytest.mark.parametrize("persistent", [False, True])
def test_a_command_is_asked_in_the_protocol(persistent):
    arm = shell(ECHO, persistent=persistent)
    answers = np.array([arm.ask(t, "k" * (t + 1)) for t in range(3)])
    arm.close()
    assert answers[:, 0].tolist() == [0, 1, 2] and answers[:, 1].tolist() == [1, 2, 3]
    assert len(set(answers[:, 2])) == (1 if persistent else 3)


CONTEXT = {"prompt": "a red bird", "length": 10, "warmth": 0.5, "note": None}


def test_every_kind_that_takes_a_context_gets_the_whole_row(tmp_path):
    line = "import json; asked = json.loads(input()); c = asked['context']; "
    arm = shell(line + "print(json.dumps({'sample': [len(c['prompt']), c['length'], c['warmth'], c['note'] is None]}))")
    assert arm.takes_context and arm.ask(0, "k", CONTEXT).tolist() == [10, 10, 0.5, 1]
    (tmp_path / "mine.py").write_text("def f(seed, scale, context):\n    return [seed, scale * context['length']]\n")
    kept = program("mine", "mine:f", folder=tmp_path, options={"scale": 2})
    assert kept.ask(3, "k", CONTEXT).tolist() == [3, 20] and kept.ask(4, "k", CONTEXT).tolist() == [4, 20]
    kept.close()
    with server(lambda out, n: out.write(say(200, b'{"sample": 1}'))) as (url, seen):
        Service("w", url, body={"size": 3}).ask(5, "k", CONTEXT)
        assert seen[0][1] == {"size": 3, "seed": 5, "key": "k", "context": CONTEXT}
    given = Function("f", lambda seed, context: [seed, context["length"]], takes_context=True)
    assert given.ask(1, "k", CONTEXT).tolist() == [1, 10]


def test_an_arm_without_a_context_says_so():
    pool = Pool("p", ROWS)
    assert not pool.takes_context and not Function("f", lambda seed: 1.0).takes_context
    with pytest.raises(ArmError, match="p: takes no context"):
        pool.ask(0, "k", CONTEXT)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import json, sys; print(json.dumps({'sample': [json.load(sys.stdin)['seed']]}))", [7]),  # reads to the end of input
        ("print('{\"sample\": 2}', end='')", 2),  # no newline at the end
        ("import sys; print('loading', file=sys.stderr); print('{\"sample\": [[1, 2]]}')", [[1, 2]]),
        (f"print('{{\"npy\": \"{PACKED}\"}}')", [100, 3]),
        ("import sys; sys.stderr.write('x' * 10**6); print('{\"sample\": [1]}')", [1]),  # more than a pipe holds
        ("import json; print(json.dumps({'sample': list(range(10**5))}))", list(range(10**5))),
    ],
)
def test_a_command_may_answer_in_several_ways(code, expected):
    assert np.array_equal(shell(code).ask(7, "k"), expected)


SLEEP = "import time; time.sleep(60)"
HOSTILE = [
    (SLEEP, "no answer within 0.5 s"),
    ("import sys; print('warming up', file=sys.stderr, flush=True); " + SLEEP, "no answer within .* it said: warming up"),
    ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal SIGSEGV"),
    ("raise ValueError('no card')", "ended with code 1 without an answer; it said: .*ValueError: no card"),
    ("pass", "ended with code 0 without an answer"),
    ("import os, time; os.close(1); time.sleep(60)", "closed its output"),
    ("print('{\"sample\": [NaN]}')", "gave nan"),
    ("print('{\"sample\": [1, [2]]}')", "no array of numbers"),
    ("print('Loading weights')", "wrote 'Loading weights', expected one line of JSON"),
    ("print('[' * 100_000)", "expected one line of JSON"),
    ("print('[1, 2]')", 'with one of "sample"'),
    ("print('{\"sample\": 1, \"error\": 2}')", 'with one of "sample"'),
    ("print('{\"error\": \"no credit left\"}')", "reports: no credit left"),
    ("print('{\"npy\": \"!!\"}')", "not a numpy file in base64"),
    ("print('{\"npy\": \"AAAA\"}')", "not a numpy file in base64"),
    ("import os; os.write(1, b'{\"sample\": 1}\\n{\"sample\": 2}\\n')", "more than one line"),
    ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "more than 1,000,000 bytes"),
    ("import sys\nwhile True: sys.stderr.write('x' * 65536)", "no answer within 0.5 s"),
    ("import sys, time\nwhile True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.01)", "no answer within 0.5 s"),
    ("print('x' * 900_000)", "wrote 'x+ …'"),
    ("import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])", "ended with code 0"),
]


#: those that end by themselves after less than a pipe holds
EARLY = [(code, said) for code, said in HOSTILE if code.startswith("print('{") or code in ("pass", "raise ValueError('no card')")]


@NEEDS_PROC
@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(("code", "said"), HOSTILE)
def test_a_hostile_command_costs_its_timeout_and_a_sentence(code, said, persistent):
    before = children()
    timeout = 60.0 if "no answer within" not in said else 0.5 if "0.5 s" in said else 3.0  # in which Python has started
    arm = shell(code, timeout=timeout, limit=1_000_000, persistent=persistent)
    with pytest.raises(ArmError, match=f"(?s)^box: .*{said}") as caught:
        arm.ask(0, "k")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    arm.close()
    assert children() <= before


@NEEDS_PROC
def test_what_a_command_started_is_killed_with_it(tmp_path):
    code = f"""
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
        open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
        time.sleep(60)
    """
    with pytest.raises(ArmError, match="no answer"):
        shell(code, timeout=3.0).ask(0, "k")
    assert gone_within(int((tmp_path / "pid").read_text()), 30)


def test_a_program_that_fails_is_started_again():
    arm = shell(
        """
        import json, os, sys, time
        for line in sys.stdin:
            seed = json.loads(line)["seed"]
            if seed == 1: time.sleep(60)
            if seed == 2: sys.exit(3)
            if seed == 3: os.write(1, b'{"sample": [0]}\\n{"sample": [0]}\\n')
            print(json.dumps({"error": "not this one"} if seed == 4 else {"sample": [os.getpid()]}), flush=True)
        """,
        persistent=True, timeout=3.0,
    )  # fmt: skip
    pids = [arm.ask(0, "k")[0]]
    for seed, said in ((1, "no answer within"), (2, "code 3"), (3, "more than one line")):
        with pytest.raises(ArmError, match=said):
            arm.ask(seed, "k")
        pids.append(arm.ask(0, "k")[0])
    assert len(set(pids)) == 4
    with pytest.raises(ArmError, match="reports: not this one"):
        arm.ask(4, "k")
    assert arm.ask(0, "k")[0] == pids[-1]  # a program that says no is in step, and kept
    arm.close()


def test_a_line_that_comes_unasked_is_never_taken_for_an_answer(tmp_path):
    answered, wrote = tmp_path / "answered", tmp_path / "wrote"
    arm = shell(
        f"""
        import pathlib, sys, time
        for line in sys.stdin:
            print('{{"sample": 1}}', flush=True)
            while not pathlib.Path({str(answered)!r}).exists(): time.sleep(0.01)
            print('{{"sample": 2}}', flush=True)
            pathlib.Path({str(wrote)!r}).touch()
        """,
        persistent=True,
    )  # fmt: skip
    assert arm.ask(0, "k") == 1
    answered.touch()
    while not wrote.exists():
        time.sleep(0.01)
    answered.unlink()
    with pytest.raises(ArmError, match="without a request"):
        arm.ask(1, "k")
    assert arm.ask(2, "k") == 1
    arm.close()


@pytest.fixture
def slow_to_write(monkeypatch):
    """The machine is so busy that a program has run to its end before its request is written."""
    start = subprocess.Popen

    def started(*args, **options):
        program = start(*args, **options)
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        return program

    monkeypatch.setattr(subprocess, "Popen", started)


@pytest.mark.parametrize("persistent", [False, True])
def test_a_command_that_needs_no_input_may_answer_before_it_is_written(slow_to_write, persistent):
    """Nine of ten such echos failed on a busy machine: "wrote … without a request"."""
    arm = Command("echo", ["echo", '{"sample": [1, 2]}'], timeout=5.0, persistent=persistent)
    for seed in range(1 if persistent else 50):
        assert arm.ask(seed, "k").tolist() == [1, 2]
    arm.close()


@pytest.mark.parametrize(("code", "said"), EARLY)
def test_what_a_command_did_wrong_is_named_however_early_it_did_it(slow_to_write, code, said):
    with pytest.raises(ArmError, match=f"(?s)^box: .*{said}"):
        shell(code).ask(0, "k")


def test_a_second_line_is_found_though_it_comes_late(monkeypatch):
    monkeypatch.setattr("mixtura.arms.process.GRACE", 60.0)
    code = "import time; print('{\"sample\": 1}', flush=True); time.sleep(0.3); print('{\"sample\": 2}')"
    with pytest.raises(ArmError, match="more than one line"):
        shell(code).ask(0, "k")


def test_a_command_is_asked_again_as_often_as_is_said(tmp_path):
    code = f"""
        import pathlib
        log = pathlib.Path({str(tmp_path / "log")!r})
        log.write_text((log.read_text() if log.exists() else "") + "x")
        print('{{"sample": 1}}' if len(log.read_text()) == 3 else "not yet")
    """
    assert shell(code, retries=2).ask(0, "k") == 1


def test_a_program_that_is_not_there():
    with pytest.raises(ArmError, match="'no-such-program' cannot be started"):
        Command("box", ["no-such-program"]).ask(0, "k")


# ------------------------------------------------------------------------------------------------ Python functions

FUNCTIONS = """
import os, time
import numpy as np

def noisy(seed, mean=0.0):
    print("a word on standard output")
    return np.random.default_rng(seed).normal(mean, 3, 4)

def bad(seed):
    raise KeyError("colour")

def hang(seed):
    time.sleep(60)

def crash(seed):
    os._exit(9)

def child(seed):
    with open("pid", "w") as out:
        out.write(str(os.getpid()))
    time.sleep(60)
"""


@pytest.fixture
def functions(tmp_path):
    (tmp_path / "boxes.py").write_text(FUNCTIONS)
    return tmp_path


@NEEDS_PROC
def test_a_python_function_runs_in_a_process_of_its_own(functions):
    before = children()
    path = write_arms(functions, {"name": "n", "kind": "python", "function": "boxes:noisy", "options": {"mean": 100}, "cost": 2})
    [arm] = load_arms(path)
    for seed in (0, 5):
        assert np.array_equal(arm.ask(seed, "k"), np.random.default_rng(seed).normal(100, 3, 4))
    assert arm.cost == 2 and len(children() - before) == 1
    arm.close()
    arm.close()
    assert children() <= before


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("boxes:bad", "reports: KeyError: 'colour'"),
        ("boxes:hang", "no answer within 0.8 s"),
        ("boxes:crash", "ended with code 9"),
        ("boxes:absent", "no attribute 'absent'"),
        ("nowhere:f", "No module named 'nowhere'"),
    ],
)
def test_a_python_function_that_fails(functions, function, said):
    arm = program("n", function, folder=functions, timeout=0.8 if "0.8 s" in said else 60.0)
    with pytest.raises(ArmError, match=f"^n: .*{said}"):
        arm.ask(0, "k")
    arm.close()


@NEEDS_PROC
def test_a_function_that_hangs_does_not_outlive_whoever_asked(functions):
    code = """
import sys
from pathlib import Path
from mixtura.arms import program
program("n", "boxes:child", folder=Path(sys.argv[1])).ask(0, "k")
"""
    paths = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    asker = subprocess.Popen([sys.executable, "-c", code, str(functions)], env=paths)
    pid = functions / "pid"
    while asker.poll() is None and not (pid.exists() and pid.read_text()):
        time.sleep(0.05)
    asker.send_signal(signal.SIGKILL)
    asker.wait()
    assert gone_within(int(pid.read_text()), 30)


# -------------------------------------------------------------------------------------------------------- services


@contextmanager
def server(answer):
    """``answer(request, n)`` of the n-th POST (headers, body already read) writes the whole answer to ``request.wfile``."""
    seen: list[tuple[dict, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((dict(self.headers), body))
            try:
                answer(self.wfile, len(seen))
            except OSError:
                pass  # cut off, as it should be

        def log_message(self, *_):
            pass

    service = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=service.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{service.server_port}", seen
    finally:
        service.shutdown()
        service.server_close()


def say(status: int, body: bytes, headers: str = "") -> bytes:
    return f"HTTP/1.0 {status} x\r\n{headers}\r\n".encode() + body


def test_a_service_gets_the_key_and_the_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXTURA_TEST_TOKEN", "s3cret")
    with server(lambda out, n: out.write(say(200, b'{"sample": [100, 3]}'))) as (url, seen):
        entry = {"name": "w", "kind": "http", "url": url + "/v1?size=2", "body": {"prompt": "a red bird"}, "takes_key": True,
                 "headers": {"Authorization": "Bearer ${MIXTURA_TEST_TOKEN}"}}  # fmt: skip
        [arm] = load_arms(write_arms(tmp_path, entry))
        assert arm.ask(4, "key-4").tolist() == [100, 3] and arm.takes_key
    [(headers, body)] = seen
    assert (headers["Idempotency-Key"], headers["Authorization"]) == ("key-4", "Bearer s3cret")
    assert body == {"prompt": "a red bird", "seed": 4, "key": "key-4"}


@pytest.mark.parametrize(("status", "attempts"), [(500, 2), (503, 2), (429, 2), (404, 1), (401, 1), (302, 1)])
def test_a_service_is_asked_again_where_that_may_help(status, attempts, monkeypatch):
    monkeypatch.setattr(Service, "pause", 0.01)
    with server(lambda out, n: out.write(say(status, b"sorry", f"Location: http://127.0.0.1:9/{n}\r\n"))) as (url, seen):
        with pytest.raises(ArmError, match=f"w: answered with status {status}: sorry"):
            Service("w", url, retries=1).ask(0, "k")
    assert [headers["Idempotency-Key"] for headers, _ in seen] == ["k"] * attempts


def test_a_service_that_recovers(monkeypatch):
    monkeypatch.setattr(Service, "pause", 0.01)
    with server(lambda out, n: out.write(say(500, b"") if n < 3 else say(200, b'{"sample": 1}'))) as (url, _):
        assert Service("w", url, retries=2).ask(0, "k") == 1


def drip(out, n):
    out.write(b"HTTP/1.0 200 x\r\n\r\n")
    for _ in range(100):
        out.write(b" ")
        time.sleep(0.05)


def flood(out, n):
    out.write(b"HTTP/1.0 200 x\r\n\r\n")
    for _ in range(1_000):
        out.write(b"x" * 65_536)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (drip, "no complete answer within 0.7 s"),
        (lambda out, n: time.sleep(1.5), "no complete answer within 0.7 s"),
        (flood, "more than 1,000,000 bytes"),
        (lambda out, n: None, "RemoteDisconnected"),
        (lambda out, n: out.write(b"hello\r\n\r\n"), "BadStatusLine"),
        (lambda out, n: out.write(say(200, b"<html>")), "wrote '<html>'"),
        (lambda out, n: out.write(say(200, b'{"error": "no credit"}')), "reports: no credit"),
        (lambda out, n: out.write(say(200, b'{"sample": [1e999]}')), "gave inf"),
    ],
)
def test_a_hostile_service_costs_its_timeout_and_a_sentence(answer, said):
    with server(answer) as (url, _):
        with pytest.raises(ArmError, match=f"^w: .*{said}"):
            Service("w", url, timeout=0.7 if "0.7 s" in said else 60.0, limit=1_000_000).ask(0, "k")


def test_nobody_at_the_address():
    with pytest.raises(ArmError, match="w: ConnectionRefusedError"):
        Service("w", "http://127.0.0.1:9").ask(0, "k")


# -------------------------------------------------------------------------------------------------- files and models


def test_pools_come_from_files(tmp_path):
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "b.npz", x=ROWS, y=ROWS[:, 0])
    pd.DataFrame(ROWS, columns=["u", "v"]).to_csv(tmp_path / "c.csv", index=False)
    pixels = np.arange(4 * 12, dtype=np.uint8).reshape(4, 3, 4)
    write_images(pixels, tmp_path / "d.zip")
    pool = {"kind": "pool", "cost": 0.5}
    arms = load_arms(
        write_arms(
            tmp_path,
            *[{**pool, "name": p, "path": p} for p in ("a.npy", "b.npz:x", "c.csv")],
            {**pool, "name": "images", "path": "d.zip", "replacement": True, "seed": 1},
        )
    )
    for arm in arms[:3]:
        assert np.allclose(sorted(arm.ask(t, "")[0] for t in range(50)), np.sort(ROWS[:, 0]), rtol=1e-12)
    assert {arm.cost for arm in arms} == {0.5}
    assert any(np.array_equal(arms[3].ask(0, "")[0], image) for image in pixels)


def test_tables_and_models_give_the_columns_that_were_asked_for(run_folder, tmp_path):
    table = pd.DataFrame(ROWS, columns=["u", "v"])
    table[["v", "u"]].to_csv(tmp_path / "turned.csv", index=False)
    table.assign(w=1).to_csv(tmp_path / "more.csv", index=False)
    table.rename(columns={"u": "foo"}).to_csv(tmp_path / "other.csv", index=False)
    pool = {"kind": "pool", "path": "turned.csv", "name": "turned"}
    model = {"kind": "model", "path": str(run_folder), "name": "model", "model": "gaussian_mixture"}
    with pytest.warns(Note, match="more: column 'w', which the reference has not, left out"):
        path = write_arms(tmp_path, pool, pool | {"path": "more.csv", "name": "more"}, model)
        turned, _, drawn = load_arms(path, ["u", "v"], open_model=open_model)
    assert np.allclose(sorted(turned.ask(t, "")[0] for t in range(50)), np.sort(ROWS[:, 0]), rtol=1e-12)
    # without a reference the first table says the order
    first, again = load_arms(write_arms(tmp_path, pool, model), open_model=open_model)
    assert np.allclose(again.ask(0, ""), drawn.ask(0, "")[::-1]) and first.ask(0, "").shape == (2,)
    with pytest.raises(InputError, match="arm 'turned': turned: no column 'u', which the reference has; it has foo, v"):
        load_arms(write_arms(tmp_path, pool | {"path": "other.csv"}), ["u", "v"])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "heights"
    frame = pd.DataFrame(ROWS, columns=["u", "v"])
    return mixtura.run(frame, families=["gaussian_mixture"], out=out).folder


def test_a_saved_model_gives_the_rows_of_its_fitted_model(run_folder, tmp_path):
    entry = {"name": "m", "kind": "model", "path": str(run_folder), "model": "gaussian_mixture", "seed": 3}
    [arm] = load_arms(write_arms(tmp_path, entry), open_model=open_model)
    rows = mixtura.load(run_folder).model("gaussian_mixture").sample(1_005, seed=3).to_numpy()
    for draw in (0, 1, 999, 1_004, 0):  # a fitted model draws in blocks of 1,000
        assert np.allclose(arm.ask(draw, ""), rows[draw], rtol=1e-12)
    assert arm.repeatable


#: z (n, 2) → 3 z + 100
AFFINE = (
    "CAgSADp1Cg4KAXoKAWESAW0iA011bAoOCgFtCgFiEgF5IgNBZGQSAWcqEQgCEAFCAWFKCAAAQEAAAEBAKhEIAhABQgFiSggAAMhCAADIQloUCgF6Eg8KDQgB"
    "EgkKAxIBbgoCCAJiFAoBeRIPCg0IARIJCgMSAW4KAggCQgQKABAN"
)


def test_an_onnx_generator_is_fed_noise_of_the_seed(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "g.onnx").write_bytes(base64.b64decode(AFFINE))
    entry = {"name": "g", "kind": "onnx", "path": "g.onnx"}
    [arm] = load_arms(write_arms(tmp_path, entry))
    z = torch.randn(1, 2, generator=generator(7, "arm", "g"), dtype=torch.float64)[0].numpy()
    assert np.allclose(arm.ask(7, ""), 3 * z + 100, rtol=1e-6)
    arm.close()
    drawn = np.array([local.onnx(t, name="u", path=str(tmp_path / "g.onnx"), noise="uniform", shape=[1, 2]) for t in range(20)])
    assert drawn.shape == (20, 2) and drawn.min() >= 100 and drawn.max() < 103 and np.ptp(drawn) > 1


@pytest.mark.slow
def test_a_diffusers_pipeline_from_a_folder(tmp_path):
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(num_train_timesteps=10)).save_pretrained(tmp_path / "tiny")
    entry = {"name": "d", "kind": "diffusers", "path": "tiny", "steps": 3, "timeout": 300}
    [arm] = load_arms(write_arms(tmp_path, entry))
    image = arm.ask(0, "")
    assert image.shape == (8, 8, 3) and 0 <= image.min() < image.max() <= 1
    assert np.array_equal(image, arm.ask(0, "")) and not np.array_equal(image, arm.ask(1, ""))
    arm.close()


@pytest.mark.slow
def test_a_language_model_from_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    words = {word: i for i, word in enumerate(["[UNK]", "[PAD]", *"abcdefgh"])}
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", pad_token="[PAD]")
    marks = {"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1}
    config = transformers.GPT2Config(vocab_size=10, n_positions=32, n_embd=16, n_layer=1, n_head=2, **marks)
    bert = transformers.BertConfig(vocab_size=10, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    for model, name in ((transformers.GPT2LMHeadModel(config), "writer"), (transformers.BertModel(bert), "encoder")):
        model.save_pretrained(tmp_path / name)
        tokens.save_pretrained(tmp_path / name)
    entry = {"name": "t", "kind": "transformers", "path": "writer", "embed": "encoder", "prompt": "a b", "max_new_tokens": 8,
             "timeout": 300, "settings": {"min_new_tokens": 8}}  # fmt: skip
    [arm] = load_arms(write_arms(tmp_path, entry))
    vector = arm.ask(0, "")
    assert vector.shape == (12,)
    assert np.array_equal(vector, arm.ask(0, "")) and not np.allclose(vector, arm.ask(1, ""))
    arm.close()


# ------------------------------------------------------------------------------------------------------- arms.yaml

POOL = {"name": "a", "kind": "pool", "path": "a.npy"}
RUN = {"name": "a", "kind": "command", "command": ["x"]}
PYTHON = {"name": "a", "kind": "python", "function": "m:f"}
HTTP = {"name": "a", "kind": "http", "url": "http://localhost"}


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ([], "expected `arms:` followed by a list"),
        (["pool"], "arm 1: expected a mapping"),
        ([{"kind": "pool"}], "arm 1: name: missing"),
        ([{"name": 3}], "arm 1: name: expected text"),
        ([{"name": " a", "kind": "pool"}], "no space at either end"),
        ([{"name": "a"}], "arm 'a': kind: missing"),
        ([{**POOL, "kind": "pol"}], r"arm 'a': kind 'pol' is unknown \(did you mean pool\?\)"),
        ([POOL, POOL], "arm 'a': an arm above has the same name"),
        ([{**POOL, "replace": True}], r"replace: not an option of kind pool \(did you mean replacement\?\)"),
        ([{**POOL, "replacement": "yes"}], "replacement: expected true or false, got 'yes'"),
        ([{**POOL, "path": "b.npy"}], "arm 'a': no file"),
        ([{**POOL, "path": "two.npz"}], r"holds 2 arrays \(x, y\), expected one; say which, as in two.npz:x"),
        ([{**POOL, "path": "two.npz:z"}], "has no array 'z'; it holds x, y"),
        ([{**POOL, "path": "text.csv"}], "row 1, column 'u' is 'red', expected a finite number"),
        ([{**POOL, "path": "broken.npy"}], "arm 'a': .*broken.npy"),
        ([{**POOL, "cost": -1}], "cost: expected a number, 0 to"),
        ([{**POOL, "cost": float("nan")}], "cost: expected a number"),
        ([{**POOL, "timeout": 3}], "timeout: not an option of kind pool"),
        ([{**RUN, "timeout": 0}], "timeout: expected a number, 0.01 to"),
        ([{**RUN, "retries": 1.5}], "retries: expected a whole number"),
        ([{**RUN, "command": "echo hello"}], "command: expected a list of texts"),
        ([{**RUN, "command": ["head", 3]}], "command: expected a list of texts"),
        ([{**PYTHON, "function": "f"}], "function: expected module:function, got 'f'"),
        ([{**PYTHON, "options": [1]}], "options: expected a mapping"),
        ([{**HTTP, "url": "file:///etc/passwd"}], "url: .* is not valid"),
        ([{**HTTP, "url": "http://me:pw@host/"}], "url: holds a user name or password"),
        ([{**HTTP, "headers": {"A": "${MIXTURA_ABSENT}"}}], "headers: the environment has no variable MIXTURA_ABSENT"),
        ([{**HTTP, "headers": {"A": "b\nC: d"}}], "headers: expected texts of one line"),
        ([{"name": "a", "kind": "model", "path": "nowhere"}], "path: there is no folder"),
        ([{"name": "a", "kind": "onnx", "path": "a.npy", "noise": "gamma"}], "noise: expected normal or uniform, got 'gamma'"),
    ],
)
def test_a_mistake_in_the_file_is_told_in_one_sentence(tmp_path, arms, said):
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "two.npz", x=ROWS, y=ROWS)
    (tmp_path / "text.csv").write_text("u,v\n1,2\nred,3\n")
    (tmp_path / "broken.npy").write_bytes(b"no numbers")
    with pytest.raises(InputError, match=f"^arms.json.*{said}") as caught:
        load_arms(write_arms(tmp_path, *arms))
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "arms.json").write_text("{")
    for name in ("arms.json", "absent.json"):
        with pytest.raises(InputError, match=f"{name}: cannot be read"):
            load_arms(tmp_path / name)


# --------------------------------------------------------------------------------------------------------- the page

PAGE = (ROOT / "docs" / "arms.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SAMPLES = {match[1]: body for _, body in BLOCKS if (match := re.match(r"# (\w+\.\w+)\n", body))}


def test_the_sample_of_the_page_is_the_example_and_runs(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML is not installed")
    assert {p.name: p.read_text(encoding="utf-8") for p in (ROOT / "examples" / "arms").glob("*.*")} == SAMPLES
    for name, text in SAMPLES.items():
        (tmp_path / name).write_text(text)
    ring, blob = load_arms(tmp_path / "arms.yaml")
    points = np.array([[arm.ask(t, f"k{t}") for t in range(30)] for arm in (ring, blob)])
    ring.close(), blob.close()
    assert abs(np.linalg.norm(points[0], axis=1).mean() - 3) < 0.1
    assert abs(points[1, :, 0].mean() - 100) < 4 * 3 / 30**0.5
    assert (ring.cost, blob.cost, ring.repeatable, blob.takes_key) == (0, 0.01, True, False)


def test_the_page_shows_every_kind_as_it_loads(tmp_path, run_folder, monkeypatch):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    monkeypatch.setattr("mixtura.arms.entries.find_spec", lambda package: True)
    monkeypatch.setenv("PAINTER_TOKEN", "x")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "heights").symlink_to(run_folder)
    np.savez(tmp_path / "feats.npz", vae=ROWS)
    (tmp_path / "generator.onnx").write_bytes(b"")
    for folder in ("pipeline", "writer", "encoder"):
        (tmp_path / folder).mkdir()
    shown = [yaml.safe_load(body) for language, body in BLOCKS if language == "yaml" and "# arms.yaml" not in body]
    arms = load_arms(write_arms(tmp_path, *[entry for [entry] in shown]), open_model=open_model)
    assert len(arms) == len(shown) and {entry["kind"] for [entry] in shown} == set(KINDS)
