"""Models written as in statsmodels: their parameters, likelihood and results."""
