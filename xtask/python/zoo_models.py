"""Small models of many architectures, with random weights, and inputs for them."""

import torch
import transformers

WIDE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
TEXT = dict(
    WIDE,
    vocab_size=96,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
DECODER = dict(TEXT, num_key_value_heads=2)
HEAD = dict(DECODER, head_dim=16)
EXPERTS = dict(moe_intermediate_size=32, num_experts_per_tok=2)
DEEPSEEK = dict(
    EXPERTS,
    n_routed_experts=4,
    n_shared_experts=1,
    n_group=1,
    topk_group=1,
    first_k_dense_replace=1,
    q_lora_rank=32,
    kv_lora_rank=32,
    qk_rope_head_dim=16,
    qk_nope_head_dim=16,
    v_head_dim=16,
)
SEQ2SEQ = dict(
    vocab_size=96,
    d_model=64,
    encoder_layers=2,
    decoder_layers=2,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    encoder_ffn_dim=128,
    decoder_ffn_dim=128,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=2,
)
T5 = dict(vocab_size=96, d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4)
VISION = dict(WIDE, image_size=32, patch_size=8)
SPEECH = dict(
    WIDE,
    vocab_size=32,
    conv_dim=[32, 32],
    conv_stride=[4, 2],
    conv_kernel=[8, 4],
    num_feat_extract_layers=2,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)


def ids():
    return torch.arange(12).reshape(2, 6) * 7 % 90 + 3


def text(_):
    return dict(input_ids=ids())


def ended(_):
    """A text that ends as the model wants it to."""
    tokens = ids()
    tokens[:, -1] = 2
    return dict(input_ids=tokens)


def both(_):
    return dict(input_ids=ids(), decoder_input_ids=ids().flip(1))


def image(_, side=32):
    torch.manual_seed(1)
    return dict(pixel_values=torch.randn(2, 3, side, side))


def captioned(_):
    return dict(input_ids=ids(), attention_mask=torch.ones(2, 6, dtype=torch.long), **image(_))


def sound(_):
    torch.manual_seed(1)
    return dict(input_values=torch.randn(2, 400))


def spoken(_):
    torch.manual_seed(1)
    return dict(input_features=torch.randn(2, 16, 40), decoder_input_ids=ids().flip(1))


def shown(config):
    """A text with an image in it."""
    tokens = ids()
    tokens = torch.cat([torch.full((2, 16), config.image_token_id), tokens], 1)
    return dict(input_ids=tokens, **image(config))


# The model type, the class with a head, the configuration, the inputs.
MODELS = [
    ("llama", "LlamaForCausalLM", DECODER, text),
    ("llama", "LlamaForSequenceClassification", DECODER, text),
    ("mistral", "MistralForCausalLM", HEAD, text),
    ("qwen2", "Qwen2ForCausalLM", DECODER, text),
    ("qwen2", "Qwen2ForCausalLM", dict(DECODER, tie_word_embeddings=True), text),
    ("qwen3", "Qwen3ForCausalLM", HEAD, text),
    (
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        dict(DECODER, **EXPERTS, num_experts=4, shared_expert_intermediate_size=64),
        text,
    ),
    ("qwen3_moe", "Qwen3MoeForCausalLM", dict(HEAD, **EXPERTS, num_experts=4), text),
    ("mixtral", "MixtralForCausalLM", dict(DECODER, num_local_experts=4), text),
    ("deepseek_v2", "DeepseekV2ForCausalLM", dict(TEXT, **DEEPSEEK), text),
    ("deepseek_v3", "DeepseekV3ForCausalLM", dict(TEXT, **DEEPSEEK), text),
    ("gpt_oss", "GptOssForCausalLM", dict(HEAD, num_local_experts=4), text),
    ("olmoe", "OlmoeForCausalLM", dict(DECODER, num_experts=4, num_experts_per_tok=2), text),
    ("phimoe", "PhimoeForCausalLM", dict(DECODER, num_local_experts=4), text),
    (
        "jamba",
        "JambaForCausalLM",
        dict(
            DECODER,
            num_experts=4,
            mamba_d_state=8,
            mamba_dt_rank=16,
            use_mamba_kernels=False,
            num_hidden_layers=4,
            attn_layer_period=2,
            attn_layer_offset=1,
        ),
        text,
    ),
    ("granite", "GraniteForCausalLM", DECODER, text),
    ("granitemoe", "GraniteMoeForCausalLM", dict(DECODER, num_local_experts=4), text),
    (
        "ernie4_5_moe",
        "Ernie4_5_MoeForCausalLM",
        dict(
            DECODER,
            moe_num_experts=4,
            moe_k=2,
            moe_intermediate_size=32,
            moe_num_shared_experts=1,
            moe_layer_start_index=1,
        ),
        text,
    ),
    ("gemma", "GemmaForCausalLM", HEAD, text),
    ("gemma2", "Gemma2ForCausalLM", HEAD, text),
    ("gemma3_text", "Gemma3ForCausalLM", HEAD, text),
    ("phi", "PhiForCausalLM", TEXT, text),
    ("phi3", "Phi3ForCausalLM", DECODER, text),
    ("olmo2", "Olmo2ForCausalLM", DECODER, text),
    ("cohere", "CohereForCausalLM", DECODER, text),
    ("stablelm", "StableLmForCausalLM", DECODER, text),
    ("starcoder2", "Starcoder2ForCausalLM", DECODER, text),
    ("glm4", "Glm4ForCausalLM", HEAD, text),
    (
        "gpt2",
        "GPT2LMHeadModel",
        dict(vocab_size=96, n_positions=64, n_embd=64, n_layer=2, n_head=4),
        text,
    ),
    (
        "gpt_bigcode",
        "GPTBigCodeForCausalLM",
        dict(vocab_size=96, n_positions=64, n_embd=64, n_layer=2, n_head=4),
        text,
    ),
    (
        "gpt_neo",
        "GPTNeoForCausalLM",
        dict(
            vocab_size=96,
            max_position_embeddings=64,
            hidden_size=64,
            num_layers=2,
            num_heads=4,
            attention_types=[[["global", "local"], 1]],
            intermediate_size=128,
        ),
        text,
    ),
    ("gpt_neox", "GPTNeoXForCausalLM", TEXT, text),
    (
        "gptj",
        "GPTJForCausalLM",
        dict(vocab_size=96, n_positions=64, n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
        text,
    ),
    ("opt", "OPTForCausalLM", dict(TEXT, ffn_dim=128, word_embed_proj_dim=64), text),
    ("opt", "OPTForCausalLM", dict(TEXT, ffn_dim=128, word_embed_proj_dim=32), text),
    ("bloom", "BloomForCausalLM", dict(vocab_size=96, hidden_size=64, n_layer=2, n_head=4), text),
    ("falcon", "FalconForCausalLM", TEXT, text),
    (
        "mamba",
        "MambaForCausalLM",
        dict(vocab_size=96, hidden_size=64, num_hidden_layers=2, state_size=16, time_step_rank=16),
        text,
    ),
    (
        "mamba2",
        "Mamba2ForCausalLM",
        dict(
            vocab_size=96,
            hidden_size=64,
            num_hidden_layers=2,
            state_size=16,
            num_heads=8,
            head_dim=16,
            n_groups=1,
            chunk_size=8,
        ),
        text,
    ),
    ("bert", "BertForMaskedLM", TEXT, text),
    ("bert", "BertForPreTraining", TEXT, text),
    ("bert", "BertLMHeadModel", dict(TEXT, is_decoder=True), text),
    ("bert", "BertForSequenceClassification", TEXT, text),
    ("bert", "BertForTokenClassification", TEXT, text),
    ("bert", "BertForQuestionAnswering", TEXT, text),
    ("bert", "BertForNextSentencePrediction", TEXT, text),
    ("roberta", "RobertaForMaskedLM", TEXT, text),
    ("roberta", "RobertaForSequenceClassification", TEXT, text),
    ("xlm-roberta", "XLMRobertaForSequenceClassification", TEXT, text),
    (
        "distilbert",
        "DistilBertForMaskedLM",
        dict(
            vocab_size=96, dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=64
        ),
        text,
    ),
    ("albert", "AlbertForMaskedLM", dict(TEXT, embedding_size=32), text),
    ("electra", "ElectraForMaskedLM", dict(TEXT, embedding_size=32), text),
    (
        "deberta",
        "DebertaForMaskedLM",
        dict(TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"]),
        text,
    ),
    (
        "deberta-v2",
        "DebertaV2ForMaskedLM",
        dict(TEXT, relative_attention=True, pos_att_type=["c2p", "p2c"], position_buckets=16),
        text,
    ),
    ("mpnet", "MPNetForMaskedLM", TEXT, text),
    ("modernbert", "ModernBertForMaskedLM", dict(TEXT, cls_token_id=1, sep_token_id=2), text),
    ("nomic_bert", "NomicBertForMaskedLM", TEXT, text),
    (
        "xlnet",
        "XLNetLMHeadModel",
        dict(vocab_size=96, d_model=64, n_layer=2, n_head=4, d_inner=128),
        text,
    ),
    ("t5", "T5ForConditionalGeneration", T5, both),
    ("mt5", "MT5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu"), both),
    ("bart", "BartForConditionalGeneration", SEQ2SEQ, both),
    ("bart", "BartForSequenceClassification", SEQ2SEQ, ended),
    ("marian", "MarianMTModel", SEQ2SEQ, both),
    ("pegasus", "PegasusForConditionalGeneration", SEQ2SEQ, both),
    ("m2m_100", "M2M100ForConditionalGeneration", SEQ2SEQ, both),
    (
        "whisper",
        "WhisperForConditionalGeneration",
        dict(SEQ2SEQ, num_mel_bins=16, max_source_positions=20, max_target_positions=32),
        spoken,
    ),
    ("vit", "ViTForImageClassification", VISION, image),
    ("deit", "DeiTForImageClassification", VISION, image),
    ("beit", "BeitForImageClassification", dict(VISION, use_relative_position_bias=True), image),
    ("dinov2", "Dinov2ForImageClassification", VISION, image),
    (
        "swin",
        "SwinForImageClassification",
        dict(
            image_size=32,
            patch_size=2,
            embed_dim=16,
            depths=[2, 2],
            num_heads=[2, 4],
            window_size=4,
        ),
        image,
    ),
    (
        "convnext",
        "ConvNextForImageClassification",
        dict(hidden_sizes=[16, 32, 32, 64], depths=[1, 1, 1, 1]),
        image,
    ),
    (
        "segformer",
        "SegformerForSemanticSegmentation",
        dict(
            hidden_sizes=[16, 32, 32, 64],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 4],
            decoder_hidden_size=32,
        ),
        image,
    ),
    (
        "clip",
        "CLIPModel",
        dict(text_config=TEXT, vision_config=VISION, projection_dim=32),
        captioned,
    ),
    (
        "siglip",
        "SiglipModel",
        dict(text_config=dict(TEXT, max_position_embeddings=6), vision_config=VISION),
        captioned,
    ),
    ("wav2vec2", "Wav2Vec2ForCTC", SPEECH, sound),
    ("hubert", "HubertForCTC", SPEECH, sound),
    (
        "llava",
        "LlavaForConditionalGeneration",
        dict(
            text_config=dict(DECODER, model_type="llama"),
            vision_config=dict(VISION, model_type="clip_vision_model", projection_dim=32),
            image_token_id=95,
            vision_feature_select_strategy="default",
        ),
        shown,
    ),
    (
        "llava",
        "LlavaForConditionalGeneration",
        dict(
            text_config=dict(HEAD, **EXPERTS, num_experts=4, model_type="qwen3_moe"),
            vision_config=dict(VISION, model_type="siglip_vision_model"),
            image_token_id=95,
            vision_feature_select_strategy="full",
        ),
        shown,
    ),
]


def build(model_type, name, values):
    """A model of the class with a head, every weight random."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[model_type](**values)
    model = getattr(transformers, name)._from_config(config).eval()
    for parameter in model.parameters():
        # Weights that begin at 0 or 1 would hide what is not loaded.
        if parameter.dtype.is_floating_point:
            parameter.data += torch.randn_like(parameter) * 0.02
    model.tie_weights()
    return model
