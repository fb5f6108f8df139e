"""How rotary embeddings of config.json become GGUF keys and tensors."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

from engine.conversion import read_number
from engine.errors import ConversionError

_KINDS = "default, dynamic, linear, llama3, longrope, yarn"


def read_rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Join the places where versions of transformers write the rotary embedding.

    `rope_type` and `rope_theta` are always there. Raises: ConversionError for a kind that is not known.
    """
    rope: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key)
        if isinstance(value, dict):
            # One for each kind of layer: what layers with a window have is read by who has such.
            full = value.get("full_attention")
            rope.update(full if isinstance(full, dict) else value)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    rope["rope_type"] = kind = "longrope" if kind == "su" else kind
    if kind not in _KINDS.split(", "):
        raise ConversionError(f"rope_type is {kind!r}; known are {_KINDS}")
    if rope.get("truncate") is False:
        raise ConversionError("rope_parameters has truncate false; only true can be written to a GGUF file")
    if rope.get("rope_theta") is None:
        theta = config.get("rope_theta")
        rope["rope_theta"] = 10000.0 if theta is None else theta
    if rope.get("original_max_position_embeddings") is None:
        original = config.get("original_max_position_embeddings")
        rope["original_max_position_embeddings"] = original or config.get("max_position_embeddings")
    return rope


def write_rope(writer: gguf.GGUFWriter, config: Mapping[str, Any]) -> None:
    """Write base and scaling. `dynamic` needs nothing: it begins behind the trained context."""
    rope = read_rope(config)
    writer.add_rope_freq_base(read_number(rope, "rope_theta", float))
    kind = rope["rope_type"]
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(read_number(rope, "factor", float))
    elif kind == "yarn":
        _write_yarn(writer, rope)
    elif kind == "longrope":
        trained = read_number(rope, "original_max_position_embeddings", int)
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(trained)
        writer.add_rope_scaling_attn_factors(_longrope_magnitude(rope, config, trained))


def rope_tensors(config: Mapping[str, Any], n_rotated: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Make what each frequency is divided by, [n_rotated / 2], where the scaling has such."""
    rope = read_rope(config)
    if rope["rope_type"] == "llama3":
        yield "rope_freqs.weight", _llama3_factors(rope, n_rotated)
    elif rope["rope_type"] == "longrope":
        for name in ("long", "short"):
            yield f"rope_factors_{name}.weight", _read_factors(rope, f"{name}_factor", n_rotated // 2)


def _write_yarn(writer: gguf.GGUFWriter, rope: Mapping[str, Any]) -> None:
    factor = read_number(rope, "factor", float)
    if factor < 1:
        raise ConversionError(f"rope scaling has factor {factor}; a number from 1 on is expected")
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(factor)
    writer.add_rope_scaling_orig_ctx_len(read_number(rope, "original_max_position_embeddings", int))
    # Readers multiply by 1 + 0.1 ln(factor) themselves.
    usual = 1 + 0.1 * math.log(factor)
    magnitude = usual
    if rope.get("attention_factor") is not None:
        magnitude = read_number(rope, "attention_factor", float)
    elif rope.get("mscale") and rope.get("mscale_all_dim"):
        scales = [read_number(rope, key, float) for key in ("mscale", "mscale_all_dim")]
        magnitude = (1 + 0.1 * scales[0] * math.log(factor)) / (1 + 0.1 * scales[1] * math.log(factor))
    if magnitude != usual:
        writer.add_rope_scaling_attn_factors(magnitude / usual)
    if rope.get("beta_fast") is not None:
        writer.add_rope_scaling_yarn_beta_fast(read_number(rope, "beta_fast", float))
    if rope.get("beta_slow") is not None:
        writer.add_rope_scaling_yarn_beta_slow(read_number(rope, "beta_slow", float))


def _longrope_magnitude(rope: Mapping[str, Any], config: Mapping[str, Any], trained: int) -> float:
    if rope.get("attention_factor") is not None:
        return read_number(rope, "attention_factor", float)
    factor = read_number(config, "max_position_embeddings", int) / trained
    if factor <= 1 or trained <= 1:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(trained))


def _read_factors(rope: Mapping[str, Any], key: str, n: int) -> NDArray[np.float32]:
    values = rope.get(key)
    if not isinstance(values, list) or len(values) != n:
        shown = len(values) if isinstance(values, list) else repr(values)
        raise ConversionError(f"rope scaling has {key} {shown}; a list of {n} numbers is expected")
    numbers = [read_number({key: value}, key, float) for value in values]
    if min(numbers) <= 0:
        raise ConversionError(f"rope scaling has {min(numbers)} in {key}; positive numbers are expected")
    return np.array(numbers, np.float32)


def _llama3_factors(rope: Mapping[str, Any], n_rotated: int) -> NDArray[np.float32]:
    """Slow frequencies are divided by `factor`, fast ones by 1."""
    base = read_number(rope, "rope_theta", float)
    factor = read_number(rope, "factor", float, 8.0)
    low = read_number(rope, "low_freq_factor", float, 1.0)
    high = read_number(rope, "high_freq_factor", float, 4.0)
    context = read_number(rope, "original_max_position_embeddings", int, 8192)
    if factor <= 0 or low <= 0 or high <= low:
        raise ConversionError(
            f"rope scaling has factor {factor}, low {low}, high {high}; 0 < low < high is needed"
        )
    wavelength = 2 * np.pi * base ** (np.arange(0, n_rotated, 2) / n_rotated)
    # The share that is not slowed falls from 1 to 0 between the two wavelengths.
    keep = np.clip((context / wavelength - low) / (high - low), 0.0, 1.0)
    return (1 / ((1 - keep) / factor + keep)).astype(np.float32)
