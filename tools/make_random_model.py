#!/usr/bin/env python3
"""Writes a random-weight checkpoint of true shape, for speed work and for load tests.

    tools/make_random_model.py --size 3b --bits 4 DIR

Sizes: the Qwen2.5-VL models (3b 7b 32b 72b, and tiny, which keeps the head sizes), plain text models
(qwen2.5-0.5b, llama-1b). Needs numpy and nothing else. The weights are random, but scaled so that activations
stay near 1 through all layers and the logits have a standard deviation near 2: nothing overflows, and time and
memory are those of the real model. The same seed gives the same bytes.

Layouts (--layout) are the three that checkpoints in the wild have:
  mlx     vision_tower.* + language_model.model.*, flat config, patch embedding channels-last, header not padded
  hf      model.visual.* + model.language_model.*, nested config (text_config, rope_parameters, dtype)
  hf-old  visual.* + model.*, flat config (rope_scaling, torch_dtype)
"""
import argparse
import json
import os
import shutil
import struct
import sys
import time
from statistics import NormalDist

import numpy as np

VISION = dict(depth=32, hidden=1280, inter=3420, heads=16, full=[7, 15, 23, 31], window=112)
SIZES = {
    "3b": dict(kind="vl", hidden=2048, layers=36, heads=16, kv=2, inter=11008, vocab=151936, tied=True, vision=VISION),
    "7b": dict(kind="vl", hidden=3584, layers=28, heads=28, kv=4, inter=18944, vocab=152064, tied=False, vision=VISION),
    "32b": dict(kind="vl", hidden=5120, layers=64, heads=40, kv=8, inter=27648, vocab=152064, tied=False,
                vision=dict(VISION, inter=3456)),
    "72b": dict(kind="vl", hidden=8192, layers=80, heads=64, kv=8, inter=29568, vocab=152064, tied=False,
                vision=dict(VISION, inter=3456)),
    "tiny": dict(kind="vl", hidden=512, layers=4, heads=4, kv=2, inter=1024, vocab=151936, tied=True,
                 vision=dict(depth=4, hidden=320, inter=856, heads=4, full=[1, 3], window=112)),
    "qwen2.5-0.5b": dict(kind="qwen2", hidden=896, layers=24, heads=14, kv=2, inter=4864, vocab=151936, tied=True),
    "llama-1b": dict(kind="llama", hidden=2048, layers=16, heads=32, kv=8, inter=8192, vocab=128256, tied=True),
}
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
                "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
                "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
QWEN_ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
              "<|repo_name|>", "<|file_sep|>"]
QWEN_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
              r"|\s+(?!\S)|\s+")
LLAMA_SPLIT = QWEN_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)

QWEN_TEMPLATE = """{%- for message in messages -%}
{%- if loop.first and message['role'] != 'system' -%}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if 'image' in part or 'image_url' in part or part['type'] == 'image' -%}
{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- elif 'text' in part -%}
{{- part['text'] -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
LLAMA_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}
"""


class Tensor:
    """One tensor of the plan: what it is called and how its bytes are drawn."""

    def __init__(self, name, dtype, shape, fill, **args):
        self.name, self.dtype, self.shape, self.fill, self.args = name, dtype, list(shape), fill, args
        size = {"U32": 4, "F32": 4, "BF16": 2, "F16": 2}[dtype]
        self.n_bytes = size * int(np.prod(self.shape, dtype=np.int64))


def encode(x, dtype):
    """f32 values as little-endian bytes of dtype; BF16 rounds to nearest even."""
    x = np.asarray(x, dtype=np.float32)
    if dtype == "F32":
        return x.astype("<f4")
    if dtype == "F16":
        return x.astype("<f2")
    u = x.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype("<u2")


