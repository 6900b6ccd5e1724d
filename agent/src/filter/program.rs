//! From the policy's `[network]` to programs that judge packets and connections of the pod's containers.
//!
//! A packet of the loopback passes: it never leaves the pod. Of the others, with *remote* whoever is on the other side:
//!
//! | packet | passes when |
//! |---|---|
//! | out, TCP, the first of a connection | `egress` names the remote |
//! | in, TCP, the first of a connection | `ingress` names the local port, and the ingress is open |
//! | TCP, any other; UDP | one of the two holds |
//! | ICMP | `egress` names the remote for it |
//! | any other protocol, later fragments, extension headers of IPv6 | `egress` is any |
//!
//! There is no memory of connections: a packet that is not the first of its connection passes by the addresses and ports of
//! those that may be made at all. Replies to a UDP port that clients may use can go to everybody.

use std::net::IpAddr;

use cella_policy::{Destination, NetworkPolicy, Protocol, Rule};

use super::insn::{
    Assembler, FRAME, Insn, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, Register, TooLong,
    Width::{Byte, Half, Word},
};

/// Which packets a program judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// Which addresses a program judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

/// The program for packets. What it refuses it counts in the map `counters`, an array of two 64 bit numbers: in, out.
pub(super) fn packets(
    policy: &NetworkPolicy,
    direction: Direction,
    open: bool,
    counters: i32,
) -> Result<Vec<Insn>, TooLong> {
    let mut asm = Assembler::default();
    let (pass, refuse) = (asm.label(), asm.label());
    let (v4, v6) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    asm.load(Word, R2, R6, SKB_IFINDEX);
    asm.jump_if(R2, LOOPBACK, pass);
    asm.load(Word, R2, R6, SKB_PROTOCOL);
    asm.jump_if(R2, big_endian(0x0800), v4);
    asm.jump_if(R2, big_endian(0x86dd), v6);
    asm.jump(refuse);
    let rules = Rules {
        policy,
        direction,
        open,
        pass,
        refuse,
    };
    asm.bind(v4);
    rules.v4(&mut asm);
    asm.bind(v6);
    rules.v6(&mut asm);
    asm.bind(refuse);
    count(&mut asm, direction, counters);
    asm.end(0);
    asm.bind(pass);
    asm.end(1);
    asm.finish()
}

/// The program for connect(2): what no packet would get through is refused at once, and not after two minutes of silence.
/// `own` are the pod's addresses: what goes there stays in the pod.
pub(super) fn connections(policy: &NetworkPolicy, family: Family, own: &[IpAddr]) -> Result<Vec<Insn>, TooLong> {
    let mut asm = Assembler::default();
    let (pass, refuse) = (asm.label(), asm.label());
    asm.copy(R6, R1);
    asm.load(Word, R9, R6, ADDR_PROTOCOL);
    match family {
        Family::V4 => {
            asm.load(Word, R2, R6, ADDR_IP4);
            asm.store_register(ADDRESS, R2);
            destination(&mut asm, policy, Family::V4, own, pass, refuse);
        }
        Family::V6 => {
            let mapped = asm.label();
            for (word, slot) in (0_i16..4).zip([0, 4, 8, 12]) {
                asm.load(Word, R2, R6, ADDR_IP6.saturating_add(word.saturating_mul(4)));
                asm.store_register(ADDRESS.saturating_add(slot), R2);
            }
            // ::ffff:a.b.c.d is an address of IPv4.
            let not_mapped = asm.label();
            for (slot, value) in [(0, 0), (4, 0), (8, big_endian_word(0xffff))] {
                asm.load(Word, R2, FRAME, ADDRESS.saturating_add(slot));
                asm.jump_unless(R2, value, not_mapped);
            }
            asm.jump(mapped);
            asm.bind(not_mapped);
            destination(&mut asm, policy, Family::V6, own, pass, refuse);
            asm.bind(mapped);
            asm.load(Word, R2, FRAME, ADDRESS.saturating_add(12));
            asm.store_register(ADDRESS, R2);
            destination(&mut asm, policy, Family::V4, own, pass, refuse);
        }
    }
    asm.bind(refuse);
    asm.end(0);
    asm.bind(pass);
    asm.end(1);
    asm.finish()
}

