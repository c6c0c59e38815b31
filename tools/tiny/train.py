"""Train the model from scratch within a wall-clock budget.

  python3 train.py --minutes 18 --dir /tmp/tiny
  python3 train.py --minutes 18 --dir /tmp/tiny --init MODEL_DIR --skip 0.2     go on from an exported model

The learning rate follows elapsed time, so a run always ends where it should. State is saved under --dir
every few minutes and a restarted run goes on from it. The file DIR/minutes, if there is one, overrides
the budget while the run is on. The last fifth trains on 4-bit rounded weights (straight-through).
"""
import argparse
import json
import os
import time

import torch
import torch.fx.experimental._config
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import DataLoader, IterableDataset

from config import BITS, GROUP, TEXT, VISION
from data import BUCKETS, Source, pick_bucket
from export import float_weights
from model import Ocellus
from quant import dequantise, is_quantised, quantise

QAT_FROM = 0.82
COMPILE_S = 40
MUON_LR, ADAM_LR, DECAY = 0.012, 2e-3, 0.01


class Stream(IterableDataset):
    """Endless training batches; every worker process draws its own. `skip` is the part of the curriculum left out."""

    def __init__(self, seed, started, minutes, skip):
        self.seed, self.started, self.minutes, self.skip = seed, started, minutes, skip

    def __iter__(self):
        worker = torch.utils.data.get_worker_info().id
        torch.set_num_threads(1)
        source = Source(self.seed * 1000 + worker)
        while True:
            progress = min(1.0, max(0.0, (time.time() - self.started) / (60 * self.minutes)))
            batch = source.batch(pick_bucket(source.rng, self.skip + (1 - self.skip) * progress))
            del batch["tasks"]
            yield batch


def matrices(name, t):
    """A weight as the matrices that it stands for: a fused qkv is three."""
    return list(t.view(3, -1, t.shape[1])) if "attn.qkv" in name else [t]


class Muon:
    """Momentum whose update is made orthogonal by five Newton-Schulz steps; matrices of one shape go together."""

    def __init__(self, named):
        self.groups = {}
        for name, p in named:
            for i, m in enumerate(matrices(name, p.data)):
                self.groups.setdefault(tuple(m.shape), []).append((name, p, i))
        self.buf = {s: torch.zeros(len(g), *s, device="cuda") for s, g in self.groups.items()}

    @torch.no_grad()
    def step(self, lr):
        for shape, group in self.groups.items():
            grad = torch.stack([matrices(n, p.grad)[i] for n, p, i in group])
            buf = self.buf[shape].lerp_(grad, 0.05)
            update = newton_schulz(grad.lerp(buf, 0.95)) * max(1.0, shape[0] / shape[1]) ** 0.5
            views = [matrices(n, p.data)[i] for n, p, i in group]
            torch._foreach_mul_(views, 1 - lr * DECAY)
            torch._foreach_add_(views, list(update.float().unbind(0)), alpha=-lr)


def newton_schulz(g):
    x = g.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


class FourBit:
    """Puts 4-bit rounded values in place of the weights, and the full ones back before the update."""

    def __init__(self, model):
        self.params = [p for n, p in model.named_parameters()
                       if is_quantised(n, p.shape) and not n.startswith("letters")]
        self.full = None

    @torch.no_grad()
    def enter(self):
        self.full = [p.detach().clone() for p in self.params]
        groups = torch.cat([p.view(-1, GROUP) for p in self.full])
        q = quantise(torch, groups, BITS, GROUP, lambda t: t.bfloat16().float())
        parts = dequantise(*q).split([p.numel() // GROUP for p in self.params])
        torch._foreach_copy_(self.params, [w.view_as(p) for w, p in zip(parts, self.params)])

    @torch.no_grad()
    def leave(self):
        torch._foreach_copy_(self.params, self.full)


def to_gpu(batch):
    out = {k: v.to("cuda", non_blocking=True) for k, v in batch.items() if isinstance(v, torch.Tensor)}
    for k in ("ids", "pos", "seg"):
        out[k] = out[k].long()
    return out


def losses(model, b):
    logits, letters = model(b["pixels"], b["ids"], b["pos"], b["seg"])
    want = b["ans"][:, 1:].bool()
    target = torch.where(want, b["ids"][:, 1:], -100)
    answer = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), target.flatten(), ignore_index=-100)
    goal = b["letters"].long().flatten()
    each = F.cross_entropy(letters.flatten(0, -2).float(), goal, reduction="none")
    weight = torch.where(goal > 0, 1.0, 0.05)
    return answer, (each * weight).sum() / weight.sum(), logits


