//! The workload policy; one that parses also prints and parses again as itself.
#![no_main]
use cella_policy::Policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(policy) = Policy::parse(text) {
        let printed = policy.to_toml();
        let again = Policy::parse(&printed).expect("a printed policy parses");
        assert_eq!(again.to_toml(), printed);
    }
});
