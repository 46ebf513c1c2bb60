"""Small models of many architectures, with random weights, and inputs for them."""

import json
from pathlib import Path
from typing import Any, Callable, NamedTuple

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
QWEN_MOE = dict(DECODER, **EXPERTS, num_experts=4, shared_expert_intermediate_size=64)
QWEN3_MOE = dict(HEAD, **EXPERTS, num_experts=4)
MIXTRAL = dict(DECODER, num_local_experts=4)
JAMBA = dict(
    DECODER,
    num_experts=4,
    mamba_d_state=8,
    mamba_dt_rank=16,
    use_mamba_kernels=False,
    num_hidden_layers=4,
    attn_layer_period=2,
    attn_layer_offset=1,
)
MAMBA = dict(vocab_size=96, hidden_size=64, num_hidden_layers=2, state_size=16, time_step_rank=16)
MAMBA2 = dict(
    vocab_size=96,
    hidden_size=64,
    num_hidden_layers=2,
    state_size=16,
    num_heads=8,
    head_dim=16,
    n_groups=1,
    chunk_size=8,
)
OPT = dict(TEXT, ffn_dim=128, word_embed_proj_dim=64)
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
WHISPER = dict(SEQ2SEQ, num_mel_bins=16, max_source_positions=20, max_target_positions=32)
CLIP = dict(text_config=TEXT, vision_config=VISION, projection_dim=32)
GPT_OSS = dict(HEAD, num_local_experts=4)
DEEPSEEK_V3 = dict(TEXT, **DEEPSEEK)


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


def sized(config):
    return dict(shown(config), image_sizes=torch.full((2, 2), 32))


def choices(_):
    return dict(input_ids=ids().reshape(2, 2, 3))


class Model(NamedTuple):
    """A small model."""

    model_type: str
    # The class that saves it.
    name: str
    # The configuration.
    values: dict[str, Any]
    inputs: Callable
    # What is special in how it is saved and opened.
    case: str = ""
    # The class with a head that opens it, where it is another one.
    task: str | None = None
    # Options of `save_pretrained`.
    saving: dict[str, Any] = {}
    # Options of the program that choose tensors.
    choice: tuple[str, ...] = ()
    # What becomes of the folder of the float model.
    changed: Callable = lambda folder: None


def without_architectures(folder):
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["architectures"]
    file.write_text(json.dumps(config))


def with_own_code(folder):
    """The folder of a model type that transformers does not know, with the code of its classes."""
    code = Path(__file__).with_name("zoo_remote.py")
    (folder / code.name).write_bytes(code.read_bytes())
    file = folder / "config.json"
    config = json.loads(file.read_text())
    module = code.stem
    config["auto_map"] = {
        "AutoConfig": f"{module}.TomorrowConfig",
        "AutoModel": f"{module}.TomorrowModel",
        "AutoModelForCausalLM": f"{module}.TomorrowForCausalLM",
    }
    file.write_text(json.dumps(config))


