//! Manifests, indexes and image configs.
#![no_main]
use cella_oci::{Index, Manifest, image, image::ImageConfig};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Index::parse(data).map(|index| index.select("linux", "amd64").map(|_| ()));
    let config = ImageConfig::parse(data).ok();
    if let Ok(manifest) = Manifest::parse(data) {
        if let Some(config) = &config {
            let _ = image::layers(&manifest, config);
        }
        let _ = manifest.to_json();
    }
});
