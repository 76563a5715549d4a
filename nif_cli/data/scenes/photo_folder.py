"""Photographs without cameras: which files of a folder can be used, which not and why, and upright copies of
them where a scene lies."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps

from nif_cli import NifError
from nif_cli.data.scenes.formats.photos import mask
from nif_cli.files import safe_name, write
from nif_cli.progress import watched
from nif_cli.untrusted import opened_image, reading, shown

READ = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
UNREAD = (".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")
AS_THEY_ARE = (".png", ".jpg", ".jpeg")  # every program on the way reads them
MOST = 20_000
LOOKED_AT = 640  # pixels of the longest side: enough to tell sharp from blurred
EXIF = {"turn": 0x0112, "make": 0x010F, "model": 0x0110, "more": 0x8769}
FOCAL = (0x920A, 0xA405)  # in millimetres, and as of 35 mm film


@dataclass(frozen=True)
class Photo:
    """A photograph that can be used. `name` is its path in the scene's folder of images."""

    path: Path
    name: str
    size: tuple[int, int]
    """Width and height, upright."""
    lens: tuple[object, ...]
    """What photographs of one camera have in common: size, make, model, focal length."""
    sharpness: float
    digest: str
    as_it_is: bool
    """Whether the file can stand in the scene's folder: upright, JPEG or PNG, 8 bits."""


def photographs_of(folder: Path) -> tuple[list[Photo], dict[str, str]]:
    """The photographs of a folder and its folders by name, and those left out with the reason. NifError where
    there are none."""
    files = list(_files(folder))
    unread = [f for f in files if f.suffix.lower() in UNREAD]
    files = [f for f in files if f.suffix.lower() in READ]
    left_out = {
        f.relative_to(folder).as_posix(): f"{f.suffix[1:].upper()} is not read: convert it to JPEG"
        for f in unread
    }
    if not files:
        why = f": its {len(unread)} {unread[0].suffix} files are not read, convert them to JPEG"
        raise NifError(f"input={folder}: it holds no photographs" + (why if unread else ""))
    photos: list[Photo] = []
    known: dict[str, str] = {}
    names: dict[str, Path] = {}
    for file in watched(files, "looking at photographs", "image"):
        inner = file.relative_to(folder).as_posix()
        try:
            photo = look(file, inner)
        except NifError as error:
            said = str(error).removeprefix(f"{file}: ")
            left_out[inner] = f"damaged: {said}"
            continue
        if photo.digest in known:
            left_out[inner] = f"the same image as {known[photo.digest]}"
            continue
        known[photo.digest] = inner
        if other := names.get(photo.name.lower()):
            raise NifError(f"two photographs would be called '{photo.name}': {other} and {file}; rename one")
        names[photo.name.lower()] = file
        photos.append(photo)
    return photos, left_out


def _files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__MACOSX")))
        for name in sorted(names):
            file = Path(place, name)
            if not name.startswith(".") and file.suffix.lower() in (*READ, *UNREAD) and file.is_file():
                seen += 1
                if seen > MOST:
                    raise NifError(f"input={folder}: more than {MOST:,} photographs")
                yield file


