#!/usr/bin/env python3
"""Captures the parity goldens from Hugging Face transformers: tests/golden/<model>/golden.bin.

    tools/capture_golden.py --out DIR [--models vl-f32,vl-bf16]

Needs torch and transformers (5.x); runs on the CPU, in eager attention, with the Pillow image back end and no
penalties, in about a minute. The weights are those of tools/golden_model.py. Every stage is computed in float64
(weights as stored, widened); the same is computed in the checkpoint's own dtype (bf16 for quantised ones), to know
transformers' own error. tests/golden/README.md says what is stored and how.
"""
import argparse
import io
import json
import os
import platform
import struct
import sys
import tarfile
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import golden_model as gm  # noqa: E402

N_GREEDY = 32
OWN = {"F32": "float32", "F16": "float32", "BF16": "bfloat16"}  # f16 overflows in Qwen: compared in f32


# ---- the file -------------------------------------------------------------------------------------------------

def pick(n, most):
    """At most `most` of 0..n-1, evenly spread, first and last among them."""
    return list(range(n)) if n <= most else [i * (n - 1) // (most - 1) for i in range(most)]


class Golden:
    """Records: 48 bytes name, u32 type (0 f32, 1 i32), u32 rows, u32 columns, u32 0, then the values, row-major."""

    def __init__(self):
        self.out = io.BytesIO()

    def put(self, name, array):
        a = np.atleast_2d(np.asarray(array))
        kind = 1 if a.dtype.kind in "iu" else 0
        self.out.write(struct.pack("<48sIIII", name.encode(), kind, a.shape[0], a.shape[1], 0))
        self.out.write(np.ascontiguousarray(a, dtype="<i4" if kind else "<f4").tobytes())

    def sample(self, name, array, rows=8, columns=32):
        """A fixed sample of a stage's output: spread rows and columns (see pick)."""
        a = np.asarray(array)
        self.put(name, a[pick(a.shape[0], rows)][:, pick(a.shape[1], columns)])


# ---- transformers ---------------------------------------------------------------------------------------------

def build(model, dtype):
    """The transformers model in a torch dtype, with the golden weights."""
    import torch
    import transformers as tf
    kind = model.spec["kind"]
    text, rope, theta = model.text_config()
    rope = dict(rope or {"rope_type": "default"})
    rope.pop("type", None)
    rope.setdefault("rope_type", "default")
    rope["rope_theta"] = theta
    if kind == "vl":
        config = tf.Qwen2_5_VLConfig(
            text_config=dict(text, bos_token_id=None, eos_token_id=None, rope_parameters=rope, tie_word_embeddings=model.spec["tied"]),
            vision_config=dict(model.vision_config(), in_channels=3), tie_word_embeddings=model.spec["tied"],
            image_token_id=gm.IMAGE, video_token_id=gm.VIDEO, vision_start_token_id=gm.VISION_START,
            vision_end_token_id=gm.VISION_END, attn_implementation="eager")
        cls = tf.Qwen2_5_VLForConditionalGeneration
    else:
        cls, config_cls = {"qwen2": (tf.Qwen2ForCausalLM, tf.Qwen2Config),
                           "llama": (tf.LlamaForCausalLM, tf.LlamaConfig)}[kind]
        config = config_cls(**text, rope_parameters=rope, tie_word_embeddings=model.spec["tied"],
                            attn_implementation="eager")
    net = cls(config).eval()
    net.set_attn_implementation("eager")
    assert net.config._attn_implementation == "eager"
    state = {k: torch.from_numpy(np.ascontiguousarray(v, dtype=np.float32)) for k, v in model.values.items()}
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    net.tie_weights()
    assert (net.lm_head.weight is net.get_input_embeddings().weight) == model.spec["tied"]
    # Rotary frequencies are f32 whatever the dtype, as from_pretrained leaves them.
    keep = [(m, m.inv_freq.clone()) for m in net.modules() if hasattr(m, "inv_freq")]
    net.to(dtype)
    for m, inv_freq in keep:
        m.inv_freq = inv_freq
        m.original_inv_freq = inv_freq.clone()
    return net


class Pictures:
    def __init__(self):
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
        self.processor = Qwen2VLImageProcessorPil(size=dict(shortest_edge=gm.MIN_PIXELS, longest_edge=gm.MAX_PIXELS))

    def patches(self, width, height, seed):
        from PIL import Image
        image = Image.fromarray(gm.picture(width, height, seed), "RGB")
        out = self.processor(images=[image], return_tensors="np")
        return np.asarray(out["pixel_values"], dtype=np.float32), [int(v) for v in out["image_grid_thw"][0]]


def lay_out(turns, processor):
    """Turns -> per turn token ids (placeholders repeated), patches and grids."""
    out = []
    for turn in turns:
        ids, patches, grids = [], [], []
        for part in turn:
            if isinstance(part, tuple):
                p, grid = processor.patches(*part)
                patches.append(p)
                grids.append(grid)
                ids += [gm.VISION_START] + [gm.IMAGE] * (grid[0] * grid[1] * grid[2] // 4) + [gm.VISION_END]
            else:
                ids += part
        out.append((ids, patches, grids))
    return out


class Run:
    """One conversation in one dtype: greedy when `forced` is None, else along the given tokens."""

    def __init__(self, net, kind, turns, forced=None):
        import torch
        self.torch, self.net, self.kind, self.stages = torch, net, kind, {}
        self.tokens, self.logits, self.margins = [], [], []  # per turn
        history, patches, grids = [], [], []
        for t, (ids, p, g) in enumerate(turns):
            history, patches, grids = history + ids, patches + p, grids + g
            with torch.no_grad():
                history = self.turn(t, history, patches, grids, forced[t] if forced else None)

    def turn(self, t, history, patches, grids, forced):
        """Prefills the whole history (what a conversation means, whatever is cached) and decodes N_GREEDY tokens."""
        torch, net = self.torch, self.net
        ids = torch.tensor([history])
        args = {}
        if self.kind == "vl":
            net.model.rope_deltas = None
            if patches:
                args = dict(pixel_values=torch.from_numpy(np.concatenate(patches)).to(net.dtype),
                            image_grid_thw=torch.tensor(grids), mm_token_type_ids=(ids == gm.IMAGE).int())
        with Hooks(net, self.kind) as hooks:
            out = net(input_ids=ids, use_cache=True, **args)
        self.stages[t] = hooks.stages
        if patches:
            pos, delta = net.model.get_rope_index(ids, args["mm_token_type_ids"], image_grid_thw=args["image_grid_thw"])
            self.stages[t]["positions"] = pos[:, 0].T.numpy()
            self.stages[t]["delta"] = int(delta)
        cache, rows, tokens, margins = out.past_key_values, [out.logits[0, -1]], [], []
        if forced:  # all tokens are known: one step
            out = net(input_ids=torch.tensor([forced[:-1]]), past_key_values=cache, use_cache=True)
            rows += list(out.logits[0])
        for i in range(N_GREEDY):
            row = rows[i].double().numpy()
            top = np.sort(row[:gm.N_PLAIN])[-2:]
            margins.append(top[1] - top[0])
            tokens.append(forced[i] if forced else int(np.argmax(row[:gm.N_PLAIN])))
            if not forced and i + 1 < N_GREEDY:
                out = net(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True)
                rows.append(out.logits[0, -1])
        self.tokens.append(tokens)
        self.logits.append(np.array([r.double().numpy() for r in rows]))
        self.margins.append(margins)
        return history + tokens


class Hooks:
    """Collects stage outputs during one forward: name -> [rows, columns] f64. Vision rows are in window order."""

    def __init__(self, net, kind):
        self.net, self.kind, self.stages, self.handles = net, kind, {}, []

    def keep(self, name, take):
        def hook(_module, _args, out):
            self.stages[name] = take(out).detach().double().numpy().copy()
        return hook

    def __enter__(self):
        def on(module, name, take):
            self.handles.append(module.register_forward_hook(self.keep(name, take)))

        def first(out):
            return out[0] if isinstance(out, tuple) else out
        if self.kind == "vl":
            v = self.net.model.visual
            on(v.patch_embed, "patch_embed", first)
            for i, block in enumerate(v.blocks):
                on(block, f"block.{i}", first)
            on(v, "merger", lambda out: out.pooler_output)
        body = self.net.model.language_model if self.kind == "vl" else self.net.model
        for i, layer in enumerate(body.layers):
            on(layer, f"layer.{i}", lambda out: (first(out)[0] if first(out).ndim == 3 else first(out)))
        return self

    def __exit__(self, *_):
        for h in self.handles:
            h.remove()


# ---- records --------------------------------------------------------------------------------------------------

def error(ref, own):
    """Largest difference and root mean square, both in standard deviations of ref."""
    d = np.abs(ref - own)
    return [float(d.max() / ref.std()), float(np.sqrt((d ** 2).mean()) / ref.std())]


def record_vision(g, case, t, turns, stages, own):
    """Stages of each picture by itself; patch_embed in grid order, blocks in window order, merger in grid order."""
    last = [p for _, ps, _ in turns[:t + 1] for p in ps]
    new = len(turns[t][1])
    bounds = np.cumsum([0] + [p.shape[0] for p in last])
    for k in range(len(last) - new, len(last)):
        rows = slice(bounds[k], bounds[k + 1])
        tokens = slice(bounds[k] // 4, bounds[k + 1] // 4)
        i = k - (len(last) - new)
        g.sample(f"{case}.{t}.{i}.pixels", last[k], 8, 56)
        for name in [s for s in stages if s == "patch_embed" or s.startswith("block.") or s == "merger"]:
            cut = tokens if name == "merger" else rows
            g.sample(f"{case}.{t}.{i}.{name}", stages[name][cut])
            g.put(f"{case}.{t}.{i}.{name}.own", error(stages[name][cut], own[name][cut]))
            g.put(f"{case}.{t}.{i}.{name}.std", [stages[name][cut].std()])


def record(g, model_name, case, turns, ref, own):
    for t, (ids, _, grids) in enumerate(turns):
        stages, own_stages, at = ref.stages[t], own.stages[t], f"{case}.{t}"
        g.put(f"{at}.ids", np.array(ids, dtype=np.int32))
        if grids:
            g.put(f"{at}.grids", np.array(grids, dtype=np.int32))
            record_vision(g, case, t, turns, stages, own_stages)
        if "positions" in stages:
            g.put(f"{at}.positions", stages["positions"].astype(np.int32))
            g.put(f"{at}.delta", np.array([stages["delta"]], dtype=np.int32))
        for name in [s for s in stages if s.startswith("layer.")]:
            g.sample(f"{at}.{name}", stages[name][-len(ids):], 4)
            g.put(f"{at}.{name}.own", error(stages[name][-len(ids):], own_stages[name][-len(ids):]))
            g.put(f"{at}.{name}.std", [stages[name][-len(ids):].std()])
        logits = ref.logits[t]
        g.put(f"{at}.logits", logits[0])
        g.put(f"{at}.logits.own", error(logits[0], own.logits[t][0]))
        g.put(f"{at}.decode", logits[1:, pick(gm.VOCAB, 32)])
        g.put(f"{at}.decode.own", error(logits[1:], own.logits[t][1:]))
        g.put(f"{at}.std", [logits.std()])
        g.put(f"{at}.tokens", np.array(ref.tokens[t], dtype=np.int32))
        g.put(f"{at}.margins", ref.margins[t])
        print(f"{model_name} {case}.{t}: {len(ids)} ids, logits std {logits.std():.2f}, own error prefill max {error(logits[0], own.logits[t][0])[0]:.2e}"
              f" decode max {error(logits[1:], own.logits[t][1:])[0]:.2e}, least margin {min(ref.margins[t]):.3f},"
              f" {len(set(ref.tokens[t]))} different tokens", flush=True)


def check_generate(net, kind, turns, tokens):
    """The loop above against transformers' own generate(), over text alone."""
    torch = __import__("torch")
    ids = torch.tensor([turns[0][0]])
    if kind == "vl":
        net.model.rope_deltas = None
    out = net.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=N_GREEDY, do_sample=False,
                       suppress_tokens=list(range(gm.N_PLAIN, gm.VOCAB)), eos_token_id=None, pad_token_id=0)
    assert out[0, ids.shape[1]:].tolist() == tokens, "generate() chose other tokens"


def capture(name):
    """One model, in a process of its own: the file's bytes, or the traceback as text."""
    try:
        import torch
        torch.manual_seed(0)
        torch.set_num_threads(2)  # the matrices are small, and each model has its process
        return capture_model(name, Pictures())
    except Exception:
        return traceback.format_exc()


def capture_model(name, processor):
    import torch
    started = time.time()
    model = gm.Model(name)
    kind, g = model.spec["kind"], Golden()
    ref_net = build(model, torch.float64)
    own_net = build(model, getattr(torch, "bfloat16" if model.spec.get("bits") else OWN[model.spec["dtype"]]))
    for case, turns in gm.cases(kind).items():
        turns = lay_out(turns, processor)
        ref = Run(ref_net, kind, turns)
        own = Run(own_net, kind, turns, ref.tokens)
        record(g, name, case, turns, ref, own)
        if case == "text":
            try:
                check_generate(ref_net, kind, turns, ref.tokens[0])
                print(f"{name}: generate() agrees")
            except Exception as e:  # the goldens stand without it
                print(f"{name}: generate() check failed: {e!r}"[:400])
    print(f"{name}: {g.out.tell()} bytes, {time.time() - started:.1f} s", flush=True)
    return g.out.getvalue()


def versions():
    import PIL
    import torch
    import transformers
    return dict(python=platform.python_version(), numpy=np.__version__, torch=torch.__version__,
                transformers=transformers.__version__, pillow=PIL.__version__)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--out", required=True)
    p.add_argument("--models", default=",".join(gm.MODELS))
    opt = p.parse_args()
    print(versions(), flush=True)
    os.makedirs(opt.out, exist_ok=True)
    names, failed = opt.models.split(","), []
    files = {"versions.json": (json.dumps(versions(), indent=1) + "\n").encode()}
    with ProcessPoolExecutor(max(1, min(len(names), (os.cpu_count() or 1) // 2)), get_context("spawn")) as pool:
        for name, result in zip(names, pool.map(capture, names)):
            if isinstance(result, bytes):
                files[f"{name}/golden.bin"] = result
            else:
                failed.append(name)
                print(f"{name} failed\n{result}", flush=True)
    with tarfile.open(f"{opt.out}/golden.tar", "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    print(f"{len(files) - 1} models captured, {len(failed)} failed {failed}; {opt.out}/golden.tar")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
