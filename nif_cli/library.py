"""nif from Python: `run = nif_cli.load("outputs/...")`, then fields, meshes and images of what it has
learned, in the units of the files that it learned from. docs/python.md is the guide."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from dataclasses import field as made_by
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import trimesh
from torch import Tensor

from nif_cli import NifError, runs
from nif_cli.cli import run_command
from nif_cli.commands.evaluate import evaluate_run
from nif_cli.commands.render_views import views_of
from nif_cli.config import typed
from nif_cli.data.images.datamodule import ImageData
from nif_cli.data.images.folder import lies
from nif_cli.field import Field, Signal
from nif_cli.field import evaluate as values_of
from nif_cli.geometry.transform import Transform
from nif_cli.inference.images import adapted
from nif_cli.inference.meshes import made_mesh
from nif_cli.inference.shapes import check_kind, given_as, infer, like_what, seen_of
from nif_cli.inference.upright import up_axis_of
from nif_cli.models.metasdf import MetaSdf
from nif_cli.models.model import Model
from nif_cli.rendering.camera_paths import turntable
from nif_cli.rendering.image_files import RgbImage, displayed
from nif_cli.rendering.images import image_size, image_values, plane_image, surface_image
from nif_cli.schemas import Reconstruct
from nif_cli.words import as_words

Points = TypeVar("Points", np.ndarray, Tensor)


@dataclass
class Shape:
    """One instance of a run: a field and where it lies in its user's units. What is not learned from a file
    (`between`, `sample`) lies where its neighbours do, or in normalised space."""

    id: str
    field: Field | Signal
    """In normalised space; see nif_cli.field."""
    transform: Transform
    """From the user's units to normalised space."""
    device: torch.device
    run: Run
    report: dict[str, Any] = made_by(default_factory=dict)
    """What inferring it took (loss, steps, seconds, ...), where it was inferred."""

    def value(self, points: Points) -> Points:
        """How far inside the surface points (the user's units, [..., 3]) are: [...], positive inside, 0 on
        it. Of signed distance fields a length in the user's units, as far as they know it (the field's
        `truncation`); of occupancy the logit, of a radiance field the density (1 / the user's unit) less
        that of its surface. Arrays give float32 arrays; tensors give tensors, with gradients where the
        points have them."""
        surface = self._surface()
        level, unit = surface.level, self._unit(surface)

        def value(x: Tensor) -> Tensor:
            return (surface.value(x) - level) * unit

        if isinstance(points, Tensor):
            return value(self._normalised(points))
        x = self._normalised(torch.from_numpy(np.array(points, np.float64)))
        found = (values_of(surface, x.reshape(-1, x.shape[-1])) - level) * unit
        return found.cpu().numpy().reshape(x.shape[:-1])

    def gradient(self, points: Points) -> Points:
        """The derivative of `value` by the points [..., 3]: it points inwards, and of a signed distance has
        length 1."""
        is_tensor = isinstance(points, Tensor)
        given = points if is_tensor else torch.from_numpy(np.asarray(points, np.float64)).to(self.device)
        shape, parts = given.shape, []
        for part in given.detach().reshape(-1, shape[-1]).split(2**14):
            with torch.enable_grad():
                x = part.requires_grad_(True)
                (found,) = torch.autograd.grad(self.value(x).sum(), x)
            parts.append(found)
        made = torch.cat(parts).reshape(shape) if parts else torch.zeros_like(given)
        return made if is_tensor else made.float().cpu().numpy()  # type: ignore[return-value]

    def inside(self, points: Points) -> Points:
        """Whether points [..., 3] are inside: bool [...]."""
        return self.value(points) > 0  # type: ignore[return-value]

    def mesh(self, resolution: int = 128, **keys: Any) -> trimesh.Trimesh:
        """The surface, by `resolution` grid points along a side, in the user's units; the other keys of
        nif extract (level, bounds, largest, faces, refine, normals, frame, method) too. NifError where there
        is no surface."""
        surface = self._surface()
        if surface.bounds.shape[1] == 2:
            raise NifError(f"{self.id}: lies in the plane and has no mesh; nif extract writes its curves")
        config = typed({**keys, "resolution": resolution}, "extract")
        known = self.run.model.instances.get(self.id)
        scene = None if known is None else known.scene
        mesh, _ = made_mesh(self.id, surface, self.transform, config, self.device, scene)
        if not len(mesh.faces):
            raise NifError(f"{self.id}: no surface at this level: train longer, or another level=")
        return mesh

    def image(
        self, size: int | None = None, *, azimuth: float = 30.0, elevation: float = 20.0, up: str = "y"
    ) -> RgbImage:
        """uint8 [H, W, 3 or more]: a surface from a camera at these angles (degrees), `size` pixels a side
        (256); a learned image with `size` along its longest side, or its own; of a scene, see
        `Run.render`."""
        if not isinstance(self.field, Field):
            width, height = image_size(self.transform)
            scale = 1.0 if size is None else size / max(width, height)
            shape = (max(1, round(width * scale)), max(1, round(height * scale)))
            values = image_values(self.field, self.transform, (0, 0, width, height), shape, self.device)
            return (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy()
        if self.field.bounds.shape[1] == 2:
            return plane_image(self.field, size or 256, self.device)
        try:
            pose = turntable(1, elevation, up, azimuth=azimuth)[0]
        except ValueError as error:
            raise NifError(f"image: {error}") from error
        return surface_image(self.field, pose, size or 256, self.device, shadows=True)

    def _surface(self) -> Field:
        if not isinstance(self.field, Field):
            raise NifError(f"{self.id}: an image, which has no surface; .image() gives it back")
        return self.field

    def _unit(self, surface: Field) -> float:
        """What a value of the field is in the user's units: distances are lengths, densities are inverse
        lengths, logits have no unit."""
        known = self.run.model.instances.get(self.id)
        if known is not None and known.scene is not None:
            if known.scene.ndc is not None:
                raise NifError(f"{self.id}: a forward-facing scene in NDC, which have no unit; use .field")
            return self.transform.scale
        return 1 / self.transform.scale if surface.truncation > 0 else 1.0

    def _normalised(self, points: Tensor) -> Tensor:
        dim = self.field.bounds.shape[1]
        if points.dim() < 1 or points.shape[-1] != dim:
            raise NifError(f"{self.id}: points {list(points.shape)}; must be [..., {dim}]")
        offset = torch.tensor(self.transform.offset[:dim], dtype=torch.float64, device=points.device)
        return ((points.double() + offset) * self.transform.scale).float().to(self.device)


@dataclass
class Run:
    """A finished run, opened for use. Ids are those of its instances; `run[id]` is one of them."""

    path: Path
    model: Model
    device: torch.device
    checkpoint: str = "last"

    def __repr__(self) -> str:
        return f"<nif run {self.path}: {type(self.model).__name__}, {len(self.ids)} instances>"

    @property
    def ids(self) -> list[str]:
        return list(self.model.instances)

    @property
    def config(self) -> dict[str, Any]:
        """The configuration that made it."""
        return self.model.config

    def __getitem__(self, id: str) -> Shape:
        name = id if id in self.model.instances else runs.select(self.ids, [id])[0]
        return Shape(name, self.model.field(name), self.model.instances[name].transform, self.device, self)

    def field(self, id: str) -> Field | Signal:
        """The field in normalised space."""
        return self[id].field

    def value(self, id: str, points: Points) -> Points:
        """See `Shape.value`."""
        return self[id].value(points)

    def gradient(self, id: str, points: Points) -> Points:
        """See `Shape.gradient`."""
        return self[id].gradient(points)

    def mesh(self, id: str, resolution: int = 128, **keys: Any) -> trimesh.Trimesh:
        """See `Shape.mesh`."""
        return self[id].mesh(resolution, **keys)

    def image(self, id: str, size: int | None = None, **angles: Any) -> RgbImage:
        """See `Shape.image`."""
        return self[id].image(size, **angles)

    def between(self, a: str, b: str, t: float) -> Shape:
        """A shape on the way from a (t = 0) to b (t = 1)."""
        first, second = (self.model.instances[self[id].id] for id in (a, b))
        made = self.model.between(first.id, second.id, float(t))
        place = first.transform.towards(second.transform, float(t))
        return Shape(f"{first.id}--{second.id}", made, place, self.device, self)

    def sample(self, count: int, seed: int = 0) -> list[Shape]:
        """New shapes, drawn from what the run has learned; in normalised space."""
        made = self.model.sample(count, seed)
        return [Shape(f"sample{k:03d}", one, Transform(), self.device, self) for k, one in enumerate(made)]

    def infer(self, what: trimesh.Trimesh | np.ndarray | str | Path, **keys: Any) -> Shape:
        """A new shape from what is seen of it: a mesh, points [N, 3] or points with outward unit normals
        [N, 6], or a file that nif reconstruct reads. The keys are those of nif reconstruct (observe, points,
        noise, keep, steps, restarts, seed, normalise, turn_normals)."""
        config = typed(
            {**keys, "input": str(what) if isinstance(what, str | Path) else "given"}, "reconstruct"
        )
        check_kind(self.model, config)
        if isinstance(self.model, MetaSdf) and self.model.learns is ImageData:
            return self._adapted(self.model, what, config)
        given = given_as(what)
        if config.turn_normals:
            given.turn()
        like = like_what(config.normalise, self.model)
        seen, transform = seen_of(given, self.model, config, like, 0)
        (made,) = infer(self.model, [seen], config)
        return Shape(given.name, made.field, transform, self.device, self, made.report)

    def _adapted(self, model: MetaSdf, what: Any, config: Reconstruct) -> Shape:
        """An image, from some of its pixels."""
        if not isinstance(what, str | Path):
            raise NifError("infer: this run learns images; give the file of one")
        path, failed = Path(what).expanduser(), list[NifError]()
        found = list(adapted(config, model, {path.stem: path}, failed))
        if failed:
            raise failed[0]
        ((id, _, pixels, made),) = found
        return Shape(id, made.field, lies(pixels), self.device, self, made.report)

    def render(self, id: str, **keys: Any) -> list[RgbImage]:
        """uint8 images [H, W, 3] of a shape from a circle of cameras, or of a scene from the cameras that the
        keys of nif render name (camera, path, frames, size, elevation, up)."""
        config = typed({"frames": 8, **keys}, "render")
        shape = self[id]
        scene = self.model.instances[shape.id].scene
        if scene is None:
            surface = shape._surface()
            up = up_axis_of(surface, self.device)[0] if config.up == "auto" else config.up
            poses = turntable(config.frames, config.elevation, up)
            return [
                surface_image(surface, p, config.size or 256, self.device, config.antialias) for p in poses
            ]
        _, views, near, _ = views_of(scene, config)
        radiance: Any = shape.field
        return [displayed(scene.photograph(radiance, v, self.device, near=near).color) for v in views]

    def evaluate(self, **keys: Any) -> dict[str, Any]:
        """What nif evaluate reports, by its keys (protocol, split, instances, resolution, ...): the content
        of evaluation.json, which is written only where `output` says."""
        with tempfile.TemporaryDirectory() as folder:
            output = Path(keys.get("output") or Path(folder) / "evaluation.json").expanduser()
            config = typed({**keys, "run": str(self.path), "output": str(output)}, "evaluate")
            with redirect_stdout(io.StringIO()):
                evaluate_run(config, self.path, self.model, self.device)
            return json.loads(output.read_text())


def load(run: str | Path = "latest", checkpoint: str = "last", device: str = "auto") -> Run:
    """A run by its folder, or the latest below ./outputs. NifError where there is none."""
    path, where = runs.find(str(run)), runs.device_for(device)
    return Run(path, runs.load_model(path, checkpoint, where), where, checkpoint)


def train(overrides: Mapping[str, Any] | Iterable[str] = (), /, *, quiet: bool = False, **keys: Any) -> Run:
    """Train as `nif train` does, and open the run: `train(["model=sdf", "data.path=bunny.obj"])`, or
    `train({"model": "sdf", "data.path": "bunny.obj", "trainer": {"max_steps": 100}})`, or by keywords.
    `quiet` prints nothing. NifError says what is wrong; Ctrl-C saves first, then is a KeyboardInterrupt."""
    words = [*(as_words(overrides) if isinstance(overrides, Mapping) else overrides), *as_words(keys)]
    if any(word in ("-m", "--multirun") for word in words):
        raise NifError("train: one run at a time; a sweep is started from the shell (nif train -m)")
    with open(os.devnull, "w") as nowhere:
        out, err = (redirect_stdout(nowhere), redirect_stderr(nowhere)) if quiet else (nullcontext(),) * 2
        with out, err:
            folder = run_command("train", list(words))
    return load(folder)