ARCHITECTURES = [
    ("llama", "LlamaForCausalLM", DECODER, text),
    ("llama", "LlamaForSequenceClassification", DECODER, text),
    ("mistral", "MistralForCausalLM", HEAD, text),
    ("qwen2", "Qwen2ForCausalLM", DECODER, text),
    ("qwen2", "Qwen2ForCausalLM", dict(DECODER, tie_word_embeddings=True), text),
    ("qwen3", "Qwen3ForCausalLM", HEAD, text),
    (
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        QWEN_MOE,
        text,
    ),
    ("qwen3_moe", "Qwen3MoeForCausalLM", QWEN3_MOE, text),
    ("mixtral", "MixtralForCausalLM", MIXTRAL, text),
    ("deepseek_v2", "DeepseekV2ForCausalLM", dict(TEXT, **DEEPSEEK), text),
    ("deepseek_v3", "DeepseekV3ForCausalLM", DEEPSEEK_V3, text),
    ("gpt_oss", "GptOssForCausalLM", GPT_OSS, text),
    ("olmoe", "OlmoeForCausalLM", dict(DECODER, num_experts=4, num_experts_per_tok=2), text),
    ("phimoe", "PhimoeForCausalLM", dict(DECODER, num_local_experts=4), text),
    (
        "jamba",
        "JambaForCausalLM",
        JAMBA,
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
    ("opt", "OPTForCausalLM", OPT, text),
    ("opt", "OPTForCausalLM", dict(TEXT, ffn_dim=128, word_embed_proj_dim=32), text),
    ("bloom", "BloomForCausalLM", dict(vocab_size=96, hidden_size=64, n_layer=2, n_head=4), text),
    ("falcon", "FalconForCausalLM", TEXT, text),
    (
        "mamba",
        "MambaForCausalLM",
        MAMBA,
        text,
    ),
    (
        "mamba2",
        "Mamba2ForCausalLM",
        MAMBA2,
        text,
    ),
    ("bert", "BertForMaskedLM", TEXT, text),
    ("bert", "BertForPreTraining", TEXT, text),
    ("bert", "BertLMHeadModel", dict(TEXT, is_decoder=True), text),
    ("bert", "BertForSequenceClassification", TEXT, text),
    ("bert", "BertForTokenClassification", TEXT, text),
    ("bert", "BertForQuestionAnswering", TEXT, text),
    ("bert", "BertForNextSentencePrediction", TEXT, text),
    ("bert", "BertForMultipleChoice", TEXT, choices),
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
        WHISPER,
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
        CLIP,
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
    (
        "falcon",
        "FalconForCausalLM",
        dict(TEXT, new_decoder_architecture=True, num_kv_heads=2),
        text,
    ),
    ("falcon_mamba", "FalconMambaForCausalLM", MAMBA, text),
    ("smollm3", "SmolLM3ForCausalLM", DECODER, text),
    ("olmo3", "Olmo3ForCausalLM", DECODER, text),
    ("exaone4", "Exaone4ForCausalLM", DECODER, text),
    ("cohere2", "Cohere2ForCausalLM", HEAD, text),
    ("nemotron", "NemotronForCausalLM", HEAD, text),
    ("persimmon", "PersimmonForCausalLM", TEXT, text),
    ("seed_oss", "SeedOssForCausalLM", HEAD, text),
    ("hunyuan_v1_dense", "HunYuanDenseV1ForCausalLM", HEAD, text),
    ("glm", "GlmForCausalLM", HEAD, text),
    (
        "glm4_moe",
        "Glm4MoeForCausalLM",
        dict(
            HEAD,
            **EXPERTS,
            n_routed_experts=4,
            n_shared_experts=1,
            n_group=1,
            topk_group=1,
            first_k_dense_replace=1,
        ),
        text,
    ),
    ("minimax", "MiniMaxForCausalLM", dict(HEAD, num_local_experts=4, block_size=4), text),
    (
        "lfm2",
        "Lfm2ForCausalLM",
        dict(DECODER, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
        text,
    ),
    (
        "qwen3_next",
        "Qwen3NextForCausalLM",
        dict(
            HEAD,
            **EXPERTS,
            num_experts=4,
            shared_expert_intermediate_size=32,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            layer_types=["linear_attention", "full_attention"],
        ),
        text,
    ),
    (
        "bamba",
        "BambaForCausalLM",
        dict(
            DECODER,
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=16,
            mamba_n_groups=1,
            mamba_chunk_size=8,
            attn_layer_indices=[1],
        ),
        text,
    ),
    (
        "granitemoehybrid",
        "GraniteMoeHybridForCausalLM",
        dict(
            DECODER,
            num_local_experts=4,
            num_experts_per_tok=2,
            shared_intermediate_size=64,
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=16,
            mamba_n_groups=1,
            mamba_chunk_size=8,
            layer_types=["mamba", "attention"],
        ),
        text,
    ),
    (
        "jetmoe",
        "JetMoeForCausalLM",
        dict(DECODER, num_local_experts=4, kv_channels=16, num_key_value_heads=4),
        text,
    ),
    (
        "llama4_text",
        "Llama4ForCausalLM",
        dict(HEAD, intermediate_size_mlp=128, num_local_experts=4, num_experts_per_tok=1),
        text,
    ),
    (
        "dbrx",
        "DbrxForCausalLM",
        dict(
            vocab_size=96,
            d_model=64,
            n_heads=4,
            n_layers=2,
            max_seq_len=64,
            attn_config=dict(kv_n_heads=2, rope_theta=10000.0, clip_qkv=8.0),
            ffn_config=dict(ffn_hidden_size=64, moe_num_experts=4, moe_top_k=2, hidden_size=64),
        ),
        text,
    ),
    (
        "mpt",
        "MptForCausalLM",
        dict(vocab_size=96, d_model=64, n_heads=4, n_layers=2, max_seq_len=64),
        text,
    ),
    (
        "codegen",
        "CodeGenForCausalLM",
        dict(vocab_size=96, n_positions=64, n_embd=64, n_layer=2, n_head=4, rotary_dim=8),
        text,
    ),
    (
        "xglm",
        "XGLMForCausalLM",
        dict(
            vocab_size=96,
            d_model=64,
            ffn_dim=128,
            num_layers=2,
            attention_heads=4,
            max_position_embeddings=64,
        ),
        text,
    ),
    ("biogpt", "BioGptForCausalLM", TEXT, text),
    ("camembert", "CamembertForMaskedLM", TEXT, text),
    ("longformer", "LongformerForMaskedLM", dict(TEXT, attention_window=4), text),
    (
        "funnel",
        "FunnelForMaskedLM",
        dict(vocab_size=96, block_sizes=[1, 1], d_model=64, n_head=4, d_head=16, d_inner=128),
        text,
    ),
    ("roformer", "RoFormerForMaskedLM", dict(TEXT, embedding_size=64), text),
    (
        "mobilebert",
        "MobileBertForMaskedLM",
        dict(TEXT, embedding_size=32, intra_bottleneck_size=32, true_hidden_size=32),
        text,
    ),
    ("squeezebert", "SqueezeBertForMaskedLM", dict(TEXT, embedding_size=64), text),
    ("fnet", "FNetForMaskedLM", TEXT, text),
    ("luke", "LukeForMaskedLM", dict(TEXT, entity_vocab_size=16, entity_emb_size=32), text),
    ("mbart", "MBartForConditionalGeneration", SEQ2SEQ, both),
    (
        "led",
        "LEDForConditionalGeneration",
        dict(
            SEQ2SEQ,
            attention_window=[4, 4],
            max_encoder_position_embeddings=64,
            max_decoder_position_embeddings=64,
        ),
        both,
    ),
    ("umt5", "UMT5ForConditionalGeneration", dict(T5, feed_forward_proj="gated-gelu"), both),
    ("longt5", "LongT5ForConditionalGeneration", dict(T5, local_radius=4), both),
    (
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        dict(T5, num_experts=4, num_sparse_encoder_layers=1, num_sparse_decoder_layers=1),
        both,
    ),
    (
        "nllb-moe",
        "NllbMoeForConditionalGeneration",
        dict(
            SEQ2SEQ, num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2, expert_capacity=8
        ),
        both,
    ),
    (
        "swinv2",
        "Swinv2ForImageClassification",
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
        "vit_mae",
        "ViTMAEForPreTraining",
        dict(
            VISION,
            decoder_hidden_size=32,
            decoder_num_hidden_layers=1,
            decoder_num_attention_heads=4,
            decoder_intermediate_size=64,
            mask_ratio=0.5,
        ),
        image,
    ),
    (
        "yolos",
        "YolosForObjectDetection",
        dict(VISION, image_size=[32, 32], num_detection_tokens=4),
        image,
    ),
    (
        "pvt_v2",
        "PvtV2ForImageClassification",
        dict(
            image_size=32,
            hidden_sizes=[16, 32, 32, 64],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 2, 2, 4],
        ),
        image,
    ),
    ("dinov3_vit", "DINOv3ViTModel", VISION, image),
    ("wavlm", "WavLMForCTC", SPEECH, sound),
    ("unispeech", "UniSpeechForCTC", dict(SPEECH, num_ctc_classes=32), sound),
    (
        "blip",
        "BlipForConditionalGeneration",
        dict(
            text_config=dict(TEXT, encoder_hidden_size=64), vision_config=VISION, projection_dim=32
        ),
        captioned,
    ),
    (
        "altclip",
        "AltCLIPModel",
        dict(text_config=dict(TEXT, project_dim=32), vision_config=VISION, projection_dim=32),
        captioned,
    ),
    (
        "gemma3",
        "Gemma3ForConditionalGeneration",
        dict(
            text_config=dict(HEAD, model_type="gemma3_text"),
            vision_config=dict(VISION, model_type="siglip_vision_model"),
            mm_tokens_per_image=16,
            image_token_id=95,
            boi_token_id=94,
            eoi_token_id=93,
        ),
        shown,
    ),
    (
        "mistral3",
        "Mistral3ForConditionalGeneration",
        dict(
            text_config=dict(HEAD, model_type="mistral"),
            vision_config=dict(VISION, head_dim=16, model_type="pixtral"),
            image_token_id=95,
            spatial_merge_size=1,
        ),
        sized,
    ),
    (
        "qwen2_vl",
        "Qwen2VLForConditionalGeneration",
        dict(
            text_config=dict(
                DECODER,
                rope_parameters=dict(
                    rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3]
                ),
            ),
            vision_config=dict(
                depth=2, embed_dim=64, hidden_size=64, num_heads=4, mlp_ratio=2, patch_size=8
            ),
        ),
        text,
    ),
    (
        "qwen2_5_vl",
        "Qwen2_5_VLForConditionalGeneration",
        dict(
            text_config=dict(
                DECODER,
                rope_parameters=dict(
                    rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3]
                ),
            ),
            vision_config=dict(
                depth=2,
                hidden_size=64,
                out_hidden_size=64,
                intermediate_size=128,
                num_heads=4,
                patch_size=8,
            ),
        ),
        text,
    ),
    (
        "qwen3_vl",
        "Qwen3VLForConditionalGeneration",
        dict(
            text_config=dict(
                HEAD,
                rope_parameters=dict(
                    rope_type="default", rope_theta=10000.0, mrope_section=[2, 3, 3]
                ),
            ),
            vision_config=dict(
                depth=2,
                hidden_size=64,
                out_hidden_size=64,
                intermediate_size=128,
                num_heads=4,
                patch_size=8,
                deepstack_visual_indexes=[0],
            ),
        ),
        text,
    ),
]


