"""nif view: the fields of a run in a browser."""

from __future__ import annotations

import sys
import time
import webbrowser
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from nif_cli.config import check
from nif_cli.field import Field
from nif_cli.inference.open_run import open_run
from nif_cli.rendering.volume import RadianceField
from nif_cli.schemas import ViewRuns
from nif_cli.untrusted import shown
from nif_cli.viewer.images import ImagePage
from nif_cli.viewer.menu import Menu
from nif_cli.viewer.scenes import ScenePage
from nif_cli.viewer.server import free_port, serving
from nif_cli.viewer.shapes import ShapePage
from nif_cli.viewer.worker import Worker

OPEN_TO_ALL = ("0.0.0.0", "::")


def main(cfg: DictConfig) -> None:
    config = check(cfg, "view")
    port = free_port(config.host, config.port)  # before anything is loaded
    made = (config.compose, config.interpolate, config.sample)
    if config.instances is None and all(key is None for key in made):
        config = replace(config, instances="all")
    run = open_run(config)
    menu = Menu(run)
    with serving(config.host, port, f"nif: {run.path.name}") as server:
        worker = Worker(lambda message: _tell(server, message))
        try:
            _page(server, menu, config, worker)
            _say_where(config, server.get_port())
            _wait(run.path, server, config.seconds)
        except KeyboardInterrupt:
            print("ended")
        finally:
            worker.end()


def _page(server: object, menu: Menu, config: ViewRuns, worker: Worker) -> object:
    first = menu.field(menu.names[0])
    if isinstance(first, RadianceField):
        return ScenePage(server, menu, config, worker)
    if isinstance(first, Field) and first.bounds.shape[1] == 3:
        return ShapePage(server, menu, config, worker)
    return ImagePage(server, menu, config, worker)


def _say_where(config: ViewRuns, port: int) -> None:
    host = "127.0.0.1" if config.host in OPEN_TO_ALL else config.host
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    taken = "" if port == config.port else f"  (port {config.port} is taken)"
    print(f"{url}{taken}  Ctrl-C ends it", flush=True)
    if config.host in OPEN_TO_ALL:
        print(f"host={config.host}: whoever reaches this machine sees it, there is no password", flush=True)
    if config.open:
        webbrowser.open(url)


def _wait(run: Path, server: object, seconds: float | None) -> None:
    """Until the time is up or Ctrl-C; says once that the run is gone."""
    end = None if seconds is None else time.monotonic() + seconds
    there = True
    while end is None or time.monotonic() < end:
        if there and not run.is_dir():
            there = False
            _tell(server, f"{run}: the run is gone; what was read of it stays")
        time.sleep(0.2 if end is None else min(0.2, max(0.0, end - time.monotonic())))


def _tell(server: object, message: str) -> None:
    """One line to whoever looks, and to the terminal."""
    print(f"nif: {shown(message, 400)}", file=sys.stderr, flush=True)
    for client in server.get_clients().values():  # type: ignore[attr-defined]
        client.add_notification("nif", shown(message, 400), auto_close_seconds=10)
