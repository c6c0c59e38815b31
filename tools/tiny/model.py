"""Qwen2.5-VL in plain PyTorch, for dense batches of one picture size. Parameter names are those of
transformers (`visual.*`, `language_model.*`), so a checkpoint needs no renaming; check.py proves equal logits.
"""
import functools

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

from config import HEAD_DIM, MEAN, MERGE, PATCH, STD, TEMPORAL, TEXT, VISION, WINDOW
from data import SLOTS, merge_order
from facts import N_COLOURS, N_NEAR, N_PICTURES, N_PLACE, NEAR
from tokens import IMAGE_PAD, VOCAB

V_DIM, V_HEADS = VISION["hidden_size"], VISION["num_heads"]
V_HEAD = V_DIM // V_HEADS
PLACE_LAYER = 4  # after so many layers of text a picture's tokens know where they are
T_DIM, T_HEADS, T_KV = TEXT["hidden_size"], TEXT["num_attention_heads"], TEXT["num_key_value_heads"]


class Norm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, 1e-6).to(x.dtype)


class Mlp(nn.Module):
    def __init__(self, dim, inner, bias):
        super().__init__()
        self.gate_proj = nn.Linear(dim, inner, bias=bias)
        self.up_proj = nn.Linear(dim, inner, bias=bias)
        self.down_proj = nn.Linear(inner, dim, bias=bias)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return (x * cos + turned * sin).to(x.dtype)


class Take(torch.autograd.Function):
    """x[:, idx] * keep where inv undoes idx: a gather both ways, which a scatter-add would slow down."""

    @staticmethod
    def forward(ctx, x, idx, inv, keep, inv_keep):
        ctx.save_for_backward(idx, inv, inv_keep)
        return x.index_select(1, idx) * keep

    @staticmethod
    def backward(ctx, g):
        idx, inv, inv_keep = ctx.saved_tensors
        return g.index_select(1, inv) * inv_keep, None, None, None, None


class VisionAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(V_DIM, 3 * V_DIM)
        self.proj = nn.Linear(V_DIM, V_DIM)

    def forward(self, x, cos, sin, win):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, V_HEADS, V_HEAD).unbind(2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if win is None:
            y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
            return self.proj(y.transpose(1, 2).reshape(b, n, V_DIM))
        idx, inv, keep, one, bias = win
        nw = idx.shape[0] // 64
        qkv = torch.stack((q, k, v), 2).reshape(b, n, 3 * V_DIM)
        qkv = Take.apply(qkv, idx, inv, keep.to(qkv.dtype), one.to(qkv.dtype)).view(b * nw, 64, 3, V_HEADS, V_HEAD)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mask = bias.to(q.dtype)[None].expand(b, nw, 64, 64).reshape(b * nw, 1, 64, 64).expand(b * nw, V_HEADS, 64, 64)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        y = y.transpose(1, 2).reshape(b, nw * 64, V_DIM)
        y = Take.apply(y, inv, idx, one.to(y.dtype), keep.to(y.dtype))
        return self.proj(y)


class VisionBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = Norm(V_DIM), Norm(V_DIM)
        self.attn = VisionAttention()
        self.mlp = Mlp(V_DIM, VISION["intermediate_size"], True)

    def forward(self, x, cos, sin, win):
        x = x + self.attn(self.norm1(x), cos, sin, win)
        return x + self.mlp(self.norm2(x))


class Merger(nn.Module):
    def __init__(self):
        super().__init__()
        inner = V_DIM * MERGE * MERGE
        self.ln_q = Norm(V_DIM)
        self.mlp = nn.ModuleList([nn.Linear(inner, inner), nn.GELU(), nn.Linear(inner, T_DIM)])

    def forward(self, x):
        x = self.ln_q(x)
        x = x.reshape(x.shape[0], x.shape[1] // 4, -1)
        for layer in self.mlp:
            x = layer(x)
        return x


class PatchEmbed(nn.Module):
    """A convolution whose stride is its size; both frames of a still picture are the same."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv3d(3, V_DIM, (TEMPORAL, PATCH, PATCH), (TEMPORAL, PATCH, PATCH), bias=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 1, 1, 3) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 1, 1, 3) * 255, persistent=False)

    def forward(self, pixels):
        m, h, w, _ = pixels.shape
        x = (pixels.float() - self.mean) / self.std
        x = x.view(m, h // 28, 2, PATCH, w // 28, 2, PATCH, 3).permute(0, 1, 4, 2, 5, 7, 3, 6)
        return F.linear(x.reshape(m, (h // PATCH) * (w // PATCH), -1), self.proj.weight.sum(2).flatten(1))


@functools.lru_cache(maxsize=64)
def grid_tables(gh, gw, device):
    """For one patch grid in merge order: RoPE cos and sin, and the gather into windows of 64 with its inverse."""
    yx = merge_order(np.stack(np.meshgrid(np.arange(gh), np.arange(gw), indexing="ij"), -1))
    freq = 1.0 / 10000 ** (np.arange(0, V_HEAD // 2, 2) / (V_HEAD // 2))
    angle = np.concatenate([yx[:, :1] * freq, yx[:, 1:] * freq], 1)
    angle = np.concatenate([angle, angle], 1)[None, :, None, :]
    side = WINDOW // PATCH
    window = (yx[:, 0] // side) * -(-gw // side) + yx[:, 1] // side
    n_win = -(-gh // side) * -(-gw // side)
    idx, keep = np.zeros((n_win, 64), np.int64), np.zeros((n_win, 64), np.float32)
    inv = np.zeros(gh * gw, np.int64)
    for i in range(n_win):
        inside = np.nonzero(window == i)[0]
        idx[i, :len(inside)], keep[i, :len(inside)] = inside, 1
        inv[inside] = i * 64 + np.arange(len(inside))
    bias = np.where(keep[:, None, :] > 0, 0.0, -1e30) + np.zeros((n_win, 64, 64))

    def put(a, dtype=torch.float32):
        return torch.tensor(np.ascontiguousarray(a), dtype=dtype, device=device)
    win = (put(idx.reshape(-1), torch.long), put(inv, torch.long), put(keep.reshape(1, -1, 1)),
           torch.ones(1, gh * gw, 1, device=device), put(bias))
    return put(np.cos(angle)), put(np.sin(angle)), win


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.blocks = nn.ModuleList([VisionBlock() for _ in range(VISION["depth"])])
        self.merger = Merger()

    def forward(self, pixels):
        """pixels [m, h, w, 3] uint8 -> merged tokens [m, n / 4, T_DIM] and the last block's patches [m, n, V_DIM]."""
        m, h, w, _ = pixels.shape
        cos, sin, win = grid_tables(h // PATCH, w // PATCH, str(pixels.device))
        x = self.patch_embed(pixels)
        if torch.is_autocast_enabled("cuda") and x.is_cuda:
            x = x.to(torch.bfloat16)
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, None if i in VISION["fullatt_block_indexes"] else win)
        return self.merger(x), x


class TextAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(T_DIM, T_HEADS * HEAD_DIM)
        self.k_proj = nn.Linear(T_DIM, T_KV * HEAD_DIM)
        self.v_proj = nn.Linear(T_DIM, T_KV * HEAD_DIM)
        self.o_proj = nn.Linear(T_HEADS * HEAD_DIM, T_DIM, bias=False)

    def forward(self, x, cos, sin, mask):
        b, n, _ = x.shape
        q = rotate(self.q_proj(x).view(b, n, T_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, n, T_KV, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, n, T_KV, HEAD_DIM).transpose(1, 2)
        k, v = (t.repeat_interleave(T_HEADS // T_KV, 1) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask.to(q.dtype).expand(b, T_HEADS, n, n))
        return self.o_proj(y.transpose(1, 2).reshape(b, n, -1))


class TextLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(T_DIM), Norm(T_DIM)
        self.self_attn = TextAttention()
        self.mlp = Mlp(T_DIM, TEXT["intermediate_size"], False)

    def forward(self, x, cos, sin, mask):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCAB, T_DIM)
        self.layers = nn.ModuleList([TextLayer() for _ in range(TEXT["num_hidden_layers"])])
        self.norm = Norm(T_DIM)
        freq = TEXT["rope_theta"] ** (-torch.arange(0, HEAD_DIM, 2).float() / HEAD_DIM)
        axis = torch.repeat_interleave(torch.arange(3), torch.tensor(TEXT["mrope_section"]))
        self.register_buffer("freq", freq, persistent=False)
        self.register_buffer("axis", axis, persistent=False)

    def rope(self, pos):
        """pos [3, b, n] -> cos, sin [b, 1, n, HEAD_DIM]: each frequency turns by its own axis's place."""
        angle = pos.float()[self.axis].permute(1, 2, 0) * self.freq
        angle = torch.cat((angle, angle), -1)[:, None]
        return angle.cos(), angle.sin()


class Ocellus(nn.Module):
    def __init__(self):
        super().__init__()
        self.visual = Vision()
        self.language_model = Text()
        self.letters = nn.Linear(V_DIM, SLOTS * 95)
        self.facts = nn.Linear(T_DIM, N_COLOURS + NEAR * N_NEAR)
        self.places = nn.Linear(T_DIM, 12 * N_PLACE)
        self.pictures = nn.Linear(T_DIM, N_PICTURES + 2)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                nn.init.normal_(p, std=0.04 if "embed_tokens" in name else p[0].numel() ** -0.5)
                if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight")):
                    p.data *= 0.3
            elif "bias" in name:
                nn.init.zeros_(p)

    def forward(self, pixels, ids, pos, seg):
        """Logits [b, n, VOCAB], and what the aids say: letters [m, patches, SLOTS, 95], colours [m, tokens, N_COLOURS],
        near [m, tokens, NEAR, N_NEAR], places [m, tokens, 12, N_PLACE], the picture's number [m, tokens, N_PICTURES] and
        whether it was changed [m, tokens, 2]. seg: -1 padding, 0 prefix, k segment."""
        text = self.language_model
        merged, patches = self.visual(pixels)
        x = text.embed_tokens(ids)
        is_image = ids == IMAGE_PAD
        x = x.to(merged.dtype).masked_scatter(is_image[..., None], merged)
        cos, sin = text.rope(pos)
        mask = segment_mask(seg, merged.dtype)
        for i, layer in enumerate(text.layers):
            x = layer(x, cos, sin, mask)
            if i + 1 == PLACE_LAYER:
                rows = unit(image_rows(x, is_image, merged.shape))
        logits = F.linear(text.norm(x), text.embed_tokens.weight)
        letters = self.letters(patches).unflatten(-1, (SLOTS, 95))
        colours, near = self.facts(unit(merged)).split((N_COLOURS, NEAR * N_NEAR), -1)
        places = self.places(rows).unflatten(-1, (12, N_PLACE))
        number, changed = self.pictures(rows).split((N_PICTURES, 2), -1)
        return logits, (letters, colours, near.unflatten(-1, (NEAR, N_NEAR)), places, number, changed)


def unit(x):
    return F.rms_norm(x.float(), (x.shape[-1],)).to(x.dtype)


def image_rows(x, is_image, shape):
    """The rows of x [b, n, dim] where the pictures stand, as `shape`; every row of a batch has equally many. Sorting
    instead of a boolean index, which would wait for the GPU."""
    n = shape[0] * shape[1] // x.shape[0]
    at = torch.argsort(is_image.to(torch.uint8), dim=1, descending=True, stable=True)[:, :n]
    return x.gather(1, at[..., None].expand(-1, -1, x.shape[-1])).reshape(shape)


def segment_mask(seg, dtype):
    """[b, 1, n, n] to add: a token sees earlier tokens of the prefix and of its own segment."""
    n = seg.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool, device=seg.device).tril()
    q, k = seg[:, :, None], seg[:, None, :]
    see = causal & ((k == 0) | (k == q)) | torch.eye(n, dtype=torch.bool, device=seg.device)
    return torch.zeros(see.shape, dtype=dtype, device=seg.device).masked_fill_(~see, -1e30 if dtype != torch.float16 else -6e4)[:, None]
