"""The table at the end of a sweep (nif train -m ...)."""

from __future__ import annotations

import atexit
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from nif_cli.run_folders import RunFolder, entries_of

CURVES = 6  # jobs in the plot: as many as there are colours
SIZE = 320  # pixels of each image in contact.png
RESOLUTION = 128  # of the meshes that are compared with the truth


def finished(job: Path, overrides: list[str]) -> float | None:
    """val/loss of a job that a sweep in this folder has done before, by the same words; None where it has
    not."""
    run = RunFolder(job, entries_of(job))
    done = run.summary.get("overrides") == overrides and run.about.get("end") == "done" and run.saved
    loss = run.summary.get("val/loss")
    return float(loss) if done and isinstance(loss, int | float) and "error" not in run.summary else None


def begun(job: Path, overrides: list[str]) -> bool:
    """Whether a job was cut off that goes on from its checkpoint."""
    run = RunFolder(job, entries_of(job))
    return bool(run.saved) and run.about.get("overrides") == overrides and run.about.get("end") != "done"


class SweepTable(Callback):
    """Claims the sweep's folder; at the end prints a row for each job, best first, and writes sweep.csv
    there. Ends the command with 1 where jobs have failed."""

    def __getstate__(self) -> dict[str, Any]:
        # jobs in processes of their own do not own the folder
        return {k: v for k, v in vars(self).items() if k != "claim"}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        from nif_cli import NifError
        from nif_cli.files import Claim
        from nif_cli.training.ending import end_jobs_too

        end_jobs_too()
        typed = any(str(o).startswith("hydra.sweep.dir=") for o in config.hydra.overrides.hydra)
        base = Path(str(config.hydra.sweep.dir))
        folder, n = base, 1
        try:
            while True:
                try:
                    self.claim = Claim(folder, f"hydra.sweep.dir={folder}", new=not typed)
                    break
                except FileExistsError:  # a sweep that began in the same second
                    folder, n = base.with_name(f"{base.name}_{n}"), n + 1
        except NifError as error:  # Hydra would make a warning of it
            print(f"nif: {error}", file=sys.stderr)
            sys.exit(1)
        atexit.register(self.claim.release)
        if folder != base:
            with read_write(config):
                config.hydra.sweep.dir = str(folder)
                config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        rows = self._rows(folder)
        self.claim.release()
        if not rows:
            return
        try:
            self._table(folder, rows)
        except Exception as error:  # Hydra would make a warning of it
            print(f"nif: {error}", file=sys.stderr)
            sys.exit(1)
        failed = sum("error" in row for row in rows)
        if failed:
            sys.stdout.flush()
            what = (
                f"all {failed} jobs failed"
                if failed == len(rows)
                else f"{failed} of {len(rows)} jobs failed; the others are ready"
            )
            print(f"nif: {what} (each says why above and in {folder / 'sweep.csv'})", file=sys.stderr)
            sys.exit(1)

    @staticmethod
    def _rows(folder: Path) -> list[dict[str, Any]]:
        rows = []
        for path in sorted(folder.glob("*/summary.json"), key=lambda p: (len(p.parent.name), p.parent.name)):
            try:
                summary = json.loads(path.read_text())
                rows.append({"run": str(path.parent), **_settings(path.parent), **summary})
                del rows[-1]["overrides"]
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                print(f"{path}: no summary of a job; left out")
        return rows

    @staticmethod
    def _table(folder: Path, rows: list[dict[str, Any]]) -> None:
        varied = [
            k
            for k in dict.fromkeys(k for r in rows for k in r)
            if len({str(r.get(k)) for r in rows}) > 1 or k == "run"
        ]
        everything = list(dict.fromkeys(k for r in rows for k in r))
        rows.sort(
            key=lambda r: r["val/loss best"] if isinstance(r.get("val/loss best"), float) else float("inf")
        )
        text = io.StringIO()
        writer = csv.DictWriter(text, everything)
        writer.writeheader()
        writer.writerows(rows)
        from nif_cli import runs

        runs.write(folder / "sweep.csv", text.getvalue())
        cells = [varied] + [[_short(r.get(k)) for k in varied] for r in rows]
        widths = [max(len(row[i]) for row in cells) for i in range(len(varied))]
        print()
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(f"table: {folder / 'sweep.csv'}")
        _plot(folder, rows, [k for k in varied if k in _settings(Path(rows[0]["run"]))])


def _plot(folder: Path, rows: list[dict[str, Any]], varied: list[str]) -> None:
    """sweep.png: the curves of the best jobs, named by the settings that vary."""
    from nif_cli import runs
    from nif_cli.run_comparison import curves_png
    from nif_cli.untrusted import one_line, shown

    try:
        jobs = [RunFolder(path, entries_of(path)) for path in (Path(r["run"]) for r in rows[:CURVES])]
        names = [
            f"{job.path.name}: {shown(' '.join(f'{k}={row.get(k)}' for k in varied), 60)}"
            for job, row in zip(jobs, rows, strict=False)
        ]
        drawn = curves_png(jobs, names=names)
        if drawn is not None:
            runs.write(folder / "sweep.png", drawn)
            print(f"curves: {folder / 'sweep.png'}")
    except Exception as error:  # an image too few is no reason to call the sweep failed
        print(f"{folder / 'sweep.png'}: not made ({one_line(error)})")


