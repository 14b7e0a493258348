"""Which room imports which: ``python tests/rooms.py`` prints every edge between rooms, says which are outside the doors, upwards
or in a cycle, and ends with 1 if an edge is outside the doors and nobody is to close it. ``python tests/rooms.py COMMIT`` prints
the edges of a commit; the doors are today's and are not asked there.

A room is a package or a module directly below ``src/mixtura``. Imports inside functions and under ``TYPE_CHECKING`` count.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

#: lines that a file may have without a reason in its docstring
LONGEST = 450

HERE = Path(__file__).parent
SRC = HERE.parent / "src" / "mixtura"

NUMBERS = ("ground.kernels", "ground.rng", "contracts.Estimate")

#: room → what it may import, as DESIGN section 4 says: a room, or a module or name of one. From the lowest room to the highest:
#: an import of a room that stands below its own goes upwards
DOORS: dict[str, tuple[str, ...]] = {
    "contracts": (),
    "ground": ("contracts",),
    "metrics": NUMBERS,
    "simplex": (*NUMBERS, "metrics"),
    "objectives": (*NUMBERS, "metrics", "simplex"),
    "policies": (*NUMBERS, "metrics", "simplex", "objectives"),
    "families": ("contracts", "ground"),
    "blending": ("contracts", "ground"),
    "train": ("contracts", "ground.rng"),
    "ratio": ("contracts", "ground", "train", "blending"),
    "detectors": ("contracts", "ground", "train", "blending", "ratio"),
    "joint": ("contracts", "ground", "train", "metrics", "blending", "ratio"),
    "data": ("contracts", "ground.encode"),
    "features": ("contracts", "ground"),
    "ledger": (),
    "arms": ("data",),
    "folder": ("contracts", "ground", "data", "features", "families.TABLE", "metrics.TABLE"),
    "study": ("contracts", "ground", "folder", "blending", "data", "metrics"),
}
DOORS["job"] = tuple(room for room in DOORS if room not in ("arms", "ledger", "families")) + ("families.TABLE",)
DOORS["mixing"] = ("contracts", "ground", "metrics", "simplex", "objectives", "policies", "data", "features", "study")
DOORS["selection"] = (*DOORS["mixing"], "folder", "arms", "ledger")
DOORS["evaluation"] = (*DOORS["mixing"], "ratio")
DOORS["improving"] = (*DOORS["mixing"], "families", "blending", "train", "joint")
DOORS["estimators"] = tuple(room for room in DOORS if room != "job")
DOORS["report"] = ("folder", "metrics", "data")
DOORS["cli"] = tuple(DOORS)
DOORS["__main__"] = ("cli",)
DOORS["__init__"] = ()

#: how any room says that an input cannot be used, or what to know of a result
FOR_EVERYONE = ("contracts.InputError", "contracts.Note")

#: (room, door) → why it is open although the design's text does not name it
BEYOND_THE_DESIGN: dict[tuple[str, str], str] = {
    ("train", "ground.machine"): "a checkpoint is written whole or not at all",
    ("data", "ground.machine"): "a file of data is written whole or not at all",
    ("data", "ground.shown"): "one way to write a name or a value in a message",
    ("data", "ground.inputs"): "a part of ground.encode in a file of its own",
    ("report", "ground.shown"): "one way to write a name or a value on the page",
    ("features", "data"): "which features suit a kind of data, the kind knows",
    ("ledger", "ground.machine"): "whether the process that holds a pull is alive, and files that cannot be written",
    ("arms", "ground.rng"): "every draw names a generator, an arm's too",
    ("job", "families.with_role"): "the rows of TABLE that have a role",
    ("folder", "families.with_role"): "the rows of TABLE that have a role",
    ("ratio", "simplex.stacking"): "the weights of KLIEP are those of a stacking of kernels",
}


@dataclass(frozen=True, eq=False)
class Source:
    """A text and its path below ``src/mixtura``."""

    path: PurePosixPath
    text: str

    @property
    def room(self) -> str:
        return self.path.parts[0].removesuffix(".py")

    @property
    def lines(self) -> int:
        return len(self.text.splitlines())

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> tuple[tuple[int, str, str], ...]:
        """(line, full dotted name, local name) of each import at any depth, relative ones resolved."""
        return tuple(self._imports())

    def _imports(self) -> Iterator[tuple[int, str, str]]:
        package = ("mixtura", *self.path.parent.parts)
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield node.lineno, name.name, name.asname or name.name
            elif isinstance(node, ast.ImportFrom):
                above = package[: len(package) + 1 - node.level] if node.level else ()
                base = ".".join((*above, *filter(None, [node.module])))
                for name in node.names:
                    yield node.lineno, f"{base}.{name.name}", name.asname or name.name

    @cached_property
    def ours(self) -> tuple[tuple[int, str], ...]:
        """(line, name below ``mixtura``) of each import of the library's own."""
        found = ((line, full) for line, full, _ in self.imports if opens("mixtura", full))
        return tuple((line, full.removeprefix("mixtura").removeprefix(".") or "the whole package") for line, full in found)


