"""The reference fits of ``reference/``, their data, and their formulas read without crosslmm."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import formulaic
import numpy as np
import pandas as pd

from crosslmm import datasets
from crosslmm.datasets._read import read_table

HERE = Path(__file__).resolve().parent


def model_names() -> list[str]:
    return sorted(path.stem for path in (HERE / "reference" / "models").glob("*.json"))


@cache
def load_model(name: str) -> dict[str, Any]:
    return json.loads((HERE / "reference" / "models" / f"{name}.json").read_text(encoding="utf8"))


@cache
def load_lrt() -> dict[str, Any]:
    return json.loads((HERE / "reference" / "lrt.json").read_text(encoding="utf8"))


@cache
def load_data(dataset: str) -> pd.DataFrame:
    """Data of a model's ``dataset``; shared, so do not change it."""
    if (HERE / "data" / f"{dataset}.json").exists():
        return read_table(dataset, HERE / "data")
    data = getattr(datasets, f"load_{dataset}")()
    if dataset == "sleepstudy":
        data["off"] = 8.0 * data["Days"]
    return data


def r_name(name: str) -> str:
    """R's name of a column that formulaic names: ``recipe[T.B]:temperature[T.185]`` -> ``recipeB:temperature185``."""
    return re.sub(r"\[(?:T\.)?(.*?)\]", r"\1", name).replace("Intercept", "(Intercept)")


def unordered(name: str) -> str:
    """The name with the factors of an interaction sorted: R and formulaic may order ``a:b`` differently."""
    return ":".join(sorted(name.split(":")))


def r_columns(names) -> dict[str, str]:
    """R's name of each of our column names, up to the order of an interaction (see `unordered`)."""
    return {name: unordered(r_name(name)) for name in names}


@dataclass(frozen=True)
class Bar:
    """One ``(columns | group)`` with the data it stands for."""

    group: str  # as lme4 labels it: "b:a" for the inner factor of a/b
    columns: list[str]  # R's names
    codes: np.ndarray  # (n,)
    levels: list[str]  # "blevel:alevel"
    Z: np.ndarray  # (n, k)


@dataclass(frozen=True)
class Pieces:
    """A reference model taken apart: what `dense.Dense` needs, terms in lme4's order."""

    y: np.ndarray
    X: np.ndarray
    columns: list[str]  # of X, R's names with interactions sorted
    bars: list[Bar]
    weights: np.ndarray | None
    offset: np.ndarray | None

    @property
    def terms(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(bar.codes, bar.Z) for bar in self.bars]


def pieces(ref: dict[str, Any]) -> Pieces:
    """Response, X, Z, weights and offset of a reference model."""
    data = load_data(ref["dataset"])
    response, rhs = (side.strip() for side in ref["formula"].split("~"))
    fixed = re.sub(r"\+?\s*\([^()]*\|[^()]*\)", "", rhs)
    X = formulaic.model_matrix(fixed, data)
    bars = [bar for text in re.findall(r"\(([^()]*\|[^()]*)\)", rhs) for bar in _bars(text, data)]
    sizes = [len(bar.levels) for bar in bars]
    if any(np.diff(sizes) > 0):
        bars = sorted(bars, key=lambda bar: len(bar.levels))[::-1]
    return Pieces(
        y=data[response].to_numpy(float),
        X=X.to_numpy(float),
        columns=list(r_columns(X.columns).values()),
        bars=bars,
        weights=data[ref["weights"]].to_numpy(float) if ref["weights"] else None,
        offset=data[ref["offset"]].to_numpy(float) if ref["offset"] else None,
    )


def _bars(text: str, data: pd.DataFrame) -> list[Bar]:
    columns, bar, grouping = re.fullmatch(r"(.*?)(\|\|?)(.*)", text).groups()
    nested = [name.strip() for name in grouping.split("/")]
    groups = [":".join(nested[i::-1]) for i in range(len(nested))]
    parts = [columns]
    if bar == "||":  # all of these in the reference are intercept and one numeric column
        parts = ["1", f"0 + {columns}"]
    return [_bar(part, group, data) for group in groups for part in parts]


def _bar(columns: str, group: str, data: pd.DataFrame) -> Bar:
    Z = formulaic.model_matrix(columns, data)
    labels = data[group.split(":")].astype(str).agg(":".join, axis=1)
    codes, levels = pd.factorize(labels)
    return Bar(group, [r_name(name) for name in Z.columns], codes, list(levels), Z.to_numpy(float))
