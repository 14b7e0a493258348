"""The main job on real tables beside other generators, under neutral judges (benchmarks/judges.py, scikit-learn only).

    python benchmarks/tables.py adult [--seconds 60] [--peers PYTHON] [--beside PATH/src] [--out runs/tables.jsonl]
    python benchmarks/tables.py all
    python benchmarks/tables.py why adult forest     what gives the rows of one generator away, by column

Rows (20,000 drawn at random where there are more) are divided at random: 70 % train, given to every generator as a CSV file, and
30 % test. Each generator makes as many rows as train has, and five times as many where it has 3,000 at most: then each refit of a
judge sees other rows, otherwise 80 % of them. ``real`` is train itself: what a perfect generator would score.

    C2ST   AUC of boosted trees, generated against test rows, cross-validated; .5 is best
    TSTR   boosted trees learn the target from generated rows: AUC (or R²) on test rows; of ``real``: train on real
    KS TV  distances of the margins, mean over numbers, over categories
    corr   mean absolute difference of rank correlations; pairs: mean total variation of pairs of columns, numbers in ten bins
    memb   AUC of log-density, train rows against test rows; near: of minus the distance to the nearest generated row; .5 is best
    nats   mean log-density of test rows; a bound is scored on 1,000 rows

± is the standard error over five refits; of nats, over rows. Seconds are those of the whole run for mixtura, and of training and
sampling for others. --peers: a Python with the packages ctgan and ForestDiffusion; without it these are left out. --beside: the
source of another commit, whose choice is judged in the same way. Every result is a line of --out, and is not computed again; rows
and runs lie beside it.

Settings of the library were tuned on penguins, adult, german_credit, california and power (its own benchmarks); mushrooms,
insurance, mammography, pageblocks and skin were run with what was found there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import judges
import numpy as np
import pandas as pd
import rivals
from real import HOME, TABLES

CAP, TEST, OF_BOUNDS, FEW, COPIES = 20_000, 0.3, 1_000, 3_000, 0.55

#: table -> (target, whether it is a number)
TARGETS = {
    "adult": ("income", False), "california": ("median_house_value", True), "german_credit": ("default", False),
    "power": ("global_active_power_kW", True), "mushrooms": ("type", False), "insurance": ("charges", True),
    "mammography": ("anomaly", False), "pageblocks": ("anomaly", False), "skin": ("anomaly", False),
}  # fmt: skip


def frame_of(table: str) -> pd.DataFrame:
    if table in TABLES:
        return TABLES[table]()
    if table == "insurance":
        return pd.read_parquet(HOME / "tables" / "insurance.parquet")
    with np.load(HOME / "adbench" / {"pageblocks": "27_PageBlocks.npz", "skin": "33_skin.npz"}[table]) as file:
        return pd.DataFrame(file["X"], columns=[f"x{j}" for j in range(file["X"].shape[1])]).assign(anomaly=file["y"])


class Task:
    """One table, divided, with a folder of its files."""

    def __init__(self, table: str, asked: argparse.Namespace) -> None:
        self.table, self.asked = table, asked
        self.target, self.regression = TARGETS[table]
        self.place = asked.out.with_suffix("") / f"{table}-{asked.seed}-{asked.seconds:.0f}"
        self.place.mkdir(parents=True, exist_ok=True)
        whole = frame_of(table)
        self.of_all = len(whole)
        order = np.random.default_rng([asked.seed, 15]).permutation(len(whole))[:CAP]
        test = int(np.ceil(TEST * len(order)))
        self.categorical = [c for c in whole if not pd.api.types.is_numeric_dtype(whole[c])]
        for name, rows in (("test", order[:test]), ("train", order[test:])):
            whole.iloc[rows].to_csv(self.path(name), index=False)
        self.train, self.test = self.read("train"), self.read("test")
        self.of_refit = int(len(self.train) * (1.0 if len(self.train) <= FEW else 0.8))
        self.wanted = len(self.train) * (judges.REFITS if len(self.train) <= FEW else 1)
        self.done = {r["generator"]: r for r in self.lines() if r["key"] == self.key}

    @property
    def key(self) -> list[Any]:
        return [self.table, self.asked.seconds, self.asked.seed]

    def path(self, name: str) -> Path:
        return self.place / f"{name.replace(':', '_').replace(' ', '_')}.csv"

    def read(self, name: str) -> pd.DataFrame:
        return rivals.read(str(self.path(name)), self.categorical)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.asked.out.read_text().splitlines()] if self.asked.out.exists() else []

    def keep(self, record: dict[str, Any]) -> None:
        record = {"key": self.key, **record}
        self.done[record["generator"]] = record
        with self.asked.out.open("a") as file:
            file.write(json.dumps(record) + "\n")

    # ---------------------------------------------------------------------------------------------- rows of generators

    def ours(self, prefix: str, source: Path | None) -> dict[str, Any]:
        """Run mixtura, with the source of another commit if there is one: rows of its models are files; returns what is known
        of the run."""
        place = self.place / (prefix.strip() or "now")
        if not (place / "made.json").exists():
            place.mkdir(exist_ok=True)
            environment = os.environ | ({} if source is None else {"PYTHONPATH": str(source.resolve())})
            given = {"train": str(self.path("train")), "test": str(self.path("test")), "out": str(place)}
            given |= {"seconds": self.asked.seconds, "seed": self.asked.seed, "workers": self.asked.workers}
            given |= {"all": source is None, "rows": self.wanted}
            subprocess.run([sys.executable, __file__, "make", json.dumps(given)], env=environment, check=True)
            for file in place.glob("*.csv"):
                shutil.move(file, self.path(f"{prefix}{file.stem}"))
        return json.loads((place / "made.json").read_text())

    def rival(self, name: str) -> tuple[float, str] | None:
        """Rows of another generator; its seconds and settings, or None, with a line that says why."""
        python = sys.executable if name not in rivals.PACKAGES else self.asked.peers
        if python is None:
            print(f"{name} is left out: it needs the package {rivals.PACKAGES[name]}; give --peers PYTHON")
            return None
        words = [self.path("train"), self.path(name), self.wanted, self.asked.seconds, self.asked.seed]
        command = [python, rivals.__file__, name, *map(str, words), json.dumps(self.categorical)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        began = time.monotonic()
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            print(f"{name} is left out: {(done.stderr.strip().splitlines() or ['it failed'])[-1]}")
            return None
        return time.monotonic() - began, done.stdout.strip().splitlines()[-1]

    # ------------------------------------------------------------------------------------------------------ judgements

    def judge(self, generator: str, made: pd.DataFrame, **known: Any) -> None:
        """All judges of one generator."""
        seed, kinds = self.asked.seed, self.categorical
        apart = judges.margins(self.test, made, kinds)
        split = {title: [d for c, d in apart.items() if (c in kinds) == of] for title, of in (("ks", False), ("tv", True))}
        correlations, of_pairs = judges.pairs(self.test, made, kinds)
        self.keep(
            {
                "generator": generator,
                "c2st": judges.c2st(self.test, made, kinds, seed),
                "tstr": judges.tstr(self.test, made, kinds, self.target, self.regression, self.of_refit, seed),
                **{title: float(np.mean(d)) if d else None for title, d in split.items()},
                "corr": correlations, "pairs": of_pairs,
                "near": None if generator == "real" else judges.copying(self.train, self.test, made[: len(self.train)], kinds),
                **known,
            }
        )  # fmt: skip

    def run(self) -> None:
        rows = f"{len(self.train)} train and {len(self.test)} test rows"
        print(f"\n{self.table}: {rows} of {self.of_all}; target {self.target}", flush=True)
        if "real" not in self.done:
            self.judge("real", self.train)
        sources = {"": None} | ({"before ": self.asked.beside} if self.asked.beside is not None else {})
        for prefix, source in sources.items():
            made = self.ours(prefix, source)
            print(f"{prefix or 'now '}{made['sentence']} [{made['seconds']:.0f} s, {made['cpu']:.0f} CPU s]", flush=True)
            for name, model in made["models"].items():
                generator = f"{prefix}{name}"
                if generator not in self.done and self.path(generator).exists():
                    of = {k: np.array(v) for k, v in model.items() if k in ("train", "test")}
                    nats = {} if not of else {
                        "nats": [float(of["test"].mean()), float(of["test"].std() / math.sqrt(len(of["test"])))],
                        "exact": model["exact"], "memb": judges.membership(of["train"], of["test"]),
                    }  # fmt: skip
                    self.judge(generator, self.read(generator), **nats, seconds=made["seconds"], choice=name == made["choice"])
        for name in rivals.TABLE:
            if name not in self.done and (found := self.rival(name)) is not None:
                self.judge(name, self.read(name), seconds=found[0], settings=found[1])
        self.show()

    def show(self) -> None:
        short = " ".join(f"{title:>5}" for title in ("KS", "TV", "corr", "pairs", "memb", "near"))
        print(f"{'generator':26} {'C2ST':>13} {'TSTR':>13} {short} {'nats':>17} {'s':>5}")
        for name, r in sorted(self.done.items(), key=lambda item: item[1]["c2st"][0]):
            flat = [f"{'':5}" if r[k] is None else f"{r[k]:5.3f}" for k in ("ks", "tv", "corr", "pairs")]
            flat += [f"{r[k][0]:5.3f}" if r.get(k) else f"{'':5}" for k in ("memb", "near")]
            nats = f"{'' if r['exact'] else '≥'}{r['nats'][0]:.3f} ± {r['nats'][1]:.3f}" if "nats" in r else ""
            mark = " *" if r.get("choice") else ""
            print(
                f"{name + mark:26} {r['c2st'][0]:5.3f} ± {r['c2st'][1]:.3f} {r['tstr'][0]:5.3f} ± {r['tstr'][1]:.3f} "
                f"{' '.join(flat)} {nats:>17} {r.get('seconds', 0):5.0f} {r.get('settings', '')}"
            )
        print("* what mixtura's verdict chose")
        self.conclude()

    def conclude(self) -> None:
        """What the issue asks, from the records."""
        choice = next((r for n, r in self.done.items() if r.get("choice") and not n.startswith("before")), None)
        if choice is None:
            return
        made = [r for n, r in self.done.items() if n != "real" and not n.startswith("before")]
        honest = [r for r in made if r["near"][0] <= COPIES]
        best = min(honest, key=lambda r: r["c2st"][0])
        apart, error = choice["c2st"][0] - best["c2st"][0], math.hypot(choice["c2st"][1], best["c2st"][1])
        told = "yes" if apart <= 2 * error else "NO"
        print(f"C2ST within 2 se of the best that does not copy ({best['generator']}): {told}, {apart:+.3f} ± {error:.3f}")
        for title, some in (("all", made), ("those that do not copy", honest)):
            best = max(some, key=lambda r: r["tstr"][0])
            apart = best["tstr"][0] - choice["tstr"][0]
            told = "yes" if apart <= 0.01 else "NO"
            print(f"TSTR within .01 of the best of {title} ({best['generator']}): {told}, {apart:+.3f}")
        by_density = f"by log-density {choice['memb'][0]:.3f}" if choice.get("memb") else "no density"
        print(f"membership of the choice (wanted: {COPIES} at most): by nearest rows {choice['near'][0]:.3f}, {by_density}")
        nats = json.loads((self.place / "now" / "made.json").read_text())["models"]
        blend = np.array(nats["blend"]["test"])
        for name in ("forest", "circuit", "autoregressive"):
            if "test" in nats.get(name, {}):
                self.compare(f"blend over {name}", blend, np.array(nats[name]["test"]))
        if (self.place / "before" / "made.json").exists():
            then = json.loads((self.place / "before" / "made.json").read_text())["models"]["blend"]["test"]
            self.compare("blend over that of the code before", blend, np.array(then))

    @staticmethod
    def compare(title: str, a: np.ndarray, b: np.ndarray) -> None:
        """Paired, on the rows that both were scored on."""
        n = min(len(a), len(b))
        gain = a[:n] - b[:n]
        print(f"{title}: {gain.mean():+.3f} ± {gain.std() / math.sqrt(n):.3f} nats a test row")


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for. Far below the wall time, others were using the machine."""
    return sum(os.times()[:4])


