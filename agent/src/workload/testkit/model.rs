//! Sealed models: sealed and pushed.

use bytes::Bytes;
use cella_oci::{
    Digest, Manifest, media_type,
    modelpack::{Kind, ModelDescriptor, ModelParameters, NewLayer, NewModel, write_model},
};
use cella_seal::{
    DataKey, PlainDigest,
    packet::{Cipher, PrivateOptions, PubOpts, wrap_layer},
    place::associated_data,
    stream::{Layout, Sealer},
};

use super::{registry::TestRegistry, *};

pub(crate) const NAME: &str = "models/demo";

/// A file of a model, sealed or not.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) plain: Vec<u8>,
    pub(crate) stored: Vec<u8>,
    pub(crate) layer: NewLayer,
}

/// Bytes that differ from segment to segment.
pub(crate) fn content(length: usize, seed: u32) -> Vec<u8> {
    (0..length)
        .map(|at| {
            u32::try_from(at)
                .unwrap()
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed)
                .to_be_bytes()[0]
        })
        .collect()
}

/// Seals `plain` for `path` in version 1 of the model of these tests.
pub(crate) fn sealed(path: &str, kind: Kind, plain: Vec<u8>) -> File {
    sealed_for(NAME, 1, 2, path, kind, plain)
}

/// Seals under the key that is all `key`.
pub(crate) fn sealed_for(name: &str, version: u64, key: u8, path: &str, kind: Kind, plain: Vec<u8>) -> File {
    let layout = Layout::from_plaintext_len(plain.len().try_into().unwrap()).unwrap();
    let data_key = DataKey::random().unwrap();
    let place = associated_data(name, path, version).unwrap();
    let sealer = Sealer::new(&data_key, &place, layout).unwrap();
    let mut stored = sealer.header().to_bytes().to_vec();
    for segment in layout.iter() {
        let range = usize::try_from(segment.plaintext.start).unwrap()..usize::try_from(segment.plaintext.end).unwrap();
        let mut body = plain[range].to_vec();
        let tag = sealer.seal_in_place(segment.index, &mut body).unwrap();
        stored.extend_from_slice(&body);
        stored.extend_from_slice(&tag);
    }
    let digest = Digest::of(&plain);
    let public = PubOpts {
        cipher: Cipher::TinkStream,
        hmac: None,
    };
    let private = PrivateOptions {
        symkey: data_key,
        digest: PlainDigest(*digest.as_bytes()),
        nonce: None,
    };
    let annotations = wrap_layer(&public, &private, &kek(key), MODEL_KID).unwrap();
    let layer = NewLayer {
        path: path.parse().unwrap(),
        kind,
        digest: Digest::of(&stored),
        size: stored.len().try_into().unwrap(),
        diff_id: digest,
        key_annotations: Some(annotations),
    };
    File { plain, stored, layer }
}

/// A file in the clear.
pub(crate) fn clear(path: &str, kind: Kind, plain: Vec<u8>) -> File {
    let digest = Digest::of(&plain);
    let size = plain.len().try_into().unwrap();
    let layer = NewLayer {
        path: path.parse().unwrap(),
        kind,
        digest,
        size,
        diff_id: digest,
        key_annotations: None,
    };
    File {
        stored: plain.clone(),
        plain,
        layer,
    }
}

/// Pushes version 1 of the model of these tests. Gives its reference.
pub(crate) async fn push(registry: &TestRegistry, files: &[File]) -> String {
    push_changed(registry, files, |_| {}).await
}

/// Pushes a model whose manifest `change` may falsify.
pub(crate) async fn push_changed(
    registry: &TestRegistry,
    files: &[File],
    change: impl FnOnce(&mut Manifest),
) -> String {
    let client = registry.client();
    for file in files {
        client.push_blob(NAME, Bytes::from(file.stored.clone())).await.unwrap();
    }
    let layers = files.iter().map(|file| file.layer.clone()).collect();
    let model = NewModel {
        name: NAME.to_owned(),
        version: 1,
        descriptor: ModelDescriptor::default(),
        parameters: ModelParameters::default(),
        layers,
    };
    let (config, mut manifest) = write_model(model).unwrap();
    change(&mut manifest);
    client.push_blob(NAME, Bytes::from(config)).await.unwrap();
    let bytes = Bytes::from(manifest.to_json().unwrap());
    let digest = client
        .push_manifest(NAME, None, media_type::OCI_MANIFEST, bytes)
        .await
        .unwrap();
    format!("localhost:5000/{NAME}@{digest}")
}
