"""Linear algebra that the engines are made of: small blocks per level, dense and sparse factors, kernels."""
