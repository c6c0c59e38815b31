#!/usr/bin/env python3
"""Writes tests/unit/lm/sample_cases.h: what the sampler must do, worked out independently with numpy.

The filters follow transformers' TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, MinPLogitsWarper and
RepetitionPenaltyLogitsProcessor; the penalties follow OpenAI's formula. Random numbers are Philox4x32-10.

    sample_cases.py > tests/unit/lm/sample_cases.h
"""
import numpy as np

F = np.float32
N = 12
DRAWS = 24


def philox(seed, n):
    m = 0xFFFFFFFF
    k = [seed & m, seed >> 32]
    c = [n & m, n >> 32, 0, 0]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & m, (a >> 32) ^ c[3] ^ k[1], a & m]
        k = [(k[0] + 0x9E3779B9) & m, (k[1] + 0xBB67AE85) & m]
    return c


def uniform(seed, n):
    c = philox(seed, n)
    return (((c[0] << 32) | c[1]) >> 11) * 2.0 ** -53


def process(logits, case, prompt, output):
    l = logits.astype(F).copy()
    for t in set(prompt) | set(output):
        r = F(case["repetition_penalty"])
        l[t] = l[t] * r if l[t] < 0 else l[t] / r
        count = output.count(t)
        if count:
            l[t] -= F(count) * F(case["frequency_penalty"]) + F(case["presence_penalty"])
    return l


def distribution(l, case):
    """Tokens in the order of drawing and their probabilities."""
    l = (l / F(case["temperature"])).astype(F)
    order = sorted(range(N), key=lambda i: (-l[i], i))
    truncated = case["top_k"] or case["top_p"] < 1 or case["min_p"] > 0
    if case["top_k"]:
        kth = l[order[min(case["top_k"], N) - 1]]
        order = [i for i in order if l[i] >= kth]
    w = np.exp(l.astype(np.float64) - l.max().astype(np.float64))
    if case["top_p"] < 1:
        total = sum(w[i] for i in order)
        kept, mass = [], 0.0
        for i in order:
            if kept and not mass < F(case["top_p"]) * total:
                break
            kept.append(i)
            mass += w[i]
        order = kept
    if case["min_p"]:
        order = [i for i in order if w[i] >= F(case["min_p"])]
    if not truncated:
        order = list(range(N))
    p = np.array([w[i] for i in order])
    return order, p / p.sum()


def draws(logits, case, prompt):
    output = []
    for n in range(DRAWS):
        l = process(logits, case, prompt, output)
        if case["temperature"] == 0:
            output.append(int(np.argmax(l)))
            continue
        order, p = distribution(l, case)
        u = uniform(case["seed"], n)
        output.append(order[min(int(np.searchsorted(np.cumsum(p), u, side="right")), len(order) - 1)])
    return output


def main():
    rng = np.random.default_rng(5)
    logits = np.round(rng.normal(0, 2, N), 3).astype(F)
    logits[7] = logits[2]  # a tie
    prompt = [int(i) for i in rng.integers(0, N, 5)]
    base = dict(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, repetition_penalty=1.0, presence_penalty=0.0,
                frequency_penalty=0.0, seed=1)
    cases = [
        ("plain", {}), ("other_seed", dict(seed=2 ** 63 + 12345)), ("cold", dict(temperature=0.3)),
        ("hot", dict(temperature=5.0)), ("top_k_1", dict(top_k=1)), ("top_k_4", dict(top_k=4)),
        ("top_k_over", dict(top_k=1000)), ("top_p", dict(top_p=0.8)), ("top_p_tiny", dict(top_p=1e-6)),
        ("min_p", dict(min_p=0.15)), ("min_p_1", dict(min_p=1.0)),
        ("all", dict(temperature=1.7, top_k=8, top_p=0.9, min_p=0.05)),
        ("repetition", dict(repetition_penalty=1.3)), ("presence", dict(presence_penalty=1.5)),
        ("frequency", dict(frequency_penalty=0.7)),
        ("everything", dict(temperature=1.2, top_k=9, top_p=0.95, min_p=0.02, repetition_penalty=1.1,
                            presence_penalty=0.4, frequency_penalty=0.3, seed=77)),
        ("greedy", dict(temperature=0.0)),
        ("greedy_repetition", dict(temperature=0.0, repetition_penalty=1.4)),
        ("greedy_frequency", dict(temperature=0.0, frequency_penalty=0.5, presence_penalty=0.1)),
    ]
    print("/* Written by tools/sample_cases.py. */")
    print("static const float case_logits[] = {" + ", ".join(f"{x:.3f}f" for x in logits) + "};")
    print("static const int32_t case_prompt[] = {" + ", ".join(map(str, prompt)) + "};")
    print(f"#define CASE_DRAWS {DRAWS}")
    print("static const struct sample_case {\n    const char *name;\n    struct oc_lm_sample_params p;\n"
          "    int32_t tokens[CASE_DRAWS];\n    double first[12]; /* probabilities of the first draw */\n"
          "} sample_cases[] = {")
    for name, change in cases:
        case = dict(base, **change)
        fields = ", ".join(f".{k} = {v}ull" if k == "seed" else f".{k} = {v}" if k == "top_k" else f".{k} = {float(v)!r}f"
                           for k, v in case.items())
        first = np.zeros(N)
        l = process(logits, case, prompt, [])
        if case["temperature"] == 0:
            first[int(np.argmax(l))] = 1
        else:
            order, p = distribution(l, case)
            first[order] = p
        print(f'    {{"{name}",\n     {{{fields}, .n_logprobs = -1}},')
        print("     {" + ", ".join(map(str, draws(logits, case, prompt))) + "},")
        print("     {" + ", ".join(f"{x:.9g}" for x in first) + "}},")
    print("};")
    norm = logits.max() + np.log(np.exp(logits.astype(np.float64) - logits.max()).sum())
    print("static const double case_logprobs[] = {" + ", ".join(f"{x - norm:.12g}" for x in logits.astype(np.float64)) + "};")


if __name__ == "__main__":
    main()
