"""How ratings are spread over users and films, beside the real MovieLens 25M."""

from __future__ import annotations

import numpy as np
import pandas as pd

RARE = 7  # half of the films of MovieLens 25M have fewer ratings

# Counts: F. M. Harper, J. A. Konstan, MovieLens 25M, grouplens.org; Gini coefficient: LensKit Codex, codex.lenskit.org.
MOVIELENS_25M = {
    "rows": "25,000,095",
    "users": "162,541",
    "films": "59,047",
    "ratings of a user: fewest": "20",
    "ratings of a user: mean": "153.8",
    "ratings of a user: most": "32,202",
    "ratings of a film: fewest": "1",
    "ratings of a film: mean": "423.4",
    "ratings of a film: most": "81,491",
    "films with fewer than 7 ratings": "about half",
    "Gini coefficient of films": "0.942",
}


class Tally:
    """Ratings of each user and of each film, counted chunk by chunk."""

    def __init__(self, users: int, films: int) -> None:
        self.user = np.zeros(users, dtype=np.int64)
        self.film = np.zeros(films, dtype=np.int64)

    def add(self, chunk: pd.DataFrame) -> pd.DataFrame:
        """Count `chunk` and hand it on."""
        self.user += np.bincount(chunk["user"], minlength=self.user.size)
        self.film += np.bincount(chunk["film"], minlength=self.film.size)
        return chunk


def describe(tally: Tally) -> dict[str, str]:
    """The figures of `MOVIELENS_25M` and quartiles, of the levels that occur."""
    user, film = tally.user[tally.user > 0], tally.film[tally.film > 0]
    figures = {"rows": f"{film.sum():,}", "users": f"{user.size:,}", "films": f"{film.size:,}"}
    for name, counts in (("user", user), ("film", film)):
        quartiles = np.quantile(counts, (0.25, 0.5, 0.75))
        figures[f"ratings of a {name}: fewest"] = f"{counts.min():,}"
        figures[f"ratings of a {name}: quartiles"] = ", ".join(f"{value:,.0f}" for value in quartiles)
        figures[f"ratings of a {name}: mean"] = f"{counts.mean():.1f}"
        figures[f"ratings of a {name}: most"] = f"{counts.max():,}"
    figures[f"films with fewer than {RARE} ratings"] = f"{np.mean(film < RARE):.1%}"
    figures["Gini coefficient of films"] = f"{_gini(film):.3f}"
    return figures


def compare(tally: Tally) -> str:
    """Table of the figures, simulated and real."""
    lines = [f"{'':36}{'simulated':>20}{'MovieLens 25M':>20}"]
    lines += [f"{name:36}{value:>20}{MOVIELENS_25M.get(name, ''):>20}" for name, value in describe(tally).items()]
    return "\n".join(lines)


def _gini(counts: np.ndarray) -> float:
    rank = np.arange(1, counts.size + 1)
    return float(2.0 * (rank @ np.sort(counts)) / (counts.size * counts.sum()) - (counts.size + 1) / counts.size)
