"""One picture per parameter, side by side: profiles and bootstrap samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from crosslmm.errors import ModelError
from crosslmm.plots.axes import new_panels
from crosslmm.plots.curves import profile_density, profile_zeta, sample_density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (4.4, 3.4)

KINDS = {"zeta": profile_zeta, "density": profile_density}


def profile_panels(
    profiles: Sequence[tuple[str, np.ndarray, np.ndarray]], kind: str = "zeta", *, ax: Axes | None = None
) -> np.ndarray:
    """Profiles of several parameters.

    Parameters
    ----------
    profiles : sequence of (str, ndarray, ndarray)
        Name, values and zeta at them, of each parameter.
    kind : {"zeta", "density"}
    ax : matplotlib axes, optional
        Where to draw the profile if there is one only.

    Returns
    -------
    ndarray of axes, one per parameter

    Raises
    ------
    ModelError
        The kind is unknown, or one axes is given for several parameters.
    """
    if kind not in KINDS:
        raise ModelError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}")
    panels = _panels(len(profiles), ax)
    for panel, (name, values, zeta) in zip(panels, profiles, strict=True):
        KINDS[kind](values, zeta, name=name, ax=panel)
    return panels


def sample_panels(samples: Sequence[tuple[str, np.ndarray, float]], *, ax: Axes | None = None) -> np.ndarray:
    """Densities of the bootstrap samples of several parameters.

    Parameters
    ----------
    samples : sequence of (str, ndarray, float)
        Name, sample and estimate of each parameter.
    ax : matplotlib axes, optional
        Where to draw the density if there is one parameter only.

    Returns
    -------
    ndarray of axes, one per parameter
    """
    panels = _panels(len(samples), ax)
    for panel, (name, sample, estimate) in zip(panels, samples, strict=True):
        sample_density(sample, name=name, estimate=estimate, ax=panel)
    return panels


def _panels(n: int, ax: Axes | None) -> np.ndarray:
    if n == 0:
        raise ModelError("there is no parameter to draw")
    if ax is None:
        return new_panels(n, SIZE)
    if n > 1:
        raise ModelError(f"ax= is one axes, and there are {n} parameters: name one of them, or leave ax out")
    panels = np.empty(1, dtype=object)
    panels[0] = ax
    return panels
