"""Cameras of photographs by structure from motion: features, matches and an incremental reconstruction, by
COLMAP (Schoenberger and Frahm 2016) through pycolmap. What is in the database is not done again."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from nif_cli import NifError
from nif_cli.data.scenes import colmap_process
from nif_cli.data.scenes.photo_folder import Photo, by_lens
from nif_cli.progress import TELL, watched
from nif_cli.untrusted import one_line

EXHAUSTIVE = 200  # photographs up to which every pair is matched, and frames of a video
EXHAUSTIVE_FRAMES = 60
OVERLAP = 10  # of a sequence: each image with so many after it, with some farther on, and every tenth
PAIRS = 64  # that are matched in one go
FEW_FEATURES = 100
SEEN = 5  # points for each image, without which a model is none
VERIFIED = 15  # matches from which COLMAP takes a pair for one
TURNED = (5, 6)  # its names for two views that differ by a rotation (or show a plane)
STRETCH = 0.03  # how far a homography of a turn is from a rotation, at most
MANY = 10  # images from which a lens has all of its terms
LARGE = 2147483647  # by which COLMAP makes one number of two


@dataclass(frozen=True)
class Database:
    """What COLMAP's database knows."""

    cameras: dict[str, int]
    features: dict[str, int]
    pairs: dict[tuple[str, str], tuple[int, int]]
    """Inliers and configuration of each pair that was matched."""
    homographies: list[Float[np.ndarray, "3 3"]]
    """Of the pairs that a homography explains: pixels of one image to the other's, from the middle of each,
    as parts of its longer side."""

    def partners(self, name: str) -> int:
        """How many images an image has something in common with."""
        return sum(name in pair and inliers >= VERIFIED for pair, (inliers, _) in self.pairs.items())


def read_database(path: Path) -> Database:
    """NifError where it cannot be read."""
    if not path.is_file():
        return Database({}, {}, {}, [])
    try:
        with contextlib.closing(sqlite3.connect(path)) as file:
            images = file.execute("SELECT image_id, name, camera_id FROM images").fetchall()
            counts = dict(file.execute("SELECT image_id, rows FROM keypoints").fetchall())
            described = {i for (i,) in file.execute("SELECT image_id FROM descriptors")}
            columns = "pair_id, rows, config, H"
            rows = file.execute(f"SELECT {columns} FROM two_view_geometries").fetchall()
            sizes = file.execute("SELECT camera_id, width, height FROM cameras").fetchall()
    except sqlite3.Error as error:
        raise NifError(
            f"{path}: cannot be read as COLMAP's database ({one_line(error)}); remove it"
        ) from error
    names = {id: name for id, name, _ in images}
    units = {id: _unit(width, height) for id, width, height in sizes}
    of = {id: units.get(camera, np.eye(3)) for id, _, camera in images}
    pairs, homographies = {}, []
    for pair, inliers, config, h in rows:
        a, b = pair // LARGE, pair % LARGE
        first, second = sorted((names.get(a, ""), names.get(b, "")))
        pairs[first, second] = (inliers or 0, config or 0)
        if (
            config in TURNED
            and (inliers or 0) >= VERIFIED
            and h is not None
            and len(h) == 72
            and {a, b} <= of.keys()
        ):
            homographies.append(of[b] @ np.frombuffer(h).reshape(3, 3) @ np.linalg.inv(of[a]))
    done = {name: counts[id] for id, name in names.items() if id in counts and id in described}
    return Database({name: camera for _, name, camera in images}, done, pairs, homographies)


def _unit(width: int, height: int) -> Float[np.ndarray, "3 3"]:
    """From pixels to parts of the longer side, from the middle."""
    s = 1 / max(width, height)
    return np.array([[s, 0, -s * width / 2], [0, s, -s * height / 2], [0, 0, 1]])


def turns_only(database: Database) -> bool:
    """Whether images differ by turns of the camera alone, of which no depth can be known: homographies
    explain most pairs and, for one focal length, are rotations (Hartley 1994); those of a plane are not."""
    good = sum(inliers >= VERIFIED for inliers, _ in database.pairs.values())
    if not database.homographies or 2 * len(database.homographies) <= good:
        return False
    h, best = np.stack(database.homographies), np.inf
    for focal in np.geomspace(0.4, 4, 40):
        k = np.diag([focal, focal, 1.0])
        stretch = np.linalg.svd(np.linalg.inv(k) @ h @ k, compute_uv=False)
        best = min(best, float(np.median(stretch[:, 0] / np.maximum(stretch[:, 2], 1e-12))))
    return best < 1 + STRETCH


class Colmap:
    """COLMAP in a process of its own. `ask(function, *arguments)`: what a function of `colmap_process`
    answers."""

    def __init__(self, folder: Path):
        context = get_context("spawn")
        self.folder, self.steps = folder, context.SimpleQueue()
        self.pool = ProcessPoolExecutor(1, context, colmap_process.start, (self.steps,))

    def ask(
        self, function: Callable[..., Any], *arguments: Any, tell: Callable[[int], None] | None = None
    ) -> Any:
        future, count = self.pool.submit(function, *arguments), 0
        while True:
            try:
                return future.result(timeout=0.2)
            except NotYet:
                while not self.steps.empty():
                    count += self.steps.get()
                if tell is not None:
                    tell(count)
            except BrokenProcessPool as error:
                raise NifError(
                    "COLMAP's process died (out of memory, or killed); what it has found is kept, run the "
                    "command again"
                ) from error
            except (RuntimeError, ValueError, IndexError, OSError) as error:
                raise NifError(f"COLMAP: {one_line(error)}") from error

    def end(self) -> None:
        """At once: nothing of it is waited for."""
        for process in list((self.pool._processes or {}).values()):
            process.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def colmap(folder: Path) -> Iterator[Colmap]:
    """NifError without pycolmap."""
    if importlib.util.find_spec("pycolmap") is None:
        raise NifError("finding cameras needs pycolmap (COLMAP): pip install 'nif-cli[photos]'")
    running = Colmap(folder)
    try:
        yield running
    finally:
        running.end()


