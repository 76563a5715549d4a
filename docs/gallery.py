"""`make gallery`: one small training and one image for each model and each experiment that fits two cores.

`python docs/gallery.py [names] [--seconds 20]`; NIF_DATA=<folder> takes real meshes. Writes docs/images/gallery/
and docs/gallery.md; what was not trained this time keeps its image, command and seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "gallery"
INDEX = IMAGES / "index.json"
LARGEST = (640, 320)  # pixels


@dataclass
class Entry:
    title: str
    train: str
    show: str = "render frames=2 size=200"
    made: str = "renders"  # where the image is, below the run


SCENE = "render camera=test frames=3 channels=[rgb]"
ENTRIES = {
    "model-sdf": Entry("Distances of a mesh", "model=sdf data.path=spot.obj"),
    "sdf-fast": Entry("A hash grid", "experiment=sdf_fast data.path=spot.obj"),
    "sdf-siren": Entry("Points and normals, sines", "experiment=sdf_siren data.path=spot.obj"),
    "sdf-igr": Entry("Points and normals, softplus", "experiment=sdf_igr data.path=spot.obj"),
    "sdf-sal": Entry("Bare points", "experiment=sdf_sal data=points data.path=scan.xyz"),
    "model-texture": Entry("With colours", "model=texture data.path=painted.ply"),
    "model-deepsdf": Entry(
        "A code for each shape", "model=deepsdf", "render instances=4 frames=1 size=200 elevation=20"
    ),
    "deepsdf-small": Entry(
        "More shapes", "experiment=deepsdf_small data=toy_shapes", "render instances=4 frames=1 size=200"
    ),
    "model-metasdf": Entry(
        "A few gradient steps", "model=metasdf field=relu field.width=64 field.layers=4 model.inner_lr=0.1",
        "render instances=4 frames=1 size=200",
    ),
    "model-occupancy": Entry(
        "Occupancy from points", "model=occupancy encoder=pointcloud_planes data=toy_shapes",
        "render instances=4 frames=1 size=200",
    ),
    "model-image": Entry("An image", "model=image data.path=photo.png", "render"),
    "frequencies": Entry("Which field shows detail", "-m experiment=frequencies "
                         "field=relu,positional,siren,hash data.path=photo.png", "", "contact.png"),
    "model-curve": Entry("A drawing", "model=curve data.path=logo.svg", "render size=240"),
    "model-nerf": Entry("A scene", "model=nerf data=toy_views", SCENE),
    "nerf-small": Entry("Coarse and fine", "experiment=nerf_small data=toy_views", SCENE),
    "ngp-small": Entry("Scene on a hash grid", "experiment=ngp_small data=toy_views", SCENE),
    "nerf-codes": Entry("Shape and appearance apart", "experiment=nerf_codes", SCENE),
}  # fmt: skip


def inputs(folder: Path) -> None:
    """A mesh (spot.obj of NIF_DATA, or a bent torus), points of it, its colours, an image and a drawing."""
    given = Path(os.environ.get("NIF_DATA", "")) / "meshes" / "spot.obj"
    if os.environ.get("NIF_DATA") and given.exists():
        mesh = trimesh.load(given, force="mesh")
        mesh = trimesh.Trimesh(mesh.vertices, mesh.faces)
    else:
        mesh = trimesh.creation.torus(0.7, 0.28, 64, 32)
        mesh.vertices[:, 2] += 0.3 * np.sin(3 * mesh.vertices[:, 0])
    mesh.export(folder / "spot.obj")
    np.savetxt(folder / "scan.xyz", trimesh.sample.sample_surface(mesh, 20000, seed=0)[0])
    place = (mesh.vertices - mesh.bounds[0]) / np.ptp(mesh.bounds, axis=0)
    stripes = 0.5 + 0.5 * np.sin(18 * place[:, 1])
    colours = np.column_stack((stripes, place[:, 0], 1 - stripes))
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=np.uint8(255 * colours))
    mesh.export(folder / "painted.ply")
    Image.open(DOCS / "images" / "overview.png").convert("RGB").crop((0, 0, 440, 440)).save(
        folder / "photo.png"
    )
    (folder / "logo.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="100" height="100" fill-rule="evenodd"><path '
        'd="M50 5 C90 5 95 50 80 75 S30 100 15 70 S15 5 50 5 Z M50 30 C35 30 30 45 40 60 S70 65 68 48 S60 30 '
        '50 30 Z"/></svg>'
    )


def nif(folder: Path, words: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "nif_cli", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"nif {shlex.join(words)}\n{done.stdout[-600:]}\n{done.stderr[-600:]}")
    return time.perf_counter() - began


def make(name: str, entry: Entry, folder: Path, seconds: int) -> dict[str, str | float]:
    """Trains, draws, keeps the image small; the commands and the seconds of both."""
    run = f"outputs/{name}"
    where = f"hydra.sweep.dir={run}" if "-m" in entry.train.split() else f"output_dir={run}"
    limit = f"trainer.max_time=00:00:{seconds // 60:02d}:{seconds % 60:02d}"
    trained = nif(folder, ["train", *shlex.split(entry.train), where, limit, "callbacks=quiet"])
    drawn = nif(folder, [*shlex.split(entry.show), f"run={run}"]) if entry.show else 0.0
    found = folder / run / entry.made
    files = [found] if found.is_file() else sorted(found.rglob("*.png"))[:4]
    images = [Image.open(file).convert("RGB") for file in files]
    sheet = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    for k, image in enumerate(images):
        sheet.paste(image, (sum(i.width for i in images[:k]), 0))
    sheet.thumbnail(LARGEST)
    sheet.quantize(128).save(IMAGES / f"{name}.png", optimize=True)
    commands = [f"nif train {entry.train} {limit}"] + ([f"nif {entry.show}"] if entry.show else [])
    return {"title": entry.title, "commands": "\n".join(commands), "train": trained, "show": drawn}


def page(index: dict[str, dict]) -> str:
    parts = [
        "# Gallery",
        "",
        "One image for each model and for the experiments that fit two cores, made by `make gallery` with the "
        "commands shown; seconds are of two shared cores, starting included. Trainings this short show what a "
        "method does, not how good it gets: [how good, how fast](evaluating.md#how-good-how-fast-nif-is).",
        "",
    ]
    for name in ENTRIES:
        if name in index:
            one = index[name]
            took = f"{one['train']:.0f} s" + (f" and {one['show']:.0f} s" if one["show"] else "")
            parts += [f"## {one['title']}", "", f"![{one['title']}](images/gallery/{name}.png)", ""]
            parts += ["```text", one["commands"], "```", "", f"*{took}.*", ""]
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="name")
    parser.add_argument("--seconds", type=int, default=20)
    words = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    index = json.loads(INDEX.read_text()) if INDEX.exists() else {}
    failed = False
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        inputs(folder)
        for name in words.names or ENTRIES:
            try:
                index[name] = make(name, ENTRIES[name], folder, words.seconds)
                print(f"{name}: {index[name]['train']:.0f} s", flush=True)
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                failed = True
            INDEX.write_text(json.dumps(index, indent=1) + "\n")
            (DOCS / "gallery.md").write_text(page(index))
    sys.exit(failed)


if __name__ == "__main__":
    main()
