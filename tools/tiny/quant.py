"""MLX affine quantisation: w ~ scale * q + bias in groups along the last axis. Works on numpy and torch.

scale and bias are rounded to bf16 before q is chosen, so what training saw is what the file holds.
"""
import numpy as np


def quantise(xp, w, bits, group, to_bf16):
    """w [rows, cols] float32 -> q [rows, cols / group, group] (float), scale, bias [rows, cols / group]."""
    levels = 2 ** bits - 1
    g = w.reshape(w.shape[0], -1, group)
    hi, lo = (g.max(-1), g.min(-1)) if xp is np else (g.amax(-1), g.amin(-1))
    low_edge = xp.abs(lo) > xp.abs(hi)
    step = xp.clip((hi - lo) / levels, 1e-7, None) if xp is np else ((hi - lo) / levels).clamp(min=1e-7)
    scale = xp.where(low_edge, step, -step)
    edge = xp.where(low_edge, lo, hi)
    q0 = xp.round(edge / scale)
    safe = xp.where(q0 == 0, xp.ones_like(q0), q0)
    scale = to_bf16(xp.where(q0 == 0, scale, edge / safe))
    bias = to_bf16(xp.where(q0 == 0, xp.zeros_like(edge), edge))
    q = xp.round((g - bias[..., None]) / scale[..., None])
    q = xp.clip(q, 0, levels) if xp is np else q.clamp(0, levels)
    return q, scale, bias


def dequantise(q, scale, bias):
    w = q * scale[..., None] + bias[..., None]
    return w.reshape(w.shape[0], -1)


def bf16_round(a):
    """Nearest bfloat16 (ties to even) of a float32 array, as float32."""
    u = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    u = ((u + 0x7FFF + ((u >> 16) & 1)) >> 16) << 16
    return u.astype(np.uint32).view(np.float32)


def bf16_bits(a):
    return (np.ascontiguousarray(bf16_round(a)).view(np.uint32) >> 16).astype(np.uint16)


def is_quantised(name, shape, group=64):
    """The weights that the file holds quantised: every matrix of a linear layer and the embedding."""
    return len(shape) == 2 and name.endswith(".weight") and shape[1] % group == 0
