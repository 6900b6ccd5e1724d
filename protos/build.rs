//! Generates the message types and the ttrpc stubs from `proto/agent.proto`; pure Rust, no protoc.
use std::{env, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo::rerun-if-changed=proto/agent.proto");
    ttrpc_codegen::Codegen::new()
        .out_dir(&out)
        .inputs(["proto/agent.proto"])
        .include("proto")
        .rust_protobuf()
        .customize(ttrpc_codegen::Customize {
            async_all: true,
            gen_mod: false,
            ..Default::default()
        })
        .rust_protobuf_customize(ttrpc_codegen::ProtobufCustomize::default().gen_mod_rs(false))
        .run()?;
    // Generated files carry inner attributes, so they cannot be include!d directly; modules by path can.
    let module = |name: &str| format!("#[path = {:?}]\npub mod {name};\n", out.join(format!("{name}.rs")));
    fs::write(out.join("pmod.rs"), module("agent") + &module("agent_ttrpc"))?;
    Ok(())
}
