"""The rules of the house about a source text: a rule takes a :class:`rooms.Source` and returns what breaks it, a sentence each.

Names are followed through imports, aliases, attribute chains, walruses and ``getattr`` with a constant: ``r`` after
``from shutil import rmtree as r`` is shutil.rmtree. A name that is not called counts too: it may be called elsewhere.
"""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import PurePosixPath

from rooms import DOORS, LONGEST, SRC, Source, opens, outside

MAY_TOUCH_FILES = ("cli", "data", "folder", "ledger", "report")

#: files that are written whole or not at all
MACHINE = PurePosixPath("ground/machine.py")
#: explicit generators, and the one place that forks the global one
RNG = PurePosixPath("ground/rng.py")
FIT = PurePosixPath("train/fit.py")

#: modules whose every use is a use of files
FILE_MODULES = (
    "shutil", "tempfile", "sqlite3", "zipfile", "tarfile", "gzip", "bz2", "lzma", "io.open", "io.FileIO", "glob", "mmap", "h5py",
)  # fmt: skip
OS_FILES = (
    "open remove unlink rename renames replace mkdir makedirs rmdir removedirs symlink link truncate chmod chown utime mkfifo "
    "listdir scandir walk stat access"
)
FILE_FUNCTIONS = (
    *(f"os.{name}" for name in OS_FILES.split()),
    *(f"numpy.{name}" for name in "save savez savez_compressed savetxt load loadtxt genfromtxt fromfile memmap".split()),
    *(f"pandas.{name}" for name in ("ExcelWriter", "HDFStore", "read_")),
    "matplotlib.pyplot.savefig",
    "matplotlib.pyplot.imsave",
)
#: methods that are a file's wherever they stand, called or not
FILE_METHODS = (
    "write_text write_bytes read_text read_bytes unlink mkdir rmdir touch rmtree symlink_to hardlink_to tofile savefig save_file "
    "load_file safe_open to_parquet to_pickle to_feather to_hdf to_excel to_sql to_stata to_orc"
).split()
#: methods of a file where they get one argument by place: a string's replace has two, a frame's rename names its axis
ONE_ARGUMENT = ("rename", "replace")
#: writers of a file where they get an argument by place or one of these names; without, they return the text
WRITERS, TARGETS = ("to_csv", "to_json", "to_html", "to_markdown", "to_latex"), ("path_or_buf", "path", "buf")

PICKLERS = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
#: a job goes to a process that this one made, and never to a file
WORKERS, PROCESSES = PurePosixPath("job/workers.py"), "joblib.externals.loky"
UNPICKLERS = (*(f"torch.{name}" for name in ("load", "save", "export.load", "jit.load", "package.PackageImporter")), "yaml.load")

#: what reaches other programs, machines or pictures, or is random without a seed → the rooms and files that use it → why they do
PLACES: dict[tuple[str, ...], dict[str, str]] = {
    ("subprocess", "os.system", "os.popen", "os.fork", "os.posix_spawn", "pty"): {
        "arms/process.py": "an arm may be a program that a person names",
    },
    ("multiprocessing",): {"job/workers.py": "asks whether the process of a worker is gone"},
    ("socket", "http.client", "urllib.request", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "torch.hub"): {
        "arms/web.py": "an arm may be a service that a person names",
    },
    ("uuid", "secrets", "os.urandom", "os.getrandom", "random.SystemRandom"): {
        "ledger.py": "two selections of one seed must not send a service the same keys",
    },
    ("PIL",): {
        "data": "it reads and writes images",
        "report": "it puts images into the page, by way of memory",
    },
}

