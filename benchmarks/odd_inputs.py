"""Odd, damaged and hostile inputs of every kind, each with the command it is given to; ``fuzz.py`` plays them.

A function of ``KINDS`` writes its files into the current folder, beside the sound ones that :func:`write_sound` and the
commands of ``SOUND`` have left there, and returns the words of a command. What it makes follows from its generator alone.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import shutil
import sqlite3
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load, save

Rng = np.random.Generator

#: words that have broken readers of files before
TEXTS = [
    "", " ", "NA", "None", "nan", "NULL",
    "inf", "-inf", "1e999", "-0", "0", "1", "-1", "1e-320", "9" * 400, "0x10", "1_000", "1,5", "12 %", "€ 5",
    "2020-01-01", "31.12.2021", "9999-12-31", "10000-01-01", "0000-00-00", "2020-01-01T00:00:00+99:99", "2020-02-30",
    "true", "False", "\ud800".encode("utf-8", "surrogatepass").decode("utf-8", "replace"), "é", "日本", "\u202e", "\x1b[31m",
    "\x00", "'", '"', '"a', "a\nb", "a,b", "[/b]", "{{x}}", "<script>", "a" * 3_000, "=1+1", "../x", "a/b", "\ufeff", "--help",
]  # fmt: skip
#: the same for trees of JSON
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, 5e-324, 2**63, -(2**63) - 1, 10**400, math.nan, math.inf, -math.inf,
    "", "a", "a/b", "../..", "\ud800", "nan", [], {}, [None], [[]], {"a": 1}, [0.5, 0.5], "x" * 5_000, [1] * 50,
]  # fmt: skip
BYTES_SAID = [
    b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff", b"\n", b"\r", b'"', b"'", b",", b";", b"\t", b"\\ud800", b"\x1b", b"NaN",
    b"1e400", b"9" * 5_000, b"[" * 3_000, b"{", b"}", b"PK\x03\x04", b"\x93NUMPY", b"PAR1",
]  # fmt: skip


# ------------------------------------------------------------------------------------------ sound inputs, to be mutated


def people(rows: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"size": rng.normal(100, 3, rows).round(1), "kind": rng.choice(["red", "blue"], rows),
                          "count": rng.poisson(20, rows),
                          "day": pd.date_range("2020-01-01", periods=rows).astype(str)})  # fmt: skip
    frame.loc[::7, "size"] = np.nan
    return frame


def write_sound() -> None:
    """Sound files of every kind in the current folder. ``SOUND`` are the commands that make sound runs of them."""
    rng, frame = np.random.default_rng(0), people()
    frame.to_csv("t.csv", index=False)
    frame.to_csv("t.tsv", index=False, sep="\t")
    Path("t.json").write_text(json.dumps(json.loads(str(frame.to_json(orient="records")))))
    Path("t.jsonl").write_text(str(frame.to_json(orient="records", lines=True)))
    frame.to_parquet("t.parquet")
    np.save("a.npy", rng.normal(size=(30, 2)))
    np.save("b.npy", rng.normal(size=(30, 2)) + 1)
    np.savez("images.npz", x=rng.integers(0, 17, (40, 4, 4)))
    Path("arms.yaml").write_text(
        "arms:\n- {name: a, kind: pool, path: a.npy, replacement: true}\n- {name: b, kind: pool, path: b.npy, cost: 1.5}\n"
    )
    Path("solo.yaml").write_text("arms:\n- {name: a, kind: pool, path: a.npy, replacement: true}\n")


SOUND = (
    "run t.csv --steps 5 --families gaussian_mixture --out table",
    "run t.csv --steps 5 --families linear_gaussian --target size,kind --out target",
    "run images.npz --steps 5 --families gaussian_mixture --out pictures",
    "select arms.yaml --pulls 12 --out selection",
    "select solo.yaml --pulls 12 --out solo",
)


# ---------------------------------------------------------------------------------------------------------- mutations


def mutated_bytes(data: bytes, rng: Rng) -> bytes:
    """A few cuts, copies, flips and insertions."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(out) + 1))
        end = min(len(out), at + int(rng.integers(1, 40)))
        how = rng.integers(0, 6)
        if how == 0:
            del out[at:]
        elif how == 1:
            del out[at:end]
        elif how == 2:
            out[at:at] = out[at:end] * int(rng.integers(1, 5))
        elif how == 3 and out:
            out[min(at, len(out) - 1)] ^= 1 << int(rng.integers(0, 8))
        elif how == 4:
            out[at:at] = rng.bytes(int(rng.integers(1, 12)))
        else:
            out[at:at] = BYTES_SAID[rng.integers(0, len(BYTES_SAID))]
    return bytes(out)


