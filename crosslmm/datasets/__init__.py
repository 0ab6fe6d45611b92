"""Data sets of the mixed-model literature, as pandas frames.

Factors are unordered Categorical columns whose levels stand in the order of the R package the data come from
(the first is the reference level of a treatment coding). Each call reads the file anew.
"""

from crosslmm.datasets.loaders import (
    load_cake,
    load_classroom,
    load_dietox,
    load_dyestuff,
    load_dyestuff2,
    load_insteval,
    load_machines,
    load_nlschools,
    load_orthodont,
    load_pastes,
    load_penicillin,
    load_scotssec,
    load_sleepstudy,
    load_verbagg,
)

__all__ = [
    "load_cake",
    "load_classroom",
    "load_dietox",
    "load_dyestuff",
    "load_dyestuff2",
    "load_insteval",
    "load_machines",
    "load_nlschools",
    "load_orthodont",
    "load_pastes",
    "load_penicillin",
    "load_scotssec",
    "load_sleepstudy",
    "load_verbagg",
]
