//! Images: layers built, compressed, encrypted and pushed.

use std::{collections::BTreeMap, io::Write};

use bytes::Bytes;
use cella_oci::{
    Descriptor, Digest, Manifest,
    image::{Compression, layer_media_type},
    media_type,
};
use cella_seal::{
    PlainDigest,
    layer::{EncryptedLayer, LayerEncryptor},
    packet::wrap_layer,
};

use super::{registry::TestRegistry, *};

/// A tar archive under construction.
#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn file(mut self, path: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        // Past the crate's own checks: some of these archives are an attacker's.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(data.len().try_into().unwrap());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// The marker at an archive's end.
    pub(crate) fn end(mut self) -> Self {
        self.0.resize(self.0.len() + 1024, 0);
        self
    }
}

/// A layer as it is pushed.
#[derive(Clone)]
pub(crate) struct Layer {
    pub(crate) blob: Vec<u8>,
    pub(crate) diff_id: Digest,
    pub(crate) compression: Compression,
    pub(crate) annotations: Option<BTreeMap<String, String>>,
}

impl Layer {
    pub(crate) fn plain(tar: &Tar) -> Self {
        Self {
            blob: tar.0.clone(),
            diff_id: Digest::of(&tar.0),
            compression: Compression::None,
            annotations: None,
        }
    }

    pub(crate) fn gzip(tar: &Tar) -> Self {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tar.0).unwrap();
        Self {
            blob: encoder.finish().unwrap(),
            compression: Compression::Gzip,
            ..Self::plain(tar)
        }
    }

    pub(crate) fn zstd(tar: &Tar) -> Self {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let blob = ruzstd::encoding::compress_to_vec(&tar.0[..], level);
        Self {
            blob,
            compression: Compression::Zstd,
            ..Self::plain(tar)
        }
    }

    pub(crate) fn encrypt(self) -> Self {
        self.encrypt_with(|_| {}, 1, IMAGE_KID)
    }

    /// Encrypts under the key that is all `key`, with options that `change` may falsify.
    pub(crate) fn encrypt_with(mut self, change: impl FnOnce(&mut EncryptedLayer), key: u8, kid: &str) -> Self {
        let mut encryptor = LayerEncryptor::new().unwrap();
        encryptor.update(&mut self.blob);
        let mut options = encryptor.finish();
        change(&mut options);
        self.annotations = Some(wrap_layer(&options.public, &options.private, &kek(key), kid).unwrap());
        self
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }
}

/// Options of a layer whose MAC is wrong.
pub(crate) fn wrong_hmac(options: &mut EncryptedLayer) {
    options.public.hmac.as_mut().unwrap()[5] ^= 1;
}

/// Options of a layer whose plaintext digest is wrong.
pub(crate) fn wrong_digest(options: &mut EncryptedLayer) {
    options.private.digest = PlainDigest([7; 32]);
}

/// Pushes an image of these layers, the lowest first. Gives its reference.
pub(crate) async fn push(registry: &TestRegistry, layers: &[Layer]) -> String {
    let (client, repository) = (registry.client(), "demo/image");
    let mut descriptors = Vec::new();
    for layer in layers {
        let digest = client
            .push_blob(repository, Bytes::from(layer.blob.clone()))
            .await
            .unwrap();
        descriptors.push(Descriptor {
            media_type: layer_media_type(layer.compression, layer.annotations.is_some()),
            digest,
            size: layer.blob.len().try_into().unwrap(),
            annotations: layer.annotations.clone().unwrap_or_default(),
            platform: None,
        });
    }
    let diff_ids: Vec<_> = layers.iter().map(|layer| format!("\"{}\"", layer.diff_id)).collect();
    let config = format!(
        "{{\"architecture\":\"amd64\",\"os\":\"linux\",\"config\":{{\"User\":\"nobody:65534\"}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
        diff_ids.join(",")
    );
    let digest = client.push_blob(repository, Bytes::from(config.clone())).await.unwrap();
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor {
            media_type: media_type::OCI_CONFIG.to_owned(),
            digest,
            size: config.len().try_into().unwrap(),
            annotations: BTreeMap::new(),
            platform: None,
        },
        layers: descriptors,
        annotations: BTreeMap::new(),
    };
    let bytes = Bytes::from(manifest.to_json().unwrap());
    let digest = client
        .push_manifest(repository, None, media_type::OCI_MANIFEST, bytes)
        .await
        .unwrap();
    format!("localhost:5000/{repository}@{digest}")
}