def mutated_tree(tree: Any, rng: Rng) -> Any:
    """One place of a tree of JSON holds something else, twice, or not at all."""
    places = list(_places(tree))
    if not places:
        return copy.deepcopy(pick(VALUES, rng))
    holder, key = places[rng.integers(0, len(places))]
    how = rng.integers(0, 6)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[pick(["x", "", "a/b", "\ud800", "name"], rng)] = holder.pop(key)
    elif how == 2:
        other, there = places[rng.integers(0, len(places))]
        holder[key] = json.loads(json.dumps(other[there]))
    elif how == 3 and isinstance(holder[key], list | str):
        holder[key] = holder[key] * int(rng.integers(0, 4))
    else:
        holder[key] = copy.deepcopy(pick(VALUES, rng))
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def pick(things: Any, rng: Rng) -> Any:
    return things[int(rng.integers(0, len(things)))]


def mutated_json(path: Path, rng: Rng) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        lines = text.splitlines()
        at = int(rng.integers(0, len(lines)))
        lines[at] = json.dumps(mutated_tree(json.loads(lines[at]), rng))
        path.write_text("\n".join(lines))
    else:
        tree = json.loads(text)
        for _ in range(int(rng.integers(1, 3))):
            tree = mutated_tree(tree, rng)
        path.write_text(json.dumps(tree))


def mutated_tensors(path: Path, rng: Rng) -> None:
    """One tensor of a file has another type, shape, length or name, holds NaN, or is gone."""
    tensors = load(path.read_bytes())
    name = pick(sorted(tensors), rng)
    x = tensors[name]
    how = rng.integers(0, 8)
    if how == 0:
        del tensors[name]
    elif how == 1:
        tensors[pick(["x", "a/b", ""], rng)] = tensors.pop(name)
    elif how == 2:
        tensors[name] = x.to(pick([torch.int8, torch.float16, torch.bool, torch.int64, torch.float64], rng))
    elif how == 3:
        tensors[name] = x[: int(rng.integers(0, 3))].clone() if x.dim() else x[None]
    elif how == 4:
        tensors[name] = x.flatten().clone() if x.dim() != 1 else x[None]
    elif how == 5 and x.numel() and x.is_floating_point():
        x.view(-1)[int(rng.integers(0, x.numel()))] = pick([math.nan, math.inf, -math.inf, 1e300, -1.0, 0.5], rng)
    elif how == 6 and x.numel() and not x.is_floating_point() and x.dtype != torch.bool:
        x.view(-1)[int(rng.integers(0, x.numel()))] = pick([-1, 100, 7], rng)
    else:
        tensors[name] = torch.zeros(pick([(0,), (1,), (3, 3), (2, 2, 2)], rng), dtype=x.dtype)
    path.write_bytes(save(tensors))


def mutated_file(path: Path, rng: Rng) -> None:
    how = rng.integers(0, 10)
    if how == 0:
        path.unlink()
    elif how == 1:
        path.write_bytes(b"")
    elif how < 4:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
    elif path.suffix in (".json", ".jsonl"):
        with contextlib.suppress(RecursionError):  # what was nested deeper already stays as it is
            mutated_json(path, rng)
    elif path.suffix == ".safetensors":
        mutated_tensors(path, rng)
    else:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))


# ---------------------------------------------------------------------------------- inputs of every kind → words


def of_a_table(name: str, rng: Rng) -> list[str]:
    """A command that reads a table of the columns of ``t.csv``; the slow ones seldom."""
    if rng.random() < 0.01:
        slow = [["evaluate", "t.csv", name], ["mix", name, "t.csv"], ["evaluate", name, "t.csv"]]
        return pick(slow, rng)
    quick = [
        ["run", name, "--dry-run", "--families", "marginals"], ["score", "table", name],
        ["score", "table", name, "-o", "s.json"],
        ["impute", "table", name], ["predict", "target", name, "--draws", "19"], ["sample", "target", "--given", name],
        ["run", name, "--dry-run", "--families", "marginals", "--json"], ["impute", "table", name, "-o", "o.parquet"],
        ["run", name, "--dry-run", "--families", "marginals", "--target", "kind"],
    ]  # fmt: skip
    return pick(quick, rng)


