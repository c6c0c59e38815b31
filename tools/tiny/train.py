"""Train the model from scratch within a wall-clock budget.

  python3 train.py --minutes 22 --dir /tmp/tiny --out OUT
  python3 train.py --minutes 22 --dir /tmp/tiny --out OUT --stop-after 8     part of it; the same command goes on
  python3 train.py --minutes 18 --dir /tmp/tiny --out OUT --init MODEL_DIR   go on from an exported model

The clock starts when the kernels are compiled, and the learning rate follows it, so a run always ends where it
should. The curriculum follows it too once single lines are read (data.Pace). State is saved under --dir every
three minutes, and the model is exported under --out, so a run that is cut off leaves one; a restarted run goes
on from the state. The last two fifths train on rounded weights (straight-through).
"""
import argparse
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import torch
import torch.fx.experimental._config
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import DataLoader, IterableDataset

from config import AIDS, GROUP, TEXT, VISION, bits_of
from data import BUCKETS, Pace, Source, pick_bucket
from export import float_weights
from facts import SKIP
from model import Ocellus
from quant import dequantise, is_quantised, quantise

QAT_FROM = 0.6
SAVE_S, SHOW_S = 170, 15
DECAY = 0.01
STAGES = ("line", "small", "medium", "large")


class Stream(IterableDataset):
    """Endless training batches; every worker process draws its own, at the shared place in the curriculum."""

    def __init__(self, seed, place):
        self.seed, self.place = seed, place

    def __iter__(self):
        worker = torch.utils.data.get_worker_info().id
        torch.set_num_threads(1)
        source = Source(self.seed * 1000 + worker)
        while True:
            source.place = self.place.value
            batch = source.batch(pick_bucket(source.rng, source.place))
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


