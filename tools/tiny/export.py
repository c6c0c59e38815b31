"""Write a trained checkpoint as the model folder that ships: MLX layout, 4 and 8 bits (config.bits_of), numpy alone.

  python3 export.py FINAL.safetensors OUT_DIR             write the model
  python3 export.py FINAL.safetensors OUT_DIR --parts 15  only OUT_DIR.tar.00 ...: a tar in parts of 15 MB
  python3 export.py FINAL.safetensors OUT_DIR --bf16      the same without quantising, to compare with
  python3 export.py --dequantise MODEL_DIR OUT_DIR         write it back as plain float32 for transformers
"""
import argparse
import io
import json
import os
import struct
import tarfile
import tempfile

import numpy as np

from config import AIDS, GENERATION_CONFIG, GROUP, PREPROCESSOR_CONFIG, bits_of, model_config
from quant import bf16_bits, bf16_round, dequantise, is_quantised, quantise
from tokens import write_tokenizer

DTYPES = {"F32": np.float32, "U32": np.uint32, "BF16": np.uint16}


def read_safetensors(path):
    """name -> (dtype name, array); BF16 comes as its 16 bits."""
    with open(path, "rb") as f:
        data = f.read()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + size])
    out = {}
    for name, t in header.items():
        if name != "__metadata__":
            a, b = (8 + size + v for v in t["data_offsets"])
            out[name] = t["dtype"], np.frombuffer(data[a:b], DTYPES[t["dtype"]]).reshape(t["shape"])
    return out


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "mlx"}}, 0
    for name, (dtype, a) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [offset, offset + a.nbytes]}
        offset += a.nbytes
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for _, a in tensors.values():
            f.write(np.ascontiguousarray(a).tobytes())


def mlx_name(name):
    if name.startswith("visual."):
        return "vision_tower." + name[len("visual."):]
    return "language_model.model." + name[len("language_model."):]


def hf_name(name):
    if name.startswith("vision_tower."):
        return "model.visual." + name[len("vision_tower."):]
    return "model.language_model." + name[len("language_model.model."):]


def pack(q, bits):
    """q [rows, groups, GROUP] -> uint32 words, first value in the lowest bits."""
    per_word = 32 // bits
    q = q.reshape(q.shape[0], -1, per_word).astype(np.uint32)
    return (q << (np.arange(per_word, dtype=np.uint32) * bits)).sum(-1, dtype=np.uint32)


def unpack(words, bits):
    per_word = 32 // bits
    q = (words[..., None] >> (np.arange(per_word, dtype=np.uint32) * bits)) & (2 ** bits - 1)
    return q.reshape(words.shape[0], -1, GROUP).astype(np.float32)


def export(source, folder, quantised=True):
    os.makedirs(folder, exist_ok=True)
    out = {}
    for name, (_, w) in sorted(read_safetensors(source).items()):
        if name.startswith(AIDS):
            continue
        w = np.array(w, np.float32)
        new = mlx_name(name)
        if w.ndim == 5:
            w = w.transpose(0, 2, 3, 4, 1)  # MLX convolutions keep channels last
        if quantised and is_quantised(name, w.shape):
            q, scale, bias = quantise(np, w, bits_of(name), GROUP, bf16_round)
            base = new[:-len("weight")]
            out[new] = "U32", pack(q, bits_of(name))
            out[base + "scales"] = "BF16", bf16_bits(scale)
            out[base + "biases"] = "BF16", bf16_bits(bias)
        else:
            out[new] = "BF16", bf16_bits(w)
    write_safetensors(os.path.join(folder, "model.safetensors"), out)
    write_tokenizer(folder)
    for name, data in (("config.json", model_config(quantised)), ("generation_config.json", GENERATION_CONFIG),
                       ("preprocessor_config.json", PREPROCESSOR_CONFIG)):
        write_json(os.path.join(folder, name), data)


def pack_parts(folder, name, size):
    """NAME.tar.00, .01, ...: a tar of the model in parts; each replaces the older one only when it is whole."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(folder, arcname=".")
    data = data.getvalue()
    for i in range(0, len(data), size):
        part = "%s.tar.%02d" % (name, i // size)
        with open(part + ".new", "wb") as f:
            f.write(data[i:i + size])
    for i in range(0, len(data), size):
        part = "%s.tar.%02d" % (name, i // size)
        os.replace(part + ".new", part)


def float_weights(folder):
    """The weights as transformers names them, float32, dequantised."""
    tensors = read_safetensors(os.path.join(folder, "model.safetensors"))
    out = {}
    for name, (dtype, a) in tensors.items():
        if name.endswith((".scales", ".biases")):
            continue
        if dtype == "U32":
            base = name[:-len("weight")]
            scale, bias = (widen(tensors[base + k][1]) for k in ("scales", "biases"))
            bits = 32 * a.shape[1] // (GROUP * scale.shape[1])
            out[hf_name(name)] = dequantise(unpack(a, bits), scale, bias)
        else:
            w = widen(a)
            out[hf_name(name)] = np.ascontiguousarray(w.transpose(0, 4, 1, 2, 3)) if w.ndim == 5 else w
    return out


def widen(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def write_json(path, data):
    with open(path, "w", encoding="ascii") as f:
        json.dump(data, f, indent=1)
        f.write("\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("source")
    ap.add_argument("folder")
    ap.add_argument("--dequantise", action="store_true")
    ap.add_argument("--bf16", action="store_true")
    ap.add_argument("--parts", type=float, help="MB of a part")
    args = ap.parse_args()
    if args.parts:
        with tempfile.TemporaryDirectory() as folder:
            export(args.source, folder)
            pack_parts(folder, args.folder, int(args.parts * 1e6))
        return
    if not args.dequantise:
        export(args.source, args.folder, not args.bf16)
        return
    os.makedirs(args.folder, exist_ok=True)
    tensors = {k: ("F32", np.ascontiguousarray(v)) for k, v in float_weights(args.source).items()}
    write_safetensors(os.path.join(args.folder, "model.safetensors"), tensors)
    write_tokenizer(args.folder)
    config = model_config(quantised=False)
    config["torch_dtype"] = "float32"
    write_json(os.path.join(args.folder, "config.json"), config)
    write_json(os.path.join(args.folder, "generation_config.json"), GENERATION_CONFIG)
    write_json(os.path.join(args.folder, "preprocessor_config.json"), PREPROCESSOR_CONFIG)


if __name__ == "__main__":
    main()
