"""Every key of a checkpoint's JSON files, and what becomes of it.

A key is **used**; or it is **fixed**, and the file is refused unless it has the value that this
implementation computes with; or it is **reported**, passed over with a warning; or **ignored**,
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
    _fixed("no_repeat_ngram_size encoder_no_repeat_ngram_size", "no phrase is forbidden", 0),
    _fixed("min_length min_new_tokens", "an answer may end at once", 0),
    _fixed("num_beam_groups", "no beam search", 1),
    _fixed("diversity_penalty", "no beam search", 0),
    _fixed("bad_words_ids suppress_tokens begin_suppress_tokens", "no token is forbidden", []),
    _fixed("forced_bos_token_id forced_eos_token_id force_words_ids", "no token is forced", []),
    _fixed("constraints sequence_bias", "no token is preferred", [], {}),
    _fixed("exponential_decay_length_penalty", "length has no price"),
    _fixed("guidance_scale", "no second prompt", 1),
    _fixed("penalty_alpha", "no contrastive search", 0),
    _fixed("dola_layers watermarking_config", "logits are the model's own"),
    _fixed("token_healing", "a prompt is read as it is", False),
    _fixed("stop_strings", "`--stop` names them", []),
    _reported("top_k", "`--top-k` sets it", 50, 0),
    _reported("typical_p", "sampling has no such choice", 1),
    _reported("min_p top_h epsilon_cutoff eta_cutoff", "sampling has no such choice", 0),
    _reported("max_time", "`--max-tokens` ends an answer"),
    _ignored(
        "do_sample temperature top_p num_beams max_length max_new_tokens",
        "the official code sets them itself; here `--temperature`, `--top-p`, `--max-tokens` do",
    ),
    _ignored("num_return_sequences", "the first is the answer"),
    _ignored("length_penalty early_stopping", "of beam search"),
    _ignored("renormalize_logits remove_invalid_values", "change no finite logits' order"),
    _ignored(
        "use_cache cache_implementation cache_config max_cache_len return_legacy_cache "
        "prefill_chunk_size low_memory compile_config disable_compile continuous_batching_config",
        "how it is computed, not what",
    ),
    _ignored(
        "is_assistant num_assistant_tokens num_assistant_tokens_schedule assistant_early_exit "
        "assistant_confidence_threshold assistant_lookbehind target_lookbehind "
        "assistant_ensemble_weight speculation_type prompt_lookup_num_tokens "
        "max_matching_ngram_size use_mtp",
        "speculative decoding, which changes no answer",
    ),
    _ignored("decoder_start_token_id", "of models with an encoder"),
)
_OUTPUTS = _ignored(
    "return_dict output_hidden_states output_attentions output_scores output_logits "
    "return_dict_in_generate",
    "what transformers returns",
)

# What transformers writes for any model.
_COMMON = (
    _fixed("is_encoder_decoder add_cross_attention", "a decoder alone", False),
    _fixed("cross_attention_hidden_size", "a decoder alone"),
    _fixed("pruned_heads", "every head is computed", {}),
    _fixed("quantization_config compression_config", "weights in float32, float16 or bfloat16", {}),
    _reported("auto_map", "the checkpoint's own Python code is never run"),
    _ignored("architectures", "the tensors are compared by name and shape"),
    _ignored("torch_dtype dtype use_bfloat16", "each tensor says its own dtype"),
    _ignored(
        "id2label label2id num_labels finetuning_task problem_type task_specific_params "
        "tokenizer_class prefix sep_token_id",
        "of classifiers and pipelines",
    ),
    _ignored("is_decoder tie_encoder_decoder", "of models with an encoder"),
    _ignored("chunk_size_feed_forward torchscript tf_legacy_loss", "how it is computed, not what"),
    _ignored("initializer_range attention_dropout", "of training"),
    _ignored(
        "_name_or_path _commit_hash transformers_version attn_implementation _attn_implementation "
        "_attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled "
        "unsloth_version unsloth_fixed",
        "how the file came about",
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
            "the decoder's shape",
        ),
        _used("rms_norm_eps tie_word_embeddings", "the decoder"),
        _used(
            "rope_theta rope_scaling rope_parameters",
            "rotary positions: the type `default` and one base, wherever it is written",
        ),
        _used("max_position_embeddings", "the longest context"),
        _used("layer_types", "`full_attention` for every layer"),
        _used(
            "bos_token_id eos_token_id pad_token_id",
            "after generation_config.json; the end of `tokenizer.model` ends an answer too",
        ),
        _used("mm_vision_tower mm_projector_type mm_hidden_size", "tower and projector"),
        _used("mm_vision_select_layer mm_vision_select_feature", "the features that are used"),
        _used("image_aspect_ratio", "`pad` pads to a square; all else crops, as officially"),
        _used(
            "mm_use_im_patch_token mm_use_im_start_end", "rows that were added to the vocabulary"
        ),
        _fixed("hidden_act", "SwiGLU", "silu"),
        _fixed("attention_bias mlp_bias", "linear layers have no bias", False),
        _fixed("partial_rotary_factor rotary_pct", "all channels of a head are rotated", 1),
        _fixed("sliding_window", "every position sees all before it"),
        _fixed("use_sliding_window", "every position sees all before it", False),
        _fixed(
            "attn_logit_softcapping final_logit_softcapping logit_scale", "logits are as they come"
        ),
        _fixed(
            "embedding_multiplier residual_multiplier logits_scaling scale_emb",
            "nothing is scaled",
            1,
        ),
        _fixed("use_qk_norm qk_norm", "queries and keys are not normalized", False),
        _fixed("num_local_experts num_experts", "one MLP a layer"),
        _fixed("vision_tower_type", "the tower is a CLIP", "clip"),
        _fixed("use_mm_proj", "there is a projector", True),
        _fixed("mm_patch_merge_type", "an image's tokens stay as they are", "flat"),
        _fixed("mm_resampler_type image_grid_pinpoints", "an image is seen once, as a whole"),
        _fixed("s2", "an image is seen at one scale", False),
        *_COMMON,
        *_GENERATION,
        _ignored("pretraining_tp", "splits products; their sum is the same"),
        _ignored("n_head n_query_groups", "stale in the 3B: they contradict its tensors"),
        _ignored("max_sequence_length", "`max_position_embeddings` says it"),
        _ignored(
            "tune_mm_mlp_adapter freeze_mm_mlp_adapter freeze_backbone unfreeze_mm_vision_tower "
            "tune_mm_vision_resampler mm_projector_lr mm_vision_tower_lr mm_tunable_parts "
            "tokenizer_padding_side tokenizer_model_max_length image_crop_resolution "
            "image_split_resolution s2_scales",
            "of training",
        ),
    ),
)

ROPE = KeyTable(
    "`rope_scaling` and `rope_parameters` in `config.json`",
    (
        _used("rope_type type", "the type: `default` alone; the second is the older name"),
        _used("rope_theta", "the base"),
        _fixed("partial_rotary_factor factor", "positions are not scaled", 1),
        _ignored("original_max_position_embeddings", "of types that scale"),
    ),
)

GENERATION = KeyTable(
    "`generation_config.json`",
    (
        _used("bos_token_id eos_token_id pad_token_id", "before config.json"),
        *_GENERATION,
        _OUTPUTS,
        _ignored("_from_model_config transformers_version", "how the file came about"),
    ),
)

TOKENIZER = KeyTable(
    "`tokenizer_config.json`",
    (
        _used("legacy", "how text after a special token begins; true where it is absent"),
        _used("bos_token eos_token unk_token", "must be those of `tokenizer.model`"),
        _used(
            "added_tokens_decoder additional_special_tokens extra_special_tokens",
            "must agree with `tokenizer.model`; what it does not have is reported",
        ),
        _fixed("add_bos_token", "a prompt begins with the beginning of sequence", True),
        _fixed("add_eos_token", "a prompt stays open for the answer", False),
        _fixed("add_prefix_space", "text begins with a space", True),
        _fixed("clean_up_tokenization_spaces", "answers are shown as they come", False),
        _fixed("split_special_tokens", "the end of an answer is one token", False),
        _fixed("sp_model_kwargs", "no sampling of pieces", {}),
        _fixed("do_lower_case", "text is read as it is", False),
        _fixed(
            "tokenizer_class",
            "`tokenizer.model` alone is read",
            "LlamaTokenizer",
            "LlamaTokenizerFast",
        ),
        _reported("chat_template", "the official code has its own; `--template` chooses"),
        _reported("auto_map", "the checkpoint's own Python code is never run"),
        _ignored("pad_token padding_side truncation_side model_max_length", "of batches"),
        _ignored("sep_token cls_token mask_token image_token", "in no prompt"),
        _ignored("spaces_between_special_tokens", "special tokens are not shown"),
        _ignored("use_default_system_prompt", "of the chat template"),
        _ignored(
            "tokenizer_file special_tokens_map_file name_or_path processor_class use_fast backend "
            "is_local local_files_only from_slow device_map trust_remote_code model_input_names "
            "transformers_version",
            "how the file came about",
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
        _fixed("num_channels", "red, green and blue", 3),
        *_COMMON,
        *_GENERATION,
        _ignored("tie_word_embeddings bos_token_id eos_token_id pad_token_id", "of text"),
        _ignored("dropout initializer_factor", "of training"),
        _ignored("projection_dim", "of what follows the tower's last layer"),
    ),
)

CLIP = KeyTable(
    "A whole CLIP's `config.json`",
    (
        _used("model_type", "`clip`"),
        _used("vision_config", "the tower"),
        _used("vision_config_dict", "the older name; where both are there, they must agree"),
        *_COMMON,
        *_GENERATION,
        _ignored("tie_word_embeddings bos_token_id eos_token_id pad_token_id", "of text"),
        _ignored("text_config text_config_dict logit_scale_init_value", "of text"),
        _ignored("projection_dim", "of what follows the tower's last layer"),
        _ignored("initializer_factor", "of training"),
    ),
)

PREPROCESSOR = KeyTable(
    "`preprocessor_config.json`",
    (
        _used("size crop_size", "must be the tower's `image_size`"),
        _used("image_mean image_std", "the normalization"),
        _used("rescale_factor", "1/255"),
        _fixed("do_resize do_center_crop do_rescale do_normalize", "every step of CLIP's", True),
        _fixed("resample", "3 is bicubic", 3),
        _fixed(
            "image_processor_type feature_extractor_type",
            "CLIP's",
            "CLIPImageProcessor",
            "CLIPImageProcessorFast",
            "CLIPImageProcessorPil",
            "CLIPFeatureExtractor",
        ),
        _fixed("do_pad", "`image_aspect_ratio` says whether to pad", False),
        _fixed("pad_size size_divisor", "the size is the tower's"),
        _fixed("default_to_square do_flip_channel_order offset", "as CLIP has it", False),
        _fixed("data_format", "as CLIP has it", "channels_first"),
        _reported("auto_map", "the checkpoint's own Python code is never run"),
        _ignored("do_convert_rgb", "the official code converts to RGB before"),
        _ignored(
            "processor_class _processor_class use_fast device disable_grouping input_data_format "
            "return_tensors image_seq_length transformers_version _valid_processor_keys",
            "how it is computed, not what: resizing is Pillow's, as in the official code",
        ),
    ),
)

MLC = KeyTable(
    "mlc-llm's `mlc-chat-config.json`",
    (
        _used("model_type model_config", "`llama`, and its shape"),
        _used("bos_token_id eos_token_id pad_token_id", "as in config.json"),
        _fixed("sliding_window_size", "every position sees all before it", -1),
        _fixed("repetition_penalty", "`--repetition-penalty` sets it", 1),
        _fixed("presence_penalty frequency_penalty", "no token is preferred", 0),
        _reported("top_k min_p", "`--top-k`, `--top-p`", 0),
        _ignored("temperature top_p", "here `--temperature`, `--top-p` do"),
        _ignored("quantization", "the tensors say it"),
        _ignored("version vocab_size active_vocab_size", "`model_config` says it"),
        _ignored("conv_template", "`--template` chooses"),
        _ignored("tokenizer_files tokenizer_info", "`tokenizer.model` says it"),
        _ignored(
            "context_window_size prefill_chunk_size attention_sink_size tensor_parallel_shards "
            "pipeline_parallel_stages max_batch_size mean_gen_len max_gen_len shift_fill_factor "
            "embedding_metadata model_task",
            "how it is computed, not what",
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
        _used("context_window_size max_position_embeddings", "the longest context"),
        _fixed("hidden_act", "SwiGLU", "silu"),
        _fixed("attention_bias mlp_bias", "linear layers have no bias", False),
        _fixed("sliding_window_size", "every position sees all before it", -1),
        _ignored(
            "prefill_chunk_size attention_sink_size tensor_parallel_shards "
            "pipeline_parallel_stages max_batch_size disaggregation dtype kv_quantization",
            "how it is computed, not what",
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
