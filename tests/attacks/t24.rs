//! T24: secrets in what stays readable when an image is encrypted.
use std::fs;

use anyhow::{Result, bail, ensure};
use cella_tests::{Fixture, fixture::IMAGE_KEY};

use crate::attack::{Attack, Ground, On, Seen, Threat, told};

pub(crate) const THREAT: Threat = Threat {
    number: 24,
    title: "Image config in the clear",
    attacks: &[
        Attack {
            name: "a_secret_in_the_images_environment",
            tried: "an owner encrypts an image whose configuration has `API_KEY=…`",
            on: On::Desk,
            run: in_environment,
        },
        Attack {
            name: "a_secret_in_the_workloads_environment",
            tried: "an owner writes a policy whose environment has `API_KEY=…`",
            on: On::Desk,
            run: in_policy,
        },
    ],
    open: &[],
};

const SECRET: &str = "API_KEY=canary-of-the-key";

fn in_environment(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let file = |name: &str| f.stack.path(name).to_string_lossy().into_owned();
    let layout = secret_image(f)?;
    let encrypt = |out: &str, further: &[&str]| {
        let (from, to, kek) = (format!("oci:{layout}"), format!("oci:{}", file(out)), file("image.kek"));
        let args = ["image", "encrypt", &from, &to, "--key", IMAGE_KEY, "--key-file", &kek];
        f.stack.cellactl(args.iter().chain(further))
    };
    encrypt("secret-allowed.oci", &["--allow-env", "API_KEY"])?;
    let shown = fs::read_dir(f.stack.path("secret-allowed.oci/blobs/sha256"))?
        .flatten()
        .any(|blob| {
            fs::read(blob.path()).is_ok_and(|bytes| bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes()))
        });
    ensure!(shown, "the configuration of an encrypted image should show it");
    let Err(error) = encrypt("secret.oci", &[]) else {
        bail!("it was encrypted");
    };
    let said = told(&error);
    ensure!(
        said.contains("API_KEY") && said.contains("looks like a secret") && !said.contains("canary"),
        "{said}"
    );
    Ok(Seen::new(
        "with `--allow-env API_KEY` it is encrypted, and the value stands in the clear in the result",
        said,
    ))
}

/// An image that has the secret built in. `cellactl image build` refuses that as well, so its configuration is changed by hand.
fn secret_image(f: &Fixture) -> Result<String> {
    let layout = f.stack.path("secret-plain.oci").to_string_lossy().into_owned();
    let rootfs = f.stack.path("probe").to_string_lossy().into_owned();
    let build = |further: &[&str]| {
        let args = [
            "image",
            "build",
            "--tag",
            "secret",
            "--from-dir",
            &rootfs,
            "--entrypoint",
            "/bin/busybox",
            "--env",
            SECRET,
            "--workdir",
            "/",
            "--out",
            &layout,
        ];
        f.stack.cellactl(args.iter().chain(further))
    };
    ensure!(build(&[]).is_err(), "an image with a secret was built");
    build(&["--allow-env", "API_KEY"])?;
    Ok(layout)
}

fn in_policy(g: &Ground) -> Result<Seen> {
    let f = g.fixture()?;
    let with = |further: &str| {
        f.shell("true")
            .container(&format!("env = [\"PATH=/bin\", {SECRET:?}]\n{further}"))
            .write(&f.stack)
    };
    let allowed = with("allow-env = [\"API_KEY\"]\n")?;
    ensure!(fs::read_to_string(&allowed.initdata)?.contains(SECRET));
    let Err(error) = with("") else {
        bail!("the policy was written");
    };
    let said = told(&error);
    ensure!(
        said.contains("API_KEY") && said.contains("looks like a secret") && !said.contains("canary"),
        "{said}"
    );
    Ok(Seen::new(
        "with `allow-env` the policy is written, and everybody can read the value in it",
        said,
    ))
}