class Rounded:
    """Puts the values that the file will hold in place of the weights, and the full ones back before the update."""

    def __init__(self, model):
        self.by_bits, self.full = {}, {}
        for n, p in model.named_parameters():
            if is_quantised(n, p.shape) and not n.startswith(AIDS):
                self.by_bits.setdefault(bits_of(n), []).append(p)

    @torch.no_grad()
    def enter(self):
        for bits, params in self.by_bits.items():
            self.full[bits] = [p.detach().clone() for p in params]
            groups = torch.cat([p.view(-1, GROUP) for p in self.full[bits]])
            q = quantise(torch, groups, bits, GROUP, lambda t: t.bfloat16().float())
            parts = dequantise(*q).split([p.numel() // GROUP for p in params])
            torch._foreach_copy_(params, [w.view_as(p) for w, p in zip(parts, params)])

    @torch.no_grad()
    def leave(self):
        for bits, params in self.by_bits.items():
            torch._foreach_copy_(params, self.full[bits])


def to_gpu(batch):
    out = {k: v.to("cuda", non_blocking=True) for k, v in batch.items() if isinstance(v, torch.Tensor)}
    for k in ("ids", "pos", "seg"):
        out[k] = out[k].long()
    return out


def answer_mean(logits, ids, weight):
    """Cross-entropy of the answers' tokens, by weight."""
    weight = weight[:, 1:].flatten().float()
    each = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1)


def asked_mean(logits, goal, ignore):
    """Mean cross-entropy of the goals that are not `ignore`; 0 if there is none."""
    goal = torch.where(goal == ignore, -100, goal.long()).flatten()
    total = F.cross_entropy(logits.flatten(0, -2).float(), goal, ignore_index=-100, reduction="sum")
    return total / (goal >= 0).sum().clamp(min=1)


def mostly_none(logits, goal):
    """Cross-entropy where class 0, nothing here, is common and counts little."""
    goal = goal.long().flatten()
    known = goal != SKIP
    each = F.cross_entropy(logits.flatten(0, -2).float(), torch.where(known, goal, 0), reduction="none")
    weight = torch.where(goal > 0, 1.0, 0.05) * known
    return (each * weight).sum() / weight.sum().clamp(min=1)


# Of the loss, with their weights.
PARTS = {"answer": 1.0, "letters": 0.5, "colour": 0.25, "near": 0.3, "place": 0.25, "number": 0.1, "changed": 0.25}


def losses(model, b):
    """The parts of the loss, in the order of PARTS, and the whole."""
    logits, aids = model(b["pixels"], b["ids"], b["pos"], b["seg"])
    letters, colours, near, places, number, changed = aids
    n_img = len(b["pixels"]) // len(b["ids"])
    numbers = (torch.arange(len(b["pixels"]), device="cuda") % n_img)[:, None].expand(number.shape[:2])
    parts = torch.stack((
        answer_mean(logits, b["ids"], b["ans"]), mostly_none(letters, b["letters"]), mostly_none(colours, b["colour"]),
        asked_mean(near, b["near"], 0), asked_mean(places, b["place"], 0),
        F.cross_entropy(number.flatten(0, 1).float(), numbers.flatten()) * float(n_img > 1),
        mostly_none(changed, b["changed"])))
    return parts, sum(weight * part for weight, part in zip(PARTS.values(), parts))


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
    for name, rows in (("448x56", 64), ("448x336", 48), ("672x448", 40), ("1344x700", 12), ("336x224x2", 40)):
        bucket = by_name[name]
        full, bucket.rows = bucket.rows, rows
        out.append(source.batch(bucket))
        bucket.rows = full
    return out


def lr_factor(p, since):
    """A short warm-up after every start, then a third of the run at the full rate, then straight down."""
    return min(1.0, (since + 1) / 15) * min(1.0, max(0.0, (1 - p) / 0.65) + 0.01)


def warm_up(model):
    """Compile all kernels on one throw-away picture of every size, before the clock starts; changes no weight."""
    source, start = Source(1), time.time()
    for bucket in BUCKETS:
        rows, bucket.rows = bucket.rows, 1
        batch = source.batch(bucket)
        bucket.rows = rows
        b = to_gpu({k: torch.as_tensor(np.repeat(v, rows, 1 if k == "pos" else 0)) for k, v in batch.items()
                    if k not in ("tasks", "bucket", "n_img")})
        with torch.autocast("cuda", torch.bfloat16):
            losses(model, b)[1].backward()
        model.zero_grad(set_to_none=True)
    torch.cuda.synchronize()
    memory = torch.cuda.max_memory_allocated() / 1e9
    print("compiled in %.0f s, %.1f GB" % (time.time() - start, memory), flush=True)


class Trainer:
    """The model, its two optimisers, the clock and what is kept on disk."""

    def __init__(self, args):
        self.args, self.model = args, Ocellus().cuda()
        named = list(self.model.named_parameters())
        turned = [(n, p) for n, p in named
                  if p.dim() == 2 and "embed_tokens" not in n and not n.startswith(AIDS)]
        chosen = {n for n, _ in turned}
        self.rest = [p for n, p in named if n not in chosen]
        self.muon = Muon(turned)
        self.adam = torch.optim.AdamW(self.rest, lr=args.adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.rounded, self.pace = Rounded(self.model), Pace(args.place)
        self.before, self.step, self.pictures, self.exporting = 0.0, 0, 0, None
        self.state_path = os.path.join(args.dir, "state.pt")
        if os.path.exists(self.state_path):
            self.load_state()
        elif args.init:
            weights = {k.replace("model.", "", 1): torch.tensor(v) for k, v in float_weights(args.init).items()}
            left = self.model.load_state_dict(weights, strict=False)
            assert not left.unexpected_keys and all(k.startswith(AIDS) for k in left.missing_keys), left
        self.start = time.time()

    def load_state(self):
        state = torch.load(self.state_path, map_location="cuda")
        self.model.load_state_dict(state["model"])
        self.adam.load_state_dict(state["adam"])
        self.muon.buf = state["muon"]
        self.before, self.step, self.pictures = state["elapsed"], state["step"], state["pictures"]
        self.pace.left, self.pace.line_loss = state["pace"]

    def elapsed(self):
        """Seconds of training, all starts together."""
        return self.before + time.time() - self.start

    def progress(self):
        return self.elapsed() / (60 * self.args.minutes)

    def train_on(self, batch):
        """One step; returns the parts of its loss."""
        qat, f = self.progress() >= QAT_FROM, lr_factor(self.progress(), time.time() - self.start)
        b = to_gpu(batch)
        if qat:
            self.rounded.enter()
        with torch.autocast("cuda", torch.bfloat16):
            parts, loss = losses(self.model, b)
        loss.backward()
        if qat:
            self.rounded.leave()
        torch.nn.utils.clip_grad_norm_(self.rest, 1.0)
        for g in self.adam.param_groups:
            g["lr"] = self.args.adam_lr * f
        self.adam.step()
        self.muon.step(self.args.muon_lr * f)
        self.model.zero_grad(set_to_none=True)
        self.step, self.pictures = self.step + 1, self.pictures + len(batch["pixels"])
        return parts.detach()

    def save(self, wait=False):
        """State to go on from, and the model as it ships, written by a process of its own."""
        torch.save({"model": self.model.state_dict(), "adam": self.adam.state_dict(), "muon": self.muon.buf,
                    "elapsed": self.elapsed(), "step": self.step, "pictures": self.pictures,
                    "pace": (self.pace.left, self.pace.line_loss)}, self.state_path + ".new")
        os.replace(self.state_path + ".new", self.state_path)
        if self.exporting is not None and (wait or self.exporting.poll() is not None):
            self.exporting.wait()
            self.exporting = None
        if self.exporting is None:
            path = os.path.join(self.args.dir, "final.safetensors")
            save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, path + ".new")
            os.replace(path + ".new", path)
            tool = os.path.join(os.path.dirname(os.path.abspath(__file__)), "export.py")
            folder = os.path.join(self.args.out, "model")
            self.exporting = subprocess.Popen([sys.executable, tool, path, folder, "--parts", "15"])
        if wait:
            self.exporting.wait()


class Figures:
    """What is printed and logged every few seconds."""

    def __init__(self, log):
        self.log, self.by_name = log, {b.name: b for b in BUCKETS}
        self.clear()

    def clear(self):
        self.sums, self.since = torch.zeros(len(STAGES), len(PARTS) + 1, device="cuda"), time.time()
        self.work, self.pictures, self.waited = 0, 0, 0.0

    def add(self, batch, parts):
        bucket = self.by_name[batch["bucket"]]
        self.sums[bucket.stage] += F.pad(parts, (0, 1), value=1.0)
        self.work += flops(bucket, len(batch["ids"]))
        self.pictures += len(batch["pixels"])

    def show(self, run, place):
        rows, dt = self.sums.tolist(), time.time() - self.since
        n = max(1.0, sum(r[-1] for r in rows))
        losses = {name: round(sum(r[i] for r in rows) / n, 4) for i, name in enumerate(PARTS)}
        stages = {s: round(r[0] / r[-1], 4) for s, r in zip(STAGES, rows) if r[-1]}
        f = lr_factor(run.progress(), time.time() - run.start)
        print("%6.1f s  p %.3f  place %.3f  step %d  %s (%s)  %.0f pictures/s  "
              "%.1f steps/s  %.0f TFLOP/s  waited %.0f%%  lr %.3f %s" % (
                  run.elapsed(), run.progress(), place, run.step, "  ".join("%s %.4f" % p for p in losses.items()),
                  " ".join("%s %.2f" % s for s in stages.items()), self.pictures / dt, n / dt, self.work / dt / 1e12, 100 * self.waited / dt, f,
                  "rounded" if run.progress() >= QAT_FROM else ""), flush=True)
        self.log.write(json.dumps({"s": round(run.elapsed(), 1), "step": run.step, **losses, "stages": stages,
                                   "pictures": run.pictures, "place_in_run": place}) + "\n")
        self.clear()
        return stages


def arguments():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--minutes", type=float, default=22, help="training time of the whole run")
    ap.add_argument("--stop-after", type=float, default=1e9, help="minutes after which this start ends")
    ap.add_argument("--dir", default="/tmp/tiny", help="state, which a restarted run goes on from")
    ap.add_argument("--out", default="/tmp/tiny/out", help="log and exported model")
    ap.add_argument("--workers", type=int, default=15)
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--init", help="exported model to start from when there is no state")
    ap.add_argument("--place", type=float, default=0.0, help="where in the curriculum to begin (with --init)")
    ap.add_argument("--muon-lr", type=float, default=0.012)
    ap.add_argument("--adam-lr", type=float, default=2e-3)
    ap.add_argument("--report-s", type=float, default=120, help="seconds between looks at held-out pictures")
    return ap.parse_args()


def main():
    args = arguments()
    for folder in (args.dir, args.out):
        os.makedirs(folder, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(1)
    run = Trainer(args)
    print("parameters", sum(p.numel() for p in run.model.parameters()), "resumed at", run.before, flush=True)
    place = multiprocessing.Value("d", run.pace.place(run.progress()), lock=False)
    # The drawing processes start before any kernel runs, and fill their queues while the kernels are compiled.
    batches = iter(DataLoader(Stream(run.step, place), batch_size=None, num_workers=args.workers, prefetch_factor=3,
                              pin_memory=True, persistent_workers=True, multiprocessing_context="fork"))
    held = held_out()
    if args.compile:
        torch._dynamo.config.cache_size_limit = 64
        # Sizes that happen to be equal in the first batch are not equal for ever: without this each kernel is
        # compiled again for the second picture size, which costs half a minute.
        torch.fx.experimental._config.use_duck_shape = False
        for block in list(run.model.visual.blocks) + list(run.model.language_model.layers):
            block.compile(dynamic=True)
        warm_up(run.model)
    with open(os.path.join(args.out, "log.jsonl"), "a", encoding="ascii") as log:
        loop(run, batches, place, held, log)
    print("done" if run.progress() >= 1 else "paused", "steps", run.step, "pictures", run.pictures, flush=True)
    os._exit(0)


def loop(run, batches, place, held, log):
    """Train until the run, this start's share of it, or the patience of whoever sends SIGTERM ends."""
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    figures = Figures(log)
    run.start = shown = saved = time.time()
    while run.progress() < 1 and not asked and time.time() - run.start < 60 * run.args.stop_after:
        t = time.time()
        batch = next(batches)
        figures.waited += time.time() - t
        figures.add(batch, run.train_on(batch))
        place.value = run.pace.place(run.progress())
        now = time.time()
        if now - figures.since > SHOW_S:
            run.pace.see(figures.show(run, place.value).get("line"))
        if now - shown > run.args.report_s:
            report(run.model, run.rounded, held, log, run.elapsed(), run.progress() >= QAT_FROM)
            shown = time.time()
        if now - saved > SAVE_S:
            run.save()
            saved = time.time()
    run.save(wait=True)
    for qat in (False, True):
        report(run.model, run.rounded, held, log, run.elapsed(), qat)


def report(model, rounded, held, log, elapsed, qat):
    if qat:
        rounded.enter()
    scores = evaluate(model, held)
    if qat:
        rounded.leave()
    print("  held out%s: " % (" rounded" if qat else "") +
          "  ".join("%s %d/%d" % (k, *v) for k, v in scores.items()), flush=True)
    log.write(json.dumps({"s": round(elapsed, 1), "rounded": qat, "held_out": scores}) + "\n")
    log.flush()


if __name__ == "__main__":
    main()
