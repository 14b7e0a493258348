""":func:`select`: the best mixture of arms from as few samples as possible, or the best one at each context.

:func:`conduct` is the long process, an iterator of records; :func:`select` runs it to the end.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from torch import Tensor

from mixtura.arms import Arm, Function, Pool, load_arms
from mixtura.contracts import InputError, Note
from mixtura.data.memory import to_numpy
from mixtura.features.samples import real_rows
from mixtura.folder.selection import SelectionFolder
from mixtura.ground import machine
from mixtura.ground.arguments import conform, nearest, shown
from mixtura.ground.kernels import BANDWIDTH, LARGEST, SMALLEST
from mixtura.selection.contexts import ContextualSession, begin_in_contexts, read_contexts
from mixtura.selection.mixture import MixtureSession, begin
from mixtura.selection.records import Round, Selected, SelectedByContext, Stop
from mixtura.selection.session import EXHAUSTED, FAILURES

if TYPE_CHECKING:
    from mixtura.study.fitted import FittedModel

#: what a person gives as arms: a file that lists them, arms, or a name for each function or array of samples
Arms = str | Path | Sequence[Arm] | Mapping[str, Any]
#: option of a selection → what is expected, for a message
EXPECTED = {
    "objective": "text such as mmd or rke+0.2*precision", "pulls": "a whole number, 1 or more", "out": "a path",
    "policy": "the name of a policy, such as variance_ucb", "bandwidth": BANDWIDTH,
    "features": "pixels, pca:64, conv:256, or the path of an .onnx network", "stop": "a number above 0",
    "certified": "True or False", "reach": BANDWIDTH, "seed": "a whole number, 0 or more",
    "fresh": "True or False",
}  # fmt: skip


def select(arms: Arms, objective: str = "rke", **options: Any) -> Selected | SelectedByContext:
    """The best mixture of ``arms`` from as few samples as possible; with ``contexts``, the best one at each context.

    arms: a file as in docs/arms.md, a list of arms, or name → an array of samples or a function of a seed. objective: text as on
    the command line, such as "mmd" or "rke+0.2*precision". ``options`` are those of :func:`conduct`.

    An arm that fails again and again is closed and the others go on; a :class:`Note` names it, and so does ``closed`` of the
    result. Raises InputError as :func:`conduct`, and on an option that is unknown or not of its type.
    """
    for record in conduct(arms, **_checked_options({"objective": objective, **options})):
        if not isinstance(record, Round):
            _note_failed_arms(record)
            return record
    raise RuntimeError("the selection ended without a result")


def conduct(
    arms: Arms, objective: str = "rke", *, reference: Any = None, pulls: int = 1000, out: str | Path | None = None,
    policy: str = "variance_ucb", bandwidth: float | None = None, features: str | None = None, stop: float | None = None,
    certified: bool = False, contexts: Any = None, reach: float | None = None, seed: int = 0, fresh: bool = False,
) -> Iterator[Round | Selected | SelectedByContext]:  # fmt: skip
    """The selection as an iterator of records: a :class:`Round` for each pull, then its end.

    reference: real rows or images, which most objectives compare with. pulls: total number of samples. out: a folder that keeps
    every pull; the same call continues where it stopped, and may ask for more pulls. policy: a name of the table of policies.
    bandwidth: of the Gaussian kernels; by default it is chosen from the first samples. features: the features to compare, as in
    :func:`mixtura.run`. stop: the excess loss at which to stop early, by an asymptotic bound or a ``certified`` one. fresh: start
    over in a folder that holds a selection.

    contexts: a table with one row for each context, such as a prompt and its embedding. Each request is then sent with one row,
    and rows are compared by their numeric columns. ``reach``: how far from a context its samples still count, in standard
    deviations (docs/contextual.md).

    Raises InputError on arms, objectives and folders that do not fit together, before any arm is asked.
    """
    if bandwidth is not None and not SMALLEST <= bandwidth <= LARGEST:
        raise InputError(f"bandwidth: expected {EXPECTED['bandwidth']}, got {bandwidth}; leave it out to choose it from samples")
    if contexts is None and reach is not None:
        raise InputError("reach: is for contexts; give --contexts too, or leave it out")
    if contexts is not None and (stop is not None or certified or policy != "variance_ucb"):
        raise InputError("contexts: have no stopping rule and a policy of their own; leave --stop, --certified and --policy out")
    with machine.temporary_folder() as temporary:
        folder = SelectionFolder(temporary if out is None else Path(out))
        if fresh:
            folder.clear()
        folder.check()
        table = None if contexts is None else read_contexts(contexts, reach=reach, seed=seed)
        real, columns = (None, None) if reference is None else real_rows(reference, seed=seed)
        listed = _listed(arms, columns, in_contexts=contexts is not None)
        given: dict[str, Any] = {
            "reference": real, "name": _name(reference), "extractor": features, "bandwidth": bandwidth, "seed": seed,
            "pulls": pulls,
        }  # fmt: skip
        mode = "certified" if certified else "asymptotic"
        session: MixtureSession | ContextualSession
        if table is not None:
            session = begin_in_contexts(listed, folder.path, objective, table, **given)
        else:
            stopping = None if stop is None else Stop(stop, mode)
            session = begin(listed, folder.path, objective, policy=policy, stop=stopping, **given)
        try:
            yield from session.conduct()
            if not session.selector.pulls:
                why = "; ".join(session.closed.values())
                raise InputError(f"arms: no arm gave a sample that can be used ({why}); mend the arms and start over")
            found = session.finish()
            title = Path(arms).stem if isinstance(arms, str | Path) else folder.path.name
            weights = found.table() if isinstance(found, SelectedByContext) else None
            folder.write_end(session.record(found, title), weights)  # type: ignore[arg-type]
        finally:
            session.close()
        yield found


def _checked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as values of the annotations of :func:`conduct`. InputError for one that is unknown or not of its type."""
    annotations = get_type_hints(conduct)
    known = [name for name in inspect.signature(conduct).parameters if name != "arms"]
    checked = {}
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{name}: a selection has no such option; use {nearest(name, known)}")
        if name == "features" and isinstance(value, Path):
            value = str(value)
        try:
            checked[name] = conform(value, annotations[name])
        except TypeError:
            raise InputError(f"{name}: expected {EXPECTED[name]}, got {shown(value)}") from None
    if checked.get("seed", 0) < 0:
        raise InputError(f"seed: expected {EXPECTED['seed']}, got {checked['seed']}")
    return checked


