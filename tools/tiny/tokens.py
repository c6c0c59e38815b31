"""The tokenizer (256 bytes and the Qwen special tokens, no merges), the chat template, and the packing of
questions into one training sequence.

A token of text is one byte, so reading is letter by letter and no word is easier than another.
"""
import json
import os

import numpy as np

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
            "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
            "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
ID = {name: 256 + i for i, name in enumerate(SPECIALS)}
PAD, IM_START, IM_END = ID["<|endoftext|>"], ID["<|im_start|>"], ID["<|im_end|>"]
VISION_START, VISION_END, IMAGE_PAD = ID["<|vision_start|>"], ID["<|vision_end|>"], ID["<|image_pad|>"]
VOCAB = 288

# Written for this model: it builds the same turns that Qwen2.5-VL reads, without a default system turn.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' or part['type'] == 'image_url' or 'image' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part['type'] == 'video' or 'video' in part -%}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}")

QWEN2_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")


def byte_chars():
    """The printable stand-in of each byte, as byte-level BPE files write it."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def write_tokenizer(folder):
    chars = byte_chars()
    added = [{"id": ID[s], "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
              "special": True} for s in SPECIALS]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tok = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {chars[b]: b for b in range(256)}, "merges": []}}
    config = {
        "add_prefix_space": False, "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
        "unk_token": None, "clean_up_tokenization_spaces": False, "errors": "replace", "model_max_length": 8192,
        "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "chat_template": CHAT_TEMPLATE,
        "additional_special_tokens": SPECIALS[1:],
        "added_tokens_decoder": {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}}
    for name, data in (("tokenizer.json", tok), ("tokenizer_config.json", config),
                       ("chat_template.json", {"chat_template": CHAT_TEMPLATE})):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as f:
            json.dump(data, f, ensure_ascii=False, indent=1)
            f.write("\n")


def encode(text):
    return list(text.encode("utf-8"))


def answer_weights(task, answer):
    """How much each token of an answer and its end counts in the loss, in tenths. One figure or word decides a short
    answer, so its tokens count more than the letters of a long one; in a place the digits count, not the brackets."""
    n = len(encode(answer)) + 1
    weight = int(10 * min(2.5, max(0.9, (32 / n) ** 0.5)) + 0.5)
    return [2 * weight if task == "find" and chr(c).isdigit() else weight for c in encode(answer)] + [weight]


SYSTEMS = ["You are a helpful assistant.", "You read diagrams.", "Answer briefly.", "Be exact."]


class Sequence:
    """One training row: a shared prefix with the pictures, then segments that see the prefix and themselves.

    Each segment is a whole conversation about the pictures, at the positions it has when asked alone.
    """

    def __init__(self, grids, length, rng):
        self.length = length
        self.ids = np.full(length, PAD, np.int16)
        self.pos = np.zeros((3, length), np.int16)
        self.seg = np.full(length, -1, np.int16)   # -1 padding, 0 prefix, 1.. segments
        self.ans = np.zeros(length, np.uint8)      # weight in tenths of a token that the model must produce, else 0
        self.n, self.n_seg, self.tasks = 0, 0, []
        head = []
        if rng.random() < 0.08:
            head = [IM_START] + encode("system\n" + rng.choice(SYSTEMS)) + [IM_END] + encode("\n")
        head += [IM_START] + encode("user\n")
        p = self._put(head, 0, 0)
        for gh, gw in grids:  # merged grid
            p = self._put([VISION_START], 0, p)
            n = gh * gw
            s = slice(self.n, self.n + n)
            self.ids[s], self.seg[s] = IMAGE_PAD, 0
            self.pos[0, s] = p
            self.pos[1, s] = p + np.repeat(np.arange(gh), gw)
            self.pos[2, s] = p + np.tile(np.arange(gw), gh)
            self.n += n
            p = self._put([VISION_END], 0, p + max(gh, gw))
        self.start = p

    def _put(self, ids, seg, p, ans=None):
        s = slice(self.n, self.n + len(ids))
        self.ids[s], self.seg[s] = ids, seg
        self.pos[:, s] = np.arange(p, p + len(ids))
        if ans is not None:
            self.ans[s] = ans
        self.n += len(ids)
        return p + len(ids)

    def add(self, turns):
        """Append one segment of (task, question, answer) turns if it fits."""
        ids, ans = [], []
        for i, (task, question, answer) in enumerate(turns):
            if i:
                ids += encode("\n") + [IM_START] + encode("user\n")
            ids += encode(question) + [IM_END] + encode("\n") + [IM_START] + encode("assistant\n")
            ans += [0] * (len(ids) - len(ans))
            ids += encode(answer) + [IM_END]
            ans += answer_weights(task, answer)
        if self.n + len(ids) > self.length:
            return False
        self.n_seg += 1
        self._put(ids, self.n_seg, self.start, ans)
        self.tasks.append(turns[0][0] if len(turns) == 1 else "turns")
        return True
