//! The kernel of each guest image keeps `guest-image/kernel.contract`: read from the configuration of the very build. Needs
//! `make guest-image`, and fails without it.
use std::{env, fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use cella_tests::{kernel_contract::Contract, stack::repository};

#[test]
fn t10_t12_t14_t15_the_built_kernel_keeps_its_contract() -> Result<()> {
    let source = repository().join("guest-image");
    let contract = Contract::parse(&fs::read_to_string(source.join("kernel.contract"))?)?;
    for kind in ["sim", "hw"] {
        let image = image(kind)?;
        let config = read(&image, "kernel.config")?;
        let cmdline = read(&image, "cmdline")?;
        let broken = contract.broken_by(&config, &cmdline)?;
        ensure!(
            broken.is_empty(),
            "the kernel of {} breaks {} of {} demands:\n{}",
            image.display(),
            broken.len(),
            contract.demands(),
            broken.join("\n")
        );
        let version = version(&image)?;
        ensure!(
            config.contains(&format!(
                "# Linux/x86 {} Kernel Configuration",
                version.trim_end_matches("-cella")
            )),
            "{}: kernel.config is not that of vmlinuz, which is Linux {version}",
            image.display()
        );
    }
    Ok(())
}

/// What `scripts/guest-image` made.
fn image(kind: &str) -> Result<PathBuf> {
    let cache = match env::var_os("CELLA_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("neither CELLA_CACHE nor HOME is set")?).join(".cache/cella"),
    };
    Ok(cache.join("guest-image").join(kind))
}

fn read(image: &std::path::Path, name: &str) -> Result<String> {
    let path = image.join(name);
    fs::read_to_string(&path).with_context(|| format!("{}: run `make guest-image`", path.display()))
}

/// The version that a bzImage states in its header.
fn version(image: &std::path::Path) -> Result<String> {
    let kernel = fs::read(image.join("vmlinuz"))?;
    let offset = kernel.get(0x20e..0x210).context("vmlinuz is too short")?;
    let start = 0x200 + usize::from(u16::from_le_bytes(offset.try_into()?));
    let text = kernel.get(start..start + 64).context("vmlinuz is too short")?;
    let version = text.split(|&byte| byte == b' ' || byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8(version.to_vec())?)
}
