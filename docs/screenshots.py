"""The screenshots of docs/viewing.md: `python docs/screenshots.py <run of shapes> <run of a scene>`, with
nif-cli[view], playwright and chromium."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


def shapes(page: Any) -> None:
    page.get_by_text("128³").first.wait_for()
    page.get_by_label("show", exact=True).evaluate("e => e.click()")
    page.wait_for_timeout(8000)


def scene(page: Any) -> None:
    page.get_by_text("whole").first.wait_for()
    page.get_by_label("training cameras").evaluate("e => e.click()")
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(380, 330, steps=5)
    page.mouse.up()
    page.mouse.wheel(0, 400)
    page.wait_for_timeout(9000)


def main() -> None:
    for run, act, name in zip(sys.argv[1:3], (shapes, scene), ("view-shapes", "view-scene"), strict=True):
        words = [sys.executable, "-m", "nif_cli", "view", f"run={run}", "port=8700"]
        server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        url = server.stdout.readline().split()[0]
        try:
            with sync_playwright() as play:
                browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
                page = browser.new_page(viewport={"width": 960, "height": 640})
                page.set_default_timeout(90_000)
                page.goto(url)
                act(page)
                if page.locator("button:near(:text('Software WebGL'))").count():
                    page.get_by_text("Software WebGL").locator(
                        "xpath=ancestor::div[.//button][1]//button"
                    ).click()
                    page.wait_for_timeout(500)
                shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
                shot.quantize(128).save(IMAGES / f"{name}.png", optimize=True)
                browser.close()
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
