"""The sizes of the model, as the config.json that ships with it. No torch here."""
from tokens import ID, VOCAB

PATCH, MERGE, TEMPORAL, WINDOW = 14, 2, 2, 112
MIN_PIXELS, MAX_PIXELS = 16 * 28 * 28, 1280 * 28 * 28
MEAN = [0.48145466, 0.4578275, 0.40821073]  # the OpenAI CLIP figures that Qwen2.5-VL normalises with
STD = [0.26862954, 0.26130258, 0.27577711]

VISION = dict(depth=10, hidden_size=320, num_heads=4, intermediate_size=896, fullatt_block_indexes=[3, 6, 9])
# rope_theta 100 and the wide last section: the pictures' columns get frequencies that tell 50 places apart.
TEXT = dict(hidden_size=512, num_hidden_layers=8, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=1024, rope_theta=100.0, mrope_section=[16, 16, 32])
HEAD_DIM = 128
BITS, GROUP = 4, 64
# Letters are told apart in the tower's first blocks: 8 bits there cost 4.4 MB.
EIGHT_BIT = tuple("visual.blocks.%d." % i for i in range(7))
LINEARS = ("attn.qkv", "attn.proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")  # of a block of the tower
AIDS = ("letters", "facts", "places", "pictures")  # heads that help in training and are not exported


def bits_of(name):
    return 8 if name.startswith(EIGHT_BIT) else BITS


def model_config(quantised=True):
    text = {k: v for k, v in TEXT.items() if k != "mrope_section"}
    out = {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"], "model_type": "qwen2_5_vl",
        "attention_dropout": 0.0, "bos_token_id": ID["<|endoftext|>"], "eos_token_id": ID["<|im_end|>"],
        "vision_start_token_id": ID["<|vision_start|>"], "vision_end_token_id": ID["<|vision_end|>"],
        "vision_token_id": ID["<|vision_pad|>"], "image_token_id": ID["<|image_pad|>"],
        "video_token_id": ID["<|video_pad|>"], "hidden_act": "silu", "initializer_range": 0.02,
        "max_position_embeddings": 8192, "max_window_layers": TEXT["num_hidden_layers"], "rms_norm_eps": 1e-6,
        "sliding_window": 8192, "use_sliding_window": False, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "use_cache": True, "vocab_size": VOCAB, **text,
        "rope_scaling": {"type": "mrope", "mrope_section": TEXT["mrope_section"]},
        "vision_config": {
            "model_type": "qwen2_5_vl", **VISION, "out_hidden_size": TEXT["hidden_size"], "hidden_act": "silu",
            "in_channels": 3, "in_chans": 3, "patch_size": PATCH, "spatial_patch_size": PATCH,
            "spatial_merge_size": MERGE, "temporal_patch_size": TEMPORAL, "tokens_per_second": 2,
            "window_size": WINDOW}}
    if quantised:
        out["quantization"] = {"group_size": GROUP, "bits": BITS, "vision_tower.patch_embed.proj": False}
        for block in EIGHT_BIT:
            for linear in LINEARS:
                out["quantization"][block.replace("visual", "vision_tower") + linear] = {"group_size": GROUP, "bits": 8}
        out["quantization_config"] = out["quantization"]
    return out


GENERATION_CONFIG = {"bos_token_id": ID["<|endoftext|>"], "pad_token_id": ID["<|endoftext|>"], "do_sample": False,
                     "eos_token_id": [ID["<|im_end|>"], ID["<|endoftext|>"]], "repetition_penalty": 1.0,
                     "temperature": 1.0}
PREPROCESSOR_CONFIG = {
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
    "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS,
    "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS}, "patch_size": PATCH, "merge_size": MERGE,
    "temporal_patch_size": TEMPORAL, "image_mean": MEAN, "image_std": STD, "do_convert_rgb": True, "do_normalize": True,
    "do_rescale": True, "do_resize": True, "resample": 3, "rescale_factor": 1 / 255}
