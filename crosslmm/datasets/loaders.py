"""One loader per data set; each docstring says where the data come from and what the columns are."""

from __future__ import annotations

import pandas as pd

from crosslmm.datasets._read import read_table


def load_sleepstudy() -> pd.DataFrame:
    """Reaction times of long-haul drivers on ten days of a sleep-restriction study.

    The group that spent three hours in bed; days 0 and 1 were training, day 2 the baseline.

    Returns
    -------
    DataFrame
        180 rows, balanced: 18 subjects x 10 days.

        - ``Reaction``: average reaction time of the day, ms.
        - ``Days``: day of the study, 0 to 9.
        - ``Subject``: subject number, 18 levels.

    Notes
    -----
    Belenky, G., Wesensten, N. J., Thorne, D. R., et al. (2003). Patterns of performance degradation and
    restoration during sleep restriction and subsequent recovery: a sleep dose-response study.
    *Journal of Sleep Research* 12, 1-12. From the R package lme4 (GPL >= 2), data set ``sleepstudy``.
    """
    return read_table("sleepstudy")


def load_penicillin() -> pd.DataFrame:
    """Penicillin assays: six samples on each of 24 plates, completely crossed.

    Returns
    -------
    DataFrame
        144 rows, one per plate and sample.

        - ``diameter``: diameter of the zone in which *B. subtilis* did not grow, mm.
        - ``plate``: assay plate, 24 levels ``a`` to ``x``.
        - ``sample``: penicillin sample, 6 levels ``A`` to ``F``.

    Notes
    -----
    Davies, O. L. and Goldsmith, P. L., eds. (1972). *Statistical Methods in Research and Production*, 4th ed.,
    Oliver and Boyd, section 6.6. From the R package lme4 (GPL >= 2), data set ``Penicillin``.
    """
    return read_table("penicillin")


def load_pastes() -> pd.DataFrame:
    """Strength of a chemical paste: two assays of each of three casks from ten deliveries, nested.

    Returns
    -------
    DataFrame
        60 rows, two per cask.

        - ``strength``: strength of the paste.
        - ``batch``: delivery, 10 levels ``A`` to ``J``.
        - ``cask``: cask within the delivery, 3 levels ``a`` to ``c`` (used again in every delivery).
        - ``sample``: delivery and cask, 30 levels ``A:a`` to ``J:c``.

    Notes
    -----
    Davies, O. L. and Goldsmith, P. L., eds. (1972). *Statistical Methods in Research and Production*, 4th ed.,
    Oliver and Boyd, section 6.5. From the R package lme4 (GPL >= 2), data set ``Pastes``.
    """
    return read_table("pastes")


def load_dyestuff() -> pd.DataFrame:
    """Yield of dyestuff made from six batches of an intermediate product, five preparations each.

    Returns
    -------
    DataFrame
        30 rows, balanced.

        - ``Batch``: batch of the intermediate (H-acid), 6 levels ``A`` to ``F``.
        - ``Yield``: yield of the preparation, grams of standard colour.

    Notes
    -----
    Davies, O. L. and Goldsmith, P. L., eds. (1972). *Statistical Methods in Research and Production*, 4th ed.,
    Oliver and Boyd, section 6.4. From the R package lme4 (GPL >= 2), data set ``Dyestuff``.
    """
    return read_table("dyestuff")


def load_dyestuff2() -> pd.DataFrame:
    """Constructed data shaped as `load_dyestuff` in which batches differ less than chance would have it.

    The estimate of the variance between batches is zero.

    Returns
    -------
    DataFrame
        30 rows, balanced.

        - ``Batch``: batch, 6 levels ``A`` to ``F``.
        - ``Yield``: simulated yield, no unit.

    Notes
    -----
    Box, G. E. P. and Tiao, G. C. (1973). *Bayesian Inference in Statistical Analysis*, Addison-Wesley,
    section 5.1.2. From the R package lme4 (GPL >= 2), data set ``Dyestuff2``.
    """
    return read_table("dyestuff2")


