"""Bad input: one sentence that names what is wrong, exit code 1."""
import json
import os
import shutil
import struct

from harness import MODEL, TMP, case, environment, fails, main, model_args, png, write, write_json


def broken_model(name, **changes):
    """A copy of the model in which the named files are replaced (None: left out)."""
    path = os.path.join(TMP, "models", name)
    os.makedirs(path)
    for f in os.listdir(MODEL):
        if f in changes or not os.path.isfile(os.path.join(MODEL, f)):
            continue
        os.symlink(os.path.join(MODEL, f), os.path.join(path, f))
    for f, data in changes.items():
        if data is not None:
            with open(os.path.join(path, f), "wb") as out:
                out.write(data if isinstance(data, bytes) else data.encode())
    return path


def model_file(name):
    with open(os.path.join(MODEL, name), "rb") as f:
        return f.read()


def weight_file():
    return sorted(f for f in os.listdir(MODEL) if f.endswith(".safetensors"))[0]


def config(**changes):
    return json.dumps(dict(json.loads(model_file("config.json")), **changes))


def config_gptq():
    c = json.loads(model_file("config.json"))
    c.pop("quantization", None)
    return json.dumps(dict(c, quantization_config={"quant_method": "gptq", "bits": 4}))


def refused(words, path):
    fails(1, words, "run", "-n", 1, "-m", path, "x")
    fails(1, words, "inspect", path) if "tokenizer" not in str(words) else None


@case
def models_that_are_not_there():
    fails(1, ["'nothing'", "org/name"], "run", "-n", 1, "-m", "nothing", "x")
    fails(1, "acme/nothing", "run", "-n", 1, "-m", "acme/nothing", "x")
    empty = os.path.join(TMP, "empty")
    os.makedirs(empty)
    fails(1, "config.json", "run", "-n", 1, "-m", empty, "x")
    fails(1, ["ocellus-tiny-4bit", empty, "OCELLUS_MODELS"], "run", "-n", 1, "x", env=environment(OCELLUS_MODELS=empty))


@case
def broken_configs():
    refused("config.json", broken_model("no_config", **{"config.json": None}))
    refused("config.json", broken_model("cut_config", **{"config.json": model_file("config.json")[:-20]}))
    refused(["FlyingModel", "Qwen2_5_VL"], broken_model("unknown", **{"config.json": config(architectures=["FlyingModel"])}))
    refused("gptq", broken_model("gptq", **{"config.json": config_gptq()}))


@case
def broken_weights():
    name = weight_file()
    data = model_file(name)
    refused(name, broken_model("cut", **{name: data[:len(data) - 1000]}))
    refused(name, broken_model("short", **{name: data[:6]}))
    refused(name, broken_model("empty", **{name: b""}))
    refused(name, broken_model("lying", **{name: struct.pack("<Q", 1 << 60) + data[8:]}))
    refused("safetensors", broken_model("none", **{name: None}))


@case
def missing_and_misshapen_tensors():
    name = weight_file()
    data = model_file(name)
    (n,) = struct.unpack("<Q", data[:8])
    header = data[8:8 + n]
    norm = next(k for k in json.loads(header) if k.endswith("layers.0.input_layernorm.weight"))
    other = norm.replace("input_layernorm", "inqut_layernorm")
    refused([norm], broken_model("missing", **{name: data[:8] + header.replace(norm.encode(), other.encode()) + data[8 + n:]}))
    inner = json.loads(model_file("config.json"))
    sizes = inner.get("text_config", inner)
    key = dict(inner, **({"text_config": dict(sizes, intermediate_size=sizes["intermediate_size"] + 128)}
                         if "text_config" in inner else {"intermediate_size": sizes["intermediate_size"] + 128}))
    refused(["mlp", str(sizes["intermediate_size"]), str(sizes["intermediate_size"] + 128)],
            broken_model("shape", **{"config.json": json.dumps(key)}))


