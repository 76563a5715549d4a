"""Frames of a video: which are taken, and what is said of files that are none."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nif_cli import NifError
from nif_cli.data.scenes import video

SIZE = (160, 120)


def filmed() -> list[np.ndarray]:
    """A window that wanders over noise; it stands still in frames 20 to 31, and 40 to 47 are blurred."""
    noise = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    wall = Image.fromarray(noise).resize((720, 560), Image.Resampling.BICUBIC)
    frames = []
    for k in range(60):
        x = 6 * min(k, 20) + 6 * max(0, k - 31)
        image = wall.crop((x, x, x + SIZE[0], x + SIZE[1]))
        if 40 <= k < 48:
            image = image.filter(ImageFilter.GaussianBlur(6))
        frames.append(np.asarray(image))
    return frames


def test_frames_are_sharp_spread_and_differ():
    grey = [np.asarray(Image.fromarray(f).convert("L")).astype(np.float32) for f in filmed()]
    sharpness = np.array([video.sharpness_of(g) for g in grey])
    chosen = video.choose(sharpness, [g[::8, ::8].astype(np.float16) for g in grey], 15)
    assert chosen.of == 60
    assert chosen.blurred == 2
    assert chosen.doubles == 2
    assert len(chosen.frames) == 11
    assert not {*range(40, 48)} & set(chosen.frames)
    assert sum(20 <= k <= 31 for k in chosen.frames) == 1
    every = video.choose(sharpness, [g[::8, ::8].astype(np.float16) for g in grey], 1000)
    assert set(every.frames) == {*range(21), *range(32, 40), *range(48, 60)}


def test_frames_of_a_file(tmp_path: Path):
    av = pytest.importorskip("av")
    path, frames = tmp_path / "walk.mp4", filmed()
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.bit_rate = *SIZE, 4_000_000
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        file.mux(stream.encode())
    chosen = video.sharp_frames(path, 15)
    assert (chosen.of, chosen.blurred) == (60, 2)
    video.take(path, chosen.frames, tmp_path / "frames")
    taken = sorted((tmp_path / "frames").iterdir())
    assert [p.name for p in taken] == [video.frame_name(k) for k in chosen.frames]
    for image, k in zip(taken, chosen.frames, strict=True):
        assert np.abs(np.asarray(Image.open(image)).astype(int) - frames[k]).mean() < 12


@pytest.mark.parametrize("kind", ["noise", "empty", "sound"])
def test_what_is_no_video(nif: Callable, tmp_path: Path, kind: str):
    av = pytest.importorskip("av")
    path = tmp_path / "walk.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(5000) if kind == "noise" else b"")
    if kind == "sound":
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=44100)
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            sound.sample_rate = 44100
            file.mux(stream.encode(sound))
            file.mux(stream.encode())
    with pytest.raises(NifError, match=r"walk.mp4: (cannot be read as a video|no video)"):
        video.sharp_frames(path, 5)
    if importlib.util.find_spec("pycolmap") is not None:
        result = nif("prepare", f"input={path}", f"output={tmp_path / 'scene'}")
        assert result.code == 1
        assert len(result.error.splitlines()) == 1
    assert "nif prepare" in nif("train", str(path)).error


def test_without_pyav(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NifError, match=r"nif-cli\[photos\]"):
        video.sharp_frames(tmp_path / "walk.mp4", 5)
