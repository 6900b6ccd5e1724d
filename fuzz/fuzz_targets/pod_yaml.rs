//! Kubernetes YAML as `cellactl policy from-pod` reads it: any bytes are a tree within bounds or an error, and no question to a value
//! panics.
#![no_main]

#[path = "../../cli/src/policy/from_pod/yaml.rs"]
mod yaml;

use libfuzzer_sys::fuzz_target;
use yaml::{Node, Value};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match yaml::parse(text) {
        Ok(documents) => documents.iter().for_each(look),
        Err(error) => assert!(error.to_string().len() < 4096 + text.len()),
    }
});

fn look(node: &Node) {
    let _ = (node.text(), node.truth(), node.number(), node.word());
    match &node.value {
        Value::Scalar { .. } => assert!(node.entries().is_err() && node.items().is_err()),
        Value::List(items) => items.iter().for_each(look),
        Value::Map(entries) => {
            for (key, value) in entries {
                // A key stands once; `null` is as if it were not there.
                assert!(node.get(key).is_none_or(|found| std::ptr::eq(found, value)));
                assert_eq!(node.at(&[key]).is_some(), node.get(key).is_some());
                look(value);
            }
        }
    }
}
