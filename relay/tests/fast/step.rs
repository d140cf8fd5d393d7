//! Datagrams on their way to the relay: right ones, and each way to be wrong.
//!
//! Owns how they are made up. Never: decides what becomes of one.

use std::net::SocketAddr;

use proptest::prelude::*;
use rift_relay::mac::forward_mac;
use rift_relay::present::{Present, Proof};
use rift_relay::wire::{FORWARD_LEN, Forward, Role, SessionId};
use wavry_relay::challenge::CHALLENGE_LIFE_MS;
use wavry_relay::direction::JUMP_MAX;
use wavry_runtime::clock::Clock;

use super::fast::model::Model;
use super::fast::{Check, Frame};
use super::{ABSENT, PORT, SLOW, V4, V6, ip};

/// One datagram on its way to the relay.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) id: [u8; 16],
    pub(crate) role: Role,
    pub(crate) sequence: Sequence,
    pub(crate) payload: usize,
    /// Bit of the MAC that is wrong.
    pub(crate) forged: Option<u8>,
    /// 0 the right source, 1 another port, 2 another address.
    pub(crate) from: u8,
    /// 0 the address that the peer knows, 1 the one that the other peer knows, 2 one that is not ours.
    pub(crate) to: u8,
    pub(crate) other_port: bool,
    /// Another tag than the ways have.
    pub(crate) tag: Option<u16>,
    pub(crate) check: Check,
    pub(crate) ip_error: u16,
    pub(crate) flags: u16,
    pub(crate) hops: u8,
    pub(crate) tos: u8,
    pub(crate) slack: usize,
    pub(crate) padding: usize,
    /// (position from the relay's header on, value)
    pub(crate) change: Option<(usize, u8)>,
    /// (position in the frame, value)
    pub(crate) broken: Option<(usize, u8)>,
    pub(crate) cut: Option<usize>,
    /// Something for the relay itself in place of a FORWARD.
    pub(crate) control: Option<Control>,
}

/// What is for the relay itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Probe { len: usize },
    Present { renew: bool, token_len: usize, nonce: u64, proof: Option<Given> },
}

/// Which challenge a proof answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Given {
    /// One that was given so long ago.
    Ago(u64),
    /// One that will be given.
    Later(u64),
    /// One with this bit wrong.
    Forged(usize),
    /// The other peer's.
    Others,
}

pub(crate) fn control() -> impl Strategy<Value = Control> {
    let given = prop_oneof![
        4 => (0u64..20_000).prop_map(Given::Ago),
        1 => (CHALLENGE_LIFE_MS + 1..100_000).prop_map(Given::Ago),
        1 => (1000u64..10_000).prop_map(Given::Later),
        2 => (0usize..192).prop_map(Given::Forged),
        1 => Just(Given::Others),
    ];
    let proof = prop_oneof![Just(None), given.prop_map(Some)];
    let token_len = prop_oneof![8 => 64usize..1025, 1 => 0usize..64, 1 => 1025usize..1200];
    prop_oneof![
        1 => prop_oneof![4 => Just(36), 1 => 20usize..60].prop_map(|len| Control::Probe { len }),
        4 => (any::<bool>(), token_len, any::<u64>(), proof).prop_map(|(renew, token_len, nonce, proof)| {
            Control::Present { renew, token_len, nonce, proof }
        }),
    ]
}

