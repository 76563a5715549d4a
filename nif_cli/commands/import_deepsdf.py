"""nif import-deepsdf: an experiment of the published DeepSDF code as a run of nif."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra import compose
from omegaconf import DictConfig

from nif_cli import NifError, runs
from nif_cli.config import check
from nif_cli.data.shapes.formats.deepsdf_experiment import read_experiment
from nif_cli.models.deepsdf import DeepSdf
from nif_cli.models.model import Instance
from nif_cli.progress import busy
from nif_cli.words import paste


def main(cfg: DictConfig) -> None:
    config = check(cfg, "import-deepsdf")
    folder = Path(config.folder).expanduser()
    with busy("reading the experiment"):
        found = read_experiment(folder, str(config.epoch), config.data_root)
    name = f"{folder.resolve().name}_{config.epoch}"
    run = runs.output_path(config.output_dir, runs.OUTPUTS / "deepsdf-imported" / name)
    if (run / "checkpoints").exists():
        raise NifError(f"{run}: there is a run already; give another output_dir")
    overrides = ["experiment=deepsdf_planes", "data.root=."]
    train = vars(check(compose("train", overrides), "train"))
    train["data"]["root"] = str((found.data or Path("data")).resolve())
    train["field"].update(found.field)
    train["model"].update(code_size=found.codes.shape[1], clamp=found.clamp, code_norm=found.code_norm)
    model = runs.make_model(train)
    assert isinstance(model, DeepSdf)
    model.allocate(list(found.transforms))
    try:
        model.load_state_dict({**found.weights, "codes.weight": found.codes}, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise NifError(
            f"{folder}: its weights do not fit specs.json ({' '.join(lines[1:2])[:200]})"
        ) from error
    model.instances = {id: Instance(id, transform) for id, transform in found.transforms.items()}
    checkpoint: dict = {"state_dict": model.state_dict(), "global_step": 0}
    checkpoint["nif"] = model.state()
    runs.write_config(run, train)
    for which in ("last", "best"):
        runs.write(run / "checkpoints" / f"{which}.ckpt", lambda path: torch.save(checkpoint, path))
    parameters = sum(p.numel() for p in model.network.parameters())
    print(
        f"{run}  epoch {found.epoch}, {len(found.codes)} codes of {found.codes.shape[1]}, {parameters:,} "
        "parameters"
    )
    for note in found.notes:
        print(f"  {note}")
    word = paste(f"run={run}")
    print(f"next:\n  nif extract {word}\n  nif reconstruct {word} input=...")
