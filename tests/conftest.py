from functools import cache

import pytest
from refdata import load_data, load_model

import crosslmm as clm


@pytest.fixture(scope="session")
def reference_fit():
    """Fit a reference model by the public function, once per session."""

    @cache
    def fit(name):
        ref = load_model(name)
        data = load_data(ref["dataset"])
        return clm.lmer(ref["formula"], data, reml=ref["reml"], weights=ref["weights"], offset=ref["offset"])

    return fit