impl Control {
    /// The datagram, of a peer of a session that sends it from an address.
    pub(crate) fn payload(&self, model: &Model, from: SocketAddr, session: SessionId, role: Role) -> Vec<u8> {
        let mut out = Vec::new();
        match *self {
            Self::Probe { len } => {
                out.extend([0x57, 1, 0x20, 0]);
                out.extend(session.0);
                out.extend((out.len()..len).map(|n| n as u8));
            }
            Self::Present { renew, token_len, nonce, proof } => {
                let token: Vec<u8> = (0..token_len).map(|n| n as u8).collect();
                let now_ms = Clock.now() / 1_000_000;
                let given = proof.map(|given| match given {
                    Given::Ago(ms) => model.challenges.give(from, session, role, now_ms.saturating_sub(ms)),
                    Given::Later(ms) => model.challenges.give(from, session, role, now_ms + ms),
                    Given::Others => model.challenges.give(from, session, role.other(), now_ms),
                    Given::Forged(bit) => {
                        let mut challenge = model.challenges.give(from, session, role, now_ms);
                        challenge[bit / 8] ^= 1 << (bit % 8);
                        challenge
                    }
                });
                let proof = given.as_ref();
                let proof = proof.map(|challenge| Proof { challenge, public: &[1; 32], signature: &[2; 64] });
                Present { renew, session, role, token: &token, nonce, proof }.encode(&mut out);
            }
        }
        out
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Sequence {
    /// This far from the next.
    Near(i64),
    Jump(u64),
    Exactly(u64),
}

pub(crate) fn seldom<T: Clone + std::fmt::Debug + 'static>(
    value: T,
    others: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![12 => Just(value), 1 => others].boxed()
}

/// A byte of the relay's header that is another one; most of all its type.
pub(crate) fn change() -> impl Strategy<Value = Option<(usize, u8)>> {
    let kind = prop_oneof![0u8..6, Just(0x20), Just(0x21)];
    let foreign = (0usize..2, any::<u8>()).prop_map(Some);
    prop_oneof![foreign, kind.prop_map(|kind| Some((2, kind))), (0usize..40, any::<u8>()).prop_map(Some)]
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let sequence = prop_oneof![
        8 => (0i64..3).prop_map(Sequence::Near),
        4 => (-250i64..130).prop_map(Sequence::Near),
        1 => (JUMP_MAX - 2..JUMP_MAX + 2).prop_map(Sequence::Jump),
        1 => prop_oneof![Just(u64::MAX), Just((1 << 48) - 1), Just(1 << 48), Just(1 << 63)]
            .prop_map(Sequence::Exactly),
    ];
    let check = seldom(
        Check::Whole,
        prop_oneof![Just(Check::Partial), Just(Check::None), (1u16..0xffff).prop_map(Check::Wrong)],
    );
    let id = prop_oneof![8 => Just(V4), 8 => Just(V6), 1 => Just(SLOW), 1 => Just(ABSENT)];
    let size = prop_oneof![20 => 1usize..1350, 1 => Just(0), 1 => 1340usize..1480];
    (
        (id, prop_oneof![Just(Role::Client), Just(Role::Host)], sequence, size),
        (
            seldom(None, (0u8..64).prop_map(Some)),
            seldom(0, 1u8..3),
            seldom(0, 1u8..3),
            seldom(false, Just(true)),
        ),
        (seldom(None, prop_oneof![Just(Some(100)), Just(Some(101))]), check, seldom(0, 1u16..0xffff)),
        (prop_oneof![Just(0u16), Just(0x4000)], any::<u8>(), any::<u8>()),
        (seldom(0, 1usize..9), seldom(0, 1usize..9)),
        (seldom(None, change()), seldom(None, (12usize..60, any::<u8>()).prop_map(Some))),
        (
            seldom(None, (14usize..100).prop_map(Some)),
            prop_oneof![3 => Just(None), 1 => control().prop_map(Some)],
        ),
    )
        .prop_map(
            |(
                (id, role, sequence, payload),
                (forged, from, to, other_port),
                (tag, check, ip_error),
                (flags, hops, tos),
                (slack, padding),
                (change, broken),
                (cut, control),
            )| Step {
                id,
                role,
                sequence,
                payload,
                forged,
                from,
                to,
                other_port,
                tag,
                check,
                ip_error,
                flags,
                hops,
                tos,
                slack,
                padding,
                change,
                broken,
                cut,
                control,
            },
        )
}

impl Step {
    /// The frame, given what the model knows.
    pub(crate) fn frame(&self, model: &Model) -> Frame {
        let known = model.sessions.get(&self.id).or(model.sessions.get(&V4)).unwrap();
        let (sender, receiver) = (self.role as usize, self.role.other() as usize);
        let direction = &known.directions[sender];
        let next = direction.state().next;
        let sequence = match self.sequence {
            Sequence::Near(offset) => next.saturating_add_signed(offset),
            Sequence::Jump(jump) => next.saturating_add(jump),
            Sequence::Exactly(sequence) => sequence,
        };
        let mac = forward_mac(direction.flow().key, sequence, self.payload as u16, self.role);
        let forward = Forward {
            session: SessionId(self.id),
            role: self.role,
            sequence,
            mac: mac ^ self.forged.map_or(0, |bit| 1 << bit),
            payload_len: self.payload as u16,
        };
        let mut head = [0; FORWARD_LEN];
        forward.encode(&mut head);
        let mut payload = head.to_vec();
        payload.extend((0..self.payload).map(|n| n as u8 ^ self.tos));
        let (peers, is_v4) = (known.session.peers, known.session.peers[sender].address.is_ipv4());
        let mut from = peers[sender].address;
        match self.from {
            0 => {}
            1 => from.set_port(from.port() ^ 1),
            _ => from.set_ip(ip(if is_v4 { "10.77.0.3" } else { "fd77::3" })),
        }
        if let Some(control) = self.control {
            payload = control.payload(model, from, SessionId(self.id), self.role);
        }
        if let Some((at, value)) = self.change
            && let Some(byte) = payload.get_mut(at)
        {
            *byte = value;
        }
        let source = |peer: usize| model.ways[&peers[peer].way].source;
        let to = match self.to {
            0 => source(sender),
            1 => source(receiver),
            _ => ip(if is_v4 { "10.79.0.1" } else { "fd79::1" }),
        };
        Frame {
            vlan: self.tag.or(model.ways[&10].vlan),
            tos: self.tos,
            id: u16::from(self.hops) << 4,
            flags: self.flags,
            hops: self.hops,
            check: self.check,
            ip_error: self.ip_error,
            slack: self.slack,
            padding: self.padding,
            ..Frame::new(from, SocketAddr::new(to, PORT + u16::from(self.other_port)), payload)
        }
    }
}

pub(crate) fn plain_step() -> Step {
    Step {
        id: V4,
        role: Role::Client,
        sequence: Sequence::Near(0),
        payload: 100,
        forged: None,
        from: 0,
        to: 0,
        other_port: false,
        tag: None,
        check: Check::Whole,
        ip_error: 0,
        flags: 0,
        hops: 9,
        tos: 0,
        slack: 0,
        padding: 0,
        change: None,
        broken: None,
        cut: None,
        control: None,
    }
}