def text_table(ending: str) -> Callable[[Rng], list[str]]:
    def make(rng: Rng) -> list[str]:
        name = f"in{ending}"
        if rng.random() < 0.4:
            data = mutated_bytes(Path(f"t{ending}").read_bytes(), rng)
        else:
            rows = [line.split(",") for line in Path("t.csv").read_text().splitlines()]
            for _ in range(int(rng.integers(1, 4))):
                row, word = pick(rows[: pick([1, len(rows)], rng)], rng), pick(TEXTS, rng)
                row[int(rng.integers(0, len(row)))] = word
            if rng.random() < 0.3:  # a whole column of odd cells
                column, word = int(rng.integers(0, 4)), pick(TEXTS, rng)
                rows = [rows[0]] + [[*row[:column], word, *row[column + 1 :]] for row in rows[1:]]
            separator = "\t" if ending == ".tsv" else pick([",", ",", ";", "|"], rng)
            text = "\n".join(separator.join(row) for row in rows) + "\n"
            data = text.encode(pick(["utf-8", "utf-8", "utf-16", "utf-8-sig", "latin-1"], rng), "replace")
        Path(name).write_bytes(data)
        return of_a_table(name, rng)

    return make


def record_table(ending: str) -> Callable[[Rng], list[str]]:
    def make(rng: Rng) -> list[str]:
        name = f"in{ending}"
        shutil.copy(f"t{ending}", name)
        if rng.random() < 0.35:
            Path(name).write_bytes(mutated_bytes(Path(name).read_bytes(), rng))
        else:
            for _ in range(int(rng.integers(1, 4))):
                mutated_json(Path(name), rng)
                if ending == ".json" and not isinstance(json.loads(Path(name).read_text()), dict | list):
                    break
        return of_a_table(name, rng)

    return make


def parquet(rng: Rng) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if rng.random() < 0.5:
        Path("in.parquet").write_bytes(mutated_bytes(Path("t.parquet").read_bytes(), rng))
        return of_a_table("in.parquet", rng)
    columns: dict[str, Any] = {c: pa.array(people()[c], from_pandas=True) for c in ("size", "kind", "count", "day")}
    bad_text = pa.Array.from_buffers(
        pa.string(), 40, [None, *pa.array(["\xff" * 2] * 40).buffers()[1:2], pa.py_buffer(b"\xff" * 160)]
    )
    odd: list[Callable[[], Any]] = [
        lambda: pa.array([2**40] * 40, pa.timestamp("s")), lambda: pa.array(range(3_000_000, 3_000_040), pa.date32()),
        lambda: pa.array([2**60 + k for k in range(40)], pa.timestamp("ms", "UTC")), lambda: bad_text,
        lambda: pa.array([b"\xff\x00"] * 40), lambda: pa.array([[1, 2]] * 40), lambda: pa.array([{"a": 1}] * 40),
        lambda: pa.array(range(40), pa.duration("us")), lambda: pa.array(range(40), pa.time64("us")),
        lambda: pa.nulls(40), lambda: pa.array(["a", "b"] * 20).dictionary_encode(),
        lambda: pa.array([None, True] * 20), lambda: pa.array([2**63 + k for k in range(40)], pa.uint64()),
        lambda: pa.array(range(40)).cast(pa.decimal128(30, 5)), lambda: pa.array([math.nan, math.inf, 1e-320, -0.0] * 10),
        lambda: pa.array([1.0] * 40, pa.float32()).cast(pa.float16()),
        lambda: pa.array([[("a", 1)]] * 40, pa.map_(pa.string(), pa.int64())),
    ]  # fmt: skip
    name = pick(["size", "kind", "count", "day", "", "a/b"], rng)
    columns[name] = pick(odd, rng)()
    table = pa.table(columns)
    if rng.random() < 0.2:
        table = table.slice(0, int(rng.integers(0, 3)))
    pq.write_table(table, "in.parquet")
    return of_a_table("in.parquet", rng)


def odd_array(rng: Rng) -> np.ndarray:
    shape = pick([(40, 2), (40,), (0, 2), (40, 0), (1, 1), (), (40, 4, 4), (3, 2, 2, 3), (2, 40), (2, 1, 1, 1, 1), (5, 300)], rng)
    kinds = "<f8 >f8 <f4 >f4 <f2 <i8 >i2 u1 ? <U3 >U3 S3 <c16 <M8[ns] >M8[D] <m8[s]"
    kind = pick(kinds.split(), rng)
    numbers = rng.normal(size=shape) * pick([1, 1e-320, 1e300, 100], rng)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = numbers.astype(np.int64).astype(kind) if kind[1:2] in ("M", "m") else numbers.astype(kind)
    if array.size and array.dtype.kind == "f" and rng.random() < 0.3:
        array.reshape(-1)[0] = pick([np.nan, np.inf, 1e-40], rng)
    return array


