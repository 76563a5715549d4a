"""What the commands on new shapes share: what is shown of a shape, and fields inferred from it, many
together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import trimesh

from nif_cli import NifError
from nif_cli.data.shapes.conditioning import load_look
from nif_cli.data.shapes.observations import keep_half, observe_mesh, show, thin
from nif_cli.data.shapes.samples import ImageFiles, Known, Observation, Scan
from nif_cli.data.shapes.user_files import Input, input_files, normalise, read_inputs
from nif_cli.geometry.mesh import clean, load_mesh
from nif_cli.geometry.transform import SPACES, Transform
from nif_cli.models.model import Inferred, Model
from nif_cli.progress import Bar
from nif_cli.schemas import NewShapes


def check_kind(model: Model, config: NewShapes) -> None:
    """NifError unless the model infers new shapes, from the kind of observation that the user asks for."""
    name = type(model).__name__
    if not model.observes:
        model.infer([])  # says why not
    if config.observe is not None and config.observe not in model.observes:
        raise NifError(f"observe={config.observe}: {name} infers from {', '.join(model.observes)}")


def shown_to_model(
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


def given_as(what: trimesh.Trimesh | np.ndarray | str | Path) -> Input:
    """A shape as Python hands it over: a mesh, points [N, 3], points and unit normals [N, 6], or one file."""
    if isinstance(what, trimesh.Trimesh):
        return Input("mesh", clean(what.copy(), "infer"))
    if isinstance(what, str | Path):
        files = input_files(what)
        if len(files) != 1 or len(found := read_inputs(files[0], files[0].stem)) != 1:
            raise NifError(f"{what}: several shapes; infer takes one, nif reconstruct takes many")
        return found[0][1]()
    points = np.asarray(what, np.float64)
    if points.ndim != 2 or points.shape[1] not in (3, 6) or not np.isfinite(points).all():
        raise NifError(
            f"infer: an array {list(points.shape)}: must be points [N, 3], or points with unit normals "
            "[N, 6], all finite"
        )
    normals = points[:, 3:] if points.shape[1] == 6 else None
    if normals is not None and not np.allclose(np.linalg.norm(normals, axis=1), 1, atol=0.02):
        raise NifError("infer: columns 4 to 6 are no normals (their lengths are not 1)")
    return Input("points", seen=Known(scan=Scan(points[:, :3], normals)))


def seen_of(
    given: Input, model: Model, config: NewShapes, like: Transform | None, number: int
) -> tuple[Observation, Transform]:
    """What a model is shown of a shape that a user gives, and the transform from the user's units to the
    model's normalised space: `like` that of another shape, or the input's own."""
    as_it_is = getattr(config, "normalise", "auto") == "none"
    if as_it_is:
        given.space, given.transform = model.space, Transform()
    one, transform = normalise(given, model.space, None if as_it_is else like)
    return shown_to_model(model, config, one.seen, one.mesh, number), transform


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
    with Bar(len(seen), "infer", "shape") as bar:
        for start in range(0, len(seen), config.together):
            part = seen[start : start + config.together]
            yield from model.infer(part, seed=config.seed, **options)
            bar.update(len(part))
