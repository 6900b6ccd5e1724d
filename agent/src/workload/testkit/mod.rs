//! What the tests of this module share: a real registry, images and sealed models pushed to it, policies that name them.

pub(crate) mod image;
pub(crate) mod liar;
pub(crate) mod model;
pub(crate) mod proxy;
pub(crate) mod registry;

use std::sync::Arc;

use cella_policy::Policy;
use cella_seal::Kek;

use super::{
    keys::Keyring,
    outcome::{Outcome, promise},
};

/// Key ids that the policies of these tests name.
pub(crate) const IMAGE_KID: &str = "kbs:///demo/image-kek/1";
pub(crate) const MODEL_KID: &str = "kbs:///demo/model-kek/1";

pub(crate) fn kek(byte: u8) -> Kek {
    Kek::from_slice(&[byte; 32]).unwrap()
}

/// Keys that are there already: the image's is all 1, the model's all 2.
pub(crate) fn keys() -> Outcome<Arc<Keyring>> {
    keyring([(IMAGE_KID, kek(1)), (MODEL_KID, kek(2))])
}

pub(crate) fn keyring<const N: usize>(keys: [(&str, Kek); N]) -> Outcome<Arc<Keyring>> {
    let (promise, outcome) = promise();
    let keyring = keys.into_iter().map(|(kid, key)| (kid.parse().unwrap(), key)).collect();
    promise.fulfil(Ok(Arc::new(keyring)));
    outcome
}

pub(crate) fn log() -> slog::Logger {
    slog::Logger::root(slog::Discard, slog::o!())
}

/// A policy with one container, and a model if `model` gives the part of `cella.toml` behind its name.
pub(crate) struct PolicyText {
    /// Port of the registry.
    pub(crate) port: u16,
    /// The image.
    pub(crate) image: String,
    /// `image-keys` and other lines of the container.
    pub(crate) container: String,
    /// Artifact, version and size of the model `models/demo`.
    pub(crate) model: Option<(String, u64, u64)>,
}

/// The policy of a pod that has version `version` of the model `models/demo` alone. `more` are further lines of the model; `mirrors` are
/// asked before the registry at `port`.
pub(crate) fn model_policy(port: u16, mirrors: &[u16], model: (&str, u64, u64), more: &str) -> Policy {
    let (artifact, version, bytes) = model;
    let text = PolicyText {
        port,
        image: no_image(),
        container: String::new(),
        model: Some((artifact.to_owned(), version, bytes)),
    };
    let mirror = |port: &u16| format!("[[registry.mirror]]\nendpoint = \"http://127.0.0.1:{port}\"\n");
    let mirrors: String = mirrors.iter().map(mirror).collect();
    let text = text
        .text()
        .replacen("[[container]]", &format!("{mirrors}[[container]]"), 1);
    Policy::parse(&format!("{text}{more}")).unwrap()
}

impl PolicyText {
    pub(crate) fn parse(&self) -> Policy {
        Policy::parse(&self.text()).unwrap()
    }

    fn text(&self) -> String {
        let Self {
            port,
            image,
            container,
            model,
        } = self;
        let model = model.as_ref().map(|(artifact, version, bytes)| {
            format!(
                "[[container.mount]]\ndestination = \"/models/demo\"\nmodel = \"models/demo\"\n\
                 [[model]]\nname = \"models/demo\"\nversion = {version}\nartifact = \"{artifact}\"\n\
                 keys = [\"{MODEL_KID}\"]\nbytes = {bytes}\n"
            )
        });
        // A policy without keys has nobody to ask for them.
        let kbs = match model.is_some() || container.contains("image-keys") {
            true => format!("[kbs]\nurl = \"https://127.0.0.1:1\"\nca = \"\"\"{PEM}\"\"\"\n"),
            false => String::new(),
        };
        format!(
            "version = 1\n{kbs}\
             [[registry]]\nname = \"localhost:5000\"\nendpoint = \"http://127.0.0.1:{port}\"\n\
             [[container]]\nname = \"server\"\nimage = \"{image}\"\nargs = [\"/server\"]\nenv = []\ncwd = \"/\"\n\
             user = {{ uid = 0, gid = 0, additional-gids = [] }}\n{container}\n{}",
            model.unwrap_or_default()
        )
    }
}

/// A reference that no test pulls.
pub(crate) fn no_image() -> String {
    format!("localhost:5000/none@sha256:{}", "0".repeat(64))
}

/// A certificate authority in shape only, or a real one where TLS is tried.
const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
