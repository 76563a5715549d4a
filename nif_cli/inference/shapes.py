"""What the commands on new shapes share: what is shown of a shape, and fields inferred from it, many
together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import numpy as np
import trimesh
from tqdm import tqdm

from nif_cli import NifError
from nif_cli.data.shapes.conditioning import load_look
from nif_cli.data.shapes.observations import keep_half, observe_mesh, show, thin
from nif_cli.data.shapes.samples import ImageFiles, Known, Observation
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