@case
def broken_tokenizers_and_templates():
    files = set(os.listdir(MODEL))
    refused("tokenizer", broken_model("no_tokenizer", **{"tokenizer.json": None}))
    refused("tokenizer.json", broken_model("cut_tokenizer", **{"tokenizer.json": model_file("tokenizer.json")[:500]}))
    none = {f: None for f in files & {"chat_template.json", "chat_template.jinja"}}
    silent = json.loads(model_file("tokenizer_config.json")) if "tokenizer_config.json" in files else {}
    silent.pop("chat_template", None)
    path = broken_model("no_template", **none, **{"tokenizer_config.json": json.dumps(silent)})
    fails(1, ["template", "raw prompt"], "run", "-n", 1, "-m", path, "x")
    path = broken_model("bad_template", **dict(none, **{"chat_template.jinja": "{% for m in %}",
                                                     "tokenizer_config.json": json.dumps(silent)}))
    fails(1, "template", "run", "-n", 1, "-m", path, "x")
    path = broken_model("raising", **dict(none, **{"chat_template.jinja": "{{ raise_exception('only three turns') }}",
                                                   "tokenizer_config.json": json.dumps(silent)}))
    fails(1, "only three turns", "run", "-n", 1, "-m", path, "x")


@case
def broken_generation_configs():
    fails(1, "generation_config.json", "run", "-n", 1, "-m", broken_model("generation", **{"generation_config.json": "{"}), "x")
    path = broken_model("hot", **{"generation_config.json": json.dumps({"do_sample": True, "temperature": -3})})
    fails(1, ["generation_config.json", "temperature"], "run", "-n", 1, "-m", path, "x")


@case
def bad_pictures():
    m = model_args()
    good = png("good.png", 60, 40, lambda x, y: (x, y, 0))
    with open(good, "rb") as f:
        data = f.read()
    fails(1, "no.png", "run", "-n", 1, *m, "-i", "no.png", "x")
    fails(1, "dir", "run", "-n", 1, *m, "-i", os.path.dirname(write("dir/x", "")), "x")
    fails(1, "text.png", "run", "-n", 1, *m, "-i", write("text.png", "hello"), "x")
    fails(1, "empty.png", "run", "-n", 1, *m, "-i", write("empty.png", ""), "x")
    fails(1, "cut.png", "run", "-n", 1, *m, "-i", good, "-i", write("cut.png", data[:60]), "x")
    fails(1, "half.png", "run", "-n", 1, *m, "-i", write("half.png", data[:len(data) // 2]), "x")
    fails(1, "bomb.png", "run", "-n", 1, *m, "-i",
          write("bomb.png", data[:16] + struct.pack(">II", 30000, 30000) + data[24:]), "x")
    fails(1, "thin.png", "run", "-n", 1, *m, "-i", png("thin.png", 600, 1, lambda x, y: (0, 0, 0)), "x")


@case
def bad_messages():
    m = model_args()
    fails(1, "no.json", "run", "-n", 1, *m, "--messages", "no.json")
    fails(1, "cut.json", "run", "-n", 1, *m, "--messages", write("cut.json", "[{"))
    fails(1, "messages", "run", "-n", 1, *m, "--messages", write_json("number.json", 5))
    fails(1, "messages", "run", "-n", 1, *m, "--messages", write_json("none.json", []))
    fails(1, "role", "run", "-n", 1, *m, "--messages", write_json("role.json", [{"content": "x"}]))

    def part(p):
        return write_json("part.json", [{"role": "user", "content": [p]}])
    fails(1, "no.png", "run", "-n", 1, *m, "--messages", part({"type": "image_url", "image_url": {"url": "no.png"}}))
    fails(1, ["https", "download"], "run", "-n", 1, *m, "--messages", part({"type": "image_url", "image_url": {"url": "https://x/y.png"}}))
    fails(1, "base64", "run", "-n", 1, *m, "--messages", part({"type": "image_url", "image_url": {"url": "data:image/png;base64,@@@"}}))
    fails(1, "data:", "run", "-n", 1, *m, "--messages", part({"type": "image_url", "image_url": {"url": "data:image/png,abc"}}))
    fails(1, "url", "run", "-n", 1, *m, "--messages", part({"type": "image_url"}))
    fails(1, "smell", "run", "-n", 1, *m, "--messages", part({"type": "smell", "smell": "x"}))


@case
def prompts_that_do_not_fit():
    m = model_args()
    fails(1, ["context", "64"], "run", "-n", 1, *m, "--ctx", 64, "word " * 400)
    fails(1, ["pictures", "places"], "run", "-n", 1, *m, "--raw", "-i", png("a.png", 60, 40, lambda x, y: (0, 0, 0)), "no place")
    fails(2, "ISA", "run", "-n", 1, *m, "--isa", "sse9", "x")
    fails(2, "context", "run", "-n", 1, *m, "--ctx", 1000000, "x")


if __name__ == "__main__":
    main()