def _note_failed_arms(found: Selected | SelectedByContext) -> None:
    """A :class:`Note` for each arm that was closed because it failed. An exhausted pool gave all that it has."""
    for arm, reason in found.closed.items():
        if not reason.startswith(EXHAUSTED):
            last = reason.removeprefix(f"{arm}: ")
            said = f"{arm}: failed {FAILURES} times in a row and was not asked again; the last time: {last}"
            warnings.warn(said, Note, stacklevel=3)


def _listed(arms: Arms, columns: list[str] | None, *, in_contexts: bool) -> list[Arm]:
    if isinstance(arms, str | Path):
        return load_arms(Path(arms), columns, open_model=open_model)
    if not isinstance(arms, Mapping):
        return _checked_arms(arms)
    return [_arm(str(name), given, in_contexts=in_contexts) for name, given in arms.items()]


def _checked_arms(arms: Any) -> list[Arm]:
    """Arms that are no mapping, as a list. InputError for anything but arms."""
    if not isinstance(arms, Iterable) or isinstance(arms, np.ndarray | Tensor):
        raise InputError(f"arms: expected a file, or {{name: function or array of samples}}, got {shown(arms)}")
    given = list(arms)
    unnamed = [arm for arm in given if not isinstance(arm, Arm)]
    if unnamed:
        raise InputError(
            f"arms: {shown(unnamed[0])} stands in a list and has no name; give a mapping, {{name: function or array of samples}}"
        )
    return given


def open_model(folder: Path, name: str | None) -> FittedModel:
    """The model of a finished run; the verdict's choice where none is named. InputError as :func:`mixtura.load`."""
    from mixtura.study.study import load  # the families wait until a run folder is opened

    study = load(folder)
    return study.sampler if name is None else study.model(name)


def _arm(name: str, given: Any, *, in_contexts: bool) -> Arm:
    if isinstance(given, Arm):
        return given
    if callable(given):
        return Function(name, given, takes_context=in_contexts)
    if isinstance(given, Tensor):
        return Pool(name, to_numpy(given, name))
    try:
        samples = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected an array of samples or a function of a seed, got {shown(given)}") from error
    if not samples.ndim:
        raise InputError(f"{name}: expected an array of samples or a function of a seed, got {shown(given)}")
    return Pool(name, samples)


def _name(reference: Any) -> str | None:
    """What the ledger knows the reference by: its path, or the type of what was given."""
    if isinstance(reference, str | Path):
        return str(reference)
    return None if reference is None else type(reference).__name__
