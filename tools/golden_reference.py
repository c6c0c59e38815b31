#!/usr/bin/env python3
"""The golden models restated in numpy, in float64: an independent check of what transformers computed.

    tools/golden_reference.py --out DIR [--models vl-f32]      writes DIR/<model>/golden.bin, as capture_golden.py does
    tools/golden_reference.py --check DIR                      compares DIR/<model>/golden.bin with this arithmetic

Sources: Vaswani et al. 2017 (attention), Su et al. 2021 (rotary embedding), the Qwen2-VL and Qwen2.5-VL reports
(positions on three axes, windows). Angles are formed in f32, as every implementation does; all else is f64. Needs
numpy; Pillow only for pictures that have to be resized.
"""
import argparse
import math
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import capture_golden as cg  # noqa: E402
import golden_model as gm  # noqa: E402

MEAN = np.float32([0.48145466, 0.4578275, 0.40821073])
STD = np.float32([0.26862954, 0.26130258, 0.27577711])


def smart_resize(width, height, factor=28):
    w, h = round(width / factor) * factor, round(height / factor) * factor
    if w * h > gm.MAX_PIXELS:
        beta = math.sqrt(width * height / gm.MAX_PIXELS)
        return tuple(max(factor, math.floor(x / beta / factor) * factor) for x in (width, height))
    if w * h < gm.MIN_PIXELS:
        beta = math.sqrt(gm.MIN_PIXELS / (width * height))
        return tuple(math.ceil(x * beta / factor) * factor for x in (width, height))
    return w, h


class Pictures:
    def patches(self, width, height, seed):
        pixels, size = gm.picture(width, height, seed), smart_resize(width, height)
        if size != (width, height):
            from PIL import Image
            pixels = np.asarray(Image.fromarray(pixels, "RGB").resize(size, Image.BICUBIC))
        x = ((pixels * (1 / 255)).astype(np.float32) - MEAN) / STD
        gh, gw = size[1] // 14, size[0] // 14
        x = x.reshape(gh // 2, 2, 14, gw // 2, 2, 14, 3).transpose(0, 3, 1, 4, 6, 2, 5)
        x = np.repeat(x[:, :, :, :, :, None], 2, axis=5)
        return np.ascontiguousarray(x.reshape(gh * gw, 1176)), [1, gh, gw]


def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def rotate(x, angle):
    """x [n, heads, hd], angle [n, hd/2] f32."""
    c, s = np.cos(angle.astype(np.float64))[:, None], np.sin(angle.astype(np.float64))[:, None]
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * c - b * s, b * c + a * s], -1)


