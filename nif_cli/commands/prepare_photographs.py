"""nif prepare of photographs, or of a video: a scene with cameras out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nif_cli import NifError, __version__
from nif_cli.data.recognise import made_by_prepare, with_cameras, without_cameras
from nif_cli.data.scenes import colmap_process, found_cameras, photo_folder, video
from nif_cli.data.scenes import structure_from_motion as sfm
from nif_cli.data.scenes.cameras_sheet import cameras_sheet
from nif_cli.data.scenes.formats.colmap_model import read_binary_model
from nif_cli.data.scenes.photo_folder import Photo
from nif_cli.files import Claim, write
from nif_cli.rendering.image_files import png_bytes
from nif_cli.schemas import Prepare
from nif_cli.training.ending import ending
from nif_cli.words import paste

OF_PHOTOGRAPHS = ("matching", "lens", "feature_size", "mask", "frames")
OF_ANY = ("input", "output", "workers", "seed")
FEATURES = 4096  # of an image, at most: those of the largest scale
LEAST = 3


@dataclass
class Left:
    """What is not among the photographs, and what else is said of them."""

    out: dict[str, str]
    said: dict[str, Any]


def are_photographs(config: Prepare) -> bool:
    """Whether the input is photographs or a video. NifError for keys of the other kind."""
    kind = without_cameras(_input(config)) if isinstance(config.input, str) else None
    usual, given = asdict(Prepare()), asdict(config)
    if str((given["engine"] or {}).get("_target_", "")).endswith(".Local"):
        given["engine"] = usual["engine"]
    own = (*OF_ANY, *OF_PHOTOGRAPHS)
    other = [k for k in usual if given[k] != usual[k] and (k not in own if kind else k in OF_PHOTOGRAPHS)]
    if other:
        takes, what = ("meshes", "photographs or a video") if kind else ("photographs and videos", "meshes")
        value = str(given[other[0]].get("_target_")) if other[0] == "engine" else given[other[0]]
        raise NifError(f"{other[0]}={value}: for {takes}; input={config.input} is {what}")
    return kind is not None


def main(config: Prepare) -> None:
    source, output = _input(config), Path(config.output).expanduser()
    if source.is_dir() and (reading := with_cameras(source)):
        key = paste(f"{reading.key}={reading.path}")
        print(
            f"{source}: {reading.what}: none are looked for (input={source / 'images'} would look again), "
            f"nothing is written\nnext:\n  nif train model={reading.model} data={reading.data} {key}"
        )
        return
    inside = output.resolve() == source.resolve() or source.resolve() in output.resolve().parents
    if inside and source.is_dir():
        raise NifError(f"output={output}: lies in the input {source}; name a folder beside it")
    claim = Claim(output, f"output={output}")
    try:
        with ending():
            _prepare(config, source, output)
    finally:
        claim.abandon()


def _input(config: Prepare) -> Path:
    return Path(str(config.input)).expanduser()


def _prepare(config: Prepare, source: Path, output: Path) -> None:
    if any(p.name != ".lock" for p in output.iterdir()) and not made_by_prepare(output):
        raise NifError(f"output={output}: not empty, and not made by nif prepare; name a new folder")
    began, cores = time.monotonic(), _cores()
    with sfm.colmap(output / "colmap") as running:
        photos, left = _photographs(config, source, output)
        keys = {"size": config.feature_size, "features": FEATURES, "seed": config.seed}
        _enough(photos, left, source)
        settings = {"lens": config.lens, "matching": config.matching, **keys, "mask": config.mask}
        if _done_before(output, settings, photos):
            print(f"{output}: done before, of the same photographs\nnext:\n  nif train {paste(str(output))}")
            return
        photo_folder.place(photos, output / "images")
        keys["threads"] = config.workers or cores
        given = None if config.mask is None else Path(config.mask).expanduser()
        masks, hidden = photo_folder.place_masks(photos, given, output)
        sfm.find_features(running, photos, keys, config.lens == "fisheye", hidden)
        pairs = sfm.pairs_of([p.name for p in photos], config.matching, source.is_file())
        sfm.find_matches(running, pairs, keys)
        with tempfile.TemporaryDirectory(dir=output / "colmap", prefix=".models-") as models:
            database = sfm.read_database(output / "colmap" / "database.db")
            turns = sfm.turns_only(database)
            found = [] if turns else sfm.place_cameras(running, Path(models), len(photos), keys)
            if not found or len(found[0]["images"]) < LEAST:
                raise NifError(f"input={source}: no cameras found: {sfm.why_none(database)}")
            report = _scene(running, output, found, photos, masks)
    for photo in photos:
        if photo.name not in found[0]["images"]:
            left.out[photo.name] = sfm.why_left_out(photo.name, database, found[1:])
    _finish(output, report, photos, left, time.monotonic() - began)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _photographs(config: Prepare, source: Path, output: Path) -> tuple[list[Photo], Left]:
    if source.is_dir():
        return (found := photo_folder.photographs_of(source))[0], Left(found[1], {})
    chosen = video.sharp_frames(source, config.frames)
    size = source.stat()
    folder = output / "colmap" / "frames" / f"{size.st_size}-{size.st_mtime_ns}"
    if len(chosen.frames) >= LEAST:
        video.take(source, chosen.frames, folder)
    print(
        f"{source}: {len(chosen.frames)} of {chosen.of:,} frames are taken; left out as blurred "
        f"{chosen.blurred}, as showing the same {chosen.doubles}"
    )
    if len(chosen.frames) < LEAST:
        raise NifError(
            f"input={source}: {len(chosen.frames)} frames that differ, at least {LEAST} are needed"
        )
    photos, out = photo_folder.photographs_of(folder)
    names = {video.frame_name(k) for k in chosen.frames}
    left = {"frames": chosen.of, "blurred_frames": chosen.blurred, "doubled_frames": chosen.doubles}
    return [p for p in photos if p.name in names], Left(out, {"video": left})


def _enough(photos: list[Photo], left: Left, source: Path) -> None:
    if len(photos) >= LEAST:
        return
    why = next(iter(left.out.items()), None)
    more = f"; {len(left.out)} are left out (the first: {why[0]}: {why[1]})" if why else ""
    raise NifError(
        f"input={source}: {len(photos)} photographs, at least {LEAST} that differ are needed{more}"
    )


def _done_before(output: Path, settings: dict[str, Any], photos: list[Photo]) -> bool:
    """Whether an earlier command has finished. If not, what it has found is used if it is of the same
    photographs and settings (more photographs may have come); else it goes."""
    path = output / "colmap" / "photographs.json"
    now = {"settings": settings, "photographs": {p.name: [p.digest, p.lens] for p in photos}}
    now = json.loads(json.dumps(now))
    try:
        before = json.loads(path.read_text())
        known, these = before["photographs"], now["photographs"]
        same = before["settings"] == settings and all(these.get(name) == known[name] for name in known)
        finished = json.loads((output / "report.json").read_text())["finished"] is True
        if same and finished and len(known) == len(these) and (output / "transforms.json").is_file():
            return True
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        same = False
    if not same:
        for name in ("images", "sparse", "masks", "colmap/masks"):
            shutil.rmtree(output / name, ignore_errors=True)
        for file in (output / "colmap").glob("database.db*"):
            file.unlink()
        for name in ("transforms.json", "points.ply", "sheet.png"):
            (output / name).unlink(missing_ok=True)
    write(output / "report.json", json.dumps({"nif": __version__, "finished": False}) + "\n")
    write(path, json.dumps(now))
    return False


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder, in its place once it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield made
        made.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _scene(
    running: sfm.Colmap, output: Path, found: list[dict[str, Any]], photos: list[Photo], masks: dict[str, str]
) -> dict[str, Any]:
    """The best model, upright, as COLMAP's files, as transforms.json and as points; what there is to say."""
    best = found[0] = running.ask(colmap_process.with_principal_points, found[0]["folder"])
    _, posed, _ = read_binary_model(Path(best["folder"]))
    scale, rotation, translation, how = found_cameras.upright(np.stack([p.pose for p in posed]))
    with _replacing(output / "sparse" / "0") as folder:
        points = output / "colmap" / "points.ply"
        arguments = (best["folder"], str(folder), str(points), scale, rotation.tolist(), translation.tolist())
        running.ask(colmap_process.moved, *arguments)
    os.replace(points, output / "points.ply")
    cameras, posed, points = read_binary_model(output / "sparse" / "0")
    half = found_cameras.half_side(points)
    scene = found_cameras.transforms(cameras, posed, half, masks)
    write(output / "transforms.json", json.dumps(scene, indent=1) + "\n")
    lost = {p.name: "" for p in photos if p.name not in best["images"]}
    picture = cameras_sheet(output / "images", posed, lost, points, half)
    write(output / "sheet.png", png_bytes(picture))
    return {
        "registered": len(posed),
        "reprojection_error_pixels": round(best["error"], 3),
        "points": best["points"],
        "mean_track_length": round(best["track"], 2),
        "box_half_side": half,
        "up": how,
        "cameras": {str(k): found_cameras.lens(c) for k, c in cameras.items()},
        "span_degrees": found_cameras.spanned(posed),
        "points_of_images": best["images"],
        "other_models": [sorted(model["images"]) for model in found[1:]],
    }


