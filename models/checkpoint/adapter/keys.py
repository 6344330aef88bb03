"""Every key of `adapter_config.json`, and what becomes of it.

The keys are the fields of peft's `LoraConfig` (`peft/tuners/lora/config.py`). A key is in exactly
one of three tables, so that a new key of a new peft is refused until somebody has decided.
"""

from __future__ import annotations

# Prompts and biases of lora_B are among what peft cannot merge into the weights.
MERGE = (
    "If peft can merge it (merge_and_unload()), save the merged model and compile that without "
    "--lora."
)

# What `options.py` reads, checks and applies.
USED = frozenset(
    {
        "alpha_pattern",
        "bias",
        "ensure_weight_tying",
        "exclude_modules",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "modules_to_save",
        "monteclora_config",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_dora",
        "use_rslora",
        "velora_config",
    }
)

# What may have any value, and why the merged weights do not depend on it.
HARMLESS = {
    "auto_mapping": "names the Python class of the base model",
    "base_model_name_or_path": "names the base model, which the command line gives",
    "corda_config": "settings of one value of `init_lora_weights`",
    "eva_config": "settings of one value of `init_lora_weights`",
    "inference_mode": "whether the adapter is frozen when peft loads it",
    "loftq_config": "settings of one value of `init_lora_weights`",
    "lora_dropout": "is for training alone",
    "lora_ga_config": "settings of one value of `init_lora_weights`",
    "megatron_core": "the Python module that `megatron_config` is for",
    "merge_weights": "whether the peft of 2023 merged by itself for inference",
    "peft_version": "says who wrote the file",
    "qalora_group_size": "is for `use_qalora`",
    "revision": "names a version of the base model",
    "runtime_config": "where peft computes, not what",
    "task_type": "chooses peft's wrapper; a head of another task would be a tensor, and refused",
}

# What must be off (null, false, 0 or empty, as peft writes what is not used): what it means, and
# what to do about it.
REFUSED = {
    "alora_invocation_tokens": (
        "an activated LoRA works from its invocation tokens onwards alone, which no merged weight "
        "can do",
        "Train a plain LoRA.",
    ),
    "arrow_config": (
        "Arrow routes each token through several adapters, which no merged weight can do",
        "Give one of its adapters, or train a plain LoRA.",
    ),
    "fan_in_fan_out": ("transposed weights are not those of a linear layer of LLaMA or CLIP", None),
    "kasa_config": (
        "KaSA drops singular values of the base weights, and has a diagonal between A and B",
        MERGE,
    ),
    "layer_replication": (
        "the adapter is for a model in which layers of the checkpoint are repeated",
        "Write the repeated layers into a checkpoint of that many layers, without this key.",
    ),
    "lora_bias": ("a bias of lora_B changes a bias that layers of the decoder do not have", MERGE),
    "megatron_config": ("Megatron's parallel layers are not supported", MERGE),
    "target_parameters": ("LoRA on parameters instead of modules is not supported", MERGE),
    "trainable_token_indices": ("rows of the embedding that were trained are not supported", MERGE),
    "use_bdlora": ("block-diagonal matrices (BD-LoRA) are not supported", MERGE),
    "use_qalora": ("QALoRA is for weights that are quantized by GPTQ", "Train a plain LoRA."),
}

# The values of `init_lora_weights` that leave the base weights as they are, apart from true, false
# and null: they only choose what A and B begin as. From `LoraLayer.update_layer`.
PLAIN_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})

_CONVERT = (
    "Convert it into a plain LoRA with peft's save_pretrained(DIR, "
    "path_initial_model_for_weight_conversion=START), where START is the adapter as it was before "
    "training; or give the changed base model as the checkpoint and set this key to true."
)
# Those that change the base weights too, so that A and B belong to a base that is not the
# checkpoint: what to do about each. `pissa_niter_16` is counted as `pissa`.
CHANGING_STARTS = {
    "corda": _CONVERT,
    "loftq": "Give the base model that LoftQ made as the checkpoint, with this key set to true.",
    "lora_ga": _CONVERT,
    "olora": _CONVERT,
    "pissa": _CONVERT,
}
