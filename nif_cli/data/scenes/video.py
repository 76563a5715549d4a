"""Frames of a video for structure from motion: sharp ones, spread evenly, none twice. Read by PyAV."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from nif_cli import NifError
from nif_cli.data.scenes.photo_folder import sharpness_of
from nif_cli.files import write
from nif_cli.progress import watched
from nif_cli.untrusted import FREE_PIXELS, one_line, regular

LOOKED_AT = 320  # pixels of the longest side in which frames are compared
STILL = 1.0  # the mean difference of grey values (of 255) up to which the camera has not moved
BLURRED = 0.3  # sharpness below this share of the usual one
MOST = 200_000  # frames that are looked at: an hour and a half


@dataclass(frozen=True)
class Chosen:
    """Which frames of a video are taken, by number, and how many were left out."""

    frames: list[int]
    of: int
    blurred: int
    doubles: int


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The video and its stream. NifError for what is none."""
    if importlib.util.find_spec("av") is None:
        raise NifError("reading a video needs PyAV: pip install 'nif-cli[photos]'")
    import av
    import av.error

    regular(path, "video")
    try:
        with av.open(str(path)) as file:
            if not file.streams.video:
                raise NifError(f"{path}: no video is in this file")
            stream = file.streams.video[0]
            if stream.codec_context is None:
                raise NifError(f"{path}: a video of a codec that is not known")
            if stream.codec_context.width * stream.codec_context.height > FREE_PIXELS:
                raise NifError(f"{path}: frames of more than {FREE_PIXELS:,} pixels")
            stream.thread_type = "AUTO"
            yield file, stream
    except av.error.FFmpegError as error:
        raise NifError(f"{path}: cannot be read as a video: {one_line(error)}") from error


def sharp_frames(path: Path, count: int) -> Chosen:
    """The sharpest frame of each of `count` stretches of equal length, but for those that are blurred or show
    what the one before shows. NifError where there are no frames."""
    sharpness, small = [], []
    with _opened(path) as (file, stream):
        total = stream.frames or 0
        frames = file.decode(stream)
        for frame in watched(range(total), "looking at the video", "frame") if total else range(MOST):
            image = next(frames, None)
            if image is None or frame >= MOST:
                break
            grey = _grey(image)
            sharpness.append(sharpness_of(grey))
            small.append(grey[::8, ::8].astype(np.float16))
    if not sharpness:
        raise NifError(f"{path}: a video of no frames")
    return choose(np.array(sharpness), small, count)


def choose(sharpness: Float[np.ndarray, "F"], small: list[np.ndarray], count: int) -> Chosen:
    """By the sharpness and a small copy of each frame."""
    stretches = np.array_split(np.arange(len(sharpness)), min(count, len(sharpness)))
    best = [int(s[sharpness[s].argmax()]) for s in stretches]
    usual = float(np.median(sharpness[best]))
    sharp = [k for k in best if sharpness[k] >= BLURRED * usual]
    kept: list[int] = []
    for k in sharp:
        before = small[kept[-1]].astype(np.float32) if kept else None
        if before is None or float(np.abs(small[k] - before).mean()) > STILL:
            kept.append(k)
    return Chosen(kept, len(sharpness), len(best) - len(sharp), len(sharp) - len(kept))


def _grey(frame: Any) -> Float[np.ndarray, "H W"]:
    scale = min(1.0, LOOKED_AT / max(frame.width, frame.height))
    size = {"width": max(8, round(frame.width * scale)), "height": max(8, round(frame.height * scale))}
    return frame.reformat(**size, format="gray").to_ndarray().astype(np.float32)


def take(path: Path, frames: list[int], folder: Path) -> None:
    """These frames as JPEG, upright: frame_00000.jpg and so on, by number. Those that are there stay."""
    wanted = [k for k in frames if not (folder / frame_name(k)).is_file()]
    if not wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _opened(path) as (file, stream):
        here, last = set(wanted), max(wanted)
        decoded = file.decode(stream)
        for k in watched(range(last + 1), "taking frames", "frame"):
            frame = next(decoded, None)
            if frame is None:
                return
            if k in here:
                turn = round(getattr(frame, "rotation", 0) or 0)
                image = frame.to_image().rotate(turn, expand=True)
                write(folder / frame_name(k), lambda to, image=image: _saved(image, to))


def frame_name(frame: int) -> str:
    return f"frame_{frame:05d}.jpg"


def _saved(image: Image.Image, path: Path) -> None:
    image.save(path, "jpeg", quality=95, subsampling=0)
