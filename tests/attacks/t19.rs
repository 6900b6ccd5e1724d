//! T19: a KV cache that tenants share.
use crate::attack::{Open, Threat};

pub(crate) const THREAT: Threat = Threat {
    number: 19,
    title: "KV cache shared by tenants",
    attacks: &[],
    open: &[Open {
        name: "prefix_hits_of_another_tenant",
        part: "the time of a prefix hit tells another tenant's prompt",
        because: "the attested ingress, which would tell tenants apart and set the salt, does not exist yet: a server has one client side",
    }],
};