class Drawer:
    """Draws a tensor's bytes in blocks. Plain weights come from a table of 256 normal quantiles, indexed by random
    bytes: many times as fast as drawing normals, and as good for this use."""

    BLOCK = 1 << 26  # elements

    def __init__(self, seed):
        self.rng = np.random.Generator(np.random.SFC64(seed))
        self.quantiles = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], dtype=np.float32)

    def bytes(self, n):
        return np.frombuffer(self.rng.bytes(n), dtype=np.uint8)

    def blocks(self, t):
        n = int(np.prod(t.shape, dtype=np.int64))
        for at in range(0, n, self.BLOCK):
            yield getattr(self, t.fill)(t, min(self.BLOCK, n - at)).data

    def normal(self, t, n):
        """Weights of mean `mean` and standard deviation `std`."""
        return encode(t.args.get("mean", 0.0) + self.quantiles * t.args["std"], t.dtype)[self.bytes(n)]

    def packed(self, t, n):
        """Random q of any width, n words of 32 bits."""
        return self.bytes(4 * n)

    def scales(self, t, n):
        """Scales between half and one and a half of the mean."""
        table = encode(t.args["mean"] * (0.5 + np.arange(256, dtype=np.float32) / 256), t.dtype)
        self.indices = self.bytes(n)
        return table[self.indices]

    def zero_biases(self, t, n):
        """-s * (middle of q), group by group: must follow the scales of the same matrix."""
        middle = (2 ** t.args["bits"] - 1) / 2
        table = encode(-middle * t.args["mean"] * (0.5 + np.arange(256, dtype=np.float32) / 256), t.dtype)
        return table[self.indices]


