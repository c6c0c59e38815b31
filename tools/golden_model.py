#!/usr/bin/env python3
"""Writes the small random checkpoints that the parity tests stand on; see tests/golden/README.md.

    tools/golden_model.py NAME DIR      (NAME "all": every model, each in DIR/NAME)

The weights come from an integer seed by integer arithmetic (splitmix64 of tensor name and element number), so
every numpy writes the same bytes and nothing but the goldens has to be stored. Gains are chosen so that
attention is peaked, biases matter and the logits have a standard deviation above 2. Needs numpy alone.
"""
import hashlib
import json
import os
import struct
import sys

import numpy as np

TRUE_VISION = dict(hidden=160, heads=2, window=112)  # head size 80, as in the published models
MODELS = {
    # dim = heads * head size; kv: key-value heads; full: vision layers without windows
    "vl-f32": dict(kind="vl", seed=101, dtype="F32", layout="old", config="flat", dim=256, heads=2, kv=1, layers=3,
                   inter=320, tied=True, vision=dict(TRUE_VISION, depth=4, inter=224, full=[1, 3]), files=1),
    "vl-bf16": dict(kind="vl", seed=12, dtype="BF16", layout="new", config="nested", dim=512, heads=4, kv=2, layers=3,
                    inter=448, tied=False, vision=dict(TRUE_VISION, depth=5, inter=240, full=[0, 3]), files=3),
    "vl-f16": dict(kind="vl", seed=107, dtype="F16", layout="old", config="nested", dim=256, heads=2, kv=2, layers=2,
                   inter=352, tied=False, vision=dict(TRUE_VISION, depth=3, inter=216, full=[2]), files=1),
    "vl-mlx4": dict(kind="vl", seed=14, dtype="BF16", layout="mlx", config="flat", dim=256, heads=2, kv=1, layers=3,
                    inter=384, tied=True, vision=dict(TRUE_VISION, depth=3, inter=224, full=[1]), files=1,
                    bits=4, group=64, vision_bits=0, overrides={
                        "layers.1.mlp.down_proj": dict(bits=8, group_size=64),
                        "layers.1.self_attn.q_proj": dict(bits=4, group_size=32),
                        "layers.2.mlp.up_proj": dict(bits=4, group_size=128),
                        "layers.2.self_attn.o_proj": False}),
    "vl-mlx8": dict(kind="vl", seed=15, dtype="F16", layout="mlx", config="nested", dim=256, heads=2, kv=1, layers=2,
                    inter=256, tied=False, vision=dict(TRUE_VISION, depth=3, inter=224, full=[0, 2]), files=2,
                    bits=8, group=32, vision_bits=8, overrides={
                        "layers.0.mlp.gate_proj": dict(bits=4, group_size=32),
                        "blocks.1.mlp.down_proj": dict(bits=4, group_size=32),
                        "layers.1.self_attn.k_proj": dict(bits=8, group_size=128)}),
    "qwen2-bf16": dict(kind="qwen2", seed=16, dtype="BF16", layout="old", config="flat", dim=384, heads=3, kv=1,
                       layers=3, inter=416, tied=True, files=1),
    "llama-f32": dict(kind="llama", seed=17, dtype="F32", layout="old", config="flat", dim=256, heads=4, kv=2,
                      layers=3, inter=320, tied=False, files=1),
}
VOCAB = 512
VISION_START, VISION_END, IMAGE, VIDEO = 500, 501, 502, 503
N_PLAIN = 496  # greedy choices are made among ids below the special ones
MIN_PIXELS, MAX_PIXELS = 3136, 28 * 28 * 160
PREFIX = {  # layout: vision tower, decoder body, head
    "old": ("visual.", "model.", "lm_head"),
    "new": ("model.visual.", "model.language_model.", "lm_head"),
    "mlx": ("vision_tower.", "language_model.model.", "language_model.lm_head"),
}


# ---- numbers from integers ------------------------------------------------------------------------------------