def load_cake() -> pd.DataFrame:
    """Angle at which chocolate cakes broke: three recipes, 15 replicates each, six temperatures, a split plot.

    Returns
    -------
    DataFrame
        270 rows, one per cake.

        - ``replicate``: replicate within the recipe, 15 levels ``1`` to ``15`` (used again in every recipe).
        - ``recipe``: recipe, 3 levels ``A`` to ``C``.
        - ``temperature``: baking temperature as a factor, degrees Fahrenheit, 6 levels ``175`` to ``225``
          (an ordered factor in R, unordered here).
        - ``angle``: angle at which the cake broke, degrees.
        - ``temp``: baking temperature as a number, degrees Fahrenheit.

    Notes
    -----
    Cook, F. E. (1938). *Chocolate cake, I. Optimum baking temperature*, Master's thesis, Iowa State College;
    Cochran, W. G. and Cox, G. M. (1957). *Experimental Designs*, 2nd ed., Wiley, p. 300.
    From the R package lme4 (GPL >= 2), data set ``cake``.
    """
    return read_table("cake")


def load_insteval() -> pd.DataFrame:
    """Ratings of lecturers by students at ETH Zurich, partly crossed.

    Returns
    -------
    DataFrame
        73,421 rows, one per rating.

        - ``s``: student, 2,972 levels.
        - ``d``: lecturer, 1,128 levels.
        - ``service``: ``1`` for a lecture held for another department than the lecturer's own, else ``0``.
        - ``dept``: department of the lecture, 14 levels in a random code.
        - ``y``: rating, 1 (poor) to 5 (very good).

    Notes
    -----
    From the R package lme4 (GPL >= 2), data set ``InstEval``, which has been anonymised; its columns ``studage``
    and ``lectage`` are left out.
    """
    return read_table("insteval")


def load_dietox() -> pd.DataFrame:
    """Weekly weights of pigs under nine diets: three doses of vitamin E by three doses of copper.

    Returns
    -------
    DataFrame
        861 rows, 72 pigs weighed up to 12 times.

        - ``Pig``: pig, 72 levels.
        - ``Litter``: litter of the pig, 21 levels.
        - ``Evit``: vitamin E in the feed, mg/kg, 3 levels ``Evit000``, ``Evit100``, ``Evit200``.
        - ``Cu``: copper in the feed, mg/kg, 3 levels ``Cu000``, ``Cu035``, ``Cu175``.
        - ``Time``: time in the experiment, weeks, 1 to 12.
        - ``Start``: weight in week 1, kg.
        - ``Weight``: weight, kg.

    Notes
    -----
    Lauridsen, C., Hojsgaard, S. and Sorensen, M. T. (1999). Influence of dietary rapeseed oil, vitamin E, and
    copper on the performance and the antioxidative and oxidative status of pigs. *Journal of Animal Science* 77,
    906-916. From the R package geepack (GPL >= 3), data set ``dietox``; its column ``Feed`` is left out.
    """
    return read_table("dietox")


def load_machines() -> pd.DataFrame:
    """Productivity of six workers on three machines, three runs each, crossed.

    Returns
    -------
    DataFrame
        54 rows, balanced.

        - ``Worker``: worker, 6 levels, by increasing best score (an ordered factor in R, unordered here).
        - ``Machine``: brand of machine, 3 levels ``A`` to ``C``.
        - ``score``: productivity score, number and quality of the components made.

    Notes
    -----
    Milliken, G. A. and Johnson, D. E. (1992). *Analysis of Messy Data, Volume I: Designed Experiments*, Chapman
    and Hall, p. 285; Pinheiro, J. C. and Bates, D. M. (2000). *Mixed-Effects Models in S and S-PLUS*, Springer,
    appendix A.14. From the R package nlme (GPL >= 2), data set ``Machines``.
    """
    return read_table("machines")


def load_orthodont() -> pd.DataFrame:
    """Growth of a facial distance of 27 children, measured at four ages.

    Returns
    -------
    DataFrame
        108 rows, balanced.

        - ``distance``: distance from the pituitary to the pterygomaxillary fissure, mm.
        - ``age``: age, years: 8, 10, 12, 14.
        - ``Subject``: child, 27 levels, boys ``M01`` to ``M16`` before girls ``F01`` to ``F11``, each by
          increasing mean distance (an ordered factor in R, unordered here).
        - ``Sex``: ``Male`` (16 children) or ``Female`` (11 children).

    Notes
    -----
    Potthoff, R. F. and Roy, S. N. (1964). A generalized multivariate analysis of variance model useful especially
    for growth curve problems. *Biometrika* 51, 313-326; Pinheiro, J. C. and Bates, D. M. (2000). *Mixed-Effects
    Models in S and S-PLUS*, Springer, appendix A.17. From the R package nlme (GPL >= 2), data set ``Orthodont``.
    """
    return read_table("orthodont")


