use std::collections::BTreeMap;

use super::super::{ModelDescriptor, ModelParameters, NewLayer, NewModel, write_model};
use super::*;

fn layer(path: &str, kind: Kind, sealed: bool) -> NewLayer {
    NewLayer {
        path: path.parse().unwrap(),
        kind,
        digest: Digest::of(path.as_bytes()),
        size: 100,
        diff_id: Digest::of(b"plain"),
        key_annotations: sealed.then(|| BTreeMap::from([("key".to_owned(), "packet".to_owned())])),
    }
}

fn write(layers: Vec<NewLayer>) -> (Vec<u8>, Manifest) {
    let (descriptor, parameters) = (ModelDescriptor::default(), ModelParameters::default());
    write_model(NewModel {
        name: "models/demo".to_owned(),
        version: 7,
        descriptor,
        parameters,
        layers,
    })
    .unwrap()
}

fn demo() -> Manifest {
    write(vec![
        layer("a.gguf", Kind::Weight, true),
        layer("tokenizer.json", Kind::WeightConfig, false),
    ])
    .1
}

fn rules() -> Rules {
    Rules::new("models/demo", 7, 1000)
}

fn check(change: impl FnOnce(&mut Manifest)) -> Result<SealedModel, ModelError> {
    let mut manifest = demo();
    change(&mut manifest);
    sealed_model(&manifest, &rules())
}

#[test]
fn what_is_written_is_read() {
    let layers = vec![
        layer("a.gguf", Kind::Weight, true),
        layer("tokenizer.json", Kind::WeightConfig, false),
    ];
    let (config, manifest) = write(layers);
    let manifest = Manifest::parse(&manifest.to_json().unwrap()).unwrap();
    let model = sealed_model(&manifest, &rules()).unwrap();
    assert_eq!(model.config.digest, Digest::of(&config));
    assert_eq!(
        (model.sealed[0].path.as_str(), model.plain[0].path.as_str()),
        ("a.gguf", "tokenizer.json")
    );
    assert_eq!((model.sealed[0].index, model.plain[0].index), (0, 1));
    assert_eq!(model.sealed[0].descriptor.annotations["key"], "packet");
    let mut config = ModelConfig::parse(&config).unwrap();
    assert_eq!(model.diff_ids(&config).unwrap(), [Digest::of(b"plain"); 2]);
    config.modelfs.diff_ids.pop();
    assert!(matches!(
        model.diff_ids(&config),
        Err(ModelError::LayerCount { listed: 2, named: 1 })
    ));
}

#[test]
fn another_kind_of_artifact_is_refused() {
    let field = |result: Result<SealedModel, ModelError>| match result.unwrap_err() {
        ModelError::NotAModel { field, .. } => field,
        error => panic!("{error}"),
    };
    assert_eq!(field(check(|m| m.media_type = None)), "mediaType");
    assert_eq!(field(check(|m| m.artifact_type = None)), "artifactType");
    assert_eq!(
        field(check(|m| m.config.media_type = "application/x".to_owned())),
        "config.mediaType"
    );
}

#[test]
fn name_and_version_are_the_policys() {
    let set = |key: &'static str, value: &'static str| {
        check(move |m| drop(m.annotations.insert(key.to_owned(), value.to_owned()))).unwrap_err()
    };
    assert!(matches!(set(NAME_ANNOTATION, "models/other"), ModelError::Name { .. }));
    assert!(matches!(
        set(VERSION_ANNOTATION, "6"),
        ModelError::Version { wanted: 7, .. }
    ));
    assert!(matches!(set(VERSION_ANNOTATION, "07"), ModelError::Version { .. }));
    assert!(matches!(check(|m| m.annotations.clear()), Err(ModelError::Name { .. })));
}

#[test]
fn layers_that_break_a_rule_are_refused() {
    let typed = |media_type: &'static str| check(move |m| m.layers[0].media_type = media_type.to_owned()).unwrap_err();
    let prefix = |error: ModelError| error.to_string().split(" is ").next().map(str::to_owned);
    assert!(matches!(typed("application/x"), ModelError::LayerType { .. }));
    for forbidden in [
        "application/vnd.cncf.model.weight.v1.tar+encrypted",
        "application/vnd.cncf.model.code.v1.raw+encrypted",
        "application/vnd.cncf.model.dataset.v1.raw",
    ] {
        let error = typed(forbidden);
        assert!(matches!(error, ModelError::LayerNotAllowed { index: 0, .. }));
        assert_eq!(prefix(error).as_deref(), Some("layer 0"));
    }
    assert!(matches!(
        typed("application/vnd.cncf.model.weight.v1.raw"),
        ModelError::NotSealed { .. }
    ));
    let path = |path: &'static str| {
        check(move |m| {
            drop(
                m.layers[0]
                    .annotations
                    .insert(FILEPATH_ANNOTATION.to_owned(), path.to_owned()),
            )
        })
        .unwrap_err()
    };
    assert!(matches!(path("pytorch_model.bin"), ModelError::WeightFormat { .. }));
    assert!(matches!(path("../a.gguf"), ModelError::Path { .. }));
    assert!(matches!(path("/a.gguf"), ModelError::Path { .. }));
    assert!(matches!(path("tokenizer.json/a.gguf"), ModelError::NestedPath { .. }));
    assert!(matches!(
        check(|m| m.layers[0].annotations.clear()),
        Err(ModelError::NoPath { index: 0 })
    ));
    assert!(matches!(
        check(|m| m.layers.push(m.layers[1].clone())),
        Err(ModelError::DuplicatePath { .. })
    ));
}

#[test]
fn rules_can_allow_more() {
    let (_, manifest) = write(vec![
        layer("pytorch_model.bin", Kind::Weight, true),
        layer("run.py", Kind::Code, true),
    ]);
    let mut rules = rules();
    assert!(matches!(
        sealed_model(&manifest, &rules),
        Err(ModelError::WeightFormat { .. })
    ));
    rules.any_weight_format = true;
    assert!(matches!(
        sealed_model(&manifest, &rules),
        Err(ModelError::LayerNotAllowed { index: 1, .. })
    ));
    rules.kinds.push(Kind::Code);
    assert_eq!(sealed_model(&manifest, &rules).unwrap().sealed.len(), 2);
}

#[test]
fn numbers_and_sizes_are_bounded() {
    assert!(matches!(check(|m| m.layers.clear()), Err(ModelError::Empty)));
    assert!(matches!(
        check(|m| m.layers[0].size = 901),
        Err(ModelError::TooLarge {
            found: 1001,
            limit: 1000
        })
    ));
    assert!(matches!(
        check(|m| m.layers.iter_mut().for_each(|layer| layer.size = 1 << 63)),
        Err(ModelError::TooLarge {
            found: u64::MAX,
            limit: 1000
        })
    ));
    let many = vec![demo().layers[0].clone(); MAX_LAYERS + 1];
    assert!(matches!(
        check(|m| m.layers = many),
        Err(ModelError::TooManyLayers {
            found: 4097,
            limit: 4096
        })
    ));
}
