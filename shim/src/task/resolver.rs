//! The pod's name service: from the `resolv.conf` that containerd prepared for its sandbox.
//!
//! What is in it is the host's word and is checked by the agent. Here it is bounded, so that an odd file cannot make the pod
//! fail: what is too long or too much is left out.

use std::io::Read;
use std::net::IpAddr;

use super::network::Resolver;
use crate::bundle::Bundle;

/// Longest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// Most name servers: a C library looks at three.
const MAX_SERVERS: usize = 3;
/// Most search domains: Kubernetes' bound.
const MAX_SEARCH: usize = 32;
/// Most options.
const MAX_OPTIONS: usize = 16;
/// Longest domain, in bytes.
const MAX_DOMAIN: usize = 253;
/// Longest option, in bytes.
const MAX_OPTION: usize = 64;
/// Where the file is mounted.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the file says that `bundle` mounts on `/etc/resolv.conf`; nothing where there is none. Blocking.
pub(super) fn of_bundle(bundle: &Bundle) -> Resolver {
    let mut mounts = bundle.spec.mounts.iter();
    let Some(mount) = mounts.find(|mount| mount.destination == RESOLV_CONF) else {
        return Resolver::default();
    };
    // Nothing that could make the open wait.
    if !std::fs::metadata(&mount.source).is_ok_and(|metadata| metadata.is_file()) {
        return Resolver::default();
    }
    let mut text = Vec::new();
    let read = std::fs::File::open(&mount.source).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text));
    match read {
        Ok(_) => parse(&String::from_utf8_lossy(&text)),
        Err(_) => Resolver::default(),
    }
}

/// What DNS settings in separate lists say.
pub(super) fn of_lists(servers: &[String], search: &[String], options: &[String]) -> Resolver {
    let mut resolver = Resolver::default();
    servers.iter().for_each(|server| add_server(&mut resolver, server));
    add_search(&mut resolver, search.iter().map(String::as_str));
    add_options(&mut resolver, options.iter().map(String::as_str));
    resolver
}

/// `resolv.conf(5)`: the last `search` or `domain` counts, everything else adds up.
fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => words.take(1).for_each(|server| add_server(&mut resolver, server)),
            Some("search" | "domain") => {
                resolver.search_domains.clear();
                add_search(&mut resolver, words);
            }
            Some("options") => add_options(&mut resolver, words),
            _ => {}
        }
    }
    resolver
}

/// A loopback address is the host's own: nobody answers there in the guest.
fn add_server(resolver: &mut Resolver, text: &str) {
    let parsed = text.parse::<IpAddr>().ok().filter(|address| !address.is_loopback());
    if let Some(address) = parsed
        && resolver.name_servers.len() < MAX_SERVERS
    {
        resolver.name_servers.push(address.to_string());
    }
}

fn add_search<'a>(resolver: &mut Resolver, words: impl Iterator<Item = &'a str>) {
    let left = MAX_SEARCH.saturating_sub(resolver.search_domains.len());
    let usable = words.filter(|word| is_word(word, MAX_DOMAIN)).take(left);
    resolver.search_domains.extend(usable.map(str::to_owned));
}

fn add_options<'a>(resolver: &mut Resolver, words: impl Iterator<Item = &'a str>) {
    let left = MAX_OPTIONS.saturating_sub(resolver.options.len());
    let usable = words.filter(|word| is_word(word, MAX_OPTION)).take(left);
    resolver.options.extend(usable.map(str::to_owned));
}

fn is_word(word: &str, max: usize) -> bool {
    (1..=max).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::oci::{Mount, Spec};

    #[test]
    fn a_file_as_kubelet_writes_it() {
        let text = "# x\nsearch ns.svc.cluster.local svc.cluster.local\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5 edns0\n";
        let expected = Resolver {
            name_servers: vec!["10.96.0.10".into(), "fd00::a".into()],
            search_domains: vec!["ns.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into(), "edns0".into()],
        };
        assert_eq!(parse(text), expected);
        let lists = of_lists(&expected.name_servers, &expected.search_domains, &expected.options);
        assert_eq!(lists, expected);
    }

    #[test]
    fn what_is_odd_is_left_out_and_the_rest_is_bounded() {
        let mut text =
            "nameserver 127.0.0.53\nnameserver x\nnameserver\nsearch old\ndomain new\noptions \u{7f}\n".to_owned();
        for number in 0..100 {
            text.push_str(&format!("nameserver 10.0.0.{number}\noptions o{number}\n"));
        }
        text.push_str(&format!("search {} ok {}", "x".repeat(300), "d ".repeat(100)));
        let resolver = parse(&text);
        assert_eq!(resolver.name_servers, ["10.0.0.0", "10.0.0.1", "10.0.0.2"]);
        assert_eq!(
            (resolver.options.len(), resolver.search_domains.len()),
            (MAX_OPTIONS, MAX_SEARCH)
        );
        assert_eq!(resolver.search_domains[0], "ok");
    }

    #[test]
    fn the_bundle_names_the_file_and_it_need_not_be_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        let bundle = |source: &str| Bundle {
            dir: "/b".into(),
            spec: Spec {
                mounts: vec![Mount {
                    destination: RESOLV_CONF.into(),
                    source: source.into(),
                    ..Default::default()
                }],
                ..Default::default()
            },
        };
        assert_eq!(of_bundle(&bundle(&path.display().to_string())), Resolver::default());
        std::fs::write(&path, "nameserver 10.0.0.1\n").unwrap();
        let resolver = of_bundle(&bundle(&path.display().to_string()));
        assert_eq!(resolver.name_servers, ["10.0.0.1"]);
        assert_eq!(of_bundle(&bundle("/dev/zero")), Resolver::default());
    }
}
