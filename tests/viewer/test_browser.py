"""nif view in a real browser: chromium, driven by playwright, drawing in software."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


@pytest.fixture
def page() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        made = browser.new_page(viewport={"width": 1000, "height": 700})
        made.set_default_timeout(90_000)
        yield made
        browser.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """`serve(*words)`: a process of nif view, and where it listens."""
    pytest.importorskip("viser")
    started: list[subprocess.Popen] = []

    def start(*words: str) -> tuple[subprocess.Popen, str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "nif_cli", "view", *words, f"port={port}", "device=cpu", "seconds=300"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("http://"), line + process.stderr.read() if process.stderr else line
        return process, line.split()[0]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def look(page: Any) -> np.ndarray:
    """What is left of the panel, as an array."""
    box = {"x": 0, "y": 160, "width": 650, "height": 540}
    return np.asarray(Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")).astype(int)


def settled(page: Any, seconds: float = 60.0) -> np.ndarray:
    """The image once it has stopped changing."""
    end, before = time.monotonic() + seconds, look(page)
    while time.monotonic() < end:
        page.wait_for_timeout(700)
        now = look(page)
        if np.abs(now - before).max() < 8:
            return now
        before = now
    raise AssertionError("the image never came to rest")


def changed(page: Any, before: np.ndarray) -> np.ndarray:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        now = settled(page)
        if (np.abs(now - before).max(2) > 30).mean() > 0.002:
            return now
    raise AssertionError("the image did not change")


def put(page: Any, label: str, value: str) -> None:
    """A number beside a slider."""
    row = page.locator(f"label:text-is('{label}')").first.locator(
        "xpath=ancestor::div[.//input[@type='text']][1]"
    )
    box = row.locator("input[type=text]").first
    box.fill(value)
    box.press("Enter")


def test_a_mesh_appears_and_follows_the_sliders(
    page: Any, serve: Callable, nif: Callable, tiny: list[str], tmp_path: Path
):
    more = ["trainer.max_steps=500", "data.batch_points=1024", "data.count=3", "model.code_size=4"]
    done = nif("train", *tiny, *more, "output_dir=run")
    assert done.code == 0, done.err
    process, url = serve("run=run", "resolution=48")
    page.goto(url)
    page.get_by_text("48³").first.wait_for()
    first = settled(page)
    assert (first.min(2) < 200).mean() > 0.005  # something stands on white
    put(page, "level", "-0.05")
    lower = changed(page, first)
    page.get_by_label("show", exact=True).evaluate("e => e.click()")
    plane = changed(page, lower)
    second = page.context.browser.new_page()  # another client sees the same
    second.goto(url)
    second.get_by_text("48³").first.wait_for()
    second.close()
    page.get_by_text("random draw").click()
    changed(page, plane)
    page.screenshot(path=str(tmp_path / "shapes.png"))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")
    assert out.rstrip().endswith("ended")
    with socket.socket() as probe:  # the port is free again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", int(url.rpartition(":")[2])))


def test_a_scene_is_streamed_and_its_path_plays(
    page: Any, serve: Callable, nif: Callable, tiny: list[str], tmp_path: Path
):
    keys = ["data.views=4", "data.test=1", "data.size=16", "field.levels=2", "field.log2_table=8"]
    quiet = [word for word in tiny if not word.startswith(("field", "data."))]
    done = nif("train", "model=nerf", "field=ngp", "data=toy_views", "output_dir=run", *quiet, *keys)
    assert done.code == 0, done.err
    _, url = serve("run=run", "size=96")
    page.goto(url)
    page.get_by_text("whole").first.wait_for()
    first = settled(page)
    page.get_by_text("add this view").click()
    page.mouse.move(300, 400)
    page.mouse.down()
    page.mouse.move(420, 380, steps=5)
    page.mouse.up()
    page.get_by_label("training cameras").evaluate("e => e.click()")
    changed(page, first)
    page.get_by_text("add this view").click()
    page.get_by_text("2 key frames").first.wait_for()
    page.get_by_text("save camera_path.json").click()
    page.get_by_text("saved").first.wait_for()
    (path,) = (tmp_path / "run" / "renders").rglob("*camera_path.json")
    played = nif("render", "run=run", "camera=path", f"path={path}", "frames=2", "size=16")
    assert played.code == 0, played.err