ALL = ("--include", "*")
SHARDS = dict(max_shard_size="60KB")
BF16, F16 = dict(dtype="bfloat16"), dict(dtype="float16")
TOMORROW = dict(
    vocab_size=96,
    width=64,
    layers=2,
    experts=4,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
# What is special in how a model is saved and opened, whatever its architecture.
CASES = [
    Model("llama", "LlamaForCausalLM", DECODER | BF16, text, "bf16"),
    Model("llama", "LlamaForCausalLM", DECODER | F16, text, "f16"),
    Model("qwen2_moe", "Qwen2MoeForCausalLM", QWEN_MOE | BF16, text, "bf16"),
    Model("jamba", "JambaForCausalLM", JAMBA | BF16, text, "bf16"),
    Model("mamba2", "Mamba2ForCausalLM", MAMBA2 | BF16, text, "bf16"),
    Model("falcon_mamba", "FalconMambaForCausalLM", MAMBA | BF16, text, "bf16"),
    Model("t5", "T5ForConditionalGeneration", T5 | F16, both, "f16"),
    Model("bert", "BertForMaskedLM", TEXT | BF16, text, "bf16"),
    Model("llama", "LlamaForCausalLM", DECODER, text, "in shards", saving=SHARDS),
    Model("mixtral", "MixtralForCausalLM", MIXTRAL, text, "in shards", saving=SHARDS),
    Model("bert", "BertForMaskedLM", TEXT, text, "in shards", saving=SHARDS),
    Model("llama", "LlamaModel", DECODER, text, "saved by the base class", "LlamaForCausalLM"),
    Model("bert", "BertModel", TEXT, text, "saved by the base class", "BertForMaskedLM"),
    Model(
        "roberta",
        "RobertaModel",
        TEXT,
        text,
        "saved by the base class",
        "RobertaForSequenceClassification",
    ),
    Model("gpt_neox", "GPTNeoXModel", TEXT, text, "saved by the base class", "GPTNeoXForCausalLM"),
    Model(
        "qwen3_moe",
        "Qwen3MoeModel",
        QWEN3_MOE,
        text,
        "saved by the base class",
        "Qwen3MoeForCausalLM",
    ),
    Model("vit", "ViTModel", VISION, image, "saved by the base class", "ViTForImageClassification"),
    Model(
        "bart",
        "BartModel",
        SEQ2SEQ,
        both,
        "saved by the base class",
        "BartForConditionalGeneration",
    ),
    Model(
        "bert",
        "BertForMaskedLM",
        TEXT,
        text,
        "opened by another task's class",
        "BertForTokenClassification",
    ),
    Model(
        "llama",
        "LlamaForCausalLM",
        DECODER,
        text,
        "opened by another task's class",
        "LlamaForSequenceClassification",
    ),
    Model(
        "llama",
        "LlamaForCausalLM",
        DECODER | dict(tie_word_embeddings=True),
        text,
        "a tied head",
    ),
    Model("opt", "OPTForCausalLM", OPT | dict(tie_word_embeddings=False), text, "an untied head"),
    Model(
        "bert", "BertForMaskedLM", TEXT | dict(tie_word_embeddings=False), text, "an untied head"
    ),
    Model(
        "t5",
        "T5ForConditionalGeneration",
        T5 | dict(tie_word_embeddings=False),
        both,
        "an untied head",
    ),
    Model(
        "llama",
        "LlamaForCausalLM",
        DECODER,
        text,
        "config.json without architectures",
        changed=without_architectures,
    ),
    Model(
        "mixtral",
        "MixtralForCausalLM",
        MIXTRAL,
        text,
        "config.json without architectures",
        changed=without_architectures,
    ),
    Model(
        "of_tomorrow",
        "TomorrowForCausalLM",
        TOMORROW,
        text,
        "an unknown model_type with code of its own",
        "AutoModelForCausalLM",
        changed=with_own_code,
    ),
    Model(
        "of_tomorrow",
        "TomorrowModel",
        TOMORROW,
        text,
        "an unknown model_type, saved by the base class",
        "AutoModelForCausalLM",
        changed=with_own_code,
    ),
    Model(
        "of_tomorrow",
        "TomorrowForCausalLM",
        TOMORROW | dict(tie_word_embeddings=True) | BF16,
        text,
        "an unknown model_type with a tied head, bf16",
        "AutoModelForCausalLM",
        saving=SHARDS,
        changed=with_own_code,
    ),
    Model("llama", "LlamaForCausalLM", DECODER, text, "--include '*'", choice=ALL),
    Model("llama", "LlamaForSequenceClassification", DECODER, text, "--include '*'", choice=ALL),
    Model("gpt_oss", "GptOssForCausalLM", GPT_OSS, text, "--include '*'", choice=ALL),
    Model("deepseek_v3", "DeepseekV3ForCausalLM", DEEPSEEK_V3, text, "--include '*'", choice=ALL),
    Model(
        "bert",
        "BertForMaskedLM",
        TEXT | dict(tie_word_embeddings=False),
        text,
        "an untied head, --include '*'",
        choice=ALL,
    ),
    Model("bert", "BertForPreTraining", TEXT, text, "--include '*'", choice=ALL),
    Model(
        "t5",
        "T5ForConditionalGeneration",
        T5 | dict(tie_word_embeddings=False),
        both,
        "an untied head, --include '*'",
        choice=ALL,
    ),
    Model(
        "whisper", "WhisperForConditionalGeneration", WHISPER, spoken, "--include '*'", choice=ALL
    ),
    Model("clip", "CLIPModel", CLIP, captioned, "--include '*'", choice=ALL),
    Model("wav2vec2", "Wav2Vec2ForCTC", SPEECH, sound, "--include '*'", choice=ALL),
    Model("vit", "ViTForImageClassification", VISION, image, "--include '*'", choice=ALL),
    Model("mamba2", "Mamba2ForCausalLM", MAMBA2, text, "--include '*'", choice=ALL),
    Model(
        "of_tomorrow",
        "TomorrowForCausalLM",
        TOMORROW,
        text,
        "an unknown model_type, --include '*'",
        "AutoModelForCausalLM",
        choice=ALL,
        changed=with_own_code,
    ),
]
MODELS = [Model(*one) for one in ARCHITECTURES] + CASES


def build(model):
    """A model of the class that saves it, every weight random."""
    torch.manual_seed(0)
    if model.model_type in transformers.CONFIG_MAPPING:
        config = transformers.CONFIG_MAPPING[model.model_type](**model.values)
        cls = getattr(transformers, model.name)
    else:
        import zoo_remote

        config = zoo_remote.TomorrowConfig(**model.values)
        cls = getattr(zoo_remote, model.name)
    built = cls._from_config(config).eval()
    for parameter in built.parameters():
        # Weights that begin at 0 or 1 would hide what is not loaded.
        if parameter.dtype.is_floating_point:
            parameter.data += torch.randn_like(parameter) * 0.02
    built.tie_weights()
    return built
