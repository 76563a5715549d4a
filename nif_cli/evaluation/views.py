"""nif evaluate, of radiance fields: held-out images against what the run sees from their cameras."""

from __future__ import annotations

import time
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from nif_cli import NifError, runs
from nif_cli.data.datamodule import Data
from nif_cli.data.scenes.datamodule import Views
from nif_cli.data.scenes.poses import normalised
from nif_cli.data.scenes.scene import Scene, View
from nif_cli.evaluation.report import write_report
from nif_cli.files import safe_name, write
from nif_cli.hints import did_you_mean
from nif_cli.metrics.image import IMAGE_METRICS, compare_images
from nif_cli.metrics.view_protocols import VIEW_PROTOCOLS, ViewProtocol
from nif_cli.models.model import Model
from nif_cli.progress import busy, watched
from nif_cli.rendering.image_files import displayed, png_bytes, sheet
from nif_cli.rendering.volume import RadianceField
from nif_cli.schemas import Evaluate

UNITS = {name: f"{metric.unit}, mean over views" for name, metric in IMAGE_METRICS.items()}


def evaluate_views(config: Evaluate, run: Path, model: Model, data: Data) -> None:
    """PSNR and SSIM of the views of a split; the report is written, and each image beside its truth."""
    assert isinstance(data, Views)
    device, began = runs.device_for(config.device), time.monotonic()
    with busy("reading its views"):
        pairs = _pairs(model, data.prepare())
    if config.instances is not None:
        chosen = runs.select([known.id for known, _ in pairs], config.instances)
        pairs = [p for p in pairs if p[0].id in chosen]
    split = config.split or "test"
    if split not in ("train", "test"):
        raise NifError(f"split={split}: a scene has train and test views")
    for known, read in pairs:  # before anything takes time
        views = chosen_views(read, split, config.views)
        size = views[0].camera
        print(f"{known.id}: {len(views)} {split} views of {size.width} x {size.height} pixels", flush=True)
    names = list(dict.fromkeys(config.protocol or [known.protocol for known, _ in pairs]))
    folder = runs.output_path(config.output, run / "evaluation").with_suffix("")
    report: dict[str, Any] = {}
    for name in names:
        protocol, scenes = VIEW_PROTOCOLS[name], {}
        for known, read in pairs:
            if config.protocol is None and known.protocol != name:
                continue
            shown = (
                replace(known, background=protocol.background or known.background)
                if known.background
                else known
            )
            views = chosen_views(read, split, config.views)
            scenes[known.id] = _scene(model, shown, read, views, folder, device)
        report[name] = _summary(name, protocol, scenes)
        _print(report[name])
    about = {"run": str(run), "checkpoint": config.checkpoint, "split": split, "images": str(folder)}
    path = write_report({"protocol": report, **about}, config.output, run, began)
    print(f"\nimages beside the truth: {folder}\n{path}")


def _pairs(model: Model, scenes: list[Scene]) -> list[tuple[Scene, Scene]]:
    """The run's scenes, each with that of the data: by id, or the one with the one."""
    known = [i.scene for i in model.instances.values() if i.scene is not None]
    if len(known) == len(scenes) == 1:
        return [(known[0], scenes[0])]
    by_id = {s.id: s for s in scenes}
    pairs = [(k, by_id[k.id]) for k in known if k.id in by_id]
    if not pairs:
        raise NifError(
            f"no scene of the run ({known[0].id}, ...) is in its data ({scenes[0].id}, ...): give data="
        )
    return pairs


def chosen_views(read: Scene, split: str, spec: int | str | list[Any] | None) -> list[View]:
    """The views of a split that `views=` names, in their order: names (the last part will do), globs, or a
    count (so many, evenly spread); None is all."""
    views = list(getattr(read, split))
    if not views:
        raise NifError(
            f"{read.id}: it has no {split} views"
            + ("; split=train has the others" if split == "test" else "")
        )
    names = [v.name for v in views]
    if spec is None or spec == "all":
        return views
    if isinstance(spec, int) or (isinstance(spec, str) and spec.isdigit() and spec not in names):
        if int(spec) < 1:
            raise NifError(f"views={spec}: at least 1")
        few = np.linspace(0, len(views) - 1, min(int(spec), len(views))).round().astype(int)
        return [views[k] for k in few]
    chosen: set[str] = set()
    for pattern in map(str, spec if isinstance(spec, list) else [spec]):
        found = [n for n in names if pattern in (n, n.rpartition("/")[2])] or [
            n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n.rpartition("/")[2], pattern)
        ]
        if not found:
            raise NifError(
                f"views: no '{pattern}' among the {split} views{did_you_mean(pattern, names[:20])}"
            )
        chosen.update(found)
    if not chosen:
        raise NifError("views=[]: give names, globs or a count")
    return [v for v in views if v.name in chosen]


