"""ocellus inspect: facts for people and for programs."""
import json

from harness import MODEL, case, fails, main, model_args, ocellus, png, write


def inspect(*args):
    r = ocellus("inspect", *args, *model_args()[1:])
    assert r.code == 0 and r.err == "", r
    return r.out


def facts(*args):
    return json.loads(inspect("--json", *args))


@case
def says_what_the_model_is():
    out = inspect()
    for word in ("architecture", "parameters", "quantisation", "workspace", "KV cache", "per 1k tokens", "pictures",
                 "context", "1355x710"):
        assert word in out, out
    assert MODEL in out, out


@case
def json_has_the_same_facts():
    f = facts()
    assert f["architecture"] in inspect()
    assert f["parameters"] == sum(f["parameters_by_format"].values()) > 0
    assert f["memory"]["weight_bytes"] > f["memory"]["decode_weight_bytes"] > 0
    assert f["memory"]["kv_bytes_per_token"] > 0 and f["memory"]["workspace_bytes"] > 0
    plan = f["pictures"]["plans"][0]
    edge = f["pictures"]["patch"] * f["pictures"]["merge"]
    assert plan["original"] == [1355, 710]
    assert plan["tokens"] * edge * edge == plan["resized"][0] * plan["resized"][1]
    assert plan["grid"][1] * f["pictures"]["patch"] == plan["resized"][1]
    assert plan["tokens"] <= f["pictures"]["max_tokens"] <= f["ctx_tokens"] // 4
    assert f["kv_tokens"] == f["ctx_tokens"] and f["n_sessions"] == 1


@case
def smaller_bounds_take_less_memory():
    big, small = facts(), facts("--ctx", 1024, "--image-max-tokens", 64)
    assert small["ctx_tokens"] == 1024 and small["pictures"]["max_tokens"] == 64
    assert small["memory"]["workspace_bytes"] < big["memory"]["workspace_bytes"]
    assert small["pictures"]["plans"][0]["tokens"] <= 64
    assert f'--ctx {1024}' in inspect("--ctx", 1024)


@case
def plans_the_pictures_it_is_shown():
    a = png("a.png", 300, 200, lambda x, y: (x % 256, y % 256, 0))
    b = png("b.png", 60, 40, lambda x, y: (0, 0, 0))
    plans = facts("-i", a, "-i", b)["pictures"]["plans"]
    assert [p["original"] for p in plans] == [[300, 200], [60, 40]]
    assert plans[0]["tokens"] > plans[1]["tokens"] > 0
    fewer = facts("-i", a, "--max-pixels", 20000)["pictures"]["plans"][0]
    assert fewer["resized"][0] * fewer["resized"][1] <= 20000 and fewer["tokens"] < plans[0]["tokens"]


@case
def bad_input_is_named():
    fails(1, "there is no model 'nothing'", "inspect", "nothing")
    fails(1, "missing.png", "inspect", "-i", "missing.png", *model_args()[1:])
    fails(1, "not.png", "inspect", "-i", write("not.png", "text"), *model_args()[1:])
    fails(2, "context", "inspect", "--ctx", 1000000, *model_args()[1:])


if __name__ == "__main__":
    main()