def find_features(
    running: Colmap, photos: list[Photo], keys: dict[str, Any], fisheye: bool, masks: Path | None
) -> None:
    """Into the database: one camera for the photographs of one lens."""
    file, images = running.folder / "database.db", running.folder.parent / "images"
    known = read_database(file)
    lens = {p.name: n for n, group in enumerate(by_lens(photos)) for p in group}
    sizes = [len(group) for group in by_lens(photos)]
    camera = {n: known.cameras[name] for name, n in lens.items() if name in known.cameras}
    missing = [name for name in lens if name not in known.features]
    missing.sort(key=lambda name: lens[name])
    waiting: list[str] = []
    for k, name in enumerate(watched(missing, "finding features", "image")):
        waiting.append(name)
        last = k + 1 == len(missing) or lens[missing[k + 1]] != lens[name]
        if len(waiting) == 2 * keys["threads"] or last:
            few = "SIMPLE_RADIAL" if sizes[lens[name]] < MANY else "OPENCV"
            asked = {**keys, "lens": "OPENCV_FISHEYE" if fisheye else few}
            arguments = (str(file), str(images), waiting, camera.get(lens[name]), asked)
            running.ask(colmap_process.features, *arguments, masks and str(masks))
            if lens[name] not in camera:
                there = read_database(file).cameras
                camera |= {lens[n]: there[n] for n in waiting if n in there}
            waiting = []


def pairs_of(names: Sequence[str], matching: str, video: bool) -> list[tuple[str, str]]:
    """The pairs to be matched: all of few images; of many, and of a video's frames, neighbours by name,
    farther ones at distances that double, and every tenth with every tenth, for walks that come back."""
    few = len(names) <= (EXHAUSTIVE_FRAMES if video else EXHAUSTIVE)
    if matching == "exhaustive" or (matching == "auto" and few):
        return list(itertools.combinations(sorted(names), 2))
    names = sorted(names)
    steps = {*range(1, OVERLAP + 1), *(2**k for k in range(len(names).bit_length()))}
    found = {(a, b) for step in steps for a, b in zip(names, names[step:], strict=False)}
    return sorted(found | set(itertools.combinations(names[::OVERLAP], 2)))


def find_matches(running: Colmap, pairs: list[tuple[str, str]], keys: dict[str, Any]) -> None:
    """Into the database, for the pairs that it does not have."""
    file = running.folder / "database.db"
    known = read_database(file).pairs
    missing, waiting = [pair for pair in pairs if pair not in known], []
    for k, pair in enumerate(watched(missing, "matching", "pair")):
        waiting.append(pair)
        if len(waiting) == PAIRS or k + 1 == len(missing):
            running.ask(colmap_process.matches, str(file), waiting, keys)
            waiting = []


def place_cameras(running: Colmap, output: Path, count: int, keys: dict[str, Any]) -> list[dict[str, Any]]:
    """The models that COLMAP makes of the database, in output/<number>, the one of most images first."""
    told = time.monotonic()

    def tell(placed: int) -> None:
        nonlocal told
        if time.monotonic() > told + TELL:
            told = time.monotonic()
            print(f"placing cameras: {min(placed, count):,} of {count:,} images", flush=True)

    file, images = running.folder / "database.db", running.folder.parent / "images"
    arguments = (str(file), str(images), str(output), keys)
    models = running.ask(colmap_process.mapping, *arguments, tell=tell)
    models = [m for m in models if m["points"] >= SEEN * len(m["images"])]  # a turn on the spot has none
    return sorted(models, key=lambda model: -len(model["images"]))


def why_none(database: Database) -> str:
    """Why no cameras could be found, and what would help."""
    counts = list(database.features.values())
    if not counts or np.median(counts) < FEW_FEATURES:
        usual = int(np.median(counts)) if counts else 0
        return (
            f"they show too little to hold on to (a median of {usual} features an image): blurred, dark, or "
            "of one colour"
        )
    good = [pair for pair, (inliers, _) in database.pairs.items() if inliers >= VERIFIED]
    alone = [name for name in database.features if not any(name in pair for pair in good)]
    if 2 * len(alone) >= len(database.features):
        return (
            f"{len(alone)} of {len(database.features)} show nothing in common with another one: photograph "
            "one thing, each image overlapping the one before by more than half"
        )
    if turns_only(database):
        return (
            "they differ by a turn only (no parallax): the camera must move sideways, not turn on the spot; "
            "walk around the thing"
        )
    return (
        "too little ties them together: photograph with more overlap, and steps aside of a tenth of the "
        "distance"
    )


def why_left_out(name: str, database: Database, others: list[dict[str, Any]]) -> str:
    """Why an image has no camera though others have."""
    for model in others:
        if name in model["images"]:
            return f"in another model of {len(model['images'])} images, which nothing ties to this one"
    count, partners = database.features.get(name, 0), database.partners(name)
    if count < FEW_FEATURES:
        return f"too little to hold on to ({count} features): blurred, dark, or of one colour"
    if not partners:
        return "shows nothing in common with another image"
    return f"too little in common with the images that have cameras (matches {partners} of them)"