SEEDINGS = ("manual_seed", "seed", "set_rng_state")
GLOBAL_STATE = ("torch.random", "torch.default_generator", *(f"torch.{where}{f}" for where in ("", "cuda.") for f in SEEDINGS))
DRAWS = ("rand", "randn", "randint", "randperm", "normal", "multinomial", "bernoulli", "poisson")
TORCH_DRAWS = tuple(f"torch.{draw}{like}" for draw in DRAWS for like in ("", "_like"))
#: methods of a tensor that fill it with draws
FILLS = tuple(f"{draw}_" for draw in "uniform normal random bernoulli exponential cauchy geometric log_normal".split())
#: draws that take no generator at all
UNSEEDABLE = ("dropout", "gumbel_softmax", "rrelu", "fractional_max_pool", "stochastic_depth")
NUMPY_GENERATORS = ("default_rng", "Generator", "SeedSequence", "PCG64", "Philox")
#: what the libraries of numbers call the argument that makes a draw repeatable
SEED_ARGUMENTS = ("random_state", "rng", "seed")

#: what torch.nn builds without a draw; any other of its classes draws its weights, or draws when it is called
QUIET = (
    "Module Sequential ModuleList ModuleDict Parameter ParameterList ParameterDict Buffer Identity Flatten Unflatten ReLU "
    "LeakyReLU SiLU GELU ELU Tanh Sigmoid Softplus Softmax LogSoftmax Hardtanh LayerNorm GroupNorm BatchNorm1d BatchNorm2d "
    "InstanceNorm2d RMSNorm Upsample PixelShuffle PixelUnshuffle AvgPool1d AvgPool2d MaxPool1d MaxPool2d AdaptiveAvgPool2d "
    "AdaptiveMaxPool2d ZeroPad2d ReflectionPad2d ConstantPad2d MSELoss CrossEntropyLoss BCEWithLogitsLoss L1Loss"
).split()
QUIET_INITS = ("zeros_", "ones_", "constant_", "eye_", "dirac_", "calculate_gain")
#: where networks are written: who builds one enters ``seeded``
NETS = "mixtura.ground.nets"

#: (room, attribute) → why it is asked of something whose type does not say whether it is there
ASKED_FOR: dict[tuple[str, str], str] = {
    ("data", "numpy_dtype"): "pandas: of its own types some name the type of numpy below, some have none",
    ("data", "tzinfo"): "cells of one column are dates, times, texts and others",
    ("data", "n_frames"): "Pillow: formats of one picture lack it",
    ("estimators", "dtypes"): "whatever a person gives as X: a frame, an array, a list",
    ("estimators", "dtype"): "whatever a person gives as X: a frame, an array, a list",
    ("estimators", "kind"): "types of pandas' extensions need not have a kind",
    ("estimators", "feature_names_in_"): "scikit-learn: is there only after a fit on a frame",
    ("families", "phi"): "zuko: a transform without a context has parameters of its own",
    ("families", "hyper"): "zuko: a transform with a context has a network",
    ("ledger", "sqlite_errorname"): "sqlite3: errors that Python raises itself lack it",
    ("cli", "ctx"): "click: errors raised outside a command lack it",
}

BROAD = {"Exception", "BaseException"}

Breaches = list[str]


# --------------------------------------------------------------------------------------------- what a name means


@cache
def _names(source: Source) -> Mapping[str, frozenset[str]]:
    """Local name → what it may stand for, by an import or by ``name = imported.thing``."""
    known: dict[str, set[str]] = {}
    for _, full, local in source.imports:
        known.setdefault(local, set()).add(full)
    for node in source.nodes:
        for target, value in _bindings(node):
            if isinstance(target, ast.Name) and isinstance(value, (ast.Name, ast.Attribute)):
                found = {meaning for meaning in _meanings(value, known) if _root(value) in known}
                if found - {target.id}:
                    known.setdefault(target.id, set()).update(found)
    return {name: frozenset(full) for name, full in known.items()}


