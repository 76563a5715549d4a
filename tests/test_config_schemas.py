"""The root keys of each command: the dataclass that it receives and the YAML that help reads agree."""

from __future__ import annotations

import typing
from dataclasses import MISSING, fields
from typing import Literal

import pytest
import yaml
from beartype import BeartypeConf
from beartype.door import is_bearable
from omegaconf import OmegaConf

from nif_cli import NifError, conf_folder
from nif_cli.config import check
from nif_cli.geometry.writing import WRITABLE
from nif_cli.hints import fault, fits, stored
from nif_cli.inference.edits import SETS
from nif_cli.metrics.protocols import PROTOCOLS
from nif_cli.metrics.view_protocols import VIEW_PROTOCOLS
from nif_cli.rendering.volume_view import CHANNELS
from nif_cli.schemas import SCHEMAS, Channel, Composition, Extract, Measure, MeshFormat

OF_NIF = ("paths",)  # written by nif itself, typed by nobody
HINTS = {name: typing.get_type_hints(schema, include_extras=True) for name, schema in SCHEMAS.items()}


@pytest.mark.parametrize("command", SCHEMAS)
def test_yaml_and_dataclass_say_the_same(command: str) -> None:
    """The same keys, the same defaults; and each key has its row, whose comment is the help."""
    rows = yaml.safe_load((conf_folder() / f"{command}.yaml").read_text())
    groups = {str(k).split("/")[-1] for row in rows.pop("defaults") if isinstance(row, dict) for k in row}
    own = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory()
        for f in fields(SCHEMAS[command])
        if f.name not in (*groups, *OF_NIF)
    }
    assert rows == own


@pytest.mark.parametrize("command", SCHEMAS)
def test_defaults_fit_their_hints(command: str) -> None:
    for f in fields(SCHEMAS[command]):
        value = f.default if f.default_factory is MISSING else f.default_factory()
        if value != "???":
            assert fault(value, HINTS[command][f.name]) is None, f.name


def test_choices_are_those_of_the_rooms_that_take_them() -> None:
    def choices(hint: typing.Any) -> set[str]:
        return set(typing.get_args(typing.get_args(hint)[0]))

    assert choices(MeshFormat) == set(WRITABLE)
    assert choices(Channel) == set(CHANNELS)
    assert choices(Measure) == {*PROTOCOLS, *VIEW_PROTOCOLS}
    assert choices(Composition) == {*SETS, *(f"smooth_{s}" for s in SETS), "morph"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("resolution", 1, "resolution=1: at least 2 grid points a side are needed"),
        ("resolution", True, "resolution=True: must be a whole number"),
        ("method", None, "method=None: must be sparse or dense"),
        ("format", "plyy", "format=plyy: no mesh format; did you mean 'ply'"),
        ("share", 2, "share=2: must be between 0 (the first shape) and 1"),
        ("instances", {"a": 1}, "instances={'a': 1}: must be"),
        ("place", 3, "place=3: must be a list or null"),
    ],
)
def test_one_place_says_what_is_wrong(key: str, value: object, said: str) -> None:
    with pytest.raises(NifError) as caught:
        check(OmegaConf.create({key: value}), "extract")
    assert said in str(caught.value)


def test_what_fits_reaches_the_command_typed() -> None:
    made = check(OmegaConf.create({"run": 7, "level": 1, "instances": [3, "chair/*"]}), "extract")
    assert isinstance(made, Extract)
    assert (made.run, made.level, made.instances, made.resolution) == ("7", 1, [3, "chair/*"], 128)
    with pytest.raises(NifError, match="input is missing: give input=<a mesh"):
        check(OmegaConf.create({"output": "x"}), "prepare")


def test_what_is_stored_is_known_to_omegaconf() -> None:
    hints = HINTS["extract"]
    assert stored(hints["method"]) is str
    assert stored(hints["faces"]) == int | None
    assert stored(hints["resolution"]) is int
    assert stored(hints["run"]) is typing.Any


@pytest.mark.parametrize(
    "hint", [int, float, str, bool, None, int | None, Literal["a", 1], list[int], str | list[str]]
)
@pytest.mark.parametrize("value", [0, 1, 1.0, True, None, "a", "1", [], [1], ["a"], [1.5], [None], {}])
def test_plain_hints_are_answered_as_beartype_does(value: object, hint: typing.Any) -> None:
    """... but for true and false, which are no numbers."""
    by_type = is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))
    assert fits(value, hint) == (by_type and (value is not True or hint is bool))