/// Judges the address at [`ADDRESS`] and the port and protocol of the context.
fn destination(
    asm: &mut Assembler,
    policy: &NetworkPolicy,
    family: Family,
    own: &[IpAddr],
    pass: Label,
    refuse: Label,
) {
    let local = match family {
        Family::V4 => (IpAddr::from([127, 0, 0, 0]), 8),
        Family::V6 => (IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), 128),
    };
    let longest = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
    let own = own.iter().map(|address| (*address, longest(address)));
    for (address, prefix) in own.chain([local]) {
        if is_of(address, family) {
            let next = asm.label();
            unless_within(asm, address, prefix, ADDRESS, next);
            asm.jump(pass);
            asm.bind(next);
        }
    }
    asm.load(Half, R3, R6, ADDR_PORT);
    for protocol in Protocol::ALL {
        let next = asm.label();
        asm.jump_unless(R9, number(protocol, family), next);
        remote(asm, policy, protocol, family, ADDRESS, pass);
        asm.jump(refuse);
        asm.bind(next);
    }
    asm.jump(if policy.egress.is_any() { pass } else { refuse });
}

struct Rules<'p> {
    policy: &'p NetworkPolicy,
    direction: Direction,
    open: bool,
    pass: Label,
    refuse: Label,
}

impl Rules<'_> {
    fn v4(&self, asm: &mut Assembler) {
        self.load(asm, None, HEADER, 20);
        asm.load(Byte, R7, FRAME, HEADER);
        asm.and(R7, 0xf);
        asm.shift_left(R7, 2);
        asm.jump_if_below(R7, 20, self.refuse);
        asm.load(Half, R2, FRAME, HEADER.saturating_add(6));
        asm.and(R2, big_endian(0x1fff));
        asm.jump_unless(R2, 0, self.other());
        asm.load(Byte, R9, FRAME, HEADER.saturating_add(9));
        let address = match self.direction {
            Direction::In => 12,
            Direction::Out => 16,
        };
        self.protocols(asm, Family::V4, HEADER.saturating_add(address));
    }

    fn v6(&self, asm: &mut Assembler) {
        self.load(asm, None, HEADER, 40);
        asm.set(R7, 40);
        asm.load(Byte, R9, FRAME, HEADER.saturating_add(6));
        let address = match self.direction {
            Direction::In => 8,
            Direction::Out => 24,
        };
        self.protocols(asm, Family::V6, HEADER.saturating_add(address));
    }

    /// What is neither TCP nor UDP nor ICMP.
    fn other(&self) -> Label {
        if self.policy.egress.is_any() {
            self.pass
        } else {
            self.refuse
        }
    }

    /// R9 is the protocol, R7 where its header begins; `address` is the remote's.
    fn protocols(&self, asm: &mut Assembler, family: Family, address: i16) {
        let labels = Protocol::ALL.map(|protocol| (protocol, asm.label()));
        for (protocol, label) in labels {
            asm.jump_if(R9, number(protocol, family), label);
        }
        asm.jump(self.other());
        for (protocol, label) in labels {
            asm.bind(label);
            self.protocol(asm, protocol, family, address);
        }
    }

    fn protocol(&self, asm: &mut Assembler, protocol: Protocol, family: Family, address: i16) {
        let locals = asm.label();
        let (remote_port, local_port) = match self.direction {
            Direction::In => (PORTS, PORTS.saturating_add(2)),
            Direction::Out => (PORTS.saturating_add(2), PORTS),
        };
        match protocol {
            Protocol::Icmp => {}
            Protocol::Udp => self.load(asm, Some(R7), PORTS, 4),
            Protocol::Tcp => {
                self.load(asm, Some(R7), PORTS, 14);
                asm.load(Byte, R8, FRAME, PORTS.saturating_add(13));
                asm.and(R8, SYN | ACK);
                if self.direction == Direction::In {
                    asm.jump_if(R8, SYN, locals);
                }
            }
        }
        if protocol != Protocol::Icmp {
            asm.load(Half, R3, FRAME, remote_port);
        }
        remote(asm, self.policy, protocol, family, address, self.pass);
        if protocol == Protocol::Tcp && self.direction == Direction::Out {
            asm.jump_if(R8, SYN, self.refuse);
        }
        asm.bind(locals);
        self.local(asm, protocol, local_port);
        asm.jump(self.refuse);
    }

    /// Jumps to `pass` where clients may use the local port.
    fn local(&self, asm: &mut Assembler, protocol: Protocol, port: i16) {
        if !self.open {
            return;
        }
        match &self.policy.ingress {
            Rule::Any => asm.jump(self.pass),
            Rule::Only(ports) => {
                let mut ports = ports.iter().filter(|one| one.protocol == protocol).peekable();
                if ports.peek().is_some() {
                    asm.load(Half, R3, FRAME, port);
                }
                for one in ports {
                    asm.jump_if(R3, big_endian(one.port), self.pass);
                }
            }
        }
    }

    /// Copies bytes of the packet, from its network header plus `offset` on, to the stack. Too few are refused.
    fn load(&self, asm: &mut Assembler, offset: Option<Register>, to: i16, length: i32) {
        asm.copy(R1, R6);
        match offset {
            Some(register) => asm.copy(R2, register),
            None => asm.set(R2, 0),
        }
        asm.copy(R3, FRAME);
        asm.add(R3, to.into());
        asm.set(R4, length);
        asm.call(SKB_LOAD_BYTES);
        asm.jump_unless(R0, 0, self.refuse);
    }
}