def look(path: Path, name: str) -> Photo:
    """A photograph read to its end. NifError for one that is damaged."""
    with opened_image(path) as image, reading(path, "an image"):
        plain = image.mode in ("RGB", "L", "RGBA", "LA", "P", "CMYK", "YCbCr")
        size, exif = image.size, image.getexif()
        image.draft("L", (LOOKED_AT, LOOKED_AT))  # a JPEG is unpacked as small as that
        turn = exif.get(EXIF["turn"], 1)
        width, height = size
        upright = (height, width) if turn in (5, 6, 7, 8) else (width, height)
        more = exif.get_ifd(EXIF["more"])
        lens = (upright, *(str(exif.get(EXIF[k], "")) for k in ("make", "model")))
        lens = (*lens, *(str(more.get(k, "")) for k in FOCAL))
        sharpness = sharpness_of(_grey(image))
    suffix = path.suffix.lower()
    as_it_is = suffix in AS_THEY_ARE and plain and turn in (0, 1) and safe_name(name) == name
    if suffix not in AS_THEY_ARE or not plain:
        name = str(Path(name).with_suffix(".png"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha1").hexdigest()
    return Photo(path, safe_name(name), upright, lens, sharpness, digest, as_it_is)


def _grey(image: Image.Image) -> Float[np.ndarray, "H W"]:
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float32)
        return values * (255 / max(float(values.max()), 1e-9))
    image.thumbnail((LOOKED_AT, LOOKED_AT))
    return np.asarray(image.convert("L")).astype(np.float32)


def sharpness_of(grey: Float[np.ndarray, "H W"]) -> float:
    """The variance of the Laplacian (Pech-Pacheco et al. 2000); of grey values from 0 to 255."""
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    return float((grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * middle).var())


def place(photos: list[Photo], images: Path) -> None:
    """The photographs below the folder `images`, by their names: linked where the file system can and they
    are as they should be, else upright copies. Those that are there already stay."""
    for photo in watched(photos, "copying photographs", "image"):
        target = images / photo.name
        if target.is_file():
            continue
        if not photo.as_it_is:
            write(target, _upright(photo))
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(photo.path.resolve(), target)
        except OSError:  # another disk, or a system without links
            source = photo.path
            write(target, lambda temporary, source=source: _copied(source, temporary))


def _copied(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _upright(photo: Photo):
    def save(temporary: Path) -> None:
        with opened_image(photo.path) as image, reading(photo.path, "an image"):
            if image.mode.startswith("I"):  # 16 bits of grey
                grey = np.asarray(image).astype(np.int64).clip(0, 65535)
                turned = Image.fromarray(((grey + 128) // 257).astype(np.uint8))
            else:
                turned = ImageOps.exif_transpose(image)
            exif = turned.getexif()  # the focal length stays; the turn is done
            if photo.name.lower().endswith(".png"):
                turned = turned if turned.mode in ("L", "RGB", "RGBA") else turned.convert("RGB")
                turned.save(temporary, "png", exif=exif)
            else:
                turned.convert("RGB").save(temporary, "jpeg", quality=95, subsampling=0, exif=exif)

    return save


def place_masks(photos: list[Photo], given: Path | None, scene: Path) -> tuple[dict[str, str], Path | None]:
    """Masks by the names of their photographs, as paths in the scene's folder, and the folder in which COLMAP
    finds what is to be seen (<name>.png): those of the folder `given`, and of transparent photographs their
    own. NifError for masks that fit no photograph."""
    found, hidden = {}, scene / "colmap" / "masks"
    for photo in photos:
        wanted = [
            f"{photo.name}.png",
            str(Path(photo.name).with_suffix(".png")),
            f"{Path(photo.name).stem}.png",
        ]
        file = next((given / w for w in wanted if given is not None and (given / w).is_file()), None)
        if file is not None:
            seen = Image.fromarray(np.where(mask(file, photo.size, counts=True), 255, 0).astype(np.uint8))
            found[photo.name] = f"masks/{photo.name}.png"
            write(scene / found[photo.name], lambda to, seen=seen: seen.save(to, "png"))
        elif (seen := _opaque(photo, scene / "images")) is None:
            continue
        write(hidden / f"{photo.name}.png", lambda to, seen=seen: seen.save(to, "png"))
    if given is not None and not found:
        raise NifError(f"mask={given}: no file there is named as a photograph ({photos[0].name}.png)")
    return found, hidden if hidden.is_dir() else None


def _opaque(photo: Photo, images: Path) -> Image.Image | None:
    """What a transparent photograph shows; None where it is opaque."""
    with opened_image(images / photo.name) as image, reading(photo.path, "an image"):
        if image.mode not in ("RGBA", "LA"):
            return None
        alpha = image.getchannel("A")
        return None if alpha.getextrema()[0] == 255 else alpha.point([255 * (v > 127) for v in range(256)])


def by_lens(photos: list[Photo]) -> list[list[Photo]]:
    """Those of one lens together."""
    found: dict[tuple[object, ...], list[Photo]] = {}
    for photo in photos:
        found.setdefault(photo.lens, []).append(photo)
    return list(found.values())


def blurred(photos: list[Photo], share: float = 0.2) -> list[str]:
    """The names of those that are much less sharp than the others."""
    usual = float(np.median([p.sharpness for p in photos])) if photos else 0.0
    return [shown(p.name) for p in photos if p.sharpness < share * usual]
