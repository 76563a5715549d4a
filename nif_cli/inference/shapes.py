"""What the commands on new shapes share: what is shown of a shape, and fields inferred from it, many
together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import trimesh
from tqdm import tqdm

from nif_cli import NifError
from nif_cli.data.shapes.conditioning import load_look
from nif_cli.data.shapes.observations import keep_half, observe_mesh, show, thin
from nif_cli.data.shapes.samples import ImageFiles, Known, Observation
from nif_cli.data.shapes.user_files import Input, normalise
from nif_cli.geometry.mesh import load_mesh
from nif_cli.geometry.transform import SPACES, Transform
from nif_cli.models.model import Inferred, Model
from nif_cli.schemas import NewShapes


def check_kind(model: Model, config: NewShapes) -> None:
    """NifError unless the model infers new shapes, from the kind of observation that the user asks for."""
    name = type(model).__name__
    if not model.observes:
        model.infer([])  # says why not
    if config.observe is not None and config.observe not in model.observes:
        raise NifError(f"observe={config.observe}: {name} infers from {', '.join(model.observes)}")


def shown(
    model: Model, config: NewShapes, known: Known | None, mesh: trimesh.Trimesh | None, number: int
) -> Observation:
    """What the user's keys let a model see of a shape in normalised space: of a mesh any kind can be made; of
    what is known otherwise, the kind asked for or the first of the model's that it has."""
    rng = np.random.default_rng([config.seed, number])
    kinds = [config.observe] if config.observe else list(model.observes)
    look = model.needs.conditioning
    refusal = NifError("nothing is known of this shape")
    for kind in kinds:
        try:
            if mesh is not None:
                seen = observe_mesh(mesh, kind, config.points, rng, config.pose, look, model.space)
            else:
                assert known is not None
                if look is not None and isinstance(known.images, ImageFiles):
                    known = load_look(known, look, Transform(), SPACES[model.space][1])
                seen = show(known, kind)
            if config.keep is not None:
                seen = keep_half(seen, config.keep)
            return thin(seen, config.points, rng, config.noise)
        except NifError as error:
            refusal = error
    raise (
        refusal
        if len(kinds) == 1
        else NifError(f"this shape shows none of what the model infers from ({', '.join(kinds)})")
    )


def seen_of(
    given: Input, model: Model, config: NewShapes, like: Transform | None, number: int
) -> tuple[Observation, Transform]:
    """What a model is shown of a shape that a user gives, and the transform from the user's units to the
    model's normalised space: `like` that of another shape, or the input's own."""
    as_it_is = getattr(config, "normalise", "auto") == "none"
    if as_it_is:
        given.space, given.transform = model.space, Transform()
    one, transform = normalise(given, model.space, None if as_it_is else like)
    return shown(model, config, one.seen, one.mesh, number), transform


def like_what(spec: str, model: Model) -> Transform | None:
    """The transform that `normalise=` names; None: each input's own."""
    if spec in ("auto", "none"):
        return None
    if spec in model.instances:
        return model.instances[spec].transform
    path = Path(spec).expanduser()
    if not path.is_file():
        raise NifError(f"normalise={spec}: must be auto, none, a mesh file or an instance of the run")
    return SPACES[model.space][0](np.asarray(load_mesh(path).vertices))


def infer(model: Model, seen: Sequence[Observation], config: NewShapes) -> Iterator[Inferred]:
    """The fields of new shapes, `together` at a time."""
    options = {key: getattr(config, key) for key in ("steps", "restarts") if getattr(config, key) is not None}
    bar = tqdm(
        total=len(seen), desc="infer", unit=" shape", leave=False, disable=not sys.stderr.isatty(), delay=1
    )
    with bar:
        for start in range(0, len(seen), config.together):
            part = seen[start : start + config.together]
            yield from model.infer(part, seed=config.seed, **options)
            bar.update(len(part))
