//! One nftables table in the pod's namespace: TCP connections over the loopback, to whatever port, end at the shim's
//! listeners. In nft's words:
//!
//! ```text
//! table inet cella {
//!   flags owner
//!   chain forwards {
//!     type nat hook output priority dstnat; policy accept;
//!     oif lo meta nfproto ipv4 meta l4proto tcp redirect to :PORT4
//!     oif lo meta nfproto ipv6 meta l4proto tcp redirect to :PORT6
//!   }
//! }
//! ```
//! The owner is the socket that made it: the table goes with the shim, however that ends. Kernels before 5.12 know no owner;
//! there [`remove`] takes it away.

use super::netlink::{Attributes, CREATE, EXCLUSIVE, Netlink, NetlinkError, Request};

const TABLE: &str = "cella";
const CHAIN: &str = "forwards";
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, the upper half of the message types below.
const NFTABLES: u16 = 10;
const NEW_TABLE: u16 = NFTABLES << 8;
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
const NEW_CHAIN: u16 = NFTABLES << 8 | 3;
const NEW_RULE: u16 = NFTABLES << 8 | 6;
const APPEND: u16 = 0x800;
/// `NFT_TABLE_F_OWNER`.
const OWNER: u32 = 2;
/// `NF_INET_LOCAL_OUT`.
const OUTPUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`, -100.
const DSTNAT: u32 = u32::MAX - 99;
/// The loopback's index, in every namespace.
const LOOPBACK: u32 = 1;
/// `NFT_REG_1`.
const REGISTER: u32 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const TCP: u8 = 6;

/// Makes the table in the namespace that `netlink` was opened in, and gives it to that socket.
pub(super) fn install(netlink: &mut Netlink, port_v4: u16, port_v6: Option<u16>) -> Result<(), NetlinkError> {
    match netlink.all_done(table(OWNER, port_v4, port_v6)) {
        // EOPNOTSUPP, EINVAL: no such flag.
        Err(NetlinkError::Refused { source, .. }) if matches!(source.raw_os_error(), Some(95 | 22)) => {
            netlink.all_done(table(0, port_v4, port_v6))
        }
        other => other,
    }
}

/// Removes a table that has no owner. That there is none, or no nftables at all, is no error; nor is an owner, with whom the
/// table will go.
pub(super) fn remove(netlink: &mut Netlink) -> Result<(), NetlinkError> {
    let request = Request {
        action: "delete an nftables table",
        kind: DELETE_TABLE,
        flags: 0,
        fixed: &INET,
        attributes: Attributes::new().text(1, TABLE),
    };
    match netlink.all_done(batch(vec![request])) {
        // ENOENT; EPERM: owned; EOPNOTSUPP, EINVAL: no nf_tables in this kernel.
        Err(NetlinkError::Refused { source, .. }) if matches!(source.raw_os_error(), Some(2 | 1 | 95 | 22)) => Ok(()),
        other => other,
    }
}

/// `struct nfgenmsg` for the family inet.
const INET: [u8; 4] = [1, 0, 0, 0];
/// `struct nfgenmsg` that says whose batch it is.
const BATCH: [u8; 4] = [0, 0, 0, 10];

fn batch(requests: Vec<Request<'_>>) -> Vec<Request<'_>> {
    let mark = |kind| Request {
        action: "take an nftables batch",
        kind,
        flags: 0,
        fixed: &BATCH,
        attributes: Attributes::new(),
    };
    let mut all = vec![mark(BATCH_BEGIN)];
    all.extend(requests);
    all.push(mark(BATCH_END));
    all
}

fn table(flags: u32, port_v4: u16, port_v6: Option<u16>) -> Vec<Request<'static>> {
    let hook = Attributes::new().be32(1, OUTPUT).be32(2, DSTNAT);
    let new = |kind, flags, attributes| Request {
        action: "make an nftables table that redirects (nft_chain_nat, nft_redir)",
        kind,
        flags,
        fixed: &INET,
        attributes,
    };
    let mut requests = vec![
        new(
            NEW_TABLE,
            CREATE | EXCLUSIVE,
            Attributes::new().text(1, TABLE).be32(2, flags),
        ),
        new(
            NEW_CHAIN,
            CREATE | EXCLUSIVE,
            Attributes::new()
                .text(1, TABLE)
                .text(3, CHAIN)
                .nested(4, hook)
                .text(7, "nat"),
        ),
        new(NEW_RULE, CREATE | APPEND, rule(NFPROTO_IPV4, port_v4)),
    ];
    requests.extend(port_v6.map(|port| new(NEW_RULE, CREATE | APPEND, rule(NFPROTO_IPV6, port))));
    batch(requests)
}

fn rule(family: u8, port: u16) -> Attributes {
    // Keys of `meta`: NFT_META_OIF 5, NFT_META_NFPROTO 15, NFT_META_L4PROTO 16.
    let expressions = [
        meta(5),
        equals(&LOOPBACK.to_ne_bytes()),
        meta(15),
        equals(&[family]),
        meta(16),
        equals(&[TCP]),
        expression(
            "immediate",
            Attributes::new()
                .be32(1, REGISTER)
                .nested(2, Attributes::new().bytes(1, &port.to_be_bytes())),
        ),
        expression("redir", Attributes::new().be32(1, REGISTER)),
    ];
    let list = expressions
        .into_iter()
        .fold(Attributes::new(), |list, one| list.nested(1, one));
    Attributes::new().text(1, TABLE).text(2, CHAIN).nested(4, list)
}

fn meta(key: u32) -> Attributes {
    expression("meta", Attributes::new().be32(1, REGISTER).be32(2, key))
}

fn equals(value: &[u8]) -> Attributes {
    // NFT_CMP_EQ is 0.
    let data = Attributes::new().bytes(1, value);
    expression("cmp", Attributes::new().be32(1, REGISTER).be32(2, 0).nested(3, data))
}

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::new().text(1, name).nested(2, data)
}