def flops(bucket, rows):
    """Multiply-adds times six of one batch's linear layers and full attention."""
    n = bucket.w // 14 * (bucket.h // 14)
    d, m = VISION["hidden_size"], VISION["intermediate_size"]
    vision = n * VISION["depth"] * (4 * d * d + 3 * d * m) + 2 * n * n * d * 3
    t, k = TEXT["hidden_size"], TEXT["intermediate_size"]
    text = bucket.length * TEXT["num_hidden_layers"] * (3 * t * t + 3 * t * k + 2 * bucket.length * t)
    return 6 * rows * (bucket.n_img * vision + text)


@torch.no_grad()
def evaluate(model, held):
    """Exact match per task on held-out words and fonts. All answer tokens right under teacher forcing is the
    same as a right greedy answer."""
    right, total = {}, {}
    for batch in held:
        b = to_gpu({k: torch.as_tensor(v) for k, v in batch.items() if k not in ("tasks", "bucket", "n_img")})
        with torch.autocast("cuda", torch.bfloat16), torch.compiler.set_stance("force_eager"):
            logits = model(b["pixels"], b["ids"], b["pos"], b["seg"])[0]
        wrong = (logits[:, :-1].argmax(-1) != b["ids"][:, 1:]) & b["ans"][:, 1:].bool()
        wrong, seg = wrong.cpu().numpy(), batch["seg"][:, 1:]
        for r, tasks in enumerate(batch["tasks"]):
            bad = set(seg[r][wrong[r]].tolist())
            for i, task in enumerate(tasks):
                for key in (task, batch["bucket"] + "/" + task if task in ("list", "title", "centre") else None):
                    if key:
                        total[key] = total.get(key, 0) + 1
                        right[key] = right.get(key, 0) + (i + 1 not in bad)
    return {k: (right[k], total[k]) for k in sorted(total)}


def held_out():
    source = Source(987654321, test=True)
    by_name = {b.name: b for b in BUCKETS}
    out = []
    for name, rows in (("448x56", 64), ("448x336", 48), ("672x448", 40), ("1344x700", 12), ("336x224x2", 16)):
        bucket = by_name[name]
        full, bucket.rows = bucket.rows, rows
        out.append(source.batch(bucket))
        bucket.rows = full
    return out


