use super::*;

fn architecture(config: &str) -> Architecture {
    Architecture::of(&serde_json::from_str(config).unwrap())
}

fn role(architecture: &Architecture, module: &str) -> Role {
    architecture.role(Matrix {
        module,
        shape: [8, 4],
        bias: None,
    })
}

fn what(role: &Role) -> String {
    match role {
        Role::Other(other) => other.to_string(),
        role => format!("{role:?}"),
    }
}

#[test]
fn modules_are_what_they_are_in_their_architecture() {
    for (model_type, module, expected) in [
        (
            "mixtral",
            "model.layers.3.block_sparse_moe.gate",
            "MixtralTopKRouter",
        ),
        (
            "mixtral",
            "model.layers.3.block_sparse_moe.experts.7.w1",
            "Expert",
        ),
        ("mixtral", "layers.3.self_attn.q_proj", "Linear"),
        ("qwen2_moe", "model.layers.0.mlp.gate", "Router"),
        (
            "qwen2_moe",
            "model.layers.0.mlp.shared_expert.down_proj",
            "Linear",
        ),
        ("afmoe", "model.layers.0.mlp.experts.3.down_proj", "Expert"),
        ("afmoe", "model.layers.0.mlp.down_proj", "Linear"),
        ("mpnet", "encoder.relative_attention_bias", "an embedding"),
        (
            "t5",
            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
            "an embedding",
        ),
        ("t5", "decoder.block.0.layer.2.DenseReluDense.wo", "Linear"),
        ("gpt2", "transformer.h.0.mlp.c_fc", "Conv1D"),
        ("gpt_bigcode", "transformer.h.0.mlp.c_fc", "Linear"),
        ("bert", "cls.predictions.decoder", "shares it"),
        ("bert", "bert.pooler.dense", "Linear"),
        ("llama", "lm_head", "Edge"),
        ("llama", "model.embed_tokens", "an embedding"),
        (
            "hrm_text",
            "model.H_module.layers.0.mlp.gate_up_proj",
            "Lost",
        ),
        (
            "nomic_bert",
            "encoder.layers.0.attn.Wqkv",
            "split, merged or permuted",
        ),
    ] {
        let architecture = architecture(&format!("{{\"model_type\": {model_type:?}}}"));
        let found = what(&role(&architecture, module));
        assert!(found.contains(expected), "{model_type} {module}: {found}");
    }
}

#[test]
fn models_in_models_are_known_too() {
    let config = r#"{"model_type": "llava", "text_config": {"model_type": "qwen2_moe"}}"#;
    let llava = architecture(config);
    let router = role(&llava, "language_model.model.layers.2.mlp.gate");
    assert!(what(&router).contains("Router"), "{router:?}");
    let modules = llava.modules("language_model.model.layers.2.self_attn.q_proj");
    let expected = "model.language_model.layers.2.self_attn.q_proj";
    assert!(
        modules.iter().any(|module| module == expected),
        "{modules:?}"
    );
    assert_eq!(
        llava.without_prefix("model.language_model.x"),
        "language_model.x"
    );
}

#[test]
fn a_head_is_tied_where_the_configuration_says_so() {
    let config = |ties| format!("{{\"model_type\": \"llama\", \"tie_word_embeddings\": {ties}}}");
    let tied = architecture(&config(true));
    assert_eq!(role(&tied, "lm_head"), Role::Other(Other::Tied));
    assert_eq!(role(&architecture(&config(false)), "lm_head"), Role::Edge);
    assert!(tied.implicit().any(|template| template == "lm_head"));
}

#[test]
fn of_what_is_not_known_only_what_surely_is_linear_is_taken() {
    let unknown = architecture(r#"{"model_type": "of tomorrow"}"#);
    for (module, bias, is_linear) in [
        ("model.layers.0.mlp.down_proj", None, true),
        ("blocks.0.mixer.magic", None, false),
        ("blocks.0.mixer.magic", Some(8), true),
        ("blocks.0.mixer.magic", Some(4), false),
        ("blocks.0.moe.gate", None, false),
        ("blocks.0.moe.router", Some(8), false),
        ("blocks.0.attn.relative_position_table", Some(8), false),
        ("tok_embeddings", None, false),
    ] {
        let shape = [8, 4];
        let found = unknown.role(Matrix {
            module,
            shape,
            bias,
        });
        assert_eq!(
            found == Role::Linear,
            is_linear,
            "{module} {bias:?}: {found:?}"
        );
    }
    // Without an architecture names are all there is.
    let none = architecture("{}");
    assert_eq!(role(&none, "layer"), Role::Linear);
    assert_eq!(role(&none, "layers.0.gate"), Role::Edge);
    assert_eq!(role(&none, "a.relative_attention_bias"), Role::Edge);
    assert_eq!(none.without_prefix("model.layers.0"), "layers.0");
}

#[test]
fn the_prefix_of_what_is_not_known_stands_before_all_numbers() {
    let unknown = |names: &[&'static str]| {
        architecture(r#"{"model_type": "of tomorrow"}"#).with_names(names.iter().copied())
    };
    let one = unknown(&["head.weight", "trunk.blocks.0.up", "trunk.blocks.1.up"]);
    assert_eq!(one.without_prefix("trunk.blocks.0.up"), "blocks.0.up");
    assert_eq!(one.without_prefix("head"), "head");
    for names in [
        &["head.weight", "trunk.up"][..],
        &["blocks.0.up", "blocks.1.up"],
        &["trunk.blocks.0.up", "crown.blocks.0.up"],
        &["trunk.blocks.0.up", "blocks.0.up"],
    ] {
        let none = unknown(names);
        for name in names {
            assert_eq!(none.without_prefix(name), *name, "{names:?}");
        }
    }
    let known = architecture(r#"{"model_type": "t5"}"#).with_names(["encoder.block.0.up"]);
    assert_eq!(
        known.without_prefix("encoder.block.0.up"),
        "encoder.block.0.up"
    );
}
