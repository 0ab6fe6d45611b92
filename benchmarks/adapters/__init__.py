"""One small module per library.

Each imports its library inside its functions, and has

- ``LABEL``: the name in tables;
- ``skip(problem)``: why the library cannot state this model, or None;
- ``version()``: of the library; ImportError where it is not installed;
- ``fitter(problem, data)``: a function of no arguments that builds the model from the data frame, fits it and returns
  -2 log-likelihood (restricted under REML);
- ``refitter(problem, data)``: the same without building the model, which is built and fitted once beforehand.

lme4 is the exception: its module gives the command that runs ``lme4.R``, which prints what `benchmarks.child` prints.
"""

LIBRARIES = (
    "crosslmm",
    "lme4",
    "mixedlm",
    "interlace",
    "lme_python",
    "gpboost",
    "gpboost_iterative",
    "statsmodels",
    "mixedlm_rs",
)
