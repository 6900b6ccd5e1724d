//! What `tc` does: the ingress qdisc, and the one filter on it that sends every packet to another interface.
//!
//! The classifier is u32 with a key that matches everything; `matchall` and `flower` are not in every kernel. Our filter is
//! known by its priority, so that another's is never removed.

use super::netlink::{Attributes, CREATE, EXCLUSIVE, Netlink, NetlinkError, Request, attribute, text, u32_at};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`.
const FIXED: usize = 20;
/// `TC_H_INGRESS`: where ingress and clsact qdiscs hang.
const INGRESS: u32 = 0xffff_fff1;
/// The handle of both, ffff: in tc's words.
const HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;
/// The priority of our filter. Nobody else picks it.
const PRIORITY: u16 = 0xce11;

const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
/// `TC_U32_TERMINAL`: a match is final.
const TERMINAL: u8 = 1;
/// `TC_ACT_STOLEN`: the packet is not seen by the interface it came to.
const STOLEN: u32 = 4;
/// `TCA_EGRESS_REDIR`.
const EGRESS_REDIRECT: u32 = 1;

/// What hangs at an interface's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ingress {
    Nothing,
    /// An ingress qdisc without any filter, or with ours alone.
    Ours,
    /// Another's: what it is.
    Foreign(&'static str),
}

/// Looks at an interface's ingress.
pub(super) fn ingress(netlink: &mut Netlink, index: u32) -> Result<Ingress, NetlinkError> {
    let request = Request {
        action: "list queueing disciplines",
        kind: RTM_GETQDISC,
        flags: 0,
        fixed: &fixed(index, 0, 0, 0),
        attributes: Attributes::new(),
    };
    // Older kernels list those of every interface.
    let at_ingress = |payload: &[u8]| {
        let here = u32_at(payload, 4) == Some(index) && u32_at(payload, 12) == Some(INGRESS);
        here.then(|| kind(payload) == Some("ingress"))
    };
    match netlink.list(&request, at_ingress)?.as_slice() {
        [] => return Ok(Ingress::Nothing),
        [true] => {}
        _ => return Ok(Ingress::Foreign("clsact qdisc")),
    }
    let request = Request {
        action: "list filters",
        kind: RTM_GETTFILTER,
        flags: 0,
        fixed: &fixed(index, 0, HANDLE, 0),
        attributes: Attributes::new(),
    };
    let ours = |payload: &[u8]| Some(u32_at(payload, 16)? >> 16 == u32::from(PRIORITY));
    let all_ours = netlink.list(&request, ours)?.into_iter().all(|ours| ours);
    Ok(if all_ours {
        Ingress::Ours
    } else {
        Ingress::Foreign("filter on its ingress qdisc")
    })
}

/// Sends every packet that comes in at `from` out through `to`.
pub(super) fn redirect(netlink: &mut Netlink, from: u32, to: u32) -> Result<(), NetlinkError> {
    netlink.done(Request {
        action: "add an ingress qdisc",
        kind: RTM_NEWQDISC,
        flags: CREATE | EXCLUSIVE,
        fixed: &fixed(from, HANDLE, INGRESS, 0),
        attributes: Attributes::new().text(TCA_KIND, "ingress"),
    })?;
    let info = u32::from(PRIORITY) << 16 | u32::from(ETH_P_ALL.to_be());
    netlink.done(Request {
        action: "add a u32 filter that redirects (cls_u32, act_mirred)",
        kind: RTM_NEWTFILTER,
        flags: CREATE | EXCLUSIVE,
        fixed: &fixed(from, 0, HANDLE, info),
        attributes: match_all_redirect(to),
    })
}

/// Removes the ingress qdisc and with it its filters. One that is not there is no error.
pub(super) fn remove(netlink: &mut Netlink, index: u32) -> Result<(), NetlinkError> {
    let removed = netlink.done(Request {
        action: "delete an ingress qdisc",
        kind: RTM_DELQDISC,
        flags: 0,
        fixed: &fixed(index, HANDLE, INGRESS, 0),
        attributes: Attributes::new(),
    });
    match removed {
        Err(error) if error.is_absence() => Ok(()),
        other => other,
    }
}

fn match_all_redirect(to: u32) -> Attributes {
    // struct tc_u32_sel with one struct tc_u32_key: value 0 under mask 0 at offset 0.
    let mut selector = [0; 16 + 16];
    selector[0] = TERMINAL;
    selector[2] = 1;
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let mirred: Vec<u8> = [0, 0, STOLEN, 0, 0, EGRESS_REDIRECT, to]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    let action = Attributes::new()
        .text(TCA_ACT_KIND, "mirred")
        .nested(TCA_ACT_OPTIONS, Attributes::new().bytes(TCA_MIRRED_PARMS, &mirred));
    let options = Attributes::new()
        .bytes(TCA_U32_SEL, &selector)
        // The first and only action of the list.
        .nested(TCA_U32_ACT, Attributes::new().nested(1, action));
    Attributes::new().text(TCA_KIND, "u32").nested(TCA_OPTIONS, options)
}

fn kind(payload: &[u8]) -> Option<&str> {
    text(attribute(payload, FIXED, TCA_KIND)?)
}

/// `struct tcmsg`.
fn fixed(index: u32, handle: u32, parent: u32, info: u32) -> [u8; FIXED] {
    let mut bytes = [0; FIXED];
    for (at, value) in [(4, index), (8, handle), (12, parent), (16, info)] {
        if let Some(field) = bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_ne_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_is_the_one_that_tc_would_make() {
        let filter = match_all_redirect(0x0102_0304);
        let options = attribute(filter.as_bytes(), 0, TCA_OPTIONS).unwrap();
        let selector = attribute(options, 0, TCA_U32_SEL).unwrap();
        assert_eq!((selector.len(), selector[0], selector[2]), (32, 1, 1));
        assert!(selector[3..].iter().all(|byte| *byte == 0));
        let action = attribute(attribute(options, 0, TCA_U32_ACT).unwrap(), 0, 1).unwrap();
        assert_eq!(attribute(action, 0, TCA_ACT_KIND).and_then(text), Some("mirred"));
        let parameters = attribute(action, 0, TCA_ACT_OPTIONS).unwrap();
        let mirred = attribute(parameters, 0, TCA_MIRRED_PARMS).unwrap();
        assert_eq!(
            (mirred.len(), u32_at(mirred, 20), u32_at(mirred, 24)),
            (28, Some(1), Some(0x0102_0304))
        );
    }
}