def make(given: dict[str, Any]) -> None:
    """In a process of its own, with the source that PYTHONPATH names: a run, rows of its models as CSV files, and made.json."""
    import mixtura

    out = Path(given["out"])
    began, cpu = time.monotonic(), cpu_seconds()
    study = mixtura.run(
        given["train"], budget=given["seconds"], seed=given["seed"], workers=given["workers"], out=str(out / "run")
    )
    seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
    kinds = {s.name: s.kind for s in study.scores}
    chosen, models = study.verdict.choice, dict(study.models)
    for objective, blend in study.blends.items():
        if objective == study.objective or sum(weight > 0 for weight in study.verdicts[objective].weights.values()) > 1:
            models["blend" if objective == study.objective else f"blend by {objective}"] = blend
    test, train = (pd.read_csv(given[part], keep_default_na=False, na_values=[""]) for part in ("test", "train"))
    found: dict[str, Any] = {}
    for name, model in models.items():
        weights = next((study.verdicts[k].weights for k, b in study.blends.items() if b is model), {name: 1.0})
        exact = all(kinds[part] == "exact" for part, weight in weights.items() if weight > 0)
        found[name] = {"exact": exact, "weights": weights}
        if all(kinds[part] is not None for part, weight in weights.items() if weight > 0):
            most = None if exact else OF_BOUNDS
            for part, frame in (("test", test), ("train", train)):
                found[name][part] = model.score(frame[:most][: len(test)])["nats"].tolist()
        if given["all"] or name == chosen:
            model.sample(given["rows"], seed=given["seed"]).to_csv(out / f"{name}.csv", index=False)
    told = {"models": found, "choice": chosen, "sentence": study.verdict.sentence, "seconds": seconds, "cpu": cpu}
    (out / "made.json").write_text(json.dumps(told))


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        return make(json.loads(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", help="tables, or all, or: why TABLE GENERATOR ...")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--peers", help="a Python with ctgan and ForestDiffusion")
    parser.add_argument("--beside", type=Path, help="the folder src of another commit")
    parser.add_argument("--out", type=Path, default=Path("runs/tables.jsonl"))
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    if asked.what[0] == "why":
        task = Task(asked.what[1], asked)
        for generator in asked.what[2:]:
            print(f"\n{task.table}, {generator}: C2ST {task.done[generator]['c2st'][0]:.3f}")
            print(judges.telling(task.test, task.read(generator), task.categorical, asked.seed).round(3).to_string(index=False))
        return None
    for table in TARGETS if asked.what == ["all"] else asked.what:
        Task(table, asked).run()
    return None


if __name__ == "__main__":
    main()
