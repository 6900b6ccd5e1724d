//! Layer annotations: wrapped keys and public options, from a manifest that anybody can write.
#![no_main]
use std::collections::BTreeMap;

use cella_seal::{
    Kek,
    packet::{AnnotationPacket, PubOpts, unwrap_layer},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (&str, &str, BTreeMap<String, String>)| {
    let (packet, options, annotations) = data;
    let kek = Kek::from_slice(&[7; 32]).expect("32 bytes");
    if let Ok(packet) = AnnotationPacket::parse(packet) {
        let _ = packet.unwrap(&kek);
    }
    let _ = PubOpts::parse(options);
    let mut both = annotations;
    both.insert("org.opencontainers.image.enc.keys.provider.attestation-agent".to_owned(), packet.to_owned());
    both.insert("org.opencontainers.image.enc.pubopts".to_owned(), options.to_owned());
    let _ = unwrap_layer(&both, |_| Some(&kek));
});
