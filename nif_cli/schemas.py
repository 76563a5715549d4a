"""The root keys of each command: what the command receives, typed. A key that is not here is a mistake,
wherever it was written.

What a key means is said by its comment in conf/<command>.yaml, which help shows; a test holds keys and
defaults together. Functions of inference/ and evaluation/ take these classes too: whoever calls them without
Hydra has the same defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from omegaconf import MISSING

from nif_cli.hints import Above, AtLeast, Between, Give, Kind, Some, ThereIs

Which = Literal["last", "best"] | Annotated[int, AtLeast(0)]  # or the step of a snapshot
Frame = Literal["original", "normalised"]
Method = Literal["sparse", "dense"]
MeshFormat = Annotated[Literal["ply", "obj", "glb", "stl", "off"], Kind("mesh format")]
ExtractFormat = Annotated[
    Literal["ply", "obj", "glb", "stl", "off", "html", "points", "npz", "onnx"], Kind("mesh format")
]
Resolution = Annotated[int, AtLeast(2, "grid points a side are needed (128 or 256 is usual)")]
Count = Annotated[int, AtLeast(1)]
Part = Annotated[float, Between(0, 1, "a part between 0 and 1")]
Choice = str | int | list[str | int] | None  # of instances: ids, globs, a count, all
Group = Any  # a mapping; its class checks it
Composition = Annotated[
    Literal[
        "union",
        "intersection",
        "difference",
        "smooth_union",
        "smooth_intersection",
        "smooth_difference",
        "morph",
    ],
    Kind("such composition"),
]
Channel = Annotated[Literal["rgb", "depth", "opacity", "normal"], Kind("such channel")]
Dataset = Annotated[Literal["deepsdf", "onet"], Kind("format of datasets")]
Measure = Annotated[
    Literal[
        "deepsdf",
        "onet",
        "convonet",
        "srb",
        "fourier",
        "two_way",
        "blender",
        "llff",
        "mip360",
    ],
    Kind("such protocol"),
]


@dataclass
class Train:
    model: Group = None
    field: Group = None
    encoding: Group = None
    encoder: Group = None
    data: Group = None
    optimizer: Group = None
    scheduler: Group = None
    trainer: Group = None
    callbacks: Group = None
    logger: Group = None
    seed: Annotated[int, Between(0, 2**31 - 1, "must be in 0 .. 2^31 - 1")] = 0
    device: str = "auto"
    output_dir: str | None = None
    name: str | None = None
    tag: str | list[str] | None = None
    resume: str | None = None
    init_from: str | None = None
    paths: Group = None  # where data.path and the like lay when the run began; written by nif


@dataclass
class Prepare:
    input: Annotated[str | list[str], Give("a mesh, a folder, a glob or a video")] = MISSING
    output: Annotated[str, Give("a folder")] = MISSING
    format: Dataset | Annotated[list[Dataset], Some("choose of deepsdf, onet")] = field(
        default_factory=lambda: ["deepsdf"]
    )
    repair: Literal["none", "fill", "solid"] = "none"
    samples: Annotated[int, AtLeast(2)] | None = None
    surface_samples: Count | None = None
    spread: Annotated[
        list[Annotated[float, AtLeast(0)]], Some("a list of standard deviations, as [0.0707,0.0224]")
    ] = field(default_factory=lambda: [0.0707, 0.0224])
    uniform: Part = 0.06
    solid_resolution: Annotated[int, AtLeast(16)] = 192
    dataset: str | None = None
    category: str | None = None
    val: Part = 0.0
    test: Part = 0.0
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    lens: Literal["perspective", "fisheye"] = "perspective"
    feature_size: Annotated[int, AtLeast(100, "pixels")] = 1000
    mask: str | None = None
    frames: Annotated[int, Between(3, 10_000, "must be between 3 and 10000")] = 150
    workers: Count | None = None
    engine: Group = None
    seed: int = 0


@dataclass
class OfShapes:
    """What is made of the shapes of a finished run, or of several (then `run` is a list)."""

    run: str | list[str] | None = None
    checkpoint: Which = "last"
    instances: Choice = None
    output: str | None = None
    device: str = "auto"
    interpolate: Annotated[int, AtLeast(2, "the two shapes themselves")] | None = None
    sample: Count | None = None
    seed: int = 0
    compose: Composition | None = None
    blend: float | None = None
    share: (
        Annotated[float, Between(0, 1, "must be between 0 (the first shape) and 1 (the second)")] | None
    ) = None
    place: list[Any] | None = None
    offset: float | None = None
    shell: Annotated[float, Above(0, "must be positive, the thickness of the wall")] | None = None
    frame: Frame = "original"


@dataclass
class Extract(OfShapes):
    resolution: Resolution = 128
    method: Method = "sparse"
    coarse: Annotated[int, AtLeast(1, "cell a side")] | None = None
    bounds: list[Any] | None = None
    level: float | None = None
    largest: bool = False
    faces: Annotated[int, AtLeast(4, "triangles make a closed surface")] | None = None
    refine: Annotated[int, AtLeast(0, "steps")] = 0
    normals: bool = False
    format: ExtractFormat = "ply"
    texture: Annotated[int, Between(64, 16384, "must be between 64 and 16384 pixels a side")] | None = None
    points: Count = 100_000


@dataclass
class Render(OfShapes):
    camera: Annotated[Literal["turntable", "spiral", "test", "train", "path"], ThereIs()] | None = None
    path: str | None = None
    frames: Count | None = None
    size: Annotated[int, Between(8, 2**17, "must be between 8 and 131072 pixels")] | None = None
    channels: Channel | Annotated[list[Channel], Some("give some of rgb, depth, opacity, normal")] = field(
        default_factory=lambda: ["rgb"]
    )
    shadows: bool = True
    shape: str | None = None
    appearance: str | None = None
    antialias: Annotated[int, Between(1, 16, "must be between 1 and 16")] = 2
    crop: list[Any] | None = None
    elevation: Annotated[float, Between(-89, 89, "must be between -89 and 89 degrees")] = 20.0
    up: Literal["y", "z", "auto"] = "y"
    background: str | list[float] | None = None
    transparent: bool = False
    format: Literal["png", "gif", "mp4", "npy"] = "png"


@dataclass
class ViewRuns(OfShapes):
    port: Annotated[int, Between(1, 65535, "must be between 1 and 65535")] = 8080
    host: str = "127.0.0.1"
    open: bool = False
    resolution: Annotated[int, Between(16, 1024, "must be between 16 and 1024 grid points a side")] = 128
    size: Annotated[int, Between(16, 4096, "must be between 16 and 4096 pixels")] = 400
    seconds: Annotated[float, Above(0, "must be positive")] | None = None


@dataclass
class NewShapes:
    """How new shapes are seen and inferred; None leaves it to the model."""

    observe: str | None = None
    points: Count = 8192
    noise: Annotated[float, AtLeast(0)] = 0.0
    keep: Literal["x+", "x-", "y+", "y-", "z+", "z-"] | None = None
    pose: int = 0
    steps: int | None = None
    restarts: int | None = None
    together: Count = 16
    seed: Annotated[int, AtLeast(0)] = 0


@dataclass
class Reconstruct(NewShapes):
    input: Annotated[str | list[str], Give("a file or a folder")] = MISSING
    turn_normals: bool = False
    normalise: str = "auto"
    run: str | None = None
    checkpoint: Which = "last"
    resolution: Resolution = 128
    method: Method = "sparse"
    format: MeshFormat = "ply"
    frame: Frame = "original"
    picture: bool = False
    save: Literal["run"] | None = None
    output: str | None = None
    device: str = "auto"


@dataclass
class Evaluate(NewShapes):
    run: str | None = None
    checkpoint: Which = "last"
    instances: Choice = None
    protocol: Measure | list[Measure] | None = None
    data: dict[str, Any] | None = None
    split: str | None = None
    views: Choice = None
    mesh: str | None = None
    reference: str | None = None
    scan: str | None = None
    curve: int | list[int] | None = None
    resolution: Resolution = 128
    method: Method = "sparse"
    output: str | None = None
    device: str = "auto"


@dataclass
class ImportDeepSdf:
    folder: Annotated[str, Give("an experiment's folder")] = MISSING
    epoch: str | int = "latest"
    data_root: str | None = None
    output_dir: str | None = None


SCHEMAS: dict[str, type] = {
    "prepare": Prepare,
    "train": Train,
    "extract": Extract,
    "render": Render,
    "view": ViewRuns,
    "reconstruct": Reconstruct,
    "evaluate": Evaluate,
    "import-deepsdf": ImportDeepSdf,
}
