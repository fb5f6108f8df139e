"""Next-token distributions cut to their most likely tokens, and the divergence between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CutDistributions:
    """The most likely tokens of n distributions in full, and a sample of the others, the tail."""

    ids: NDArray[np.uint16]
    """[n, k], most likely first."""
    log_probabilities: NDArray[np.float32]
    """[n, k], natural logarithms."""
    tail_ids: NDArray[np.uint16]
    """[n, m], drawn with replacement by their probability within the tail."""
    tail_log_probabilities: NDArray[np.float32]
    """[n, m], within the whole distribution."""
    log_tail: NDArray[np.float32]
    """[n], logarithm of what the tail has together."""


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turn logits [n, vocab] into natural log probabilities."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def cut(log_probabilities: NDArray[np.float64], k: int, *, seed: int) -> CutDistributions:
    """Keep the `k` most likely tokens of each row of [n, vocab] and draw `k` of the others."""
    ids = np.argpartition(-log_probabilities, k, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(log_probabilities, ids, axis=1), axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    tail = _without(log_probabilities, ids)
    cumulative = np.cumsum(np.exp(tail), axis=1)
    draws = np.random.default_rng(seed).random((len(ids), k)) * cumulative[:, -1:]
    tail_ids = np.stack([np.searchsorted(c, d, side="right") for c, d in zip(cumulative, draws, strict=True)])
    return CutDistributions(
        ids=ids.astype(np.uint16),
        log_probabilities=np.take_along_axis(log_probabilities, ids, axis=1).astype(np.float32),
        tail_ids=tail_ids.astype(np.uint16),
        tail_log_probabilities=np.take_along_axis(log_probabilities, tail_ids, axis=1).astype(np.float32),
        log_tail=np.log(cumulative[:, -1]).astype(np.float32),
    )


def divergence(reference: CutDistributions, ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimate KL(reference || ours) per row, nats; `ours` is [n, vocab].

    By the chain rule, KL is that of the top tokens with the tail as one token (exact here), plus the tail's
    mass times the KL within the tail. The latter is the mean of r - 1 - log r over tokens drawn from the
    reference's tail, r = ours / reference within it: unbiased, and no term is negative.
    Source: J. Schulman, "Approximating KL divergence", 2020 (the estimator k3).
    """
    ids, tail_ids = reference.ids.astype(np.int64), reference.tail_ids.astype(np.int64)
    p, q = reference.log_probabilities.astype(np.float64), np.take_along_axis(ours, ids, axis=1)
    p_tail = reference.log_tail.astype(np.float64)
    q_tail = np.log(np.exp(_without(ours, ids)).sum(axis=1))
    top = (np.exp(p) * (p - q)).sum(axis=1) + np.exp(p_tail) * (p_tail - q_tail)
    q_within = np.take_along_axis(ours, tail_ids, axis=1) - q_tail[:, None]
    log_r = q_within - (reference.tail_log_probabilities - p_tail[:, None])
    return np.asarray(top + np.exp(p_tail) * (np.expm1(log_r) - log_r).mean(axis=1))


def full_divergence(reference: NDArray[np.float64], ours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return KL(reference || ours) per row of two [n, vocab], nats."""
    return np.asarray((np.exp(reference) * (reference - ours)).sum(axis=1))


def _without(log_probabilities: NDArray[np.float64], ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Copy [n, vocab] with the probability of `ids` [n, k] set to 0."""
    rest = log_probabilities.copy()
    np.put_along_axis(rest, ids, -np.inf, axis=1)
    return rest
