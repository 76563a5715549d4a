"""The image encoder: the published size, and weights from the user's own file, as data."""

from pathlib import Path

import pytest
import torch

from nif_cli import NifError
from nif_cli.encoders.image import ResNet18
from nif_cli.encoders.voxels import VoxelNet


def test_the_published_sizes():
    """ResNet-18 with its thousand classes has 11,689,512 parameters; the 3D network is counted by hand."""
    assert sum(p.numel() for p in ResNet18(1000).parameters()) == 11_689_512
    convolutions = sum(27 * a * b + b for a, b in ((1, 32), (32, 64), (64, 128), (128, 256), (256, 512)))
    assert sum(p.numel() for p in VoxelNet(256).parameters()) == convolutions + 4096 * 256 + 256


def test_weights_from_a_file(tmp_path: Path):
    there = ResNet18(7)
    torch.save(there.state_dict(), tmp_path / "resnet.pth")
    here = ResNet18(5, weights=str(tmp_path / "resnet.pth"))  # another code size: its last layer is its own
    assert torch.equal(*(m.get_parameter("layer3.0.conv1.weight") for m in (here, there)))
    with torch.device("meta"):  # a run is read: the file may be gone
        ResNet18(5, weights=str(tmp_path / "gone.pth"))


def test_files_that_are_no_weights_are_refused(tmp_path: Path):
    with pytest.raises(NifError, match="no such file"):
        ResNet18(5, weights=str(tmp_path / "x.pth"))
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pth")
    with pytest.raises(NifError, match="not the weights of a ResNet-18"):
        ResNet18(5, weights=str(tmp_path / "x.pth"))
    (tmp_path / "x.pth").write_bytes(b"nothing")
    with pytest.raises(NifError, match="not a file of weights"):
        ResNet18(5, weights=str(tmp_path / "x.pth"))
    torch.save(Path("code"), tmp_path / "x.pth")
    with pytest.raises(NifError, match="not a file of weights"):
        ResNet18(5, weights=str(tmp_path / "x.pth"))


def test_codes():
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    assert ResNet18(9, width=8).eval()(images).shape == (2, 9)
    encoder = VoxelNet(9, 16, 4)
    grid = torch.rand(2, 16, 16, 16) > 0.5
    assert encoder(grid).shape == (2, 9)
    assert not torch.allclose(encoder(grid), encoder(grid.transpose(1, 3)))


@pytest.mark.parametrize("make", [lambda: ResNet18(0), lambda: ResNet18(4, size=3), lambda: VoxelNet(4, 20)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="size="):
        make()
