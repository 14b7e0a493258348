"""The ledger: what is bought is never lost, and nobody asks for the same thing twice."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mixtura import ledger as files
from mixtura.contracts import InputError
from mixtura.ground.machine import CannotWrite
from mixtura.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


def intend(ledger, arm):
    with ledger.dealing():
        return ledger.intend(arm)


def test_a_pull_goes_from_intent_to_sample_to_features(ledger):
    pull = intend(ledger, "a")
    assert (pull.number, pull.draw, pull.status) == (0, 0, "asked") and ledger.in_flight() == {"a": 1}
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    ledger.receive(pull, image, 2.5)
    assert [p.status for p in ledger.pulls()] == ["asked"] and ledger.spent() == 2.5
    ledger.tell(pull, np.array([1.0, 2.0]))
    (kept,) = ledger.pulls(samples=True)
    assert kept.status == "told" and kept.place == 0 and kept.sample.dtype == np.uint8
    assert (kept.sample == image).all() and kept.features.tolist() == [1.0, 2.0] and kept.sample.flags.writeable
    assert ledger.counts(["a", "b"])["a"]["told"] == 1 and ledger.counts(["a", "b"])["b"]["told"] == 0


def test_draws_count_by_arm_and_keys_are_all_different(ledger):
    ledger.agree({"identity": "x"})
    pulls = [intend(ledger, arm) for arm in "abaab"]
    assert [p.draw for p in pulls] == [0, 0, 1, 2, 1]
    assert len({p.key for p in pulls}) == 5 and all(p.key.startswith("x-") for p in pulls)


def test_tells_are_placed_in_their_own_order(ledger):
    first, second = intend(ledger, "a"), intend(ledger, "b")
    for pull in (second, first):
        ledger.receive(pull, np.zeros(1), 0)
        ledger.tell(pull, np.zeros(1))
    assert [p.arm for p in ledger.ended_after(-1)] == ["b", "a"] and [p.arm for p in ledger.ended_after(0)] == ["a"]


def test_a_sample_told_twice_counts_once(ledger):
    pull = intend(ledger, "a")
    for value in (1.0, 2.0):
        ledger.receive(pull, np.array([value]), 1.0)
        ledger.tell(pull, np.array([value]))
    assert ledger.ended_after(-1)[0].features.tolist() == [1.0] and ledger.spent() == 1.0 and len(ledger.ended_after(-1)) == 1


@pytest.mark.parametrize(("end", "kept"), [("told", False), ("failed", False), ("unknown", True), ("asked", True)])
def test_a_sample_that_comes_late_changes_nothing_that_is_settled(ledger, end, kept):
    """A pull that was told or has failed is over; one whose fate is not known takes its sample still."""
    pull = intend(ledger, "a")
    if end == "told":
        ledger.receive(pull, np.array([1.0]), 1.0)
        ledger.tell(pull, np.array([1.0]))
    elif end != "asked":
        ledger.fail(pull, "broke", 1.0, end)
    ledger.receive(pull, np.array([7.0]), 5.0)
    (now,) = ledger.pulls(samples=True)
    assert now.status == end and ledger.spent() == (5.0 if kept else 1.0)
    assert (now.sample is not None and now.sample.tolist() == [7.0]) is kept


@pytest.mark.parametrize(("before", "now"), [("told", "told"), ("failed", "failed"), ("unknown", "unknown")])
def test_a_failure_that_comes_late_changes_nothing_that_is_settled(ledger, before, now):
    pull = intend(ledger, "a")
    if before == "told":
        ledger.receive(pull, np.array([1.0]), 1.0)
        ledger.tell(pull, np.array([1.0]))
    else:
        ledger.fail(pull, "broke", 1.0, before)
    ledger.fail(pull, "late", 5.0, "failed" if before == "unknown" else "unknown")
    (kept,) = ledger.pulls()
    assert (kept.status, kept.cost, kept.reason) == (now, 1.0, "" if before == "told" else "broke")


def test_a_sample_of_unknown_fate_is_told_when_it_comes(ledger):
    pull = intend(ledger, "a")
    ledger.fail(pull, "interrupted", 1.0, "unknown")
    ledger.receive(pull, np.array([3.0]), 1.0)
    ledger.tell(pull, np.array([3.0]))
    assert [p.features.tolist() for p in ledger.ended_after(-1)] == [[3.0]] and ledger.counts(["a"])["a"]["unknown"] == 0


def test_failures_have_their_place_among_the_samples(ledger):
    """Of a pull whose fate is unknown nothing is known yet."""
    for what in "ftuf":
        pull = intend(ledger, "a")
        if what == "t":
            ledger.receive(pull, np.zeros(1), 0)
            ledger.tell(pull, np.zeros(1))
        else:
            ledger.fail(pull, what, 1, "unknown" if what == "u" else "failed")
    ledger.tell(ledger.pulls()[2], np.ones(1))
    assert [(p.number, p.status) for p in ledger.ended_after(-1)] == [(0, "failed"), (1, "told"), (3, "failed"), (2, "told")]


def test_the_shape_of_an_arm_is_that_of_its_first_sample_that_counts(ledger):
    for shape, told in (((4,), False), ((2, 2), True), ((1, 4), True)):
        pull = intend(ledger, "a")
        ledger.receive(pull, np.zeros(shape), 0)
        if told:
            ledger.tell(pull, np.zeros(4))
        else:
            ledger.fail(pull, "cannot be compared", 0)
    intend(ledger, "b")
    assert ledger.shapes() == {"a": (2, 2)}


def test_questions_must_agree(ledger):
    ledger.agree({"objective": "rke", "seed": 0})
    ledger.agree({"objective": "rke", "seed": 0})
    with pytest.raises(InputError, match=r"holds a selection with seed 0, not 1; give another --out, or --fresh"):
        ledger.agree({"objective": "rke", "seed": 1})


def test_a_question_is_the_same_in_any_order(ledger):
    ledger.agree({"policy": {"name": "a", "z": 1}, "seed": 0})
    ledger.agree({"seed": 0, "policy": {"z": 1, "name": "a"}})
    assert ledger.about().items() >= {"policy": {"name": "a", "z": 1}, "seed": 0}.items()


def test_those_who_begin_together_agree_on_one_identity(tmp_path):
    def begin(path, start):
        mine = Ledger(path)
        start.wait()
        mine.agree({"seed": 0})
        identity = mine.about()["identity"]
        mine.close()
        return identity

    with ThreadPoolExecutor(4) as pool:
        for k in range(10):
            start = threading.Barrier(4)
            names = list(pool.map(begin, [tmp_path / f"{k}.sqlite"] * 4, [start] * 4))
            assert len(set(names)) == 1


def test_what_is_asked_of_some_pulls_is_of_those_alone(ledger):
    """Told later than 2, the last one asked: numbers, places, arms and costs go different ways."""
    pulls = [intend(ledger, arm) for arm in "abcab"]
    for number, cost in ((3, 1.0), (1, 2.0), (2, 4.0)):
        ledger.receive(pulls[number], np.zeros(1), cost)
        ledger.tell(pulls[number], np.zeros(1))
    ledger.fail(pulls[4], "broke", 8.0)
    assert ledger.in_flight() == {"a": 1}
    assert [ledger.spent(arm) for arm in ("a", "b", "c", "d", None)] == [1, 10, 4, 0, 15]
    assert [p.number for p in ledger.pulls()] == [0, 1, 2, 3, 4] and [p.number for p in ledger.pulls(after=1)] == [2, 3, 4]
    assert [p.number for p in ledger.ended_after(-1)] == [3, 1, 2, 4] and [p.number for p in ledger.ended_after(1)] == [2, 4]


def test_a_choice_that_breaks_off_asks_for_nothing(ledger):
    with pytest.raises(RuntimeError, match="no choice"), ledger.dealing():
        ledger.intend("a")
        raise RuntimeError("no choice")
    assert ledger.pulls() == [] and intend(ledger, "a").number == 0


def test_who_lets_go_leaves_what_was_bought_to_others(ledger):
    """Another hand on the same file takes up the requests that were let go, with samples that had come, and no others."""
    other = Ledger(ledger.path)
    bought, open_, told = (intend(ledger, arm) for arm in "abc")
    theirs = intend(other, "d")
    for pull in (bought, told):
        ledger.receive(pull, np.array([5.0]), 1.0)
    ledger.tell(told, np.array([5.0]))
    assert other.orphans() == []
    ledger.release()
    found = other.orphans()
    assert [p.number for p in found] == [bought.number, open_.number]
    assert found[0].sample.tolist() == [5.0] and found[1].sample is None
    assert other.orphans() == ledger.orphans() == [] and theirs.number == 3
    other.close()


def test_a_ledger_that_another_process_holds_may_be_written_later(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PATIENCE", 0.05)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    pull = intend(ledger, "a")
    holder = sqlite3.connect(ledger.path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(CannotWrite, match="ledger.sqlite: cannot be written .*the same command goes on from here"):
        ledger.receive(pull, np.zeros(1), 1.0)
    ledger.release()  # which can wait till the process ends
    holder.execute("ROLLBACK")
    ledger.receive(pull, np.zeros(1), 1.0)
    assert ledger.spent() == 1.0
    holder.close()
    ledger.close()


@pytest.mark.parametrize(
    "change",
    ["features = NULL", "features = x'0000c07f'", "cost = 9e999", "status = 'sold'", "place = 0.5", "shape = '[\"<f4\", [3]]'"],
)
def test_a_pull_that_holds_what_none_does_is_named(ledger, change):
    pull = intend(ledger, "a")
    ledger.receive(pull, np.zeros(2), 1.0)
    ledger.tell(pull, np.zeros(2))
    sqlite3.connect(ledger.path).executescript(f"UPDATE pulls SET {change}")
    with pytest.raises(InputError, match="cannot be used as a ledger, or is damaged"):
        ledger.pulls(samples=True)


def test_only_pulls_of_dead_processes_are_orphans(ledger, tmp_path):
    mine = intend(ledger, "a")
    code = (
        "import sys; from pathlib import Path; from mixtura.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "with ledger.dealing(): ledger.intend('b')\n"
        "print('ready', flush=True); sys.stdin.readline()"
    )
    path = str(tmp_path / "ledger.sqlite")
    other = subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdout.readline() == b"ready\n"
    assert ledger.orphans() == []
    other.kill()
    other.wait()
    assert [p.arm for p in ledger.orphans()] == ["b"] and mine.number == 0
    assert ledger.orphans() == []  # they belong to this process now


def test_many_hands_never_deal_the_same_draw(tmp_path):
    path = tmp_path / "ledger.sqlite"
    Ledger(path).close()

    def work():
        ledger = Ledger(path)
        for _ in range(25):
            pull = intend(ledger, "a")
            ledger.receive(pull, np.zeros(2), 1)
            ledger.tell(pull, np.zeros(2))
        ledger.close()

    hands = [threading.Thread(target=work) for _ in range(4)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    ledger = Ledger(path)
    pulls = ledger.pulls()
    assert sorted(p.draw for p in pulls) == list(range(100)) and sorted(p.place for p in pulls) == list(range(100))


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\0" * 84 + b"rubbish" * 500])
def test_another_file_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be used as a ledger"):
        Ledger(path)
    assert path.read_bytes() == content


def test_a_read_only_reader_sees_what_is_there(ledger, tmp_path):
    intend(ledger, "a")
    rows = sqlite3.connect(tmp_path / "ledger.sqlite").execute("SELECT arm, status FROM pulls").fetchall()
    assert rows == [("a", "asked")]


def test_a_reason_that_is_half_a_letter_is_kept(ledger):
    pull = intend(ledger, "a")
    ledger.fail(pull, "said \ud800", 0.0)
    assert ledger.pulls()[0].reason == "said \\ud800"
