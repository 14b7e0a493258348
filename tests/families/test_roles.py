"""What the TABLE says of a family is true of the models that it builds."""

from __future__ import annotations

import pytest

from mixtura import families
from mixtura.contracts import ClosedForm, Column, Conditional, Density, Space
from mixtura.families import TABLE, with_role
from mixtura.folder.models import proposals
from mixtura.ground.rng import generator
from mixtura.job.options import choose_families

SPACE = Space.table((Column(), Column("levels", 3)))
LEVELS = Space.levels(3, levels=2)
CHAIN = Space.table((Column(),))


def built(row):
    space, shape = (SPACE, None) if row.context != "needs" else (CHAIN, (2,))
    space = LEVELS if row.name == "boltzmann" else space  # which models nothing else
    return row.build(space, context_shape=shape, config=row.suggest(space, 100), rng=generator(0))


@pytest.mark.parametrize("name", TABLE)
def test_a_row_says_how_its_models_are_fitted_and_what_they_can_do(name):
    row, model = TABLE[name], built(TABLE[name])
    assert isinstance(model, ClosedForm) == (row.fit == "closed")
    assert "proposal" not in row.roles or isinstance(model, Conditional)
    assert "floor" not in row.roles or (isinstance(model, Density) and row.context == "may")


def test_families_without_nats_take_part_on_request_only():
    table = {name: row.context for name, row in TABLE.items()}
    assert with_role("on request") == ["energy", "boltzmann"]
    assert not {"energy", "boltzmann"} & {*choose_families(None, table)}
    assert choose_families(["boltzmann"], table) == ["marginals", "boltzmann"]


def test_there_is_one_floor_and_it_proposes_last():
    assert with_role("floor") == ["marginals"]
    assert with_role("proposal") == ["circuit", "gaussian_mixture", "kde", "marginals"]
    assert proposals({"flow": 1, "marginals": 2, "kde": 3}) == ["kde", "marginals"]


def test_families_with_a_role_stand_in_the_order_of_the_table(monkeypatch):
    monkeypatch.setattr(families, "TABLE", {name: TABLE[name] for name in ("marginals", "kde", "flow", "gaussian_mixture")})
    assert with_role("proposal") == ["kde", "gaussian_mixture", "marginals"]
