"""A small data frame with every kind of column, and designs made from it."""

import numpy as np
import pandas as pd

from crosslmm.design import build_design
from crosslmm.formula import parse

N = 60


def small_frame():
    rng = np.random.default_rng(5)
    g = np.append(list("abcde"), rng.choice(list("abcde"), N - 5))
    frame = pd.DataFrame({"y": rng.normal(size=N), "x": rng.normal(size=N), "g": g, "h": rng.integers(1, 4, N)})
    return frame.assign(f=pd.Categorical(rng.choice(list("pq"), N), categories=["q", "none", "p"]), w=1.0 + frame.h)


def design_of(formula, data, **options):
    return build_design(parse(formula), data, **options)
