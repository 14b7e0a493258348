"""After a full disk, a kill or too little memory, old files are unchanged, no draft is left, and no family counts as failed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mixtura.contracts import InputError
from mixtura.data.source import write
from mixtura.ground import machine

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16), dtype=np.uint8)
TABLE = pd.DataFrame({"a": np.random.default_rng(1).normal(size=3000), "b": np.arange(3000.0)})
TARGETS = [
    *((f"x{ending}", TABLE) for ending in (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".npy", ".npz")),
    *((name, IMAGES) for name in ("y.npz", "y.npy", "y.zip", "y")),
]
#: bytes that a file may have: less than any of the targets, or than one PNG of noise
LIMIT = 200


def there(place: Path) -> dict[str, bytes]:
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


@contextmanager
def small_files():
    """Files of this process take no more than so many bytes: a quota. Only around what is tested, or the file that the tests'
    own output goes to is cut off too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def written(tmp_path):
    for name, rows in TARGETS:
        write(rows[:10], tmp_path / name)
    return there(tmp_path)


@pytest.mark.parametrize(("name", "rows"), TARGETS, ids=[name for name, _ in TARGETS])
def test_a_full_disk_leaves_what_was_there_and_names_what_was_asked_for(name, rows, tmp_path, written):
    with small_files(), pytest.raises(machine.CannotWrite) as refused:
        write(rows, tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: cannot be written (") and "draft" not in str(refused.value)
    assert there(tmp_path) == written


@pytest.mark.parametrize(("name", "rows"), TARGETS, ids=[name for name, _ in TARGETS])
def test_what_a_killed_writer_left_is_removed_by_the_next(name, rows, tmp_path):
    write(rows[:3], tmp_path / name)
    before = there(tmp_path)
    child = os.fork()
    if child == 0:
        with machine.drafted(tmp_path / name) as draft:
            draft.write_bytes(b"half") if Path(name).suffix else draft.mkdir()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    (left,) = set(tmp_path.iterdir()) - {tmp_path / name}
    assert machine.is_draft(left) and {k: v for k, v in there(tmp_path).items() if not k.startswith(".")} == before
    write(rows, tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_folder_set_aside_by_a_killed_writer_comes_back(tmp_path):
    (tmp_path / ".y.999999999@1.0.aside").mkdir()
    (tmp_path / ".y.999999999@1.0.aside" / "00001.png").write_bytes(b"old")
    with pytest.raises(RuntimeError), machine.drafted(tmp_path / "y"):
        raise RuntimeError("the next writer fails")
    assert there(tmp_path) == {"y/00001.png": b"old"}


def test_a_folder_stays_where_it_was_if_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    write(IMAGES[:2], tmp_path / "y")
    before, rename = there(tmp_path), os.rename

    def refused(old, new):
        if str(old).endswith(".draft"):
            raise OSError(13, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(machine.CannotWrite, match="Permission denied"):
        write(IMAGES, tmp_path / "y")
    assert there(tmp_path) == before


def test_drafts_of_living_writers_and_of_other_targets_are_left_alone(tmp_path):
    path = tmp_path / "a.csv"
    strangers = [".a.csv.notes", ".b.a.csv.999999999@1.0.draft", ".a.csv.b.999999999@1.0.draft", "a.csv.999999999@1.0.draft"]
    for name in strangers:
        (tmp_path / name).write_bytes(b"")
    with machine.drafted(path) as mine:
        mine.write_bytes(b"mine")
        machine.write(path, b"theirs")
        assert mine.read_bytes() == b"mine" and path.read_bytes() == b"theirs"
    assert path.read_bytes() == b"mine" and sorted(os.listdir(tmp_path)) == sorted([*strangers, "a.csv"])


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "real" / "file.txt")
    machine.write(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real" / "file.txt").read_text() == "new"


def test_a_folder_of_images_is_replaced_whole_or_refused(tmp_path):
    write(IMAGES, tmp_path / "y")
    write(IMAGES[:5], tmp_path / "y")
    assert sorted(os.listdir(tmp_path / "y")) == [f"{i:05d}.png" for i in range(1, 6)]
    (tmp_path / "y" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="would be lost; give another"):
        write(IMAGES, tmp_path / "y")
    assert len(os.listdir(tmp_path / "y")) == 6
    with pytest.raises(InputError, match="there is no folder"):
        write(IMAGES, tmp_path / "nowhere" / "y.npz")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_where_a_folder_or_a_file_is_already_nothing_is_lost(tmp_path, kind):
    if kind == "file":
        (tmp_path / "x").mkdir()
        (tmp_path / "x" / "kept").write_text("kept")
    else:
        (tmp_path / "x").write_text("kept")
    before = there(tmp_path)
    with pytest.raises(machine.CannotWrite, match=r"x: cannot be written"), machine.drafted(tmp_path / "x") as draft:
        draft.mkdir() if kind == "folder" else draft.write_text("new")
    assert there(tmp_path) == before


@pytest.mark.parametrize("large", "ab")
def test_two_files_of_one_thing_are_both_old_or_both_new(tmp_path, large):
    machine.write_together({tmp_path / "a": "old", tmp_path / "b": "old"})
    new = {tmp_path / name: "new" * (LIMIT if name == large else 1) for name in "ab"}
    with small_files(), pytest.raises(machine.CannotWrite, match=rf"{large}: cannot be written \(File too large\)"):
        machine.write_together(new)
    assert there(tmp_path) == {"a": b"old", "b": b"old"}


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError(28, "No space left on device"), True),
        (MemoryError(), True),
        (np._core._exceptions._ArrayMemoryError((9, 9), np.dtype(float)), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("can't start new thread"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (InputError("too many columns"), False),
        (ValueError("out of memory"), False),
        (FloatingPointError("not finite"), False),
    ],
)
def test_which_faults_pass(error, passes):
    assert machine.passes(error) is passes
    wrapped = InputError("cannot be read")
    wrapped.__cause__ = error
    assert machine.passes(wrapped) is passes


def test_torch_says_too_little_memory_as_it_is_known_here():
    with pytest.raises(RuntimeError) as said:
        torch.empty(2**55, dtype=torch.float64)
    assert machine.out_of_memory(said.value)


def test_a_folder_is_cleared_with_what_tells_it_last(tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "models").mkdir(parents=True)
    for name in ("config.json", "a.json", "models/m.json", "verdict.json"):
        (run / name).write_text("x")
    unlink = Path.unlink

    def once(path, **options):
        unlink(path, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", once)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            machine.clear(run, last="config.json")
        assert (run / "config.json").exists()
    monkeypatch.undo()
    with machine.held(run) as alone:
        machine.clear(run, last="config.json")
        assert alone and [*run.iterdir()] == []
        with machine.held(run) as another:
            assert not another  # the folder that is held is still the one that is there


def test_pipes_and_devices_are_left_alone(tmp_path):
    os.mkfifo(tmp_path / "p.csv")
    (tmp_path / "l.csv").symlink_to(tmp_path / "p.csv")
    for name in ("p.csv", "l.csv"):
        with pytest.raises(InputError, match=rf"{name}: is a device or a pipe, expected a file or a folder"):
            write(TABLE, tmp_path / name)
    assert (tmp_path / "p.csv").is_fifo() and [p.name for p in sorted(tmp_path.iterdir())] == ["l.csv", "p.csv"]


def test_a_folder_is_held_by_one_and_let_go_of(tmp_path):
    folder = tmp_path / "run"
    with machine.held(folder) as first, machine.held(folder) as second:
        assert (first, second) == (True, False) and [*folder.iterdir()] == []
    with machine.held(folder) as again:
        assert again


def test_a_folder_is_shared_by_those_who_share_it(tmp_path):
    with machine.held(tmp_path, shared=True) as first, machine.held(tmp_path, shared=True) as second:
        with machine.held(tmp_path) as alone:
            assert (first, second, alone) == (True, True, False)
    with machine.held(tmp_path) as alone, machine.held(tmp_path, shared=True) as shared:
        assert (alone, shared) == (True, False)


def test_a_killed_process_holds_no_folder(tmp_path):
    code = (
        "import os, sys, pathlib\nfrom mixtura.ground import machine\n"
        "with machine.held(pathlib.Path(sys.argv[1])) as alone:\n    print(alone, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True)
    assert done.stdout == "True\n"
    with machine.held(tmp_path / "run") as alone:
        assert alone
