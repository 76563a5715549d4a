"""What runs in a process of its own: COLMAP, through pycolmap. It may end its process, writes to standard
error as it likes and does not hear Ctrl-C; so none of it happens where nif itself runs. This file imports
neither torch nor anything of nif's."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import Any

SURE = 20  # images of a camera from which its principal point can be told from a turn
ASIDE = 0.05  # how far from the middle of the image it may be, as a part of its side
_steps: Any = None


def start(steps: Any) -> None:
    """Once in the process; `steps` is a queue that hears of each image that is placed."""
    global _steps
    import pycolmap

    _steps = steps
    pycolmap.logging.minloglevel = 3
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def features(
    database: str, images: str, names: list[str], camera: int | None, keys: dict[str, Any], masks: str | None
) -> None:
    """SIFT features of images of one camera: a new one, or the database's with that number."""
    import pycolmap

    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = keys["lens"]
    if camera is not None:
        reader.existing_camera_id = camera
    if masks is not None:
        reader.mask_path = masks
    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size, options.num_threads, options.use_gpu = keys["size"], keys["threads"], False
    options.sift.max_num_features = keys["features"]
    mode = pycolmap.CameraMode.SINGLE
    pycolmap.extract_features(database, images, names, mode, reader, options)


def matches(database: str, pairs: list[tuple[str, str]], keys: dict[str, Any]) -> None:
    """Matches of pairs of images, verified by two-view geometry."""
    import pycolmap

    options = pycolmap.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = keys["threads"], False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = keys["seed"]
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "pairs.txt")
        listed.write_text("".join(f"{a} {b}\n" for a, b in pairs))
        pairing = pycolmap.ImportedPairingOptions()
        pairing.match_list_path = str(listed)
        pycolmap.match_image_pairs(database, options, pairing, verification)


def mapping(database: str, images: str, output: str, keys: dict[str, Any]) -> list[dict[str, Any]]:
    """Cameras and points, found image by image; each model in output/<number>, and what there is to say of
    it."""
    import pycolmap

    pycolmap.set_random_seed(keys["seed"])
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed, options.num_threads = keys["seed"], keys["threads"]
    options.min_model_size, options.max_num_models = 3, 10
    found = pycolmap.incremental_mapping(
        database, images, output, options, next_image_callback=lambda: _steps.put(1)
    )
    return [_described(str(Path(output, str(k))), model) for k, model in found.items()]


def with_principal_points(model: str) -> dict[str, Any]:
    """A model with the principal points of its cameras found too, where each has images enough and they stay
    about the middle; as `mapping` describes it."""
    import pycolmap

    read = pycolmap.Reconstruction(model)
    used = [image.camera_id for image in read.images.values() if image.has_pose]
    if min(used.count(id) for id in set(used)) < SURE:
        return _described(model, read)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point, options.print_summary = True, False
    pycolmap.bundle_adjustment(read, options)
    for camera in (read.cameras[id] for id in set(used)):
        x, y = camera.principal_point_x / camera.width, camera.principal_point_y / camera.height
        if max(abs(x - 0.5), abs(y - 0.5)) > ASIDE:
            return _described(model, pycolmap.Reconstruction(model))
    read.update_point_3d_errors()
    read.write_binary(model)
    return _described(model, read)


def _described(folder: str, model: Any) -> dict[str, Any]:
    placed = [image for image in model.images.values() if image.has_pose]
    return {
        "folder": folder,
        "images": {image.name: int(image.num_points3D) for image in placed},
        "points": int(model.num_points3D()),
        "error": float(model.compute_mean_reprojection_error()),
        "track": float(model.compute_mean_track_length()),
    }


def moved(
    model: str, output: str, ply: str, scale: float, rotation: list[list[float]], translation: list[float]
) -> None:
    """A model in other coordinates (scale * rotation @ x + translation), written to a folder that is there,
    its points as PLY too."""
    import numpy as np
    import pycolmap

    read = pycolmap.Reconstruction(model)
    turn = pycolmap.Rotation3d(np.asarray(rotation))
    read.transform(pycolmap.Sim3d(scale, turn, np.asarray(translation)))
    read.write_binary(output)
    read.export_PLY(ply)