def _scene(
    model: Model, known: Scene, read: Scene, views: list[View], folder: Path, device: torch.device
) -> dict[str, dict[str, float | list[int]]]:
    """PSNR and SSIM of each view; the images are written beside their truth."""
    with busy(f"{known.id}: opening"):
        field = cast("RadianceField", model.field(known.id))
    found, images = {}, []
    place = folder / safe_name(known.id)
    for view in watched(views, known.id, "view"):
        truth, valid = true_image(view, known.background)
        moved = replace(view, pose=_moved(view, read, known))
        made = displayed(known.photograph(field, moved, device).color)
        write(place / f"{safe_name(view.name)}.png", png_bytes(made))
        write(place / f"{safe_name(view.name)}_truth.png", png_bytes(truth))
        images += [made, truth]
        a, b = (torch.from_numpy(x).float() / 255 for x in (made, truth))
        metrics: dict[str, Any] = {**compare_images(a, b, valid)}
        found[view.name] = metrics | {"size": [view.camera.width, view.camera.height]}
    if len({p.shape for p in images}) == 1:
        few = [
            2 * i + j
            for i in np.linspace(0, len(views) - 1, min(6, len(views))).round().astype(int)
            for j in (0, 1)
        ]
        write(place / "overview.png", png_bytes(sheet([images[i] for i in few], 4 if len(few) > 2 else 2)))
    return found


def true_image(view: View, background: str | None) -> tuple[np.ndarray, Bool[Tensor, "H W"] | None]:
    """The image on the background, as bytes [H, W, 3], and which pixels count."""
    pixels = view.pixels.float() / 255
    color: Float[Tensor, "H W 3"] = pixels[..., :3]
    if pixels.shape[2] == 4:
        behind = 0.0 if background in (None, "black") else 1.0
        color = color * pixels[..., 3:] + behind * (1 - pixels[..., 3:])
    return displayed(color), view.valid


def _moved(view: View, read: Scene, known: Scene) -> Float[Tensor, "3 4"]:
    """The pose of a view of the data in the run's normalised space: the user's world is the same."""
    if read.transform == known.transform:
        return view.pose
    pose = view.pose.double().numpy()
    world = np.concatenate([pose[:, :3], read.transform.to_original(pose[:, 3])[:, None]], 1)
    return normalised(world, known.transform)


def _summary(name: str, protocol: ViewProtocol, scenes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the views of each scene, and over scenes."""
    sizes = sorted({tuple(m.pop("size")) for views in scenes.values() for m in views.values()})
    instances: dict[str, dict[str, float]] = {}
    for id, views in scenes.items():
        each = [m for m in UNITS if all(m in v for v in views.values())]
        instances[id] = {m: float(np.mean([v[m] for v in views.values()])) for m in each}
    metrics = [m for m in UNITS if all(m in i for i in instances.values())]
    columns = {m: [i[m] for i in instances.values()] for m in metrics}
    other = "" if set(sizes) <= set(protocol.sizes) else "@" + ",".join(f"{w}x{h}" for w, h in sizes[:3])
    return {
        "mean": {m: float(np.mean(v)) for m, v in columns.items()},
        "median": {m: float(np.median(v)) for m, v in columns.items()},
        "instances": instances,
        "views": scenes,
        "measured": (
            f"{name}{other}, {sum(map(len, scenes.values()))} views, on "
            f"{protocol.background or 'their own'} background"
        ),
        "published": protocol.published,
        "units": UNITS,
        "left_out": ["lpips"],
    }


def _print(part: dict[str, Any]) -> None:
    print(f"\n{part['measured']} (published numbers: {part['published']})")
    several = len(part["instances"]) > 1
    for id, metrics in [*part["instances"].items(), *([("mean", part["mean"])] if several else [])]:
        psnrs = {name: v["psnr"] for name, v in part["views"].get(id, {}).items()}
        worst = f"  worst {min(psnrs.values()):.2f} {min(psnrs, key=lambda n: psnrs[n])}" if psnrs else ""
        print(f"  {id:<20}  psnr {metrics['psnr']:.2f}  ssim {metrics.get('ssim', float('nan')):.4f}{worst}")
    print("  left out: lpips (it needs the weights of a network, which nif does not bring)")