def hash64(name, seed, n):
    """n hashes of (seed, name, 0..n-1): splitmix64 started from the name's SHA-256."""
    start = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(start) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def normal(name, seed, shape, std, mean=0.0):
    """Near-normal f32 values: the sum of a hash's four 16-bit fields, whose standard deviation is 37837.2."""
    z = hash64(name, seed, int(np.prod(shape)))
    total = sum(((z >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.int64) for i in range(4)) - 131070
    return (mean + total.astype(np.float64) * (std / 37837.2)).astype(np.float32).reshape(shape)


def to_bf16(x):
    """f32 -> the 16 bits of bf16, to nearest even."""
    u = np.ascontiguousarray(x, dtype="<f4").view("<u4")
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


def encode(x, dtype):
    """f32 -> the array as stored."""
    return {"F32": lambda: x.astype("<f4"), "F16": lambda: x.astype("<f2"), "BF16": lambda: to_bf16(x)}[dtype]()


def decode(stored, dtype):
    """The f32 value of a stored array."""
    if dtype == "BF16":
        return (stored.astype("<u4") << 16).view("<f4")
    return stored.astype(np.float32)


# ---- the model ------------------------------------------------------------------------------------------------

class Model:
    """Draws all tensors. `values`: f32 by transformers' names (what a reference computes with); `files`: stored
    arrays (name, dtype, array) under the checkpoint's own names."""

    def __init__(self, name):
        self.name, self.spec = name, MODELS[name]
        self.values, self.stored, self.quantisation = {}, [], {}
        self.vision_prefix, self.body_prefix, self.head = PREFIX[self.spec["layout"]]
        if self.spec["kind"] != "vl":
            self.ref_body = "model."
        else:
            self.ref_body = "model.language_model."
            self.draw_vision()
        self.draw_decoder()

    def put(self, ref, own, value, channels_last=False):
        dtype = self.spec["dtype"]
        array = encode(value, dtype)
        self.values[ref] = decode(array, dtype)
        self.stored.append((own, dtype, np.ascontiguousarray(array.transpose(0, 2, 3, 4, 1)) if channels_last else array))

    def rule(self, own, k, bits):
        """How a matrix is stored: None (plain) or (bits, group)."""
        for suffix, rule in self.spec.get("overrides", {}).items():
            if own.endswith("." + suffix):
                self.quantisation[own] = rule
                return (rule["bits"], rule["group_size"]) if rule else None
        group = self.spec.get("group", 1)
        return (bits, group) if bits and k % group == 0 else None

    def linear(self, ref, own, n, k, gain, bias_std=0.0, bits=None):
        bits = self.spec.get("bits", 0) if bits is None else bits
        rule = self.rule(own, k, bits)
        if rule:
            self.quantised(ref, own, n, k, gain / k ** 0.5, *rule)
        else:
            self.put(ref + ".weight", own + ".weight", normal(ref, self.spec["seed"], (n, k), gain / k ** 0.5))
        if bias_std:
            self.put(ref + ".bias", own + ".bias", normal(ref + ".bias", self.spec["seed"], (n,), bias_std))

    def quantised(self, ref, own, n, k, std, bits, group):
        """MLX affine: q uniform, scales of both signs, zero biases near the middle; value s*q + b in f32."""
        seed, dtype, n_levels = self.spec["seed"], self.spec["dtype"], 1 << bits
        q = (hash64(ref, seed, n * k) >> np.uint64(64 - bits)).astype(np.uint32).reshape(n, k)
        z = hash64(ref + ".scales", seed, n * (k // group))
        spread = 0.75 + ((z >> np.uint64(48)) & np.uint64(0x7FFF)).astype(np.float64) / 65536.0
        sign = 1.0 - 2.0 * (z & np.uint64(1)).astype(np.float64)
        s = sign * spread * (std / ((n_levels ** 2 - 1) / 12.0) ** 0.5)
        middle = (n_levels - 1) / 2.0 + ((z >> np.uint64(20)) & np.uint64(0xFF)).astype(np.float64) / 512.0
        scales = encode(s.astype(np.float32).reshape(n, -1), dtype)
        zeros = encode((-s * middle).astype(np.float32).reshape(n, -1), dtype)
        s32, b32 = (np.repeat(decode(x, dtype), group, axis=1) for x in (scales, zeros))
        self.values[ref + ".weight"] = s32.astype(np.float64) * q + b32  # exact in f64: "unrounded"
        self.values[ref + ".weight"] = self.values[ref + ".weight"].astype(np.float32)
        per_word = 32 // bits
        words = np.zeros((n, k // per_word), dtype=np.uint32)
        for i in range(per_word):
            words |= q[:, i::per_word] << np.uint32(i * bits)
        self.stored += [(own + ".weight", "U32", words.astype("<u4")), (own + ".scales", dtype, scales),
                        (own + ".biases", dtype, zeros)]

    def norm(self, ref, own, n):
        self.put(ref + ".weight", own + ".weight", normal(ref, self.spec["seed"], (n,), 0.2, 1.0))

    def draw_vision(self):
        v, ref, own, bits = self.spec["vision"], "model.visual.", self.vision_prefix, self.spec.get("vision_bits", 0)
        d, mlx = v["hidden"], self.spec["layout"] == "mlx"
        self.put(ref + "patch_embed.proj.weight", own + "patch_embed.proj.weight",
                 normal("patch_embed", self.spec["seed"], (d, 3, 2, 14, 14), 1176 ** -0.5), mlx)

        def lin(name, n, k, gain, bias_std):
            self.linear(ref + name, own + name, n, k, gain, bias_std, bits)

        for i in range(v["depth"]):
            b = f"blocks.{i}."
            self.norm(ref + b + "norm1", own + b + "norm1", d)
            self.norm(ref + b + "norm2", own + b + "norm2", d)
            lin(b + "attn.qkv", 3 * d, d, 1.5, 0.5)
            lin(b + "attn.proj", d, d, 0.7, 0.1)
            lin(b + "mlp.gate_proj", v["inter"], d, 1.0, 0.3)
            lin(b + "mlp.up_proj", v["inter"], d, 1.0, 0.3)
            lin(b + "mlp.down_proj", d, v["inter"], 0.8, 0.1)
        self.norm(ref + "merger.ln_q", own + "merger.ln_q", d)
        lin("merger.mlp.0", 4 * d, 4 * d, 1.0, 0.3)
        lin("merger.mlp.2", self.spec["dim"], 4 * d, 1.0, 0.1)

    def draw_decoder(self):
        s, ref, own = self.spec, self.ref_body, self.body_prefix
        d, hd = s["dim"], s["dim"] // s["heads"]
        bias = 0.0 if s["kind"] == "llama" else 0.5
        # A tied head must not simply repeat the last token: there the layers outweigh the embedding.
        res = 5.0 if s["tied"] else 1.0
        self.linear(ref + "embed_tokens", own + "embed_tokens", VOCAB, d, 3.0)
        for i in range(s["layers"]):
            r, o = f"{ref}layers.{i}.", f"{own}layers.{i}."
            for part in ("input_layernorm", "post_attention_layernorm"):
                self.norm(r + part, o + part, d)
            for part, n, k, gain, b in (("self_attn.q_proj", d, d, 1.5, bias),
                                        ("self_attn.k_proj", s["kv"] * hd, d, 1.5, bias),
                                        ("self_attn.v_proj", s["kv"] * hd, d, 1.0, bias),
                                        ("self_attn.o_proj", d, d, 0.6 * res, 0.0),
                                        ("mlp.gate_proj", s["inter"], d, 1.0, 0.0),
                                        ("mlp.up_proj", s["inter"], d, 1.0, 0.0),
                                        ("mlp.down_proj", d, s["inter"], 0.8 * res, 0.0)):
                self.linear(r + part, o + part, n, k, gain, b)
        self.norm(ref + "norm", own + "norm", d)
        if not s["tied"]:
            self.linear("lm_head", self.head, VOCAB, d, 3.0)

    # ---- configuration ----

    def text_config(self):
        s = self.spec
        c = dict(hidden_size=s["dim"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
                 num_key_value_heads=s["kv"], intermediate_size=s["inter"], vocab_size=VOCAB, hidden_act="silu",
                 max_position_embeddings=4096, rms_norm_eps=1e-6)
        if s["kind"] == "llama":
            # an original length of 256 puts low, middle and high frequencies into reach of short prompts
            rope = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                        original_max_position_embeddings=256)
            return dict(c, rms_norm_eps=1e-5, head_dim=64, attention_bias=False, mlp_bias=False), rope, 500000.0
        c.update(use_sliding_window=False, sliding_window=4096, max_window_layers=s["layers"])
        rope = dict(type="mrope", mrope_section=[16, 24, 24]) if s["kind"] == "vl" else None
        return c, rope, 1000000.0

    def vision_config(self):
        v = self.spec["vision"]
        return dict(depth=v["depth"], hidden_size=v["hidden"], intermediate_size=v["inter"], num_heads=v["heads"],
                    hidden_act="silu", out_hidden_size=self.spec["dim"], patch_size=14, spatial_merge_size=2,
                    temporal_patch_size=2, window_size=v["window"], fullatt_block_indexes=v["full"],
                    tokens_per_second=2)

    def config(self):
        s = self.spec
        arch, model_type = {"vl": ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
                            "qwen2": ("Qwen2ForCausalLM", "qwen2"), "llama": ("LlamaForCausalLM", "llama")}[s["kind"]]
        dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[s["dtype"]]
        top = dict(architectures=[arch], model_type=model_type, tie_word_embeddings=s["tied"])
        text, rope, theta = self.text_config()
        if s["kind"] == "vl":
            channels = "in_channels" if s["config"] == "nested" else "in_chans"
            top.update(vision_start_token_id=VISION_START, vision_end_token_id=VISION_END, image_token_id=IMAGE,
                       video_token_id=VIDEO, vision_config=dict(self.vision_config(), model_type=model_type,
                                                                **{channels: 3}))
        if s["config"] == "nested":
            rope = dict(rope, rope_type="default", rope_theta=theta)
            rope.pop("type", None)
            text.update(model_type="qwen2_5_vl_text", dtype=dtype, rope_parameters=rope)
            top.update(text_config=text, dtype=dtype)
        else:
            top.update(text, torch_dtype=dtype, rope_theta=theta)
            if rope:
                top["rope_scaling"] = rope
        if s.get("bits"):
            section = dict(group_size=s["group"], bits=s["bits"], **self.quantisation)
            if not s["vision_bits"] and s["kind"] == "vl":
                section.update({name[:-len(".weight")]: False for name, dtype, a in self.stored
                                if name.startswith(self.vision_prefix) and a.ndim == 2})
            key = "quantization" if s["config"] == "flat" else "quantization_config"
            top[key] = section
        return top


# ---- files ----------------------------------------------------------------------------------------------------

def write_safetensors(path, tensors, pad):
    """pad: bytes to which the header is padded; MLX does not pad, so its tensors start anywhere."""
    header, at = {"__metadata__": {"format": "mlx" if pad == 1 else "pt"}}, 0
    for name, dtype, array in tensors:
        header[name] = dict(dtype=dtype, shape=list(array.shape), data_offsets=[at, at + array.nbytes])
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % pad)
    if pad == 1 and len(text) % 4 == 0:
        text += b" "  # so that a misaligned tensor is really met
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, _, array in tensors:
            f.write(array.tobytes())


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
        f.write("\n")


def write_checkpoint(model, out):
    os.makedirs(out, exist_ok=True)
    n_files, pad = model.spec["files"], 1 if model.spec["layout"] == "mlx" else 8
    if n_files == 1:
        write_safetensors(f"{out}/model.safetensors", model.stored, pad)
    else:
        where, total = {}, sum(a.nbytes for _, _, a in model.stored)
        for i in range(n_files):
            name = f"model-{i + 1:05d}-of-{n_files:05d}.safetensors"
            part = model.stored[i::n_files]  # scattered on purpose: a layer's tensors lie in several files
            where.update({t[0]: name for t in part})
            write_safetensors(f"{out}/{name}", part, pad)
        write_json(f"{out}/model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=where))
    write_json(f"{out}/config.json", model.config())
    with open(f"{out}/pictures.txt", "w", encoding="ascii") as f:  # case turn number width height seed
        for case, turns in cases(model.spec["kind"]).items():
            for t, turn in enumerate(turns):
                for i, p in enumerate(x for x in turn if isinstance(x, tuple)):
                    f.write(f"{case} {t} {i} {p[0]} {p[1]} {p[2]}\n")
    write_json(f"{out}/generation_config.json", dict(do_sample=False, repetition_penalty=1.0))
    if model.spec["kind"] == "vl":
        write_json(f"{out}/preprocessor_config.json", dict(
            min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS, patch_size=14, temporal_patch_size=2, merge_size=2,
            image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711],
            image_processor_type="Qwen2VLImageProcessor"))


# ---- pictures and prompts -------------------------------------------------------------------------------------

SIZES = {"square": (224, 224), "wide": (448, 84), "tall": (60, 400), "partial": (252, 140), "small": (20, 20),
         "large": (531, 377)}


def picture(width, height, seed):
    """RGB bytes [height, width, 3]: 8x8 blocks of hashed colour under a gradient (same as tests/golden/picture.c)."""
    y, x = np.mgrid[0:height, 0:width].astype(np.uint32)
    with np.errstate(over="ignore"):
        h = ((x >> np.uint32(3)) * np.uint32(73856093)) ^ ((y >> np.uint32(3)) * np.uint32(19349663))
        h ^= np.uint32(seed * 83492791 % (1 << 32))
        h ^= h >> np.uint32(13)
        h *= np.uint32(0x5BD1E995)
        h ^= h >> np.uint32(15)
    c = [h & np.uint32(255), (h >> np.uint32(8)) & np.uint32(255), (h >> np.uint32(16)) & np.uint32(255)]
    slope = [x * np.uint32(3) + y, x + y * np.uint32(2), (x * y) >> np.uint32(5)]
    return np.stack([((a * 3 + (g & np.uint32(255))) >> np.uint32(2)).astype(np.uint8) for a, g in zip(c, slope)], -1)


def text_ids(seed, n):
    """n ordinary token ids."""
    return [int(v) for v in hash64("prompt", seed, n) % np.uint64(N_PLAIN)]


def cases(kind):
    """What is run: name -> turns, a turn a list of text token lists and picture (width, height, seed) tuples."""
    out = {"text": [[text_ids(1, 43)]], "turns": [[text_ids(2, 21)], [text_ids(3, 9)], [text_ids(4, 14)]]}
    if kind != "vl":
        return dict(out, long=[[text_ids(5, 333)]])
    for i, (name, (w, h)) in enumerate(SIZES.items()):
        out[name] = [[text_ids(10 + i, 5), (w, h, 100 + i), text_ids(20 + i, 7)]]
    out["two"] = [[text_ids(30, 3), (140, 168, 200), text_ids(31, 4), (180, 90, 201), text_ids(32, 6)]]
    five = [(84, 56, 300), (56, 140, 301), (120, 120, 302), (30, 90, 303), (300, 100, 304)]
    out["five"] = [[text_ids(40, 2)] + [x for i, p in enumerate(five) for x in (p, text_ids(41 + i, 2 + i))]]
    out["turns"] = [[text_ids(50, 4), (112, 196, 400), text_ids(51, 6)], [text_ids(52, 9)],
                    [text_ids(53, 3), (224, 112, 401), text_ids(54, 5)]]
    return out


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in [*MODELS, "all"]:
        sys.exit(f"usage: golden_model.py NAME DIR; NAME is all or one of {' '.join(MODELS)}")
    for name in MODELS if sys.argv[1] == "all" else [sys.argv[1]]:
        write_checkpoint(Model(name), f"{sys.argv[2]}/{name}" if sys.argv[1] == "all" else sys.argv[2])


if __name__ == "__main__":
    main()
