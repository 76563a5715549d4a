"""The panel in which a camera path is made of views, shown and saved."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nif_cli import NifError, runs
from nif_cli.geometry.transform import Transform
from nif_cli.rendering.image_files import scaled
from nif_cli.schemas import ViewRuns
from nif_cli.viewer.camera_path import KeyFrame, camera_path_json, opengl_pose, sampled, viser_wxyz
from nif_cli.viewer.menu import Menu
from nif_cli.words import paste

FPS = 24


def stand(client: Any, frame: KeyFrame) -> None:
    """A client's camera where a key frame is."""
    if client is None:
        return
    with client.atomic():
        client.camera.wxyz = viser_wxyz(frame.pose)
        client.camera.position = frame.pose[:, 3]
        if frame.fov:
            client.camera.fov = math.radians(frame.fov)


class PathPanel:
    """`scene()` is the name of the scene that is shown, and its transform."""

    def __init__(self, server: Any, menu: Menu, config: ViewRuns, scene: Callable[[], tuple[str, Transform]]):
        self.server, self.menu, self.config, self.scene = server, menu, config, scene
        self.frames: list[KeyFrame] = []
        self._lock = threading.Lock()
        gui = server.gui
        with gui.add_folder("camera path"):
            self.listed = gui.add_markdown("no key frames")
            add, drop = gui.add_button("add this view"), gui.add_button("remove the last")
            self.seconds = gui.add_slider("seconds", 0.5, 30.0, 0.5, 4.0)
            play, save = gui.add_button("preview"), gui.add_button("save camera_path.json")
        add.on_click(lambda event: self._add(event.client))
        drop.on_click(lambda _: self._drop())
        play.on_click(lambda event: self._play(event.client))
        save.on_click(lambda event: self.save(event.client))

    def _add(self, client: Any) -> None:
        if client is None:
            return
        camera = client.camera
        frame = KeyFrame(opengl_pose(camera.wxyz, camera.position), math.degrees(float(camera.fov)))
        with self._lock:
            self.frames.append(frame)
        self._draw_path()

    def _drop(self) -> None:
        with self._lock:
            self.frames = self.frames[:-1]
        self._draw_path()

    def _draw_path(self) -> None:
        scene, frames = self.server.scene, list(self.frames)
        self.listed.content = f"{len(frames)} key frames" if frames else "no key frames"
        if scene.get_handle_by_name("/path"):
            scene.remove_by_name("/path")
        if len(frames) > 1:
            way = np.stack([f.pose[:, 3] for f in sampled(frames, 20 * len(frames))]).astype(np.float32)
            scene.add_line_segments("/path", np.stack((way[:-1], way[1:]), 1), (220, 90, 40))

    def _play(self, client: Any) -> None:
        frames = list(self.frames)
        if client is None or len(frames) < 2:
            return
        seconds = float(self.seconds.value)
        shots = sampled(frames, max(2, round(8 * seconds)))
        for shot in shots:
            if client.client_id not in self.server.get_clients():
                return
            stand(client, shot)
            time.sleep(seconds / len(shots))

    def save(self, client: Any) -> None:
        """The path as a file, in the run or where output= says, and what plays it."""
        frames, (name, transform) = list(self.frames), self.scene()
        if not frames:
            self.listed.content = "no key frames: turn the scene, then add this view"
            return
        path = self.menu.run.path
        if self.config.output is None and not path.is_dir():
            self.listed.content = f"{path}: the run is gone; output= names another folder"
            return
        folder = runs.output_path(self.config.output, path / "renders")
        file = folder / f"{runs.safe_name(name)}_camera_path.json"
        width, height = scaled(float(client.camera.aspect) if client else 16 / 9, 1.0, self.config.size)
        try:
            runs.write(
                file,
                camera_path_json(
                    frames,
                    transform,
                    float(self.seconds.value),
                    FPS,
                    (width + width % 2, height + height % 2),
                ),
            )
        except NifError as error:
            self.listed.content = str(error)
            return
        self.listed.content = f"{len(frames)} key frames, saved: `{played(path, file)}`"
        print(f"{file}  {len(frames)} key frames; {played(path, file)}", flush=True)


def played(run: Path, file: Path) -> str:
    """The command that plays a path."""
    return f"nif render {paste(f'run={run}')} camera=path {paste(f'path={file}')} format=mp4"
