//! Encrypted answers of a key broker: the message as it comes, and a good message with bytes of it changed.
#![no_main]
use std::sync::LazyLock;

use cella_kbs_client::TeeKey;
use cella_kbs_client::jwe::{Jwe, decrypt, encrypt};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<TeeKey> = LazyLock::new(|| TeeKey::generate().expect("key"));
static GOOD: LazyLock<(Jwe, Vec<u8>)> = LazyLock::new(|| {
    let message = encrypt(&KEY.public(), b"a key of the owner's").expect("message");
    let json = serde_json::to_vec(&message).expect("JSON");
    (message, json)
});

fuzz_target!(|data: &[u8]| {
    refused(data);
    refused(&cella_fuzz::patched(&GOOD.1, data));
});

fn refused(json: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<Jwe>(json) {
        let text = decrypt(&KEY, &message);
        assert_eq!(text.is_ok(), message == GOOD.0, "only the message that was made opens");
    }
}
