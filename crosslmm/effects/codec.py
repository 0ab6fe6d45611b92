"""Values as what JSON can hold, and back; what JSON has no word for becomes an object with a key that begins with @."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from formulaic.parser.types import Factor
from formulaic.transforms import contrasts

from crosslmm.errors import ModelError

CONTRASTS = {
    kind.__name__: kind
    for kind in (
        contrasts.TreatmentContrasts,
        contrasts.SASContrasts,
        contrasts.SumContrasts,
        contrasts.HelmertContrasts,
        contrasts.DiffContrasts,
        contrasts.PolyContrasts,
    )
}
UNSET: Any = contrasts.TreatmentContrasts().base
"""What formulaic has where no base level was named."""


def pack(value: Any) -> Any:
    """A value for JSON.

    Raises
    ------
    ModelError
        It is of no known kind.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64)):
        return pack(value.item())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"@number": repr(value)}
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return {
            "@array": [pack(number) for number in value.ravel().tolist()],
            "shape": list(value.shape),
            "type": value.dtype.str,
        }
    for kind, packer in _PACKERS:
        if isinstance(value, kind):
            return packer(value)
    raise ModelError(
        f"{type(value).__module__}.{type(value).__name__} {str(value)[:60]!r}, which the encoding of the data "
        "holds, cannot be "
        "written as text; pickle the fit instead"
    )


def _mapping(value: Mapping[Any, Any]) -> Any:
    if all(isinstance(key, str) and not key.startswith("@") for key in value):
        return {key: pack(item) for key, item in value.items()}
    return {"@pairs": [[pack(key), pack(item)] for key, item in value.items()]}


def _contrasts(value: Any) -> Any:
    kind = type(value).__name__
    if kind not in CONTRASTS:
        raise ModelError(f"contrasts {kind} are not formulaic's own and cannot be written as text; pickle the fit")
    own = {name: pack(item) for name, item in vars(value).items() if item is not UNSET}
    return {"@contrasts": kind, "arguments": own}


_PACKERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (contrasts.ContrastsState, lambda v: {"@state": pack(v.contrasts), "levels": pack(list(v.levels))}),
    (contrasts.Contrasts, _contrasts),
    (Factor.Kind, lambda v: {"@kind": v.value}),
    (pd.Timestamp, lambda v: {"@time": v.isoformat()}),
    (datetime.datetime, lambda v: {"@time": v.isoformat()}),
    (datetime.date, lambda v: {"@date": v.isoformat()}),
    (np.datetime64, lambda v: {"@time": pd.Timestamp(v).isoformat()}),
    (Mapping, _mapping),
    (tuple, lambda v: {"@tuple": [pack(item) for item in v]}),
    (list, lambda v: [pack(item) for item in v]),
    ((np.ndarray, pd.Index, pd.Series), lambda v: {"@objects": [pack(item) for item in v]}),
)


def unpack(value: Any) -> Any:
    """What `pack` was given.

    Raises
    ------
    ModelError
        It was not written by `pack`.
    """
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = next((key for key in value if key.startswith("@")), None)
    if tag is None:
        return {key: unpack(item) for key, item in value.items()}
    if tag not in _UNPACKERS:
        raise ModelError(f"{tag!r} is unknown: this was not written by to_dict, or by a newer crosslmm")
    return _UNPACKERS[tag](value)


def _objects(items: list[Any]) -> np.ndarray:
    result = np.empty(len(items), dtype=object)
    result[:] = [unpack(item) for item in items]
    return result


_UNPACKERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "@number": lambda v: float(v["@number"]),
    "@array": lambda v: np.array(unpack(v["@array"]), dtype=v["type"]).reshape(v["shape"]),
    "@objects": lambda v: _objects(v["@objects"]),
    "@pairs": lambda v: {unpack(key): unpack(item) for key, item in v["@pairs"]},
    "@tuple": lambda v: tuple(unpack(v["@tuple"])),
    "@time": lambda v: pd.Timestamp(v["@time"]),
    "@date": lambda v: datetime.date.fromisoformat(v["@date"]),
    "@kind": lambda v: Factor.Kind(v["@kind"]),
    "@contrasts": lambda v: CONTRASTS[v["@contrasts"]](**unpack(v["arguments"])),
    "@state": lambda v: contrasts.ContrastsState(unpack(v["@state"]), unpack(v["levels"])),
}
