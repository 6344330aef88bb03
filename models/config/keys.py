"""Every key of a checkpoint's JSON files, and how it is treated.

A key is **used**; or it is **fixed**, and the file is refused unless it has the value that this
implementation computes with; or it is **reported**, ignored with a warning; or **ignored**,
because it changes nothing that is computed. A key that stands in no table is reported if it asks
for anything at all. The tables cover what transformers 4.57 and 5.24 write for LLaMA and CLIP, what
the releases of LLaVA and MobileVLM add, and mlc-llm's file. ``python -m mvlm.models.keys_table``
writes them into docs/models.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["used", "fixed", "reported", "ignored"]


@dataclass(frozen=True)
class Key:
    """Keys of a file that are treated alike.

    Attributes:
        names: Their names.
        role: What becomes of them.
        note: Why, or what they say.
        values: Of a fixed or reported key: the values that are as good as null and absence.
    """

    names: tuple[str, ...]
    role: Role
    note: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class KeyTable:
    """The keys of one file, or of an object inside one.

    Attributes:
        title: What the documentation calls it.
        keys: Its keys; no name occurs twice.
    """

    title: str
    keys: tuple[Key, ...]

    def rows(self) -> Iterator[tuple[str, Key]]:
        """Yield every name with its entry."""
        for key in self.keys:
            for name in key.names:
                yield name, key


def _used(names: str, note: str) -> Key:
    return Key(tuple(names.split()), "used", note)


def _fixed(names: str, note: str, *values: Any) -> Key:
    return Key(tuple(names.split()), "fixed", note, values)


def _reported(names: str, note: str, *values: Any) -> Key:
    return Key(tuple(names.split()), "reported", note, values)


def _ignored(names: str, note: str) -> Key:
    return Key(tuple(names.split()), "ignored", note)


# How text is generated. transformers 4 wrote these into config.json as well.
_GENERATION = (
    _fixed("repetition_penalty encoder_repetition_penalty", "`--repetition-penalty` sets it", 1),
    _fixed("no_repeat_ngram_size encoder_no_repeat_ngram_size", "no n-gram is forbidden", 0),
    _fixed("min_length min_new_tokens", "answers have no minimum length", 0),
    _fixed("num_beam_groups", "no beam search", 1),
    _fixed("diversity_penalty", "no beam search", 0),
    _fixed("bad_words_ids suppress_tokens begin_suppress_tokens", "no token is forbidden", []),
    _fixed("forced_bos_token_id forced_eos_token_id force_words_ids", "no token is forced", []),
    _fixed("constraints sequence_bias", "no token is preferred", [], {}),
    _fixed("exponential_decay_length_penalty", "no length penalty"),
    _fixed("guidance_scale", "no classifier-free guidance", 1),
    _fixed("penalty_alpha", "no contrastive search", 0),
    _fixed("dola_layers watermarking_config", "logits are not modified"),
    _fixed("token_healing", "prompts are not modified", False),
    _fixed("stop_strings", "`--stop` sets them", []),
    _reported("top_k", "`--top-k` sets it", 50, 0),
    _reported("typical_p", "not supported in sampling", 1),
    _reported("min_p top_h epsilon_cutoff eta_cutoff", "not supported in sampling", 0),
    _reported("max_time", "`--max-tokens` limits an answer"),
    _ignored(
        "do_sample temperature top_p num_beams max_length max_new_tokens",
        "set by the official code; here by `--temperature`, `--top-p`, `--max-tokens`",
    ),
    _ignored("num_return_sequences", "one answer is returned"),
    _ignored("length_penalty early_stopping", "beam search only"),
    _ignored("renormalize_logits remove_invalid_values", "the order of finite logits is unchanged"),
    _ignored(
        "use_cache cache_implementation cache_config max_cache_len return_legacy_cache "
        "prefill_chunk_size low_memory compile_config disable_compile continuous_batching_config",
        "implementation, not result",
    ),
    _ignored(
        "is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_early_exit "
        "assistant_confidence_threshold assistant_lookbehind target_lookbehind "
        "assistant_ensemble_weight speculation_type prompt_lookup_num_tokens "
        "max_matching_ngram_size use_mtp",
        "speculative decoding changes no answer",
    ),
    _ignored("decoder_start_token_id", "models with an encoder only"),
)
_OUTPUTS = _ignored(
    "return_dict output_hidden_states output_attentions output_scores output_logits "
    "return_dict_in_generate",
    "outputs of transformers",
)

# What transformers writes for any model.
_COMMON = (
    _fixed("is_encoder_decoder add_cross_attention", "decoder only", False),
    _fixed("cross_attention_hidden_size", "decoder only"),
    _fixed("pruned_heads", "every head is computed", {}),
    _fixed("quantization_config compression_config", "weights in float32, float16 or bfloat16", {}),
    _reported("auto_map", "the checkpoint's own Python code is never run"),
    _ignored("architectures", "tensors are checked by name and shape"),
    _ignored("torch_dtype dtype use_bfloat16", "each tensor has its dtype"),
    _ignored(
        "id2label label2id num_labels finetuning_task problem_type task_specific_params "
        "tokenizer_class prefix sep_token_id",
        "classifiers and pipelines only",
    ),
    _ignored("is_decoder tie_encoder_decoder", "models with an encoder only"),
    _ignored("chunk_size_feed_forward torchscript tf_legacy_loss", "implementation, not result"),
    _ignored("initializer_range attention_dropout", "training only"),
    _ignored(
        "_name_or_path _commit_hash transformers_version attn_implementation _attn_implementation "
        "_attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled "
        "unsloth_version unsloth_fixed",
        "origin of the file",
    ),
    _OUTPUTS,
)

CONFIG = KeyTable(
    "`config.json`",
    (
        _used("model_type", "`mobilevlm` or `llama`"),
        _used(
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
            "num_key_value_heads head_dim",
            "decoder shape",
        ),
        _used("rms_norm_eps tie_word_embeddings", "the decoder"),
        _used(
            "rope_theta rope_scaling rope_parameters",
            "rotary positions: type `default`, one base, at any place",
        ),
        _used("max_position_embeddings", "maximum context"),
        _used("layer_types", "must be `full_attention` for every layer"),
        _used(
            "bos_token_id eos_token_id pad_token_id",
            "if not in generation_config.json; `tokenizer.model`'s end also ends an answer",
        ),
        _used("mm_vision_tower mm_projector_type mm_hidden_size", "tower and projector"),
        _used("mm_vision_select_layer mm_vision_select_feature", "feature selection"),
        _used(
            "image_aspect_ratio",
            "`pad` pads to a square; other values crop, as in the official code",
        ),
        _used("mm_use_im_patch_token mm_use_im_start_end", "rows added to the vocabulary"),
        _fixed("hidden_act", "SwiGLU", "silu"),
        _fixed("attention_bias mlp_bias", "linear layers have no bias", False),
        _fixed("partial_rotary_factor rotary_pct", "all channels of a head are rotated", 1),
        _fixed("sliding_window", "attention is over all earlier positions"),
        _fixed("use_sliding_window", "attention is over all earlier positions", False),
        _fixed(
            "attn_logit_softcapping final_logit_softcapping logit_scale",
            "logits are not scaled or capped",
        ),
        _fixed(
            "embedding_multiplier residual_multiplier logits_scaling scale_emb",
            "no scaling",
            1,
        ),
        _fixed("use_qk_norm qk_norm", "queries and keys are not normalized", False),
        _fixed("num_local_experts num_experts", "one MLP per layer"),
        _fixed("vision_tower_type", "the tower is a CLIP", "clip"),
        _fixed("use_mm_proj", "a projector is required", True),
        _fixed("mm_patch_merge_type", "image tokens are not rearranged", "flat"),
        _fixed("mm_resampler_type image_grid_pinpoints", "an image is encoded once, as a whole"),
        _fixed("s2", "an image is encoded at one scale", False),
        *_COMMON,
        *_GENERATION,
        _ignored("pretraining_tp", "splits matrix products; the sum is equal"),
        _ignored("n_head n_query_groups", "stale in the 3B, where they contradict the tensors"),
        _ignored("max_sequence_length", "`max_position_embeddings` is used"),
        _ignored(
            "tune_mm_mlp_adapter freeze_mm_mlp_adapter freeze_backbone unfreeze_mm_vision_tower "
            "tune_mm_vision_resampler mm_projector_lr mm_vision_tower_lr mm_tunable_parts "
            "tokenizer_padding_side tokenizer_model_max_length image_crop_resolution "
            "image_split_resolution s2_scales",
            "training only",
        ),
    ),
)

ROPE = KeyTable(
    "`rope_scaling` and `rope_parameters` in `config.json`",
    (
        _used("rope_type type", "must be `default`; `type` is the older name"),
        _used("rope_theta", "the base"),
        _fixed("partial_rotary_factor factor", "positions are not scaled", 1),
        _ignored("original_max_position_embeddings", "scaled types only"),
    ),
)

GENERATION = KeyTable(
    "`generation_config.json`",
    (
        _used("bos_token_id eos_token_id pad_token_id", "takes precedence over config.json"),
        *_GENERATION,
        _OUTPUTS,
        _ignored("_from_model_config transformers_version", "origin of the file"),
    ),
)

TOKENIZER = KeyTable(
    "`tokenizer_config.json`",
    (
        _used("legacy", "tokenization after a special token; true if absent"),
        _used("bos_token eos_token unk_token", "must be those of `tokenizer.model`"),
        _used(
            "added_tokens_decoder additional_special_tokens extra_special_tokens",
            "must agree with `tokenizer.model`; additional tokens are reported",
        ),
        _fixed("add_bos_token", "prompts begin with the beginning of sequence", True),
        _fixed("add_eos_token", "prompts have no end of sequence", False),
        _fixed("add_prefix_space", "text begins with a space", True),
        _fixed("clean_up_tokenization_spaces", "answers are not modified", False),
        _fixed("split_special_tokens", "the end of sequence is one token", False),
        _fixed("sp_model_kwargs", "no sampling of pieces", {}),
        _fixed("do_lower_case", "case is preserved", False),
        _fixed(
            "tokenizer_class",
            "only `tokenizer.model` is used",
            "LlamaTokenizer",
            "LlamaTokenizerFast",
        ),
        _reported(
            "chat_template", "`--template` selects a template; the official code has its own"
        ),
        _reported("auto_map", "the checkpoint's own Python code is never run"),
        _ignored("pad_token padding_side truncation_side model_max_length", "batches only"),
        _ignored("sep_token cls_token mask_token image_token", "not in prompts"),
        _ignored("spaces_between_special_tokens", "special tokens are not shown"),
        _ignored("use_default_system_prompt", "chat templates only"),
        _ignored(
            "tokenizer_file special_tokens_map_file name_or_path processor_class use_fast backend "
            "is_local local_files_only from_slow device_map trust_remote_code model_input_names "
            "transformers_version",
            "origin of the file",
        ),
    ),
)

CLIP_TOWER = KeyTable(
    "A tower's `config.json`, or `vision_config` in a whole CLIP's",
    (
        _used("model_type", "`clip` or `clip_vision_model`"),
        _used(
            "hidden_size intermediate_size num_hidden_layers num_attention_heads image_size "
            "patch_size layer_norm_eps hidden_act",
            "the tower",
        ),
        _fixed("num_channels", "RGB", 3),
        *_COMMON,
        *_GENERATION,
        _ignored("tie_word_embeddings bos_token_id eos_token_id pad_token_id", "text only"),
        _ignored("dropout initializer_factor", "training only"),
        _ignored("projection_dim", "after the tower's last layer"),
    ),
)

CLIP = KeyTable(
    "A whole CLIP's `config.json`",
    (
        _used("model_type", "`clip`"),
        _used("vision_config", "the tower"),
        _used("vision_config_dict", "older name; if both exist, they must agree"),
        *_COMMON,
        *_GENERATION,
        _ignored("tie_word_embeddings bos_token_id eos_token_id pad_token_id", "text only"),
        _ignored("text_config text_config_dict logit_scale_init_value", "text only"),
        _ignored("projection_dim", "after the tower's last layer"),
        _ignored("initializer_factor", "training only"),
    ),
)

PREPROCESSOR = KeyTable(
    "`preprocessor_config.json`",
    (
        _used("size crop_size", "must be the tower's `image_size`"),
        _used("image_mean image_std", "the normalization"),
        _used("rescale_factor", "1/255"),
        _fixed("do_resize do_center_crop do_rescale do_normalize", "all of CLIP's steps", True),
        _fixed("resample", "3 is bicubic", 3),
        _fixed(
            "image_processor_type feature_extractor_type",
            "CLIP's processor",
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "CLIPImageProcessorPil",
            "CLIPFeatureExtractor",
        ),
        _fixed("do_pad", "`image_aspect_ratio` controls padding", False),
        _fixed("pad_size size_divisor", "the tower sets the size"),
        _fixed("default_to_square do_flip_channel_order offset", "as in CLIP", False),
        _fixed("data_format", "as in CLIP", "channels_first"),
        _reported("auto_map", "the checkpoint's own Python code is never run"),
        _ignored("do_convert_rgb", "the official code converts to RGB first"),
        _ignored(
            "processor_class _processor_class use_fast device disable_grouping input_data_format "
            "return_tensors image_seq_length transformers_version _valid_processor_keys",
            "implementation, not result: Pillow resizes, as in the official code",
        ),
    ),
)

MLC = KeyTable(
    "mlc-llm's `mlc-chat-config.json`",
    (
        _used("model_type model_config", "`llama`, and the decoder shape"),
        _used("bos_token_id eos_token_id pad_token_id", "as in config.json"),
        _fixed("sliding_window_size", "attention is over all earlier positions", -1),
        _fixed("repetition_penalty", "`--repetition-penalty` sets it", 1),
        _fixed("presence_penalty frequency_penalty", "no token is preferred", 0),
        _reported("top_k min_p", "`--top-k`, `--top-p`", 0),
        _ignored("temperature top_p", "set by `--temperature`, `--top-p`"),
        _ignored("quantization", "the tensors determine it"),
        _ignored("version vocab_size active_vocab_size", "`model_config` is used"),
        _ignored("conv_template", "`--template` selects a template"),
        _ignored("tokenizer_files tokenizer_info", "`tokenizer.model` is used"),
        _ignored(
            "context_window_size prefill_chunk_size attention_sink_size tensor_parallel_shards "
            "pipeline_parallel_stages max_batch_size mean_gen_len max_gen_len shift_fill_factor "
            "embedding_metadata model_task",
            "implementation, not result",
        ),
    ),
)

MLC_MODEL = KeyTable(
    "`model_config` in `mlc-chat-config.json`",
    (
        _used(
            "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
            "num_key_value_heads head_dim rms_norm_eps tie_word_embeddings",
            "the decoder",
        ),
        _used(
            "position_embedding_base rope_theta rope_scaling rope_parameters", "rotary positions"
        ),
        _used("context_window_size max_position_embeddings", "maximum context"),
        _fixed("hidden_act", "SwiGLU", "silu"),
        _fixed("attention_bias mlp_bias", "linear layers have no bias", False),
        _fixed("sliding_window_size", "attention is over all earlier positions", -1),
        _ignored(
            "prefill_chunk_size attention_sink_size tensor_parallel_shards "
            "pipeline_parallel_stages max_batch_size disaggregation dtype kv_quantization",
            "implementation, not result",
        ),
    ),
)

TABLES = (
    CONFIG,
    ROPE,
    GENERATION,
    TOKENIZER,
    CLIP,
    CLIP_TOWER,
    PREPROCESSOR,
    MLC,
    MLC_MODEL,
)