def _finish(output: Path, report: dict[str, Any], photos: list[Photo], left: Left, seconds: float) -> None:
    """report.json, and what is printed."""
    blurred = [n for n in photo_folder.blurred(photos) if n in report["points_of_images"]]
    span, count = report["span_degrees"], report["registered"]
    advice = found_cameras.advice(span, report["points_of_images"], left.out, blurred)
    head = {
        "nif": __version__,
        "finished": True,
        "of": len({p.name for p in photos} | set(left.out)),
        **left.said,
    }
    tail = {
        "left_out": left.out,
        "blurred": blurred,
        "more_photographs": advice,
        "seconds": round(seconds, 1),
    }
    write(output / "report.json", json.dumps({**head, **report, **tail}, indent=1) + "\n")
    for name, why in list(left.out.items())[:10]:
        print(f"left out: {name}: {why}")
    if len(left.out) > 10:
        print(f"left out: {len(left.out) - 10} more, in report.json")
    for model in report["other_models"][:3]:
        print(f"another model: {len(model)} images, from {model[0]} to {model[-1]}, is not used")
    around = f", {span['around']:.0f} degrees around" if "around" in span else ""
    lenses = len(report["cameras"])
    print(
        f"{count} of {head['of']} photographs have cameras ({lenses} lens{'es' * (lenses > 1)}), error "
        f"{report['reprojection_error_pixels']:g} pixels, {report['points']:,} points seen by "
        f"{report['mean_track_length']:g} images each{around}; up is {report['up']}"
    )
    for line in advice:
        print(f"to photograph: {line}")
    print(
        f"{seconds:.0f} s: {output}, {output / 'report.json'}, {output / 'sheet.png'}\n"
        f"next:\n  nif train {paste(str(output))}"
    )