class Comparison(SweepTable):
    """The table, and contact.png: what each job has made, side by side with the truth. Shapes are measured
    first."""

    def on_multirun_end(self, config: DictConfig, **keywords: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        from nif_cli.untrusted import one_line

        try:
            self._sheet(folder)
        except Exception as error:  # an image too few is no reason to keep the table back
            print(f"{folder / 'contact.png'}: not made ({one_line(error)})")
        super().on_multirun_end(config, **keywords)

    @staticmethod
    def _sheet(folder: Path) -> None:
        from nif_cli import NifError, runs
        from nif_cli.rendering.image_files import png_bytes, sheet

        jobs = sorted(
            (p.parent for p in folder.glob("*/checkpoints/") if p.is_dir()),
            key=lambda p: (len(p.name), p.name),
        )
        settings = {job: _settings(job) for job in jobs if (job / "summary.json").exists()}
        cells, truth = [], None
        for job, own in settings.items():
            try:
                model = runs.load_model(job)
                if truth is None:
                    truth = _Truth(model)
                    cells.append(truth.shown())
                varied = [
                    v for k, v in own.items() if len({str(other.get(k)) for other in settings.values()}) > 1
                ]
                cells.append(truth.compare(model, job, " ".join(varied) or job.name))
            except NifError as error:
                print(f"{job}: {error}")
        if cells:
            runs.write(folder / "contact.png", png_bytes(sheet(cells)))
            print(f"sheet: {folder / 'contact.png'}")


class _Truth:
    """What the first job learned from, and how another job's result is measured and drawn beside it."""

    def __init__(self, model: Any):
        from nif_cli import runs
        from nif_cli.config import build
        from nif_cli.data.images.datamodule import ImageData
        from nif_cli.rendering.camera_paths import turntable

        self.size, self.pose = SIZE, turntable(1)[0]
        self.data: Any = build(runs.located(model.config)["data"], "data")
        self.id = next(iter(model.instances))
        self.is_image = isinstance(self.data, ImageData)
        self.mesh = None if self.is_image else self.data.truth(self.id).mesh

    def shown(self) -> Any:
        import numpy as np
        import trimesh
        from PIL import Image

        from nif_cli.geometry.transform import unit_ball
        from nif_cli.rendering.image_files import labelled, scaled
        from nif_cli.rendering.images import mesh_image

        if self.is_image:
            pixels = self.data.pixels()
            width, height = scaled(pixels.shape[1], pixels.shape[0], min(self.size, max(pixels.shape[:2])))
            image = np.asarray((pixels >> (8 if pixels.dtype == np.uint16 else 0)).astype(np.uint8))
            whole = Image.fromarray(image.squeeze())
            if whole.mode == "RGBA":
                whole = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole)
            return labelled(
                np.asarray(whole.convert("RGB").resize((width, height), Image.Resampling.BOX)), "truth"
            )
        if self.mesh is None:
            return labelled(np.full((self.size, self.size, 3), 255, np.uint8), "no mesh to compare with")
        vertices = unit_ball(self.mesh.vertices).to_normalised(self.mesh.vertices)
        return labelled(
            mesh_image(trimesh.Trimesh(vertices, self.mesh.faces, process=False), self.pose, self.size),
            "truth",
        )

    def compare(self, model: Any, job: Path, name: str) -> Any:
        from nif_cli import runs
        from nif_cli.geometry.extraction import extract_mesh
        from nif_cli.metrics.shape import two_way_distance
        from nif_cli.rendering.image_files import labelled
        from nif_cli.rendering.images import overview, surface_image

        summary = json.loads((job / "summary.json").read_text())
        field, transform = model.field(self.id), model.instances[self.id].transform
        if self.is_image:
            psnr = summary.get("psnr held-out", summary.get("psnr", float("nan")))
            return labelled(overview(field, transform, self.size), f"{name}  {psnr:.1f} dB")
        text = name
        if self.mesh is not None:
            mesh = extract_mesh(field, RESOLUTION)
            mesh.vertices = transform.to_original(mesh.vertices) if len(mesh.faces) else mesh.vertices
            summary["two-way distance"] = two_way_distance(mesh, self.mesh)
            runs.write(job / "summary.json", json.dumps(summary, indent=1))
            text = f"{name}  {summary['two-way distance']:.5f}"
        return labelled(surface_image(field, self.pose, self.size, antialias=1), text)


def _settings(job: Path) -> dict[str, str]:
    overrides = json.loads((job / "summary.json").read_text())["overrides"]
    return dict(str(o).lstrip("+").split("=", 1) for o in overrides if "=" in str(o))


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else "" if value is None else str(value)
