"""nif prepare: meshes in, samples out that nif and the published code can read; photographs in, a scene with
cameras out."""

from __future__ import annotations

import glob
import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from nif_cli import NifError, __version__, conf_folder
from nif_cli.commands import prepare_photographs
from nif_cli.commands.engine import Engine, Lost
from nif_cli.config import build, check
from nif_cli.data.recognise import made_by_prepare
from nif_cli.data.shapes import preprocess
from nif_cli.data.shapes.formats import deepsdf, onet
from nif_cli.data.shapes.preprocess import FORMATS, Settings, ShapeJob
from nif_cli.files import Claim, DiskError, safe_name, write
from nif_cli.geometry.mesh import mesh_files
from nif_cli.progress import Bar
from nif_cli.schemas import Prepare
from nif_cli.training.ending import ending
from nif_cli.words import paste


def main(cfg: DictConfig) -> None:
    config = check(cfg, "prepare")
    if prepare_photographs.are_photographs(config):
        prepare_photographs.main(config)
        return
    settings, workers = _settings(config), config.workers
    engine: Engine = build(config.engine, "engine")
    output = Path(config.output).expanduser()
    claim = Claim(output, f"output={output}")
    try:
        with ending():
            _prepare(config, settings, workers, engine, output)
    finally:
        claim.abandon()


def _prepare(config: Prepare, settings: Settings, workers: int | None, engine: Engine, output: Path) -> None:
    base, tasks = _tasks(config, output)
    _claim(output, settings)
    began = time.monotonic()
    lines: dict[str, dict[str, Any]] = {}
    with Bar(len(tasks), "preparing", "shape") as bar:
        for line in _work(tasks, settings, workers, engine):
            lines[line["id"]] = line
            if "error" in line:
                bar.write(f"{line['id']}: {line['error']}", file=sys.stdout)
            bar.update()
    done = [t for t in tasks if "error" not in lines[t.id]]
    _splits(output, base, done, settings, config)
    ordered = [lines[t.id] for t in tasks]
    _report(output, settings, ordered)
    _table(ordered)
    skipped = sum(bool(line.get("skipped")) for line in ordered)
    again = f" ({skipped} of them before)" if skipped else ""
    print(
        f"{len(done)} of {len(tasks)} shapes{again} in {time.monotonic() - began:.0f} s: {output}, "
        f"{output / 'report.json'}"
    )
    if len(done) < len(tasks):
        raise NifError(
            f"{len(tasks) - len(done)} of {len(tasks)} shapes failed (named above and in report.json)"
            + ("; the others are ready" if done else "")
        )
    if "deepsdf" in settings.formats:
        print("next:\n  nif train model=deepsdf data=deepsdf " + paste(f"data.root={output / 'deepsdf'}"))
    if "onet" in settings.formats and (conf_folder() / "model" / "occupancy.yaml").is_file():
        print("  nif train model=occupancy data=onet " + paste(f"data.root={output / 'onet'}"))


def _settings(config: Prepare) -> Settings:
    formats = config.format if isinstance(config.format, list) else [config.format]
    if config.val + config.test >= 1:
        raise NifError(f"val={config.val} and test={config.test} leave nothing to train on")
    keys = ("repair", "samples", "surface_samples", "uniform", "solid_resolution", "seed")
    return Settings(
        tuple(f for f in FORMATS if f in formats),
        spread=tuple(map(float, config.spread)),
        **{k: getattr(config, k) for k in keys},
    )


