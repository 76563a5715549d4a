"""The keys that make a new shape of learned ones: compose= and what goes with it, offset= and shell=."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from scipy.spatial.transform import Rotation

from nif_cli import NifError, runs
from nif_cli.config import blame
from nif_cli.field import Field
from nif_cli.geometry.csg import (
    difference,
    exact_sides,
    hull,
    intersection,
    morph,
    offset,
    placed,
    shell,
    union,
)
from nif_cli.geometry.far_reaching import far_reaching
from nif_cli.geometry.transform import Transform
from nif_cli.models.model import Model
from nif_cli.schemas import OfShapes

SETS = {"union": union, "intersection": intersection, "difference": difference}
Operand = tuple[str, Model]  # an instance, and the model that knows it


def check_keys(config: OfShapes) -> None:
    """What can be said before any run is read."""
    how, several = config.compose, isinstance(config.run, list)
    if several and how is None:
        raise NifError(
            "run: several runs go together by compose=union, difference, smooth_union, morph, ... (see "
            "--help)"
        )
    smooth = how is not None and how.startswith("smooth")
    for key, fits, only in (
        ("blend", smooth, "smooth_union, smooth_intersection or smooth_difference"),
        ("share", how == "morph", "morph"),
        ("place", how is not None, "..."),
    ):
        if getattr(config, key) is not None and not fits:
            raise NifError(f"{key}: goes with compose={only}")
    if how is not None and config.sample is not None:
        raise NifError("compose goes with learned shapes, sample makes new ones: give one of them")
    if how not in (None, "morph") and config.interpolate is not None:
        raise NifError(f"compose={how}: there is no way between; interpolate goes with compose=morph")


def operands(models: Sequence[Model], spec: Any, how: str | None) -> list[Operand]:
    """Which shapes are composed: those that instances= names in the one run, or one of each run (the first
    unless named)."""
    if len(models) == 1:
        found = [(id, models[0]) for id in runs.select(list(models[0].instances), spec)]
        if len(found) < 2:
            raise NifError(
                f"compose={how} takes two shapes or more: give instances=[a,b], or several runs, run=[a,b]"
            )
    else:
        specs = [None] * len(models) if spec is None else spec
        if not isinstance(specs, list) or len(specs) != len(models):
            raise NifError(
                f"instances={spec}: with {len(models)} runs it names one instance of each, in their order"
            )
        found = [(runs.select(list(m.instances), s)[0], m) for m, s in zip(models, specs, strict=True)]
    if how == "morph" and len(found) != 2:
        raise NifError(
            f"compose=morph goes from one shape to another: name two instances ({len(found)} are chosen)"
        )
    return found


def composed(
    chosen: Sequence[Operand], config: OfShapes, device: torch.device
) -> Iterator[tuple[str, Field, Transform]]:
    """(name, field, transform to the user's units): one shape, or with interpolate= those on the way.

    Shapes lie together as in the user's units, or with frame=normalised as in their normalised spaces;
    lengths are in the same units. The result lives in the normalised space of the first shape, whose
    transform leads out of it.
    """
    how, original = config.compose, config.frame == "original"
    assert how is not None
    first = chosen[0][1].instances[chosen[0][0]].transform
    unit = first.scale if original else 1.0
    places = config.place or [None] * len(chosen)
    if not isinstance(places, list) or len(places) != len(chosen):
        raise NifError(
            f"place: must be a list with one entry a shape ({len(chosen)} of them), each null or "
            f"{{move,turn,scale}}"
        )
    with blame("compose"):
        fields = [_placed(o, first, p, original, device) for o, p in zip(chosen, places, strict=True)]
    name = "--".join(id for id, _ in chosen).replace("/", "_")
    if how == "morph":
        with blame("compose=morph"):
            a, b = (far_reaching(f, hull(*fields), device) for f in fields)
        steps = config.interpolate
        if steps is None:
            share = 0.5 if config.share is None else config.share
            yield f"morph/{name}", edited(morph(a, b, share), config, unit, device), first
            return
        for k in range(steps):
            yield f"morph/{name}/{k:03d}", edited(morph(a, b, k / (steps - 1)), config, unit, device), first
        return
    blend = 0.0
    if how.startswith("smooth"):
        blend = 0.05 if config.blend is None else config.blend * unit
    join = SETS[how.removeprefix("smooth_")]
    with blame(f"compose={how}"):
        if blend:
            fields = [_reaching(f, blend, device) for f in fields]
        whole = fields[0]
        for field in fields[1:]:
            whole = join(whole, field, blend)
    yield f"{how}/{name}", edited(whole, config, unit, device), first


def edited(field: Field, config: OfShapes, unit: float, device: torch.device) -> Field:
    """The field with its surface moved by offset= and hollowed by shell=, in lengths of which `unit` makes
    normalised ones."""
    by, wall = (config.offset or 0.0) * unit, (config.shell or 0.0) * unit
    if by:
        with blame("offset"):
            box = field.bounds + torch.tensor([[-1.0], [1.0]]).to(field.bounds) * max(by, 0.0)
            if by > 0 or -by >= 0.9 * field.truncation:
                field = far_reaching(field, box, device)
            _say_inexact("offset", field, "outside" if by > 0 else "inside")
            field = replace(offset(field, by), bounds=box)
    if wall:
        with blame("shell"):
            field = _reaching(field, wall, device)
            _say_inexact("shell", field, "inside")
            field = shell(field, wall)
    return field


def _say_inexact(key: str, field: Field, side: str) -> None:
    if side not in exact_sides(field):
        print(
            f"{key}: {side} of this composed shape values are less than distances here and there; the "
            "surface moves farther there"
        )


def _reaching(field: Field, length: float, device: torch.device) -> Field:
    return field if length < 0.9 * field.truncation else far_reaching(field, device=device)


def _placed(operand: Operand, first: Transform, place: Any, original: bool, device: torch.device) -> Field:
    """A shape in the normalised space of the first: turned and scaled about its own centre, then moved."""
    id, model = operand
    field, own = model.field(id), model.instances[id].transform
    if not isinstance(field, Field) or field.bounds.shape[1] != 3:
        raise NifError(f"{id}: compose= is for shapes in space")
    place = place or {}
    if not isinstance(place, dict) or not set(place) <= {"move", "turn", "scale"}:
        raise NifError(
            f"place={place}: an entry is null or {{move:[x,y,z],turn:[degrees about x,y,z],scale:s}}"
        )
    try:
        move, turn = (
            torch.tensor(place.get(k, [0, 0, 0]), dtype=torch.float64).reshape(3) for k in ("move", "turn")
        )
        scale = float(place.get("scale", 1))
    except (TypeError, ValueError, RuntimeError) as error:
        raise NifError(f"place={place}: move and turn are three numbers each, scale is one") from error
    if original:
        if place.get("scale") is None and not 0.05 < own.scale / first.scale < 20:
            print(
                f"{id}: {first.scale / own.scale:.3g} times the size of the first shape; frame=normalised "
                "makes them alike"
            )
        scale = scale * first.scale / own.scale
        move = first.scale * (move + torch.tensor(first.offset) - torch.tensor(own.offset))
    if scale == 1 and not move.any() and not turn.any():
        return field
    rotation = torch.from_numpy(Rotation.from_euler("xyz", turn.numpy(), degrees=True).as_matrix()).float()
    return placed(field, scale, rotation, move.float())
