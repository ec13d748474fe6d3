"""Rotary positions: tables of cosines and sines, and the rotation of pairs."""

import math

import numpy as np


def default_frequencies(theta, dim):
    return theta ** (-np.arange(0, dim, 2) / dim)


def yarn_correction_dim(rotations, theta, dim, original):
    """The pair that turns so often within the original length."""
    return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def yarn_frequencies(parameters, dim):
    theta, original = parameters["rope_theta"], parameters["original_max_position_embeddings"]
    low = yarn_correction_dim(parameters.get("beta_fast") or 32, theta, dim, original)
    high = yarn_correction_dim(parameters.get("beta_slow") or 1, theta, dim, original)
    if parameters.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    plain = default_frequencies(theta, dim)
    return plain / parameters["factor"] * ramp + plain * (1 - ramp)


def magnitude(factor, weight=1.0):
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0


def yarn_attention_factor(parameters):
    """What cosines and sines are multiplied with."""
    if parameters.get("attention_factor") is not None:
        return parameters["attention_factor"]
    factor, weight, all_dim = (parameters.get(key) for key in ("factor", "mscale", "mscale_all_dim"))
    if weight and all_dim:
        return magnitude(factor, weight) / magnitude(factor, all_dim)
    return magnitude(factor)


def llama3_frequencies(parameters, dim):
    """Long waves are slowed by the factor, short ones left, and between them the two are mixed."""
    plain, factor = default_frequencies(parameters["rope_theta"], dim), parameters["factor"]
    low, high = parameters["low_freq_factor"], parameters["high_freq_factor"]
    waves = parameters["original_max_position_embeddings"] * plain / (2 * math.pi)  # within the original length
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return kept * plain + (1 - kept) * plain / factor


def dynamic_frequencies(parameters, dim, length, longest):
    """A larger theta, for the whole sequence, once that is longer than the model's positions."""
    factor, theta = parameters["factor"], parameters["rope_theta"]
    stretch = factor * max(length, longest) / longest - (factor - 1)
    return default_frequencies(theta * stretch ** (dim / (dim - 2)), dim)


def tables(config, dim, length):
    """(cos, sin), each [length, dim/2]."""
    parameters, factor = config["rope_parameters"], 1.0
    kind = parameters["rope_type"]
    if kind == "yarn":
        frequencies, factor = yarn_frequencies(parameters, dim), yarn_attention_factor(parameters)
    elif kind == "llama3":
        frequencies = llama3_frequencies(parameters, dim)
    elif kind == "dynamic":
        frequencies = dynamic_frequencies(parameters, dim, length, config["max_position_embeddings"])
    elif kind in ("default", "linear"):
        frequencies = default_frequencies(parameters["rope_theta"], dim) / parameters.get("factor", 1)
    else:
        raise ValueError(f"rope_type {kind}")
    angles = np.outer(np.arange(length), frequencies)
    return factor * np.cos(angles), factor * np.sin(angles)


def rotate(x, table, interleaved=False):
    """x [n, length, heads, dim]; a pair is (i, i + dim/2), or (2i, 2i + 1)."""
    cos, sin = (side[:, None, :] for side in table)
    half = x.shape[-1] // 2
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(0, half), slice(half, None))
    turned = np.empty_like(x)
    turned[..., first] = x[..., first] * cos - x[..., second] * sin
    turned[..., second] = x[..., second] * cos + x[..., first] * sin
    return turned