def _tasks(config: Prepare, output: Path) -> tuple[Path, list[ShapeJob]]:
    """Every mesh of the input with its class and name. NifError when two would be called the same."""
    text = str(config.input)
    if glob.has_magic(text) and not Path(text).expanduser().exists():
        pattern = str(Path(text).expanduser())
        found = [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
        files = [f for p in found for f in mesh_files(p)]
        plain = Path(re.split(r"[*?\[]", pattern)[0] + "x").parent
        if not files:
            raise NifError(f"input={text}: no file matches")
    else:
        plain = Path(text).expanduser()
        files = mesh_files(plain)
        plain = plain if plain.is_dir() else plain.parent
    base = plain.resolve()
    dataset, category = (
        safe_name(name or base.name or "meshes").replace("/", "_")
        for name in (config.dataset, config.category)
    )
    tasks, seen = [], {}
    for file in files:
        # ShapeNet's
        path = re.sub(
            r"(/models)?/model(_normalized)?$", "", file.relative_to(plain).with_suffix("").as_posix()
        )
        *folders, name = safe_name(path).split("/")
        task = ShapeJob(str(file), dataset, "_".join(folders) or category, name, str(output))
        if task.id in seen:
            raise NifError(
                f"two meshes would be called '{task.id}': {seen[task.id]} and {file}; rename or move one "
                "of them"
            )
        seen[task.id] = file
        tasks.append(task)
    return base, tasks


def _claim(output: Path, settings: Settings) -> None:
    """Only a new folder, an empty one, or one that nif prepare made."""
    if any(p.name != ".lock" for p in output.iterdir()):
        if not made_by_prepare(output):
            raise NifError(f"output={output}: not empty, and not made by nif prepare; name a new folder")
    else:
        _report(output, settings, [])


def _work(
    tasks: list[ShapeJob], settings: Settings, workers: int | None, engine: Engine
) -> Iterator[dict[str, Any]]:
    """A report line for each task, as they finish. When a process dies, the shapes that were under way are
    tried again one at a time, and the one that kills its process gets a line that says so."""
    waiting, suspects = list(reversed(tasks)), list[ShapeJob]()
    while waiting or suspects:
        alone = bool(suspects)
        queue = [suspects.pop()] if alone else waiting
        running: dict[Future, ShapeJob] = {}
        try:
            with engine.pool(workers, 1 if alone else len(tasks), preprocess.start_worker) as (pool, count):
                while queue or running:
                    while queue and len(running) < 2 * count:
                        task = queue.pop()
                        running[pool.submit(preprocess.prepare_shape, task, settings)] = task
                    finished, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        try:
                            line = engine.result(future)
                        except Lost:
                            line = _dead(running[future])
                        del running[future]
                        yield line
        except BrokenProcessPool:
            under_way = list(running.values())
            if alone:
                yield _dead(under_way[0])
            else:
                suspects += under_way
        except DiskError as error:
            raise NifError(
                f"{error}. Finished shapes are valid: make room and run the command again"
            ) from error


def _dead(task: ShapeJob) -> dict[str, Any]:
    died = "its process died (out of memory, or killed); nothing of it was kept"
    return {"id": task.id, "source": task.path, "error": died}


def _splits(output: Path, base: Path, tasks: list[ShapeJob], settings: Settings, config: Prepare) -> None:
    """Which shape is in which split depends on its name and the seed, not on the others."""
    parts: dict[str, list[ShapeJob]] = {"train": [], "val": [], "test": []}
    for task in tasks:
        u = int.from_bytes(hashlib.sha256(f"{settings.seed}/{task.id}".encode()).digest()[:4], "big") / 2**32
        parts["test" if u < config.test else "val" if u < config.test + config.val else "train"].append(task)
    if "deepsdf" in settings.formats:
        splits = {
            "split": tasks,
            **({f"split_{k}": v for k, v in parts.items()} if config.val + config.test > 0 else {}),
        }
        deepsdf.write_split_json(
            output / "deepsdf", str(base), {k: [t.deepsdf for t in v] for k, v in splits.items()}
        )
    if "onet" in settings.formats:
        onet.write_split_lists(output / "onet", {k: [t.onet for t in v] for k, v in parts.items()})


def _report(output: Path, settings: Settings, lines: list[dict[str, Any]]) -> None:
    """report.json: the settings, and a line for each shape."""
    shapes = ",\n  ".join(json.dumps(line) for line in lines)
    head = f'{{\n "nif": "{__version__}",\n "settings": {json.dumps(asdict(settings))},\n "shapes": ['
    write(output / "report.json", head + (f"\n  {shapes}\n " if lines else "") + "]\n}\n")


def _table(lines: list[dict[str, Any]]) -> None:
    """The shapes whose signs or thin parts are doubtful; the worst news first, at most 20."""
    doubtful = [line for line in lines if line.get("doubts")]
    if not doubtful:
        return
    doubtful.sort(key=lambda line: not line.get("inside"))
    width = min(48, max(len(line["id"]) for line in doubtful))
    print(f"{len(doubtful)} of {len(lines)} shapes are doubtful:")
    for line in doubtful[:20]:
        print(f"  {line['id']:<{width}}  {'; '.join(line['doubts'])}")
    if len(doubtful) > 20:
        print(f"  ... and {len(doubtful) - 20} more, in report.json")
    if any("repaired" not in line and not all(map(_mended, line["doubts"])) for line in doubtful):
        print("  repair=fill closes holes, repair=solid makes a closed solid of any mesh")


def _mended(doubt: str) -> bool:
    """Whether a doubt is of what reading the file has mended itself: repair= would add nothing."""
    return doubt.endswith(": turned")
