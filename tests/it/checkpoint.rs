//! Loading: config dialects, tensor names, damaged files.

use std::path::Path;

use medgemma::model::config::ModelConfig;
use medgemma::model::weights::Weights;

const DEMO_CONFIG: &[u8] = include_bytes!("../../src/registry/demo/config.json");
const DEMO_WEIGHTS: &[u8] = include_bytes!("../../src/registry/demo/model.safetensors");

#[test]
fn the_demo_loads() {
    let config = ModelConfig::from_json(Path::new("config.json"), DEMO_CONFIG).unwrap();
    println!("{config:?} {}", config.num_parameters());
    let weights = Weights::embedded(Path::new("model.safetensors"), DEMO_WEIGHTS).unwrap();
    println!("{:?}", weights.unexpected());
    weights
        .tensor("language_model.model.embed_tokens.weight", &[832, 64])
        .unwrap();
}