def _bindings(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    """(target, value) of ``a = b``, ``a = c = b``, ``a: T = b``, ``(a := b)`` and ``a, c = b, d``."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                yield from zip(target.elts, node.value.elts, strict=False)
            else:
                yield target, node.value
    elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)) and node.value is not None:
        yield node.target, node.value


def _root(node: ast.AST) -> str:
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _meanings(node: ast.AST, known: Mapping[str, set[str] | frozenset[str]]) -> set[str]:
    """Full dotted names: ``np.random.seed`` is numpy.random.seed, the function of ``f(x).backward()`` is ?.backward."""
    if isinstance(node, ast.NamedExpr):
        node = node.value
    if isinstance(node, ast.Name):
        return set(known.get(node.id, ())) or {node.id}
    if isinstance(node, ast.Attribute):
        return {f"{base}.{node.attr}" for base in _meanings(node.value, known)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) > 1:
        name = node.args[1]
        if isinstance(name, ast.Constant):
            return {f"{base}.{name.value}" for base in _meanings(node.args[0], known)}
    return {"?"}


@cache
def references(source: Source) -> tuple[tuple[str, ast.expr], ...]:
    """(full dotted name, node) of each name and attribute that is read, called or not."""
    found = []
    for node in source.nodes:
        read = isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load)
        if read or (isinstance(node, ast.Call) and _meanings(node, {}) != {"?"}):
            found += [(meaning, node) for meaning in sorted(_meanings(node, _names(source)))]
    return tuple(found)


@cache
def calls(source: Source) -> tuple[tuple[str, ast.Call], ...]:
    """(full dotted name of the function, call)."""
    return tuple(
        (meaning, node)
        for node in source.nodes
        if isinstance(node, ast.Call)
        for meaning in sorted(_meanings(node.func, _names(source)))
    )


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _at(node: ast.AST, breach: str) -> str:
    return f"line {getattr(node, 'lineno', '?')}: {breach}"


def _used(source: Source, *endings: str) -> Breaches:
    """Where a name ends with one of ``endings``: ``path.unlink``, ``f(x).backward``, ``print``."""
    return [_at(node, name) for name, node in references(source) if _last(name) in endings]


def _keywords(call: ast.Call) -> dict[str | None, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords}


def _given(call: ast.Call, *names: str) -> bool:
    """Whether one of the arguments is named, with something else than None."""
    return any(name in names and not (isinstance(v, ast.Constant) and v.value is None) for name, v in _keywords(call).items())


def uses(source: Source, *things: str) -> Breaches:
    """Where one of these modules or functions, or something below it, is imported or read; a local name may be the same word."""
    found = [f"line {line}: imports {full}" for line, full, _ in source.imports if any(opens(thing, full) for thing in things)]
    for name, node in references(source):
        base = node.args[0] if isinstance(node, ast.Call) else node
        if _root(base) in _names(source) and any(opens(thing, name) for thing in things):
            found.append(_at(node, name))
    return found


@cache
def _comments(source: Source) -> Mapping[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


# ------------------------------------------------------------------------------------------------ rooms and doors


def rooms_keep_their_doors(source: Source) -> Breaches:
    if source.room not in DOORS:
        return [f"no doors are written for the room {source.room}"]
    return [f"line {line}: imports {target}" for line, target in outside(source)]


def families_never_import_one_another(source: Source) -> Breaches:
    if source.room != "families" or source.path.name == "__init__.py":
        return []
    return [f"line {line}: imports {target}" for line, target in source.ours if opens("families", target)]


def imports_are_written_out(source: Source) -> Breaches:
    """An import by a computed name, or a text that is executed, would be a door that no reader and no rule sees."""
    empty = [call.func for _, call in calls(source) if ast.unparse(call) == "exec('')"]
    executes = ("eval", "exec", "builtins.eval", "builtins.exec")
    executed = [_at(node, name) for name, node in references(source) if name in executes and node not in empty]
    executed += uses(source, "runpy", "sys.modules")
    return executed + ([] if source.room == "__init__" else _used(source, "import_module", "__import__"))


def a_file_is_short_or_says_why(source: Source) -> Breaches:
    """A docstring with a line that begins ``Longer than 450 lines because`` says why."""
    doc = ast.get_docstring(source.tree) or ""
    reason = f"Longer than {LONGEST} lines because "
    if source.lines <= LONGEST or any(line.startswith(reason) for line in doc.splitlines()):
        return []
    return [f"{source.lines} lines; take an idea out of it, or say in its docstring: {reason}…"]


def a_room_says_its_idea(source: Source) -> Breaches:
    if len(source.path.parts) > 1 and source.path.name != "__init__.py":
        return []
    first = (ast.get_docstring(source.tree) or "").partition("\n")[0]
    return [] if first.endswith(".") else [f"the first line of its docstring, {first!r}, is not a sentence that says its idea"]


# ----------------------------------------------------------------------------------------- what happens at the edge


def backward_is_called_once_in_train(source: Source) -> Breaches:
    found = [_at(call, f"{name}(") for name, call in calls(source) if _last(name) == "backward"]
    for node in source.nodes:
        found += [_at(node, ast.unparse(node)) for _, value in _bindings(node) if ast.unparse(value).endswith(".backward")]
    if source.path != FIT:
        return found
    return [] if len(found) == 1 else [f"{len(found)} uses of .backward, expected 1"]


def only_the_command_line_prints(source: Source) -> Breaches:
    if source.room == "cli":
        return []
    streams = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__", "logging", "tqdm")
    found = [_at(node, name) for name, node in references(source) if any(opens(stream, name) for stream in streams)]
    for name, call in calls(source):
        if name in ("os.write", "os.fdopen", "open", "io.open") and call.args and ast.unparse(call.args[0]) in ("1", "2"):
            found.append(_at(call, f"{name} of a standard stream"))
    return found + uses(source, "logging", "tqdm", "rich", "typer", "click") + _used(source, "print", "pprint")


def few_places_reach_outside(source: Source) -> Breaches:
    return [
        breach
        for things, places in PLACES.items()
        if not {source.room, str(source.path)} & {*places}
        for breach in uses(source, *things)
    ]


def warnings_are_notes(source: Source) -> Breaches:
    """``warnings.warn(sentence, Note)``: the command line shows notes, and no warning else."""
    said, others = [], {id(call.func) for name, call in calls(source) if name == "warnings.warn"}
    for name, call in calls(source):
        if name == "warnings.warn":
            category = _keywords(call).get("category") or (call.args[1] if len(call.args) > 1 else None)
            if not _is_note(source, category):
                said.append(_at(call, "warnings.warn without Note"))
    for name, call in calls(source):
        if name == "functools.partial" and _is_note(source, _keywords(call).get("category")):
            others |= {id(call.args[0])}
    passed = [node for name, node in references(source) if name == "warnings.warn" and id(node) not in others]
    return said + [_at(node, "warnings.warn is passed on") for node in passed]


def _is_note(source: Source, category: ast.expr | None) -> bool:
    return category is not None and "mixtura.contracts.Note" in _meanings(category, _names(source))


def files_are_touched_at_the_edge(source: Source) -> Breaches:
    if source.room in MAY_TOUCH_FILES or source.path == MACHINE:
        return []
    found = [f"line {line}: imports {full}" for line, full, _ in source.imports if _is_of_files(full)]
    found += [_at(node, name) for name, node in references(source) if _is_of_files(name) or _last(name) in FILE_METHODS]
    found += [_at(node, name) for name, node in references(source) if name == "open"]
    for name, call in calls(source):
        if name.endswith(".open"):  # elsewhere a selector has arms that are open
            found.append(_at(call, f"{name}("))
        if _last(name) in ONE_ARGUMENT and len(call.args) == 1 and not call.keywords and not opens("dataclasses", name):
            found.append(_at(call, f"{name}(…)"))
        if _last(name) in WRITERS and (call.args or set(TARGETS) & set(_keywords(call))):
            found.append(_at(call, f"{name}(…)"))
    return found


def _is_of_files(name: str) -> bool:
    reads = name.startswith("pandas.read_")
    return reads or any(opens(module, name) for module in FILE_MODULES) or name in FILE_FUNCTIONS


def nothing_is_pickled(source: Source) -> Breaches:
    ours = [(line, full) for line, full, _ in source.imports if source.path != WORKERS or not opens(PROCESSES, full)]
    imported = [f"line {line}: {full}" for line, full in ours if full.split(".")[0] in PICKLERS]
    used = [_at(node, name) for name, node in references(source) if name in UNPICKLERS or name.endswith("_pickle")]
    used += [_at(node, name) for name, node in references(source) if _last(name) in ("dump", "dumps") and not opens("json", name)]
    keywords = [keyword for _, call in calls(source) for keyword in call.keywords if keyword.arg == "allow_pickle"]
    return imported + used + [_at(k.value, "allow_pickle") for k in keywords if ast.unparse(k.value) != "False"]


# ------------------------------------------------------------------------------------------------------------ draws


def draws_name_their_generator(source: Source) -> Breaches:
    found = [_at(call, f"{name}(") for name, call in calls(source) if _draws_globally(name, call)]
    called = {id(call.func) for _, call in calls(source)}
    for name, node in references(source):
        if any(opens(state, name) or name.startswith(f"{state}_") for state in GLOBAL_STATE) and source.path != RNG:
            found.append(_at(node, name))
        elif id(node) not in called and (name in TORCH_DRAWS or _is_numpy_draw(name)):
            found.append(_at(node, f"{name} is passed on without a generator"))
        elif opens("torch", name) and any(word in _last(name).lower() for word in UNSEEDABLE):
            found.append(_at(node, f"{name} takes no generator"))
    return sorted(set(found))


def _is_numpy_draw(name: str) -> bool:
    return name.startswith("numpy.random.") and name.removeprefix("numpy.random.").split(".")[0] not in NUMPY_GENERATORS


def _draws_globally(name: str, call: ast.Call) -> bool:
    seeded = bool(call.args or call.keywords)
    if name in TORCH_DRAWS or opens("torch.utils.data", name):
        return not _given(call, "generator")
    if name.startswith("numpy.random."):
        return not seeded or _is_numpy_draw(name) or ast.unparse(call.args[0] if call.args else call.keywords[0].value) == "None"
    if name.startswith("random."):
        return not (name == "random.Random" and seeded)
    if _last(name) in ("rvs", "rsample") and not opens("mixtura", name):
        return not _given(call, *SEED_ARGUMENTS)
    if _last(name) in ("bernoulli", "multinomial") and not opens("mixtura", name):
        return not (_given(call, "generator") or ast.unparse(call.func).startswith("np.random.default_rng("))
    if _last(name) == "scaled_dot_product_attention":
        dropped = _keywords(call).get("dropout_p") or (call.args[4] if len(call.args) > 4 else None)
        return dropped is not None and ast.unparse(dropped) not in ("0", "0.0")
    if _last(name) == "sample":  # of a frame, or of a law of torch
        return len(call.args) < 2 and not _given(call, "generator", *SEED_ARGUMENTS)
    if name.split(".")[0] in ("sklearn", "scipy") and name != "sklearn.utils.check_random_state":
        return bool(_seed_arguments(name)) and not _given(call, *_seed_arguments(name))
    return False


@cache
def _seed_arguments(name: str) -> tuple[str, ...]:
    """Which arguments of a function or class of a library make its draws repeatable."""
    module, _, attribute = name.rpartition(".")
    try:
        parameters = inspect.signature(getattr(import_module(module), attribute)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        return ()
    return tuple(argument for argument in SEED_ARGUMENTS if argument in parameters)


def weights_are_drawn_seeded(source: Source) -> Breaches:
    """What torch draws when a network is built is inside ``with seeded(…):``, in the same function, or in a function with a
    leading underscore that is used nowhere else. In ground/nets it is where a network is built: its builder enters ``seeded``."""
    found = _Weights(source)
    found.visit(source.tree)
    if source.path.parts[:2] == ("ground", "nets"):
        late = [(name, node) for name, node, where in found.drawn if found.methods & {*where}]
        return [_at(node, f"{name} outside of construction") for name, node in late]
    return [_at(node, f"{name} outside of seeded(…)") for name, node, where in found.drawn if not found.is_entered_seeded(where)]


class _Weights(ast.NodeVisitor):
    """Draws of weights, and uses of functions, that no ``with seeded(…):`` of the same function holds."""

    def __init__(self, source: Source) -> None:
        self.names = _names(source)
        self.own = {c.name for c in source.nodes if isinstance(c, ast.ClassDef) and any(self._draws(n) for n in self._bases(c))}
        self.where: list[str] = []
        self.seeded = False
        self.called: list[ast.expr] = []
        self.drawn: list[tuple[str, ast.AST, tuple[str, ...]]] = []
        #: function → whether each use of it is inside ``seeded``, and in which functions
        self.uses: dict[str, list[tuple[bool, tuple[str, ...]]]] = {}
        bodies = [c.body for c in source.nodes if isinstance(c, ast.ClassDef)]
        self.methods = {f.name for body in bodies for f in body if isinstance(f, ast.FunctionDef)} - {"__init__"}

    def _bases(self, node: ast.ClassDef) -> set[str]:
        return {name for base in node.bases for name in _meanings(base, self.names)}

    def _draws(self, name: str) -> bool:
        return _is_layer(name) or name.startswith("zuko.flows.") or name in _drawing_nets()

    def _enter(self, node: ast.AST, name: str) -> None:
        before, self.seeded = self.seeded, False
        self.where.append(name)
        self.generic_visit(node)
        self.where.pop()
        self.seeded = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node, node.name)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._enter(node, "lambda")

    def visit_With(self, node: ast.With) -> None:
        before = self.seeded
        for item in node.items:
            self.visit(item.context_expr)
            entered = item.context_expr
            if isinstance(entered, ast.Call) and "mixtura.ground.rng.seeded" in _meanings(entered.func, self.names):
                self.seeded = True
        for line in node.body:
            self.visit(line)
        self.seeded = before

    def visit_Call(self, node: ast.Call) -> None:
        for name in sorted(_meanings(node.func, self.names)):
            fills = _last(name) in FILLS and not _given(node, "generator")
            if not self.seeded and (self._draws(name) or fills or name in self.own):
                self._found(name, node)
        asks = isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass", "cast")
        for passed in () if asks or self.seeded else (*node.args, *(keyword.value for keyword in node.keywords)):
            for name in sorted(_meanings(passed, self.names)):
                if self._draws(name) or name in self.own:
                    self._found(name, passed)
        self.called.append(node.func)
        self.generic_visit(node)

    def _found(self, name: str, node: ast.AST) -> None:
        self.drawn.append((name, node, tuple(self.where)))

    def visit_Name(self, node: ast.Name) -> None:
        self.uses.setdefault(node.id, []).append((self.seeded, tuple(self.where)))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.uses.setdefault(node.attr, []).append((self.seeded, tuple(self.where)))
        if node.attr in FILLS and node not in self.called:
            self._found(node.attr, node)
        self.generic_visit(node)

    def is_entered_seeded(self, where: tuple[str, ...], seen: tuple[str, ...] = ()) -> bool:
        inner = where[-1] if where else ""
        if not inner.startswith("_") or inner.startswith("__") or inner in seen or inner not in self.uses:
            return False
        return all(seeded or self.is_entered_seeded(user, (*seen, inner)) for seeded, user in self.uses[inner])


@cache
def _drawing_nets() -> frozenset[str]:
    """Functions and classes of ground/nets that draw weights, themselves or through others of that package."""
    bodies: dict[str, set[str]] = {}
    for path in sorted((SRC / "ground" / "nets").glob("*.py")):
        source = Source(PurePosixPath("ground/nets") / path.name, path.read_text(encoding="utf-8"))
        module = f"{NETS}.{path.stem}"
        names = _names(source)
        defined = [node for node in source.tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        local = {node.name: f"{module}.{node.name}" for node in defined}
        for node in defined:
            built = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)] + getattr(node, "bases", [])
            used = {name for part in built for name in _meanings(part, names)}
            bodies[local[node.name]] = {local.get(name, name) for name in used}
    drawing = {name for name, used in bodies.items() if any(_is_layer(n) or _last(n) in FILLS for n in used)}
    while more := {name for name, used in bodies.items() if used & drawing} - drawing:
        drawing |= more
    return frozenset(drawing)


def _is_layer(name: str) -> bool:
    """Whether torch draws when this is built or called: a layer with weights, or what fills weights."""
    if name.startswith("torch.nn.init."):
        return _last(name) not in QUIET_INITS
    other = name.startswith(("torch.nn.functional.", "torch.nn.utils."))
    return name.startswith("torch.nn.") and not other and _last(name)[:1].isupper() and _last(name) not in QUIET


# ------------------------------------------------------------------------------------------------ types and errors


def nothing_is_asserted(source: Source) -> Breaches:
    """``python -O`` drops asserts, and nobody learns from one what to do."""
    return [_at(node, "assert") for node in source.nodes if isinstance(node, ast.Assert)]


def capabilities_are_types(source: Source) -> Breaches:
    """What something can do is its type: no ``hasattr``, no ``dir``, no ``getattr`` with a default, no NotImplementedError but in
    an ``except``."""
    asks = ("hasattr", "builtins.hasattr", "dir", "builtins.dir")
    found = [_at(node, name) for name, node in references(source) if name in asks]
    for name, call in calls(source):
        if name in ("getattr", "builtins.getattr") and len(call.args) + len(call.keywords) > 2:
            asked = call.args[1]
            if not isinstance(asked, ast.Constant) or (source.room, asked.value) not in ASKED_FOR:
                found.append(_at(call, f"getattr of {ast.unparse(asked)} with a default"))
    handlers = [node.type for node in source.nodes if isinstance(node, ast.ExceptHandler) and node.type is not None]
    caught = {id(part) for kinds in handlers for part in ast.walk(kinds)}
    others = [(name, node) for name, node in references(source) if id(node) not in caught]
    return found + [_at(node, name) for name, node in others if _last(name) == "NotImplementedError"]


def broad_excepts_say_why(source: Source) -> Breaches:
    """``except Exception`` and ``suppress(Exception)`` have a comment on their line, or what was caught is raised again."""
    found = []
    for node in source.nodes:
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(kind is None or BROAD & _meanings(kind, _names(source)) for kind in kinds)
            again = any(isinstance(part, ast.Raise) and part.exc is None for part in node.body)
            if broad and not again and not _has_a_reason(source, node.lineno):
                found.append(_at(node, f"{ast.unparse(node).splitlines()[0]} without a reason"))
    for name, call in calls(source):
        broad = any(BROAD & _meanings(kind, _names(source)) for kind in call.args)
        if name == "contextlib.suppress" and broad and not _has_a_reason(source, call.lineno):
            found.append(_at(call, f"{ast.unparse(call)} without a reason"))
    return found


def _has_a_reason(source: Source, line: int) -> bool:
    comment = _comments(source).get(line, "")
    reason = comment.partition("BLE001")[2] or comment
    return len(reason.replace("# noqa:", "").split()) >= 3


def lambdas_have_no_names(source: Source) -> Breaches:
    """A function that has a name is written with ``def``."""
    bound = [node for node in source.nodes for _, value in _bindings(node) if isinstance(value, ast.Lambda)]
    waived = [f"line {line}: {text}" for line, text in _comments(source).items() if "E731" in text]
    return [_at(node, "a lambda is bound to a name") for node in bound] + waived


SOURCE_RULES = (
    rooms_keep_their_doors,
    families_never_import_one_another,
    imports_are_written_out,
    a_file_is_short_or_says_why,
    a_room_says_its_idea,
    backward_is_called_once_in_train,
    only_the_command_line_prints,
    few_places_reach_outside,
    warnings_are_notes,
    files_are_touched_at_the_edge,
    nothing_is_pickled,
    draws_name_their_generator,
    weights_are_drawn_seeded,
    nothing_is_asserted,
    capabilities_are_types,
    broad_excepts_say_why,
    lambdas_have_no_names,
)
