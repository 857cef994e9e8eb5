"""How much a latent says where it fires: its share of its own maximum, discounted where it fires everywhere."""

import numpy as np
import numpy.typing as npt


def strength_of(share: npt.NDArray[np.float64], density: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """share x min(1, -log10(density) / 4): a latent that fires everywhere says little about any prompt."""
    rarity = -np.log10(np.maximum(density.astype(np.float64), 1e-12)) / 4
    weighted: npt.NDArray[np.float64] = share * np.clip(rarity, 0, 1)
    return weighted
