"""Products with Z'WZ, the unfactorised cross-products of all random effects."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import sparse

from crosslmm.covariance import FloatArray
from crosslmm.crossproducts import PairBlock
from crosslmm.linalg.levels import apply

Vectors = tuple[FloatArray, ...]


@dataclass(frozen=True)
class GramOperator:
    """``A = Z'WZ`` acting on effects given per factor as (k, L, m).

    Attributes
    ----------
    diagonal : tuple of ndarray, each (k, k, L)
    pairs : tuple of (f, g, matrices)
        For factors f < g, ``matrices[i][j]`` is the (L_f, L_g) matrix of column i of f with column j of g.
    """

    diagonal: tuple[FloatArray, ...]
    pairs: tuple[tuple[int, int, tuple[tuple[sparse.csr_array, ...], ...]], ...]

    def apply(self, z: Vectors) -> Vectors:
        """``A z`` with every factor's part (k, L, m)."""
        result = [apply(D, v) for D, v in zip(self.diagonal, z, strict=True)]
        for f, g, matrices in self.pairs:
            for i, row in enumerate(matrices):
                for j, M in enumerate(row):
                    result[f][i] += M @ z[g][j]
                    result[g][j] += M.T @ z[f][i]
        return tuple(result)


def gram_operator(diagonal: tuple[FloatArray, ...], pairs: tuple[tuple[int, int, PairBlock], ...]) -> GramOperator:
    """Operator from the blocks of the cross-products (indices and values are shared, not copied)."""
    operators = []
    for f, g, block in pairs:
        k_f, k_g, _ = block.values.shape
        shape = (diagonal[f].shape[2], diagonal[g].shape[2])
        indptr = block.indptr.astype(block.indices.dtype)
        matrices = tuple(
            tuple(sparse.csr_array((block.values[i, j], block.indices, indptr), shape=shape) for j in range(k_g))
            for i in range(k_f)
        )
        operators.append((f, g, matrices))
    return GramOperator(diagonal, tuple(operators))
