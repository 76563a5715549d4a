"""Images -> codes: ResNet-18 (He et al. 2016), from scratch or from a weight file of the user's own."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from nif_cli import NifError
from nif_cli.encoders.encoder import Encoder
from nif_cli.fields.batch_norm import BatchNorm2d
from nif_cli.torch_files import read_torch

# of ImageNet, as every published weight file expects
MEAN, STD = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)


class BasicBlock(nn.Module):
    def __init__(self, features: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(features, out, 3, stride, 1, bias=False)
        self.bn1 = BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = BatchNorm2d(out)
        same = stride == 1 and features == out
        self.downsample = (
            None if same else nn.Sequential(nn.Conv2d(features, out, 1, stride, bias=False), BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        change = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(change + (x if self.downsample is None else self.downsample(x)))


class ResNet18(Encoder):
    """images [S, 3, H, W], sRGB bytes -> code [S, Z]. `size`: pixels along a side while it trains
    (published: 224); `width`: of the first layers (64). `weights`: a state dict with the usual names (conv1,
    layer1.0.conv1, ...), for width 64; nothing is ever downloaded. `views`: how many images of each shape
    it learns from."""

    kind = "image"

    def __init__(
        self,
        code_size: int = 256,
        size: int = 224,
        views: int = 24,
        width: int = 64,
        weights: str | None = None,
    ):
        super().__init__()
        if code_size < 1 or not 16 <= size <= 1024 or views < 1 or width < 1:
            raise ValueError(
                f"code_size={code_size}, size={size}, views={views}, width={width}: all positive, size "
                "between 16 and 1024"
            )
        self.code_size, self.size, self.views = code_size, size, views
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        features = width
        for level in range(4):
            out = width * 2**level
            blocks = [BasicBlock(features, out, 1 if level == 0 else 2), BasicBlock(out, out, 1)]
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
            features = out
        self.fc = nn.Linear(features, code_size)
        if (
            weights is not None and torch.get_default_device().type != "meta"
        ):  # a run that is read brings its own
            self._start_from(Path(weights).expanduser())

    def forward(self, images: UInt8[Tensor, "S 3 H W"]) -> Tensor:
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (MEAN, STD))
        x = ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for level in range(1, 5):
            x = getattr(self, f"layer{level}")(x)
        return self.fc(x.mean((2, 3)))

    def _start_from(self, path: Path) -> None:
        """Weights from a file, as data; the last layer keeps its own, its size is that of the code."""
        try:
            state = read_torch(path, "file of weights alone (a state dict saved by torch)")
        except NifError as error:
            raise NifError(f"encoder.weights={error}") from error
        state = state.get("state_dict", state) if isinstance(state, dict) else {}
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("fc.")}
        lacking = [k for k, v in own.items() if getattr(state.get(k), "shape", None) != v.shape]
        if lacking:
            raise NifError(
                f"encoder.weights={path}: not the weights of a ResNet-18 ({lacking[0]} is missing or of "
                "another shape; width=64)"
            )
        self.load_state_dict({k: state[k] for k in own}, strict=False)