/// Jumps to `pass` where `egress` names the address on the stack and the port in R3, as it came.
fn remote(asm: &mut Assembler, policy: &NetworkPolicy, protocol: Protocol, family: Family, address: i16, pass: Label) {
    let destinations = match &policy.egress {
        Rule::Any => return asm.jump(pass),
        Rule::Only(destinations) => destinations,
    };
    let named = |one: &&Destination| one.protocol == protocol && is_of(one.address, family);
    for one in destinations.iter().filter(named) {
        let next = asm.label();
        unless_within(asm, one.address, one.prefix, address, next);
        match &one.ports {
            Rule::Any => asm.jump(pass),
            Rule::Only(ports) => ports.iter().for_each(|port| asm.jump_if(R3, big_endian(*port), pass)),
        }
        asm.bind(next);
    }
}

/// Jumps to `next` where the address on the stack is not in the network.
fn unless_within(asm: &mut Assembler, network: IpAddr, prefix: u8, address: i16, next: Label) {
    let octets = match network {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut left = u32::from(prefix);
    for (word, offset) in octets.chunks_exact(4).zip([0_i16, 4, 8, 12]) {
        let bits = left.min(32);
        left = left.saturating_sub(32);
        let mask = u32::MAX.checked_shl(32_u32.saturating_sub(bits)).unwrap_or(0);
        let value = word.iter().fold(0_u32, |value, byte| (value << 8) | u32::from(*byte));
        if mask != 0 {
            asm.load(Word, R2, FRAME, address.saturating_add(offset));
            if mask != u32::MAX {
                asm.and(R2, big_endian_word(mask));
            }
            asm.jump_unless(R2, big_endian_word(value & mask), next);
        }
    }
}

/// Adds one to the direction's number.
fn count(asm: &mut Assembler, direction: Direction, counters: i32) {
    let end = asm.label();
    asm.store(KEY, direction as i32);
    asm.copy(R2, FRAME);
    asm.add(R2, KEY.into());
    asm.map(R1, counters);
    asm.call(MAP_LOOKUP);
    asm.jump_if_null(R0, end);
    asm.set(R1, 1);
    asm.add_to_memory(R0, R1);
    asm.bind(end);
}

fn is_of(address: IpAddr, family: Family) -> bool {
    address.is_ipv4() == (family == Family::V4)
}

fn number(protocol: Protocol, family: Family) -> u32 {
    match (protocol, family) {
        (Protocol::Tcp, _) => 6,
        (Protocol::Udp, _) => 17,
        (Protocol::Icmp, Family::V4) => 1,
        (Protocol::Icmp, Family::V6) => 58,
    }
}

/// A number of the network's as the machine reads its two bytes.
fn big_endian(value: u16) -> u32 {
    u16::from_ne_bytes(value.to_be_bytes()).into()
}

fn big_endian_word(value: u32) -> u32 {
    u32::from_ne_bytes(value.to_be_bytes())
}

/// `struct __sk_buff`.
const SKB_PROTOCOL: i16 = 16;
const SKB_IFINDEX: i16 = 40;
/// `struct bpf_sock_addr`.
const ADDR_IP4: i16 = 4;
const ADDR_IP6: i16 = 8;
const ADDR_PORT: i16 = 24;
const ADDR_PROTOCOL: i16 = 36;

/// `lo` of the network namespace that the pod shares with the guest is its first device.
const LOOPBACK: u32 = 1;
const SYN: u32 = 0x02;
const ACK: u32 = 0x10;

/// The stack: network header, ports and flags, key of the counter; in programs for connections the address.
const HEADER: i16 = -48;
const PORTS: i16 = -64;
const KEY: i16 = -4;
const ADDRESS: i16 = -48;

/// Helpers of the kernel.
const MAP_LOOKUP: i32 = 1;
const SKB_LOAD_BYTES: i32 = 26;
