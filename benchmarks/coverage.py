"""Size of the tests of fixed effects and coverage of the intervals, by simulation from small designs.

    python -m benchmarks.coverage [--replicates N] [--refitted N] [--draws N] [--rng SEED] [--designs NAMES]

Responses are drawn row by row from known parameters, without any function of the package, and the model is fitted to
each. A test of the true values should reject in 5%, a 95% interval should cover them in 95% of all samples.
"""

from __future__ import annotations

import argparse
import csv
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd

import crosslmm as clm
from benchmarks import machine
from benchmarks.run import RESULTS
from crosslmm.design.accumulate import accumulate
from crosslmm.design.rows import Design
from crosslmm.results import MixedLMResults

ALPHA = 0.05
METHODS = ("normal", "satterthwaite", "kenward-roger")
JOINT = "joint"
SIZE, COVERAGE = "size", "coverage"


@dataclass(frozen=True)
class Setting:
    """A design with known parameters.

    Attributes
    ----------
    about, formula : str
    data : DataFrame
        All columns but the response y.
    beta : dict of str to float
        Fixed effects by name; all of them.
    sds : dict of str to float
        Standard deviations of the random effects by the names of `conf_int`, as ``sd_x|g``; independent of each other.
    sigma : float
    effect, sd : str
        The fixed effect and the standard deviation that are followed.
    joint : tuple of str
        Fixed effects whose joint test is followed, `effect` among them; none if empty.
    """

    about: str
    formula: str
    data: pd.DataFrame
    beta: dict[str, float]
    sds: dict[str, float]
    sigma: float
    effect: str
    sd: str
    joint: tuple[str, ...] = ()

    @property
    def truth(self) -> dict[str, float]:
        """What intervals should cover."""
        return {self.effect: self.beta[self.effect], self.sd: self.sds[self.sd], "sigma": self.sigma}


@dataclass(frozen=True)
class Rate:
    """One row of the table: how often a method rejected what is true, or covered it.

    Attributes
    ----------
    std_error : float
        Binomial, at the rate that should be.
    undefined : int
        Replicates without a bound or p-value (a standard deviation of 0 has no Wald interval, a profile may not be
        found); they count as not rejecting and as not covering.
    """

    design: str
    quantity: str
    method: str
    parameter: str
    rate: float
    std_error: float
    replicates: int
    undefined: int


def days(n_subjects: int, *, lost: float = 0.0, joint: tuple[str, ...] = ()) -> Setting:
    """Subjects with an intercept and a slope over ten days, as sleepstudy; some of the rows may be lost."""
    rows = pd.DataFrame({"g": np.repeat(np.arange(n_subjects), 10), "x": np.tile(np.arange(10.0), n_subjects)})
    kept = np.random.default_rng(0).random(len(rows)) >= lost
    return Setting(
        about=f"{n_subjects} subjects, 10 days" + (f", {lost:.0%} of the rows lost at random" if lost else ""),
        formula="y ~ x + (x | g)",
        data=rows[kept].reset_index(drop=True),
        beta={"Intercept": 250.0, "x": 10.0},
        sds={"sd_Intercept|g": 25.0, "sd_x|g": 6.0},
        sigma=25.0,
        effect="x",
        sd="sd_x|g",
        joint=joint,
    )


def crossed(n_subjects: int, n_items: int) -> Setting:
    """Every subject sees every item; the condition is one of the items'."""
    rows = pd.DataFrame({"s": np.repeat(np.arange(n_subjects), n_items), "i": np.tile(np.arange(n_items), n_subjects)})
    return Setting(
        about=f"{n_subjects} subjects x {n_items} items, a condition of three levels between items",
        formula="y ~ c + (1 | s) + (1 | i)",
        data=rows.assign(c=np.array(["p", "q", "r"])[rows["i"] % 3]),
        beta={"Intercept": 5.0, "c[T.q]": 0.5, "c[T.r]": 0.0},
        sds={"sd_Intercept|s": 0.7, "sd_Intercept|i": 0.7},
        sigma=1.0,
        effect="c[T.q]",
        sd="sd_Intercept|i",
        joint=("c[T.q]", "c[T.r]"),
    )


SETTINGS = {
    "subjects_6": days(6),
    "subjects_10_lost": days(10, lost=0.4, joint=("Intercept", "x")),
    "subjects_18": days(18, joint=("Intercept", "x")),
    "crossed_8_12": crossed(8, 12),
}


def responses(setting: Setting, rng: np.random.Generator) -> np.ndarray:
    """One response, drawn row by row; shape (n,)."""
    data = setting.data
    y = np.full(len(data), setting.beta["Intercept"])
    for name, value in setting.beta.items():
        if name.startswith("c[T."):
            y += value * (data["c"] == name[4:-1]).to_numpy()
        elif name != "Intercept":
            y += value * data[name].to_numpy()
    for name, sd in setting.sds.items():
        column, group = name.removeprefix("sd_").split("|")
        codes = data[group].to_numpy()
        z = 1.0 if column == "Intercept" else data[column].to_numpy()
        y += z * rng.normal(0.0, sd, codes.max() + 1)[codes]
    return y + rng.normal(0.0, setting.sigma, len(data))


def fitted(design: Design, y: np.ndarray) -> MixedLMResults:
    """The model of a design fitted to another response, by REML."""
    return clm.MixedLM.from_crossproducts(accumulate(replace(design, y=y))).fit()


Outcomes = dict[tuple[str, str, str], list[float]]
"""By quantity, method and parameter: 1 if rejected or covered, 0 if not, nan if undefined."""