def attend(q, k, v, mask):
    """q [n, heads, hd], k and v [m, kv heads, hd], mask [n, m] of what may be seen."""
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    score = np.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
    score = np.where(mask[None], score, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.einsum("hnm,mhd->nhd", p, v).reshape(q.shape[0], -1)


class Net:
    def __init__(self, model):
        self.spec, self.kind = model.spec, model.spec["kind"]
        self.w = {k: v.astype(np.float64) for k, v in model.values.items()}
        self.body = model.ref_body
        if self.spec["tied"]:
            self.w["lm_head.weight"] = self.w[self.body + "embed_tokens.weight"]
        self.hd = self.spec["dim"] // self.spec["heads"]
        text, rope, theta = model.text_config()
        self.eps = text["rms_norm_eps"]
        self.inv_freq = (1.0 / theta ** (np.arange(0, self.hd, 2) / self.hd)).astype(np.float32)
        if self.kind == "llama":
            self.inv_freq = self.llama3(self.inv_freq.astype(np.float64), rope).astype(np.float32)
        self.axis = np.repeat([0, 1, 2], rope["mrope_section"]) if self.kind == "vl" else np.zeros(self.hd // 2, int)

    @staticmethod
    def llama3(freq, r):
        length = 2 * math.pi / freq
        smooth = (r["original_max_position_embeddings"] / length - r["low_freq_factor"]) / \
            (r["high_freq_factor"] - r["low_freq_factor"])
        smooth = np.clip(smooth, 0, 1)
        return (1 - smooth) * freq / r["factor"] + smooth * freq

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T + self.w.get(name + ".bias", 0.0)

    def mlp(self, name, x):
        return self.linear(name + "down_proj", silu(self.linear(name + "gate_proj", x)) * self.linear(name + "up_proj", x))

    def vision(self, patches, grid, stages):
        """One picture; appends to stages[name] the rows that transformers would have for it."""
        v, p = self.spec["vision"], "model.visual."
        d, heads, gh, gw = v["hidden"], v["heads"], grid[1], grid[2]
        h = patches.astype(np.float64) @ self.w[p + "patch_embed.proj.weight"].reshape(d, -1).T
        stages.setdefault("patch_embed", []).append(h)
        # Patches come in 2x2 blocks; blocks are sorted by window of 4x4 blocks.
        block = np.arange(gh * gw // 4)
        by, bx = block // (gw // 2), block % (gw // 2)
        window = (by // 4) * ((gw // 2 + 3) // 4) + bx // 4
        order = np.argsort(window, kind="stable")
        rows = (order[:, None] * 4 + np.arange(4)).reshape(-1)
        y, x = by[rows // 4] * 2 + rows % 4 // 2, bx[rows // 4] * 2 + rows % 2
        inv = (1.0 / 10000.0 ** (np.arange(0, 40, 2) / 40)).astype(np.float32)
        angle = np.concatenate([y[:, None].astype(np.float32) * inv, x[:, None].astype(np.float32) * inv], -1)
        near, h = window[rows // 4][:, None] == window[rows // 4][None], h[rows]
        for i in range(v["depth"]):
            b = f"{p}blocks.{i}."
            qkv = self.linear(b + "attn.qkv", rms_norm(h, self.w[b + "norm1.weight"], 1e-6))
            q, k, val = qkv.reshape(-1, 3, heads, d // heads).transpose(1, 0, 2, 3)
            a = attend(rotate(q, angle), rotate(k, angle), val, np.ones_like(near) if i in v["full"] else near)
            h = h + self.linear(b + "attn.proj", a)
            h = h + self.mlp(b + "mlp.", rms_norm(h, self.w[b + "norm2.weight"], 1e-6))
            stages.setdefault(f"block.{i}", []).append(h)
        m = rms_norm(h, self.w[p + "merger.ln_q.weight"], 1e-6).reshape(-1, 4 * d)
        m = self.linear(p + "merger.mlp.2", gelu(self.linear(p + "merger.mlp.0", m)))
        stages.setdefault("merger", []).append(m[np.argsort(order)])

    def decode(self, h, pos, cache, stages=None):
        """h [n, dim], pos [n, 3]; appends keys and values to the cache and returns the final logits of all rows."""
        s, n = self.spec, h.shape[0]
        angle = pos[:, self.axis].astype(np.float32) * self.inv_freq
        for i in range(s["layers"]):
            p = f"{self.body}layers.{i}."
            x = rms_norm(h, self.w[p + "input_layernorm.weight"], self.eps)
            q, k, v = (self.linear(f"{p}self_attn.{c}_proj", x).reshape(n, -1, self.hd) for c in "qkv")
            q, k = rotate(q, angle), rotate(k, angle)
            if i in cache:
                k, v = np.concatenate([cache[i][0], k]), np.concatenate([cache[i][1], v])
            cache[i] = (k, v)
            m = k.shape[0]
            a = attend(q, k, v, np.arange(m)[None] <= np.arange(m - n, m)[:, None])
            h = h + self.linear(p + "self_attn.o_proj", a)
            h = h + self.mlp(p + "mlp.", rms_norm(h, self.w[p + "post_attention_layernorm.weight"], self.eps))
            if stages is not None:
                stages[f"layer.{i}"] = h
        return rms_norm(h, self.w[self.body + "norm.weight"], self.eps) @ self.w["lm_head.weight"].T


def positions(ids, grids):
    """Rows of (time, height, width) for a whole history, and what the next token's position is."""
    out, at, i, grids = [], 0, 0, list(grids)
    while i < len(ids):
        if ids[i] != gm.IMAGE or not grids:
            out.append((at, at, at))
            at, i = at + 1, i + 1
            continue
        _, gh, gw = grids.pop(0)
        h, w = gh // 2, gw // 2
        out += [(at, at + y, at + x) for y in range(h) for x in range(w)]
        at, i = at + max(h, w), i + h * w
    return np.array(out), at


class Run:
    """The same fields as capture_golden.Run."""

    def __init__(self, net, turns):
        self.stages, self.tokens, self.logits, self.margins = {}, [], [], []
        history, patches, grids = [], [], []
        for t, (ids, p, g) in enumerate(turns):
            history, patches, grids = history + ids, patches + p, grids + g
            history = self.turn(net, t, history, patches, grids)

    def turn(self, net, t, history, patches, grids):
        stages, cache, embed = {}, {}, net.w[net.body + "embed_tokens.weight"]
        h = embed[history]
        for p, g in zip(patches, grids):
            net.vision(p, g, stages)
        stages = {k: np.concatenate(v) for k, v in stages.items()}
        if patches:
            h[np.array(history) == gm.IMAGE] = stages["merger"]
        pos, at = positions(history, grids)
        if patches:
            stages.update(positions=pos, delta=at - len(history))
        row, tokens, rows, margins = net.decode(h, pos, cache, stages)[-1], [], [], []
        for i in range(cg.N_GREEDY):
            top = np.sort(row[:gm.N_PLAIN])[-2:]
            rows.append(row)
            margins.append(top[1] - top[0])
            tokens.append(int(np.argmax(row[:gm.N_PLAIN])))
            row = net.decode(embed[tokens[-1:]], np.array([[at + i] * 3]), cache)[0]
        self.stages[t] = stages
        self.tokens.append(tokens)
        self.logits.append(np.array(rows))
        self.margins.append(margins)
        return history + tokens


def golden(name):
    model = gm.Model(name)
    net, g = Net(model), cg.Golden()
    for case, turns in gm.cases(model.spec["kind"]).items():
        turns = cg.lay_out(turns, Pictures())
        run = Run(net, turns)
        cg.record(g, name, case, turns, run, run)
    return g.out.getvalue()


def read(data):
    """The records of a golden.bin: name -> array."""
    out, at = {}, 0
    while at < len(data):
        name, kind, rows, columns = (data[at:at + 48].rstrip(b"\0").decode(), *np.frombuffer(data, "<u4", 3, at + 48))
        out[name] = np.frombuffer(data, "<i4" if kind else "<f4", int(rows * columns), at + 64).reshape(rows, columns)
        at += 64 + 4 * int(rows * columns)
    return out


def compare(name, theirs, ours):
    """Prints the largest difference per kind of record; True when every one is small."""
    worst = {}
    for key, a in theirs.items():
        if key.endswith(".own"):
            continue
        b, kind = ours[key], key.split(".", 2)[2] if key.count(".") > 1 else key
        kind = kind.split(".", 1)[1] if kind[0].isdigit() else kind
        if a.dtype == np.int32:
            difference = float((a != b).any())
        else:
            difference = float(np.abs(a - b).max() / (a.std() if a.size > 1 else 1.0))
        worst[kind] = max(worst.get(kind, 0.0), difference)
    print(name, " ".join(f"{k} {v:.1e}" for k, v in worst.items()))
    # transformers forms rotary frequencies in f32, which shows most in Llama's (2e-5 at position 360)
    return set(theirs) == set(ours) and all(v < 1e-4 for k, v in worst.items() if k != "margins")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out")
    p.add_argument("--check")
    p.add_argument("--models", default=",".join(gm.MODELS))
    opt, good = p.parse_args(), True
    for name in opt.models.split(","):
        data = golden(name)
        if opt.out:
            os.makedirs(f"{opt.out}/{name}", exist_ok=True)
            with open(f"{opt.out}/{name}/golden.bin", "wb") as f:
                f.write(data)
        if opt.check:
            with open(f"{opt.check}/{name}/golden.bin", "rb") as f:
                good = compare(name, read(f.read()), read(data)) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
