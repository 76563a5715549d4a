"""One image for each experiment and model: `make gallery`, or `python docs/gallery.py sdf nerf` for some.

Trains for `SECONDS` on shapes made on the spot (on real ones where NIF_DATA names their folder), draws the
result, and writes docs/gallery.md with each command and how long it took. Settings published for a GPU are
made smaller, which the command shows."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).parent
IMAGES = DOCS / "images" / "gallery"
RECORD = IMAGES / "seconds.json"
RUNS = DOCS.parent / "outputs" / "gallery"
SECONDS = int(os.environ.get("SECONDS_EACH", "40"))
HEIGHT = 180


@dataclass(frozen=True)
class Row:
    """`made` are the settings on made data, `real` those on files below NIF_DATA, where there are any."""

    choice: str
    made: str = ""
    real: str = ""
    draw: str = "frames=1 size=240 instances=4"
    extract: bool = False  # drawings are extracted


ONE = "data=toy_shapes data.count=1 data.test=0 data.samples=100000"
BUNNY = "data.path=meshes/stanford-bunny.obj data.samples=100000"
SPOT = "data.path=meshes/spot.obj data.samples=100000"
FEW = "data=toy_many data.count=40 data.test=4"
NARROW = "field.width=64 data.batch_points=8192 data.batch_shapes=8"
SHORT_NERF = "field.width=64 field.layers=4 field.skip=1 model.coarse=24 model.fine=24 data.batch_rays=256"
FAST = "field.levels=8 field.finest=512 model.samples=16384 model.first_samples=16384"
VIEWS = "data=toy_views"
LEGO = "data=blender data.root=nerf/lego-400 data.downscale=2"
VIEW = "camera=test frames=3 size=200"

MODELS = {
    "sdf": Row("model=sdf", ONE, SPOT),
    "texture": Row("model=texture", "", ""),
    "deepsdf": Row("model=deepsdf"),
    "metasdf": Row("model=metasdf", "data.count=40 data.test=4"),
    "occupancy": Row("model=occupancy", FEW),
    "nerf": Row("model=nerf", draw=VIEW),
    "neus": Row("model=neus", draw=VIEW),
    "image": Row("model=image", draw="size=240"),
    "curve": Row("model=curve", draw="size=240"),
}
EXPERIMENTS = {
    "sdf_fast": Row("experiment=sdf_fast", ONE, BUNNY),
    "sdf_siren": Row("experiment=sdf_siren", ONE, BUNNY),
    "sdf_igr": Row("experiment=sdf_igr", ONE, SPOT),
    "sdf_sal": Row("experiment=sdf_sal", ONE, SPOT),
    "frequencies": Row("-m experiment=frequencies field=relu,positional,siren,hash,voxel", draw=""),
    "deepsdf_small": Row("experiment=deepsdf_small"),
    "deepsdf_paper": Row("experiment=deepsdf_paper", f"{NARROW} field.skips=[] field.layers=4"),
    "metasdf_small": Row("experiment=metasdf_small", f"{FEW} field.layers=3 {NARROW} data.batch_shapes=4"),
    "metasdf_chairs": Row("experiment=metasdf_chairs", f"{FEW}", "data.path=modelnet-chairs/voxels.npz"),
    "metasdf_planes": Row("experiment=metasdf_planes", f"{FEW} field.layers=4 {NARROW} data.batch_shapes=4"),
    "onet_points": Row("experiment=onet_points", f"{FEW} {NARROW} encoder.width=64 encoder.code_size=64"),
    "onet_image": Row(
        "experiment=onet_image", f"{FEW} {NARROW} encoder.size=64 encoder.width=16 encoder.views=2"
    ),
    "onet_voxels": Row("experiment=onet_voxels", f"{FEW} {NARROW} encoder.width=16"),
    "onet_points_small": Row("experiment=onet_points_small", FEW),
    "convonet_planes": Row("experiment=convonet_planes", f"{FEW} data.batch_points=8192 data.batch_shapes=8"),
    "convonet_grid": Row("experiment=convonet_grid", f"{FEW} data.batch_points=8192 data.batch_shapes=4"),
    "convonet_planes_small": Row("experiment=convonet_planes_small", FEW),
    "convonet_grid_small": Row("experiment=convonet_grid_small", FEW),
    "nerf_codes": Row(
        "experiment=nerf_codes", "data.size=64 data.views=20", draw="frames=1 size=200 instances=4"
    ),
    "nerf_small": Row("experiment=nerf_small", draw=VIEW),
    "nerf_lego": Row("experiment=nerf_lego", f"{VIEWS} {SHORT_NERF}", f"{LEGO} {SHORT_NERF}", VIEW),
    "nerf_chair": Row(
        "experiment=nerf_chair",
        f"{VIEWS} {SHORT_NERF}",
        f"data.root=nerf/chair-800 data.downscale=4 {SHORT_NERF}",
        VIEW,
    ),
    "ngp_small": Row("experiment=ngp_small", VIEWS, LEGO, VIEW),
    "ngp_lego": Row("experiment=ngp_lego", f"{VIEWS} {FAST}", f"{LEGO} {FAST}", VIEW),
    "ngp_chair": Row(
        "experiment=ngp_chair",
        f"{VIEWS} {FAST}",
        f"data.root=nerf/chair-800 data.downscale=4 {FAST}",
        VIEW,
    ),
    "ngp_fox": Row(
        "experiment=ngp_fox", f"{VIEWS} {FAST}", f"data.root=nerf/fox data.downscale=4 {FAST}", VIEW
    ),
    "neus_small": Row("experiment=neus_small", VIEWS, LEGO, VIEW),
    "neus_lego": Row("experiment=neus_lego", f"{VIEWS} {FAST}", f"{LEGO} {FAST}", VIEW),
    "ngp_fox_small": Row("experiment=ngp_fox_small", VIEWS, "data.root=nerf/fox data.downscale=4", VIEW),
    "nerf_fox": Row(
        "experiment=nerf_fox",
        f"{VIEWS} {SHORT_NERF}",
        f"data.root=nerf/fox data.downscale=4 {SHORT_NERF}",
        VIEW,
    ),
    "nerf_fern": Row(
        "experiment=nerf_fern",
        f"{VIEWS} {SHORT_NERF}",
        f"data.root=nerf/fern data.downscale=8 {SHORT_NERF}",
        VIEW,
    ),
    "deepsdf_chairs": Row(
        "experiment=deepsdf_chairs",
        f"data=toy_shapes data.families=[chair] {NARROW} field.skips=[] field.layers=4",
    ),
    "deepsdf_planes": Row(
        "experiment=deepsdf_planes",
        f"data=toy_shapes data.families=[lamp] {NARROW} field.skips=[] field.layers=4",
    ),
    "metasdf_images": Row(
        "experiment=metasdf_images",
        "field.width=64 field.layers=3 data.batch_points=4096 trainer.max_steps=400",
        draw="size=160",
    ),
}


def words(row: Row, data: Path | None) -> tuple[list[str], list[str]]:
    """The settings of a row, and the same as the page shows them: files by their name."""
    chosen = row.real if data is not None and row.real else row.made
    given = shlex.split(f"{row.choice} {chosen} trainer.max_time=00:00:00:{SECONDS}")
    run, shown = [], []
    for word in given:
        key, _, value = word.partition("=")
        real = key in ("data.path", "data.root") and data is not None and (data / value).exists()
        run.append(f"{key}={data / value}" if real and data else word)
        shown.append(f"{key}={Path(value).name}" if real else word)
    return run, shown


def nif(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nif_cli", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"nif {shlex.join(arguments)}: {done.stderr.strip()}")


def make(name: str, row: Row, data: Path | None) -> dict[str, object]:
    given, shown = words(row, data)
    folder = RUNS / f"{name}-{time.strftime('%H%M%S')}"
    sweep, at = "-m" in given, time.monotonic()
    nif("train", *given, f"hydra.sweep.dir={folder}" if sweep else f"output_dir={folder}")
    seconds = time.monotonic() - at
    draw = shlex.split(row.draw)
    if not sweep:
        nif("render", f"run={folder}", *draw)
    found = [folder / "contact.png"] if sweep else sorted((folder / "renders").rglob("*.png"))
    save(found[:4], IMAGES / f"{name}.png")
    lines = [shlex.join(["nif", "train", *shown])] + ([] if sweep else [shlex.join(["nif", "render", *draw])])
    return {"lines": lines, "seconds": round(seconds)}


def save(files: list[Path], path: Path) -> None:
    """Up to four images side by side, of one height, in 128 colours."""
    parts = [Image.open(f).convert("RGB") for f in files]
    height = HEIGHT if len(parts) > 1 else min(parts[0].height, 400)
    parts = [
        p.resize((max(1, round(p.width * height / p.height)), height), Image.Resampling.LANCZOS)
        for p in parts
    ]
    sheet = Image.new("RGB", (sum(p.width for p in parts), height), "white")
    left = 0
    for part in parts:
        sheet.paste(part, (left, 0))
        left += part.width
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(128).save(path, optimize=True)


def write_page(record: dict[str, dict]) -> None:
    parts = [
        "# Gallery\n\nModels and experiments, drawn by `make gallery`, those still missing too: what"
        "\nso many seconds give, preparing data included, on two CPU cores. Settings published for a"
        "\nGPU are made smaller, which the command shows; minutes or hours give better ones.\n"
    ]
    for title, rows in (("Models", MODELS), ("Experiments", EXPERIMENTS)):
        parts.append(f"## {title}\n")
        for name in rows:
            if name in record:
                code = "\n".join(f"    {line}" for line in record[name]["lines"])
                head = (
                    f"### {name}\n\n![{name}](images/gallery/{name}.png)\n\n{record[name]['seconds']} s:\n\n"
                )
                parts.append(f"{head}{code}\n")
    (DOCS / "gallery.md").write_text("\n".join(parts))


def main(names: list[str]) -> None:
    data = Path(os.environ["NIF_DATA"]).resolve() if os.environ.get("NIF_DATA") else None
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows, failed = MODELS | EXPERIMENTS, False
    for name in names or list(rows):
        try:
            record[name] = make(name, rows[name], data)
        except (RuntimeError, IndexError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        print(f"{name}: {record[name]['seconds']} s", flush=True)
        RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
        write_page(record)
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1:])
