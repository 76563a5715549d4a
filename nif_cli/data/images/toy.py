"""An image made on the spot."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8


def colour_card(size: int = 256) -> UInt8[np.ndarray, "H W 3"]:
    """An image made on the spot: a star of growing frequencies, a chequerboard, rings and smooth colour."""
    y, x = (np.mgrid[:size, :size] + 0.5) / size * 2 - 1
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    card = np.stack([0.5 + 0.4 * x, 0.5 - 0.3 * y, 0.6 - 0.3 * x * y], -1)
    star = 0.5 + 0.5 * np.sign(np.sin(24 * angle))
    rings = 0.5 + 0.5 * np.cos(40 * radius**2)
    chequers = (np.floor(x * 16) + np.floor(y * 16)) % 2
    card[radius < 0.6] = star[radius < 0.6, None] * [0.95, 0.9, 0.8] + 0.05
    corner = (x > 0.3) & (y > 0.3) & (radius >= 0.6)
    card[corner] = rings[corner, None] * [0.9, 0.3, 0.2] + 0.05
    corner = (x < -0.3) & (y < -0.3) & (radius >= 0.6)
    card[corner] = chequers[corner, None] * [0.2, 0.4, 0.8] + 0.1
    return (card.clip(0, 1) * 255 + 0.5).astype(np.uint8)