def sources() -> list[Source]:
    return [Source(PurePosixPath(path.relative_to(SRC)), path.read_text(encoding="utf-8")) for path in sorted(SRC.rglob("*.py"))]


def sources_of(commit: str) -> list[Source]:
    """The sources as a commit of this repository has them."""
    packed = subprocess.run(["git", "archive", commit, "src/mixtura"], cwd=HERE.parent, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        texts = {member.name: tar.extractfile(member) for member in tar if member.name.endswith(".py")}
        return [
            Source(PurePosixPath(name).relative_to("src/mixtura"), file.read().decode("utf-8"))
            for name, file in sorted(texts.items())
            if file is not None
        ]


def opens(door: str, target: str) -> bool:
    """Whether ``target`` is ``door`` itself or something below it."""
    return target == door or target.startswith(f"{door}.")


def doors_of(room: str) -> tuple[str, ...]:
    """Every door of a room: the design's, those beyond it, and its own."""
    return (room, *DOORS.get(room, ()), *FOR_EVERYONE, *(door for other, door in BEYOND_THE_DESIGN if other == room))


def outside(source: Source) -> list[tuple[int, str]]:
    """(line, target) of each import that goes through no door of the source's room."""
    doors = doors_of(source.room)
    return [(line, target) for line, target in source.ours if not any(opens(door, target) for door in doors)]


def edges(all_sources: Iterable[Source]) -> Counter[tuple[str, str]]:
    """(from, to) → how many names the first room imports of the second."""
    pairs = ((source.room, target.partition(".")[0]) for source in all_sources for _, target in source.ours)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def upwards(edge: tuple[str, str]) -> bool:
    """Whether an edge goes to a room that stands above in :data:`DOORS`. Rooms that are not there have no place."""
    place = {room: k for k, room in enumerate(DOORS)}
    return all(room in place for room in edge) and place[edge[0]] < place[edge[1]]


def cyclic(all_edges: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """The edges from whose end one comes back to their start."""
    found = sorted(all_edges)
    beyond: dict[str, set[str]] = {}
    for start, end in found:
        beyond.setdefault(start, set()).add(end)

    def reached(room: str) -> set[str]:
        seen, waiting = set(), [room]
        while waiting:
            for other in beyond.get(waiting.pop(), set()) - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    return [(start, end) for start, end in found if start in reached(end)]


def main(arguments: Sequence[str]) -> int:
    """Print the edges of the working tree, or of a commit; 1 if an import of the working tree is outside the doors."""
    looked_at = sources_of(arguments[0]) if arguments else sources()
    found = edges(looked_at)
    # the doors are today's: another commit has other rooms
    lines = [] if arguments else [(source.room, target) for source in looked_at for _, target in outside(source)]
    broken = Counter((room, target.partition(".")[0]) for room, target in lines)
    up = [] if arguments else [edge for edge in found if upwards(edge)]
    in_cycles = cyclic(found)
    for edge, count in sorted(found.items()):
        remarks = [f"{broken[edge]} outside the doors"] * (edge in broken)
        remarks += ["upwards"] * (edge in up) + ["in a cycle"] * (edge in in_cycles)
        print(f"{edge[0]:12} -> {edge[1]:12} {count:4}  {'; '.join(remarks)}".rstrip())
    longest, *_ = length = sorted(((source.lines, str(source.path)) for source in looked_at), reverse=True)
    print(
        f"{len({source.room for source in looked_at})} rooms, {len(looked_at)} files, the longest {longest[1]} with {longest[0]} "
        f"lines, {sum(lines > LONGEST for lines, _ in length)} over {LONGEST}"
    )
    print(f"{len(found)} edges of {sum(found.values())} imported names, {len(in_cycles)} edges in a cycle")
    if not arguments:
        print(f"outside the doors: {len(broken)} edges, {len(lines)} names; upwards: {len(up)} edges")
    for room, target in lines:
        print(f"outside the doors: {room} -> {target}")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