def simulate(
    name: str, replicates: int, *, refitted: int = 0, draws: int = 199, rng: int = 1, methods: Iterable[str] = METHODS
) -> list[Rate]:
    """Rates of one design.

    Parameters
    ----------
    name : str
        Of `SETTINGS`.
    replicates : int
    refitted : int
        The first of them get profile and bootstrap intervals too.
    draws : int
        Bootstrap replicates of each.
    rng : int
        Seed; a replicate's response depends on it and on the number of the replicate alone.
    methods : iterable of str
        Degrees of freedom.
    """
    setting = SETTINGS[name]
    generators = np.random.default_rng(rng).spawn(replicates)
    first = clm.MixedLM.from_formula(setting.formula, setting.data.assign(y=responses(setting, generators[0])))
    assert isinstance(first.design, Design)
    outcomes: Outcomes = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", clm.ConvergenceWarning)
        for r, generator in enumerate(generators):
            fit = fitted(first.design, responses(setting, generator))
            _tests(outcomes, setting, fit, methods)
            _intervals(outcomes, setting, "wald", fit.conf_int(ALPHA, which="random"))
            if r < refitted:
                _profiles(outcomes, setting, fit)
                boot = fit.conf_int(ALPHA, method="bootstrap", which=list(setting.truth), n=draws, rng=generator)
                _intervals(outcomes, setting, "bootstrap", boot)
    return [_rate(name, *key, np.array(values)) for key, values in outcomes.items()]


def _tests(outcomes: Outcomes, setting: Setting, fit: MixedLMResults, methods: Iterable[str]) -> None:
    """Tests of the true values, one by one and jointly, and intervals of the effect, by degrees of freedom."""
    tested = setting.joint or (setting.effect,)
    weights = [{name: 1.0} for name in tested]
    for method in methods:
        result = fit.test(weights, value=[setting.beta[name] for name in tested], ddf=method, level=1.0 - ALPHA)
        row = result.rows.iloc[tested.index(setting.effect)]
        outcomes[SIZE, method, setting.effect].append(_below(row["p_value"]))
        if setting.joint:
            outcomes[SIZE, method, JOINT].append(_below(result.p_value))
        covered = _inside(setting.truth[setting.effect], row["lower"], row["upper"])
        outcomes[COVERAGE, method, setting.effect].append(covered)


def _profiles(outcomes: Outcomes, setting: Setting, fit: MixedLMResults) -> None:
    """Profile intervals, one by one, so that one that cannot be found does not take the others with it."""
    for parameter, value in setting.truth.items():
        try:
            interval = fit.conf_int(ALPHA, method="profile", which=[parameter])
        except clm.NumericalError:
            outcomes[COVERAGE, "profile", parameter].append(np.nan)
            continue
        outcomes[COVERAGE, "profile", parameter].append(_inside(value, *interval.loc[parameter, [0, 1]]))


def _intervals(outcomes: Outcomes, setting: Setting, method: str, table: pd.DataFrame) -> None:
    for parameter, value in setting.truth.items():
        if parameter in table.index:
            outcomes[COVERAGE, method, parameter].append(_inside(value, *table.loc[parameter, [0, 1]]))


def _below(p_value: float) -> float:
    return np.nan if np.isnan(p_value) else float(p_value < ALPHA)


def _inside(value: float, lower: float, upper: float) -> float:
    return np.nan if np.isnan(lower) or np.isnan(upper) else float(lower <= value <= upper)


def _rate(design: str, quantity: str, method: str, parameter: str, values: np.ndarray) -> Rate:
    error = float(np.sqrt(ALPHA * (1.0 - ALPHA) / values.size))
    undefined = int(np.isnan(values).sum())
    return Rate(design, quantity, method, parameter, float(np.nan_to_num(values).mean()), error, values.size, undefined)


def write(path: Path, rates: list[Rate]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        file.writelines(f"# {key}: {value}\n" for key, value in machine.describe().items())
        writer = csv.DictWriter(file, [field.name for field in fields(Rate)])
        writer.writeheader()
        for rate in rates:
            writer.writerow(asdict(rate) | {"rate": f"{rate.rate:.4f}", "std_error": f"{rate.std_error:.4f}"})


def table(rates: list[Rate], quantity: str) -> pd.DataFrame:
    """Percentages by design and parameter, methods in columns."""
    own = pd.DataFrame([asdict(rate) for rate in rates if rate.quantity == quantity])
    wide = own.pivot(index=["design", "parameter"], columns="method", values="rate")
    return (100.0 * wide).reindex(columns=own["method"].unique()).reindex(own["design"].unique(), level="design")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicates", type=int, default=1000, help="samples of each design")
    parser.add_argument("--refitted", type=int, default=150, help="of these with profile and bootstrap intervals")
    parser.add_argument("--draws", type=int, default=199, help="bootstrap replicates of each")
    parser.add_argument("--rng", type=int, default=1, help="seed")
    parser.add_argument("--designs", default=",".join(SETTINGS), help="names, separated by commas")
    parser.add_argument("--out", type=Path, default=RESULTS / "coverage.csv")
    options = parser.parse_args()
    rates: list[Rate] = []
    for name in options.designs.split(","):
        start = time.process_time()
        rates += simulate(name, options.replicates, refitted=options.refitted, draws=options.draws, rng=options.rng)
        print(f"{name}: {SETTINGS[name].about}; {time.process_time() - start:.0f} s of processor time")
    write(options.out, rates)
    for quantity in (SIZE, COVERAGE):
        print(f"\n{quantity}, in %\n{table(rates, quantity).to_string(float_format='{:.1f}'.format, na_rep='')}")


if __name__ == "__main__":
    main()