def lr_factor(p, elapsed):
    return min(1.0, (elapsed + 1) / 15) * min(1.0, max(0.0, (1 - p) / 0.65) + 0.01)


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--minutes", type=float, default=18)
    ap.add_argument("--dir", default="/tmp/tiny")
    ap.add_argument("--workers", type=int, default=15)
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--init", help="model folder that export.py wrote: start from its weights")
    ap.add_argument("--skip", type=float, default=0.0, help="share of the curriculum to leave out, with --init")
    ap.add_argument("--report-s", type=float, default=120, help="seconds between looks at held-out pictures")
    args = ap.parse_args()
    os.makedirs(args.dir, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(1)
    model = Ocellus().cuda()
    named = list(model.named_parameters())
    muon_names = [(n, p) for n, p in named if p.dim() == 2 and "embed_tokens" not in n and not n.startswith("letters")]
    chosen = {n for n, _ in muon_names}
    rest = [p for n, p in named if n not in chosen]
    muon = Muon(muon_names)
    adam = torch.optim.AdamW(rest, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    four = FourBit(model)
    if args.init:
        weights = {k.replace("model.", "", 1): torch.tensor(v) for k, v in float_weights(args.init).items()}
        left = model.load_state_dict(weights, strict=False)
        assert not left.unexpected_keys and all("letters" in k for k in left.missing_keys), left
    state_path, elapsed0, step, pictures = os.path.join(args.dir, "state.pt"), 0.0, 0, 0
    if os.path.exists(state_path):
        state = torch.load(state_path, map_location="cuda")
        model.load_state_dict(state["model"])
        adam.load_state_dict(state["adam"])
        muon.buf = state["muon"]
        elapsed0, step, pictures = state["elapsed"], state["step"], state["pictures"]
    print("parameters", sum(p.numel() for p in model.parameters()), "resumed at", elapsed0, flush=True)
    if args.compile:
        torch._dynamo.config.cache_size_limit = 64
        # Sizes that happen to be equal in the first batch are not equal for ever: without this each kernel is
        # compiled again for the second picture size, which costs half a minute.
        torch.fx.experimental._config.use_duck_shape = False
        for block in list(model.visual.blocks) + list(model.language_model.layers):
            block.compile(dynamic=True)
    minutes = args.minutes
    start = time.time() - elapsed0
    # The curriculum starts once the kernels are compiled.
    stream = Stream(int(start), start + COMPILE_S, minutes - COMPILE_S / 60, args.skip)
    loader = DataLoader(stream, batch_size=None, num_workers=args.workers,
                        prefetch_factor=3, pin_memory=True, persistent_workers=True)
    batches = iter(loader)
    held = held_out()
    log = open(os.path.join(args.dir, "log.jsonl"), "a", encoding="ascii")
    by_name = {b.name: b for b in BUCKETS}
    sums, mark, shown, saved, work, waited = torch.zeros(3, device="cuda"), time.time(), time.time(), time.time(), 0, 0.0
    drawn0 = pictures
    while True:
        t = time.time()
        batch = next(batches)
        waited += time.time() - t
        elapsed = time.time() - start
        progress = elapsed / (60 * minutes)
        if progress >= 1:
            break
        f = lr_factor(progress, elapsed)
        b = to_gpu(batch)
        qat = progress >= QAT_FROM
        if qat:
            four.enter()
        with torch.autocast("cuda", torch.bfloat16):
            answer, letters, _ = losses(model, b)
        (answer + 0.5 * letters).backward()
        if qat:
            four.leave()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for g in adam.param_groups:
            g["lr"] = ADAM_LR * f
        adam.step()
        muon.step(MUON_LR * f)
        model.zero_grad(set_to_none=True)
        sums += torch.stack((answer.detach(), letters.detach(), torch.ones((), device="cuda")))
        step, pictures = step + 1, pictures + len(batch["pixels"])
        work += flops(by_name[batch["bucket"]], len(batch["ids"]))
        now = time.time()
        if now - mark > 15:
            a, l, n = sums.tolist()
            dt = now - mark
            print("%6.1f s  p %.3f  step %d  answer %.4f  letters %.4f  %.0f pictures/s  %.1f steps/s  %.0f TFLOP/s  "
                  "waited %.0f%%  lr %.3f %s" % (elapsed, progress, step, a / n, l / n, (pictures - drawn0) / dt, n / dt,
                                                work / dt / 1e12, 100 * waited / dt, f, "4-bit" if qat else ""), flush=True)
            log.write(json.dumps({"s": round(elapsed, 1), "step": step, "answer": a / n, "letters": l / n,
                                  "pictures": pictures}) + "\n")
            sums.zero_()
            mark, work, waited, drawn0 = time.time(), 0, 0.0, pictures
            if os.path.exists(os.path.join(args.dir, "minutes")):
                minutes = float(open(os.path.join(args.dir, "minutes"), encoding="ascii").read())
        if now - shown > args.report_s:
            report(model, four, held, log, elapsed, qat)
            shown = time.time()
        if now - saved > 170:
            torch.save({"model": model.state_dict(), "adam": adam.state_dict(), "muon": muon.buf, "elapsed": elapsed,
                        "step": step, "pictures": pictures}, state_path + ".new")
            os.replace(state_path + ".new", state_path)
            saved = time.time()
    report(model, four, held, log, elapsed, False)
    report(model, four, held, log, elapsed, True)
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, os.path.join(args.dir, "final.safetensors"))
    print("done: steps", step, "pictures", pictures, flush=True)
    os._exit(0)


def report(model, four, held, log, elapsed, qat):
    if qat:
        four.enter()
    scores = evaluate(model, held)
    if qat:
        four.leave()
    print("  held out%s: " % (" 4-bit" if qat else "") +
          "  ".join("%s %d/%d" % (k, *v) for k, v in scores.items()), flush=True)
    log.write(json.dumps({"s": round(elapsed, 1), "bits": 4 if qat else 16, "held_out": scores}) + "\n")
    log.flush()


if __name__ == "__main__":
    main()