class Plan:
    def __init__(self, opt, size):
        self.opt, self.size, self.tensors, self.overrides = opt, size, [], {}
        self.plain = {16: "BF16", 32: "F32"}.get(opt.bits, "BF16")
        self.text, self.vision, self.head = {
            "mlx": ("language_model.model.", "vision_tower.", "language_model.lm_head"),
            "hf": ("model.language_model.", "model.visual.", "lm_head"),
            "hf-old": ("model.", "visual.", "lm_head"),
        }[opt.layout if size["kind"] == "vl" else "hf-old"]

    def add(self, *args, **kw):
        self.tensors.append(Tensor(*args, **kw))

    def linear(self, prefix, n, k, gain=1.0, bias=False, bits=None, bias_std=0.1):
        """A matrix whose outputs have standard deviation `gain` for inputs of 1."""
        bits = self.opt.bits if bits is None else bits
        std = gain / k ** 0.5
        group = self.opt.group
        if bits in (4, 8) and k % group == 0:
            # std of s*q is s*sqrt((4^bits - 1) / 12), and the scales' own spread adds a factor near 1.04
            s = std / (((4 ** bits - 1) / 12) ** 0.5 * 1.04)
            if k // group * n > Drawer.BLOCK:
                raise SystemExit(f"{prefix}: too many groups for one block")
            self.add(prefix + ".weight", "U32", [n, k * bits // 32], "packed")
            self.add(prefix + ".scales", "BF16", [n, k // group], "scales", mean=s)
            self.add(prefix + ".biases", "BF16", [n, k // group], "zero_biases", mean=s, bits=bits)
            if bits != self.opt.bits:
                self.overrides[prefix] = {"group_size": group, "bits": bits}
        else:
            self.add(prefix + ".weight", self.plain, [n, k], "normal", std=std)
            if self.opt.bits in (4, 8):
                self.overrides[prefix] = False
        if bias:
            self.add(prefix + ".bias", self.plain, [n], "normal", std=bias_std)

    def norm(self, name, n):
        self.add(name + ".weight", self.plain, [n], "normal", mean=1.0, std=0.05)

    def vision_tower(self):
        v, p, d = self.size["vision"], self.vision, self.size["vision"]["hidden"]
        bits, res = self.opt.vision_bits, (2 * v["depth"]) ** -0.5
        shape = [d, 2, 14, 14, 3] if self.opt.layout == "mlx" else [d, 3, 2, 14, 14]
        self.add(p + "patch_embed.proj.weight", self.plain, shape, "normal", std=1176 ** -0.5)
        for i in range(v["depth"]):
            b = f"{p}blocks.{i}."
            self.norm(b + "norm1", d)
            self.norm(b + "norm2", d)
            self.linear(b + "attn.qkv", 3 * d, d, 1.5, True, bits)
            self.linear(b + "attn.proj", d, d, res, True, bits)
            self.linear(b + "mlp.gate_proj", v["inter"], d, 1.0, True, bits)
            self.linear(b + "mlp.up_proj", v["inter"], d, 1.0, True, bits)
            self.linear(b + "mlp.down_proj", d, v["inter"], 2 * res, True, bits)
        self.norm(p + "merger.ln_q", d)
        self.linear(p + "merger.mlp.0", 4 * d, 4 * d, 1.0, True, bits)
        self.linear(p + "merger.mlp.2", self.size["hidden"], 4 * d, 1.0, True, bits)

    def decoder(self):
        s, p = self.size, self.text
        d, hd, res = s["hidden"], s["hidden"] // s["heads"], (2 * s["layers"]) ** -0.5
        bias = s["kind"] != "llama"
        # embedding rows have norm 2, so that a tied head gives logits of standard deviation 2
        self.linear(p + "embed_tokens", s["vocab"], d, 2.0)
        for i in range(s["layers"]):
            b = f"{p}layers.{i}."
            self.norm(b + "input_layernorm", d)
            self.norm(b + "post_attention_layernorm", d)
            self.linear(b + "self_attn.q_proj", s["heads"] * hd, d, 1.5, bias)
            self.linear(b + "self_attn.k_proj", s["kv"] * hd, d, 1.5, bias)
            self.linear(b + "self_attn.v_proj", s["kv"] * hd, d, 1.0, bias)
            self.linear(b + "self_attn.o_proj", d, s["heads"] * hd, res)
            self.linear(b + "mlp.gate_proj", s["inter"], d)
            self.linear(b + "mlp.up_proj", s["inter"], d)
            self.linear(b + "mlp.down_proj", d, s["inter"], 2 * res)
        self.norm(p + "norm", d)
        if not s["tied"]:
            self.linear(self.head, s["vocab"], d, 2.0)


def text_config(size):
    s = size
    c = dict(hidden_size=s["hidden"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
             num_key_value_heads=s["kv"], intermediate_size=s["inter"], vocab_size=s["vocab"],
             hidden_act="silu", attention_dropout=0.0, initializer_range=0.02, use_cache=True)
    if s["kind"] == "llama":
        return dict(c, head_dim=s["hidden"] // s["heads"], rms_norm_eps=1e-5, rope_theta=500000.0,
                    max_position_embeddings=131072, attention_bias=False, mlp_bias=False,
                    rope_scaling=dict(factor=32.0, high_freq_factor=4.0, low_freq_factor=1.0,
                                      original_max_position_embeddings=8192, rope_type="llama3"))
    c = dict(c, rms_norm_eps=1e-6, rope_theta=1000000.0, max_window_layers=s["layers"], use_sliding_window=False,
             sliding_window=32768, max_position_embeddings=128000 if s["kind"] == "vl" else 32768)
    if s["kind"] == "vl":
        c["rope_scaling"] = dict(type="mrope", mrope_section=[16, 24, 24])
    return c


def vision_config(size, layout):
    v = size["vision"]
    c = dict(depth=v["depth"], hidden_size=v["hidden"], intermediate_size=v["inter"], num_heads=v["heads"],
             hidden_act="silu", out_hidden_size=size["hidden"], patch_size=14, spatial_merge_size=2,
             temporal_patch_size=2, window_size=v["window"], fullatt_block_indexes=v["full"], tokens_per_second=2)
    if layout == "hf":
        return dict(c, in_channels=3, model_type="qwen2_5_vl", initializer_range=0.02)
    return dict(c, in_chans=3, spatial_patch_size=14, model_type="qwen2_5_vl")


def model_config(plan):
    opt, size = plan.opt, plan.size
    kind = size["kind"]
    arch, model_type = {"vl": ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"),
                        "qwen2": ("Qwen2ForCausalLM", "qwen2"), "llama": ("LlamaForCausalLM", "llama")}[kind]
    bos, eos = (128000, 128009) if kind == "llama" else (151643, 151645)
    top = dict(architectures=[arch], model_type=model_type, bos_token_id=bos, eos_token_id=eos)
    text = text_config(size)
    dtype = {"BF16": "bfloat16", "F32": "float32"}[plan.plain]
    if kind == "vl":
        top.update(vision_start_token_id=151652, vision_end_token_id=151653, vision_token_id=151654,
                   image_token_id=151655, video_token_id=151656, vision_config=vision_config(size, opt.layout))
    if kind == "vl" and opt.layout == "hf":
        rope = text.pop("rope_scaling")
        text["rope_parameters"] = dict(rope_type="default", rope_theta=text.pop("rope_theta"),
                                       mrope_section=rope["mrope_section"])
        text.update(model_type="qwen2_5_vl_text", dtype=dtype, bos_token_id=bos, eos_token_id=eos)
        top.update(text_config=text, dtype=dtype, tie_word_embeddings=size["tied"])
    else:
        top.update(text, torch_dtype=dtype, tie_word_embeddings=size["tied"])
    if opt.bits in (4, 8):
        section = dict(group_size=opt.group, bits=opt.bits, mode="affine", **plan.overrides)
        top.update(quantization=section, quantization_config=section)
    return top


def byte_characters():
    """The printable stand-in of each byte in byte-level vocabularies, in the order of their ids."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def synthetic_tokenizer(kind):
    """A byte-level BPE tokenizer of the true vocabulary size, made of all pairs of bytes, then triples of common
    characters; the added tokens have their true ids."""
    chars = byte_characters()
    n_base = 128000 if kind == "llama" else 151643
    merges = [(a, b) for a in chars for b in chars]
    common = "abcdefghijklmnopqrstuvwxyz\u0120ETAOINSRHLDCUMFPGWYBV0123456789.,"
    merges += [(a + b, c) for a in common for b in common for c in common][: n_base - 256 - len(merges)]
    vocab = {t: i for i, t in enumerate(chars + [a + b for a, b in merges])}
    assert len(vocab) == n_base
    if kind == "llama":
        names = {0: "<|begin_of_text|>", 1: "<|end_of_text|>", 6: "<|start_header_id|>", 7: "<|end_header_id|>",
                 9: "<|eot_id|>"}
        special = [names.get(i, f"<|reserved_special_token_{i}|>") for i in range(256)]
        plain = []
    else:
        special, plain = QWEN_SPECIAL, QWEN_ADDED
    added = [dict(id=n_base + i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False,
                  special=i < len(special)) for i, t in enumerate(special + plain)]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    split = dict(type="Split", pattern=dict(Regex=LLAMA_SPLIT if kind == "llama" else QWEN_SPLIT),
                 behavior="Isolated", invert=False)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=added,
                normalizer=None if kind == "llama" else dict(type="NFC"),
                pre_tokenizer=dict(type="Sequence", pretokenizers=[split, level]), post_processor=None, decoder=level,
                model=dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix="",
                           end_of_word_suffix="", fuse_unk=False, byte_fallback=False, ignore_merges=kind == "llama",
                           vocab=vocab, merges=[f"{a} {b}" for a, b in merges]))


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2, ensure_ascii=False)
        f.write("\n")


def write_small_files(plan, out):
    kind = plan.size["kind"]
    write_json(f"{out}/config.json", model_config(plan))
    if plan.opt.tokenizer:
        shutil.copyfile(plan.opt.tokenizer, f"{out}/tokenizer.json")
    else:
        write_json(f"{out}/tokenizer.json", synthetic_tokenizer(kind))
    with open(f"{out}/chat_template.jinja", "w", encoding="utf-8") as f:
        f.write(LLAMA_TEMPLATE if kind == "llama" else QWEN_TEMPLATE)
    if kind == "llama":
        tok = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
        gen = dict(bos_token_id=128000, eos_token_id=[128001, 128008, 128009], do_sample=True, temperature=0.6,
                   top_p=0.9)
    else:
        tok = dict(tokenizer_class="Qwen2Tokenizer", bos_token=None, eos_token="<|im_end|>",
                   pad_token="<|endoftext|>", add_bos_token=False, errors="replace", unk_token=None)
        gen = dict(bos_token_id=151643, pad_token_id=151643, eos_token_id=[151645, 151643], do_sample=True,
                   temperature=0.000001, repetition_penalty=1.05)
    write_json(f"{out}/tokenizer_config.json", tok)
    write_json(f"{out}/generation_config.json", gen)
    if kind == "vl":
        write_json(f"{out}/preprocessor_config.json",
                   dict(min_pixels=3136, max_pixels=12845056, patch_size=14, temporal_patch_size=2, merge_size=2,
                        image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711],
                        image_processor_type="Qwen2VLImageProcessor", processor_class="Qwen2_5_VLProcessor"))


def split_shards(tensors, max_bytes):
    shards, used = [[]], 0
    for t in tensors:
        if shards[-1] and used + t.n_bytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(t)
        used += t.n_bytes
    return shards


def write_shard(path, tensors, drawer, layout):
    header, at = {"__metadata__": {"format": "mlx" if layout == "mlx" else "pt"}}, 0
    for t in tensors:
        header[t.name] = dict(dtype=t.dtype, shape=t.shape, data_offsets=[at, at + t.n_bytes])
        at += t.n_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    if layout != "mlx":
        text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for t in tensors:
            written = 0
            for block in drawer.blocks(t):
                view = memoryview(block).cast("B")
                while view:
                    n = f.write(view)
                    written += n
                    view = view[n:]
            assert written == t.n_bytes, t.name


def write_weights(plan, out):
    shards = split_shards(plan.tensors, int(plan.opt.shard_gb * 1e9))
    drawer, where, total = Drawer(plan.opt.seed), {}, 0
    for i, shard in enumerate(shards):
        name = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        write_shard(f"{out}/{name}", shard, drawer, plan.opt.layout)
        where.update({t.name: name for t in shard})
        total += sum(t.n_bytes for t in shard)
        print(f"{name}: {sum(t.n_bytes for t in shard) / 1e9:.2f} GB", file=sys.stderr)
    if len(shards) > 1 or plan.opt.layout == "mlx":
        write_json(f"{out}/model.safetensors.index.json",
                   dict(metadata=dict(total_size=total), weight_map=dict(sorted(where.items()))))
    return total


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("--size", choices=SIZES, required=True)
    ap.add_argument("--bits", type=int, choices=[4, 8, 16, 32], default=4, help="16: bf16, 32: f32")
    ap.add_argument("--vision-bits", type=int, choices=[4, 8, 16], default=16,
                    help="of the vision tower, where its widths allow groups")
    ap.add_argument("--group", type=int, choices=[32, 64, 128], default=64)
    ap.add_argument("--layout", choices=["mlx", "hf", "hf-old"], default="mlx")
    ap.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json to copy; else a synthetic one is written")
    ap.add_argument("--shard-gb", type=float, default=4.0)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("dir")
    opt = ap.parse_args()
    start = time.monotonic()
    os.makedirs(opt.dir, exist_ok=True)
    if any(n.endswith(".safetensors") for n in os.listdir(opt.dir)):
        sys.exit(f"{opt.dir} already holds a model: name an empty directory")
    plan = Plan(opt, SIZES[opt.size])
    plan.decoder()
    if plan.size["kind"] == "vl":
        plan.vision_tower()
    write_small_files(plan, opt.dir)
    total = write_weights(plan, opt.dir)
    print(f"{opt.dir}: {total / 1e9:.2f} GB in {time.monotonic() - start:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