def load_scotssec() -> pd.DataFrame:
    """Attainment of Scottish pupils at age 16, cross-classified by primary and secondary school.

    Returns
    -------
    DataFrame
        3,435 rows, one per pupil.

        - ``verbal``: verbal reasoning score on entry to secondary school, centred near 0.
        - ``attain``: attainment score at age 16, 1 to 10.
        - ``primary``: primary school, 148 levels.
        - ``sex``: ``M`` or ``F``.
        - ``social``: social class of the family, a numeric scale from 0 (low) to 31 (high).
        - ``second``: secondary school, 19 levels.

    Notes
    -----
    Paterson, L. (1991). Socio economic status and educational attainment: a multidimensional and multilevel study.
    *Evaluation and Research in Education* 5, 97-121; distributed by the Centre for Multilevel Modelling, Bristol.
    From the R package mlmRev (GPL >= 2), data set ``ScotsSec``.
    """
    return read_table("scotssec")


def load_verbagg() -> pd.DataFrame:
    """Answers to a questionnaire on verbal aggression: 316 persons by 24 items, completely crossed.

    Returns
    -------
    DataFrame
        7,584 rows, one per person and item.

        - ``Anger``: trait anger of the person, State-Trait Anger Expression Inventory, 11 to 39.
        - ``Gender``: ``F`` or ``M``.
        - ``item``: item, 24 levels ``S1WantCurse`` ... ``S4DoShout``.
        - ``id``: person, 316 levels.
        - ``btype``: behaviour, ``curse``, ``scold`` or ``shout``.
        - ``situ``: who is to blame, ``other`` or ``self``.
        - ``mode``: ``want`` or ``do``.
        - ``yes``: 1 for the answers "yes" and "perhaps", 0 for "no" (``r2 == "Y"`` in R).

    Notes
    -----
    De Boeck, P. and Wilson, M. (2004). *Explanatory Item Response Models*, Springer.
    From the R package lme4 (GPL >= 2), data set ``VerbAgg``; its column ``resp`` is left out.
    """
    return read_table("verbagg")


def load_nlschools() -> pd.DataFrame:
    """Language scores of pupils about 11 years old in 133 Dutch school classes.

    Returns
    -------
    DataFrame
        2,287 rows, one per pupil.

        - ``lang``: language test score, points.
        - ``IQ``: verbal IQ minus the mean of the class, centred.
        - ``class``: school class, 133 levels.
        - ``GS``: pupils in the class.
        - ``SES``: socio-economic status of the family, centred.
        - ``COMB``: ``1`` for a class of two grades, else ``0``.
        - ``IQave``: mean verbal IQ of the class, centred.

    Notes
    -----
    Snijders, T. A. B. and Bosker, R. J. (1999). *Multilevel Analysis*, Sage; Venables, W. N. and Ripley, B. D.
    (2002). *Modern Applied Statistics with S*, 4th ed., Springer, section 10.1, whose centring is used here.
    From the R package MASS (GPL-2 | GPL-3), data set ``nlschools``.
    """
    return read_table("nlschools")


def load_classroom() -> pd.DataFrame:
    """Simulated school scores: classrooms differ so much that ignoring them hides the effect of education.

    Returns
    -------
    DataFrame
        60 rows, 20 pupils in each of 3 classrooms.

        - ``classroom``: classroom, 3 levels ``c0`` to ``c2``.
        - ``edu``: education of the parents, a scale from 0 to 10.
        - ``score``: score of the pupil, points, at most 20.

    Notes
    -----
    Simulated as ``score = 10 + 0.1 edu + (-3, 0, 3)[classroom] + N(0, 1)``. Table ``score_parentedu_byclass.csv``
    of the course *Statistics and Machine Learning in Python* by E. Duchesnay (repository pystatsml, BSD-3-Clause).
    """
    return read_table("classroom")