def array_command(name: str, rng: Rng) -> list[str]:
    if rng.random() < 0.02:
        return pick([["mix", name, "a.npy"], ["evaluate", "a.npy", name]], rng)
    return pick(
        [["run", name, "--dry-run", "--families", "marginals"], ["score", "pictures", name], ["score", "table", name]], rng
    )


def npy(rng: Rng) -> list[str]:
    np.save("in.npy", odd_array(rng))
    data = Path("in.npy").read_bytes()
    how = rng.random()
    if how < 0.4:
        Path("in.npy").write_bytes(mutated_bytes(data, rng))
    elif how < 0.6:  # a header that promises what is not there
        shape = pick(
            ["(10**13,)", "(9999999999, 3)", "(-1, 2)", "(2**40, 2**40)", "'a'", "(40, 2.5)", "()", "(1000000, 1000000)"], rng
        )
        head = f"{{'descr': '{pick(['<f8', '|O', '<U999999999', '>f8', 'x'], rng)}', 'fortran_order': False, 'shape': {shape}, }}"
        padded = head.ljust(117) + "\n"
        Path("in.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + data[-64:])
    return array_command("in.npy", rng)


def npz(rng: Rng) -> list[str]:
    arrays = {pick(["x", "y", "a/b", "", "x.npy"], rng) or "z": odd_array(rng) for _ in range(int(rng.integers(0, 3)))}
    np.savez("in.npz", **arrays)
    if rng.random() < 0.4:
        Path("in.npz").write_bytes(mutated_bytes(Path(pick(["in.npz", "images.npz"], rng)).read_bytes(), rng))
    return array_command(pick(["in.npz", "in.npz:x", "in.npz:y", "in.npz:"], rng), rng)


def odd_image(rng: Rng) -> tuple[str, bytes]:
    mode = pick(["L", "RGB", "RGBA", "P", "1", "I;16", "LA", "F", "CMYK"], rng)
    kind, ending = pick(
        [("PNG", ".png"), ("JPEG", ".jpg"), ("BMP", ".bmp"), ("GIF", ".gif"), ("TIFF", ".tif"), ("WEBP", ".webp")], rng
    )
    image = Image.new(mode, pick([(4, 4), (4, 4), (4, 4), (1, 1), (5, 3), (40, 1)], rng), 1)
    held = io.BytesIO()
    try:
        image.save(held, kind)
    except (OSError, KeyError, ValueError):
        held, ending = io.BytesIO(), ".png"
        Image.new("L", (4, 4)).save(held, "PNG")
    data = held.getvalue()
    return pick([ending, ending, ending, ".png"], rng), mutated_bytes(data, rng) if rng.random() < 0.5 else data


def image_folder(rng: Rng) -> list[str]:
    shutil.rmtree("in", ignore_errors=True)
    Path("in").mkdir()
    for k in range(int(rng.integers(0, 9))):
        ending, data = odd_image(rng)
        (Path("in") / f"{pick(['', 'é', ' ', '-', '%'], rng)}{k}{ending}").write_bytes(data)
    extra = pick([[], [], ["--skip-broken"], ["--size", "3"], ["--size", "100000"]], rng)
    return ["run", "in", "--dry-run", "--families", "marginals", *extra]


def image_zip(rng: Rng) -> list[str]:
    with zipfile.ZipFile("in.zip", "w", pick([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], rng)) as archive:
        for k in range(int(rng.integers(0, 9))):
            ending, data = odd_image(rng)
            archive.writestr(f"{pick(['', '../', 'a/', '/'], rng)}{k}{ending}", data)
    if rng.random() < 0.4:
        Path("in.zip").write_bytes(mutated_bytes(Path("in.zip").read_bytes(), rng))
    return ["run", "in.zip", "--dry-run", "--families", "marginals", *pick([[], [], ["--skip-broken"], ["--size", "3"]], rng)]


OPTIONS: dict[tuple[str, ...], list[str]] = {
    ("run", "t.csv", "--dry-run", "--families", "marginals"): [
        "--budget", "--steps", "--families", "--seed", "--split", "--group", "--time", "--target", "--columns", "--kind",
        "--bounds", "--samples", "--objective", "--features", "--device", "--size",
    ],
    ("sample", "table"): ["-n", "--seed", "--start", "--model", "-o", "--given"],
    ("score", "table", "t.csv"): ["--seed", "--model", "-o"],
    ("impute", "table", "t.csv"): ["--seed", "--model", "-o", "--draws"],
    ("predict", "target", "t.csv", "--draws", "19"): ["--seed", "--model", "-o", "--draws", "--interval"],
    ("report", "selection"): ["-o"],
    ("mix", "a.npy", "b.npy", "--seed", "x"): ["--objective"],
    ("mix", "a.npy", "b.npy", "--objective", "none"): [
        "--costs", "--cap", "--floor", "--size", "--at-most", "--bandwidth", "--pareto",
    ],
    ("select", "arms.yaml", "--pulls", "0"): ["--objective", "--policy", "--stop", "--bandwidth", "--features", "--reference"],
}  # fmt: skip
WORDS = [
    "size", "kind", "count", "day", "size,kind", "size=integer", "day=datetime", "kind=0:1", "size=0:200", "size=:",
    "size=nan:1", "size=5:1", "a=t.csv", "size=t.csv",
    "1", "0", "-1", "1e3", "0.9", "nan", "inf", "1,2", "1,nan", "0.5,,", str(2**31), str(2**64), "1e400", "9" * 30,
    "60s", "5m", "1h", "0s", "-5s", "1e9h",
    "nats", "mmd", "rke+0.2*precision", "rke++", "nan*rke", "variance_ucb", "uniform",
    "pixels", "pca:64", "pca:0", "pca:-1", "conv:256", "conv:x",
    "gaussian_mixture", "blend", "blend:nats", "cpu", "cuda", "cuda:99",
    "t.csv", "a.npy", "table", "none.csv", "out.csv", "out.parquet", "out.npy", "out.zip", "/dev/null/x", ".",
]  # fmt: skip


def options(rng: Rng) -> list[str]:
    command = pick(list(OPTIONS), rng)
    words, flags = list(command), [*OPTIONS[command], "--seed", "--json", "--out"]
    for _ in range(int(rng.integers(1, 3))):
        words += [pick(flags, rng), pick(WORDS if rng.random() < 0.8 else [t for t in TEXTS if "\x00" not in t], rng)]
    words = [w for w in words if w != ""] or ["run"]
    for flag, most in (("-n", 10_000), ("--draws", 1_000)):  # what is asked for may be large; a fuzzer need not wait for it
        for at in [k for k, w in enumerate(words[:-1]) if w == flag]:
            with contextlib.suppress(ValueError):
                words[at + 1] = str(min(int(words[at + 1]), most))
    return words


def run_folder(rng: Rng) -> list[str]:
    which = pick(["table", "table", "target", "target", "pictures", "selection"], rng)
    shutil.rmtree("in", ignore_errors=True)
    shutil.copytree(which, "in")
    for path in ("in/report.html",) if which != "selection" else ():
        Path(path).unlink(missing_ok=True)
    files = sorted(p for p in Path("in").rglob("*") if p.suffix in (".json", ".jsonl", ".safetensors"))
    for _ in range(int(rng.integers(1, 3))):
        path = pick(files, rng)
        with contextlib.suppress(
            FileNotFoundError, ValueError, SafetensorError, KeyError
        ):  # mutated before, to where it is neither
            mutated_file(path, rng)
    commands = {
        "table": [["score", "in", "t.csv"], ["sample", "in", "-n", "3"], ["impute", "in", "t.csv"]],
        "target": [["predict", "in", "t.csv", "--draws", "19"], ["sample", "in", "--given", "t.csv"], ["score", "in", "t.csv"]],
        "pictures": [["sample", "in", "-n", "3", "-o", "o.npz"], ["score", "in", "images.npz"]],
        "selection": [],
    }[which]  # fmt: skip
    again = ["run", "t.csv", "--steps", "5", "--families", "gaussian_mixture", "--out", "in"]
    return pick([["report", "in"]] * 3 + commands * 2 + ([again] if which == "table" and rng.random() < 0.1 else []), rng)


def ledger(rng: Rng) -> list[str]:
    shutil.rmtree("in", ignore_errors=True)
    base = pick(["selection", *["solo"] * 5], rng)  # of one arm, what follows the ledger is quick
    shutil.copytree(base, "in")
    path = Path("in/ledger.sqlite")
    if rng.random() < 0.4:
        path.write_bytes(mutated_bytes(path.read_bytes(), rng))
        if rng.random() < 0.3:
            Path("in/ledger.sqlite-wal").write_bytes(rng.bytes(200))
    else:
        db = sqlite3.connect(path)
        columns = [row[1] for row in db.execute("PRAGMA table_info(pulls)")]
        for _ in range(int(rng.integers(1, 3))):
            column, value = (
                pick(columns, rng),
                pick([None, -1, 2**62, 1.5, "a", "", b"\xff\x00", b"", math.inf, "[1]", '["O", [2]]'], rng),
            )
            statement = pick([
                f"UPDATE OR IGNORE pulls SET {column} = ?", f"UPDATE OR IGNORE pulls SET {column} = ? WHERE number % 3 = 0",
                f"UPDATE OR IGNORE about SET value = ? WHERE rowid = {int(rng.integers(1, 9))}", "DELETE FROM about",
                "DELETE FROM pulls WHERE number = 3",
                f"ALTER TABLE pulls RENAME COLUMN {column} TO other", f"ALTER TABLE pulls DROP COLUMN {column}",
                "DROP TABLE pulls", "DROP TABLE about",
            ], rng)  # fmt: skip
            with contextlib.suppress(sqlite3.Error):
                db.execute(statement, (value,) if "?" in statement else ())
        db.commit()
        db.close()
    return [
        "select",
        "arms.yaml" if base == "selection" else "solo.yaml",
        "--pulls",
        pick(["12", "13", "12", "1"], rng),
        "--out",
        "in",
    ]


ARMS = {"arms": [
    {"name": "a", "kind": "pool", "path": "a.npy", "replacement": True, "seed": 1},
    {"name": "b", "kind": "pool", "path": "b.npy", "cost": 1.5},
    {"name": "c", "kind": "command", "command": ["true"], "timeout": 1, "retries": 0},
    {"name": "d", "kind": "model", "path": "table"},
    {"name": "e", "kind": "http", "url": "http://127.0.0.1:9/x", "headers": {"a": "b"}, "body": {"n": 1}, "timeout": 0.5},
    {"name": "f", "kind": "python", "function": "m:f", "options": {"n": 1}}, {"name": "g", "kind": "onnx", "path": "a.npy"},
]}  # fmt: skip
YAMLS = [
    "arms: 2020-01-01", "arms: !!python/object:os.system [ls]", "arms: [*a]", "arms: &a [*a]",
    "- 1\n" * 50, "arms:\n- 2020-13-45", "? {a: b}\n: c",
    "arms: [" + "9" * 5_000 + "]", "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
    "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
    "f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\narms: [*f,*f,*f,*f]",
    "arms: " + "[" * 5_000, "<<: 1", "arms: !!binary x", "arms: !!timestamp 2020-99-99", "arms: !!float x", "arms: !!int _",
    "arms: 0x", "%YAML 9.9\n---\na",
    "arms: 1:99:99:1e5", "arms: [.nan, .inf, ~]", "\t- a", "arms: {a: 1, a: 2}", "arms: !!set {a, b}", "arms: !!omap [1]",
    "arms: {? [1, 2] : 3}",
]  # fmt: skip


def arm_list(rng: Rng) -> list[str]:
    tree: Any = json.loads(json.dumps(ARMS))
    rng.shuffle(tree["arms"])
    tree["arms"] = tree["arms"][: int(rng.integers(1, 3))]
    for _ in range(int(rng.integers(1, 4))):
        tree = mutated_tree(tree, rng)
    name = pick(["in.yaml", "in.json"], rng)
    text = json.dumps(tree)
    if rng.random() < 0.3:
        text = pick(YAMLS, rng) if rng.random() < 0.7 else Path("arms.yaml").read_text().replace("a.npy", pick(YAMLS, rng))
    data = text.encode()
    Path(name).write_bytes(mutated_bytes(data, rng) if rng.random() < 0.3 else data)
    shutil.rmtree("out", ignore_errors=True)
    return ["select", name, "--pulls", "2", "--out", "out", "--reference", pick(["a.npy", "t.csv", "in.json"], rng)]


KINDS: dict[str, Callable[[Rng], list[str]]] = {
    "csv": text_table(".csv"), "tsv": text_table(".tsv"), "json": record_table(".json"), "jsonl": record_table(".jsonl"),
    "parquet": parquet, "npy": npy, "npz": npz, "zip": image_zip, "folder": image_folder, "options": options, "run": run_folder,
    "ledger": ledger, "arms": arm_list,
}  # fmt: skip
