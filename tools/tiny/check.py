"""Compare this model's code with transformers, in float32.

  python3 check.py                  random weights: logits of pictures of several sizes must agree
  python3 check.py MODEL_DIR [OUT]  an exported model: transformers answers held-out pictures greedily
"""
import json
import os
import sys

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_vl import image_processing_qwen2_vl as qwen_images

from config import AIDS, MAX_PIXELS, MIN_PIXELS, model_config
from data import BUCKETS, Source
from export import float_weights
from model import Ocellus
from tokens import IM_END, IMAGE_PAD


def hf_model(weights):
    config = Qwen2_5_VLConfig(**model_config(quantised=False))
    config._attn_implementation = "eager"
    hf = Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager", dtype=torch.float32)
    missing, extra = hf.load_state_dict(weights, strict=False)
    missing = [m for m in missing if "lm_head" not in m]
    assert not missing and not extra, (missing, extra)
    hf.tie_weights()
    return hf.cuda().eval()


def processor():
    """The Pillow back end; its class name differs between versions."""
    for module, name in (("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl", "Qwen2VLImageProcessorPil"),
                         (qwen_images.__name__, "Qwen2VLImageProcessor")):
        try:
            cls = getattr(__import__(module, fromlist=[name]), name)
            return cls(size={"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, resample=3)
        except (ImportError, AttributeError):
            continue
    raise SystemExit("no image processor")


def hf_inputs(images, ids):
    images = processor()(images=images, return_tensors="pt")
    ids = torch.tensor(ids)[None].cuda()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": images["pixel_values"].cuda(),
            "image_grid_thw": images["image_grid_thw"].cuda(), "mm_token_type_ids": (ids == IMAGE_PAD).long()}


def one_segment(source, bucket):
    """A row with one question and no padding."""
    scenes, seq = source.row(bucket)
    n = int(((seq.seg == 0) | (seq.seg == 1)).sum())
    keep = slice(0, n)
    return scenes, seq.ids[keep], seq.pos[:, keep], seq.seg[keep], seq.ans[keep]


@torch.no_grad()
def same_logits():
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(3)
    ours = Ocellus().cuda().eval()
    for name, p in ours.named_parameters():
        if p.dim() == 1:
            p.add_(torch.randn_like(p) * 0.1)
        else:
            p.mul_(1.5)
    hf = hf_model({"model." + k: v for k, v in ours.state_dict().items() if not k.startswith(AIDS)})
    source, worst = Source(5, test=True), 0.0
    for name in ("448x56", "392x280", "644x476", "336x224x3"):
        bucket = next(b for b in BUCKETS if b.name == name)
        scenes, ids, pos, seg, _ = one_segment(source, bucket)
        pixels = torch.tensor(np.stack([s.pixels for s in scenes])).cuda()
        a = ours(pixels, *(torch.tensor(v.astype(np.int64)).cuda() for v in (ids[None], pos[:, None], seg[None])))[0]
        b = hf(**hf_inputs([Image.fromarray(s.pixels) for s in scenes], ids.astype(np.int64))).logits
        err = ((a - b).abs().max() / b.std()).item()
        worst = max(worst, err)
        print("check", name, "tokens", len(ids), "max error / std of logits %.2e" % err,
              "argmax equal", (a.argmax(-1) == b.argmax(-1)).float().mean().item(), flush=True)
    print("check", "PASS" if worst < 1e-3 else "FAIL", "worst %.2e" % worst, flush=True)


@torch.no_grad()
def answers(folder, out):
    weights = {k: torch.tensor(v) for k, v in float_weights(folder).items()}
    hf = hf_model(weights)
    source, right, total, rows = Source(77, test=True), 0, 0, []
    for i, name in enumerate(("448x336", "672x448", "448x56", "1344x700", "336x224x2", "644x476") * 2):
        bucket = next(b for b in BUCKETS if b.name == name)
        scenes, ids, _, _, ans = one_segment(source, bucket)
        ans = ans > 0
        first = int(ans.argmax())
        got = hf.generate(**hf_inputs([Image.fromarray(s.pixels) for s in scenes], ids[:first].astype(np.int64)),
                          max_new_tokens=400, do_sample=False, eos_token_id=IM_END, pad_token_id=256)
        got = got[0, first:].tolist()
        run = ans[first:]
        want = ids[first:first + (len(run) if run.all() else int(run.argmin()))].tolist()
        text = bytes(t for t in got if t < 256).decode("utf-8", "replace")
        goal = bytes(t for t in want if t < 256).decode("utf-8", "replace")
        start = int(np.nonzero(ids[:first] >= 256)[0][-3])
        question = bytes(int(t) for t in ids[start:first] if t < 256).decode().split("\n")[0]
        right, total = right + (text == goal), total + 1
        print("answer", name, "OK " if text == goal else "BAD", repr(question), "->", repr(text), "" if text == goal else repr(goal),
              flush=True)
        files = []
        for k, s in enumerate(scenes):
            files.append("ref_%02d_%d.png" % (i, k))
            if out:
                Image.fromarray(s.pixels).save(os.path.join(out, files[-1]))
        rows.append({"images": files, "question": question, "transformers": text, "truth": goal})
    print("answers right", right, "of", total, flush=True)
    if out:
        with open(os.path.join(out, "reference.json"), "w", encoding="ascii") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answers(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    else:
        same_logits()
