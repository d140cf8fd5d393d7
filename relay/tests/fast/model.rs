//! What the fast path has to decide, made of the parts that decide in userspace: the parser of frames, the readers of
//! the protocol's headers and [`Direction`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use rift_relay::present::{CHALLENGE_DATAGRAM_LEN, Challenge, Present};
use rift_relay::wire::{DATAGRAM_MAX, Forward, Header, Kind, Malformed, Role, SessionId};
use wavry_relay::challenge::ChallengeKeys;
use wavry_relay::direction::{Direction, JUMP_MAX};
use wavry_relay::drop_reason::DropReason;
use wavry_xdp::packet::{Datagram, parse};
use wavry_xdp::relay::{Dropped, Passed, Session, Way};

use super::{Check, Frame};

/// The highest that a state can have for its next sequence.
const NEXT_MAX: u64 = (1 << 48) - 1;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Sent on.
    Forwarded(Role),
    /// Goes up, for this reason.
    Passed(Passed),
    /// Goes up, uncounted: not for the relay.
    NotOurs,
    /// Dropped.
    Dropped(Dropped),
    /// Sent back, with [`Model::answer`].
    Answered,
}

pub(crate) struct Known {
    pub(crate) session: Session,
    pub(crate) directions: [Direction; 2],
}

pub(crate) struct Model {
    pub(crate) port: u16,
    pub(crate) sessions: BTreeMap<[u8; 16], Known>,
    pub(crate) ways: BTreeMap<u16, Way>,
    pub(crate) locals: Vec<IpAddr>,
    pub(crate) is_generic: bool,
    pub(crate) challenges: ChallengeKeys,
}

impl Model {
    fn junk(&self, to: SocketAddr, reason: Dropped) -> Decision {
        if self.is_generic {
            Decision::Passed(Passed::Unusual)
        } else if self.locals.contains(&to.ip()) {
            Decision::Dropped(reason)
        } else {
            Decision::NotOurs
        }
    }

    /// Decides over a frame that arrives at `now_ns`.
    pub(crate) fn decide(&mut self, frame: &[u8], now_ns: u64) -> Decision {
        let Ok(found) = parse(frame) else { return Decision::NotOurs };
        if found.to.port() != self.port {
            return Decision::NotOurs;
        }
        let datagram = &frame[found.payload.clone()];
        if datagram.len() > DATAGRAM_MAX {
            return Decision::Passed(Passed::Unusual);
        }
        let header = match Header::decode(datagram) {
            Ok(header) => header,
            Err(malformed) => {
                let reason = match malformed {
                    Malformed::Size => Dropped::Size,
                    Malformed::Magic => Dropped::Magic,
                    Malformed::Version => Dropped::Version,
                    Malformed::Kind => Dropped::Kind,
                    Malformed::Header => match Kind::from_wire(datagram[2]) {
                        Some(Kind::Forward) => Dropped::Header,
                        Some(Kind::LeasePresent | Kind::LeaseRenew | Kind::ProbeReq) => {
                            return self.malformed_control(found.to);
                        }
                        _ => Dropped::Kind,
                    },
                };
                return self.junk(found.to, reason);
            }
        };
        match header.kind {
            Kind::Forward => {}
            Kind::LeasePresent | Kind::LeaseRenew => {
                return self.decide_present(frame, &found, &header, now_ns);
            }
            Kind::ProbeReq if datagram.len() != 36 => return self.malformed_control(found.to),
            Kind::ProbeReq if !self.locals.contains(&found.to.ip()) => return Decision::NotOurs,
            Kind::ProbeReq if self.may_answer(frame, &found) => return Decision::Answered,
            Kind::ProbeReq => return Decision::Passed(Passed::Control),
            _ => return self.junk(found.to, Dropped::Kind),
        }
        let Some(forward) = Forward::decode(&header, datagram) else {
            return self.junk(found.to, Dropped::Header);
        };
        if !self.sessions.contains_key(&forward.session.0) {
            return if !self.locals.contains(&found.to.ip()) {
                Decision::NotOurs
            } else if datagram.len() < CHALLENGE_DATAGRAM_LEN {
                Decision::Dropped(Dropped::UnknownSession)
            } else if !self.is_generic && self.may_answer(frame, &found) {
                Decision::Answered
            } else {
                Decision::Passed(Passed::Absent)
            };
        }
        let Some(known) = self.sessions.get_mut(&forward.session.0) else { unreachable!() };
        if known.session.generation == 0 {
            return Decision::Passed(Passed::Slow);
        }
        let (sender, receiver) = (forward.role as usize, forward.role.other() as usize);
        let direction = &mut known.directions[sender];
        let peers = known.session.peers;
        if !direction.is_authentic(&forward) {
            return self.junk(found.to, Dropped::Mac);
        }
        if found.from != peers[sender].address {
            return Decision::Passed(Passed::Address);
        }
        let headers = frame.len() - found.ip_at;
        let ways = [self.ways.get(&peers[sender].way), self.ways.get(&peers[receiver].way)];
        let [Some(from), Some(to)] = ways else { return Decision::Passed(Passed::Way) };
        let ip_header = if found.to.is_ipv4() { 20 } else { 40 };
        let packet = ip_header + 8 + datagram.len();
        if found.to.ip() != from.source
            || from.vlan != found.vlan
            || to.vlan != found.vlan
            || packet > usize::from(to.mtu)
        {
            return Decision::Passed(Passed::Way);
        }
        let udp_at = found.ip_at + ip_header;
        if headers != packet
            || ip_len(frame, found.ip_at, found.to.is_ipv4()) != packet
            || (found.to.is_ipv6() && frame[udp_at + 6..udp_at + 8] == [0, 0])
        {
            return Decision::Passed(Passed::Unusual);
        }
        // There is no room for such a sequence in a state; userspace has it.
        if now_ns < direction.expires_ns() && (NEXT_MAX..NEXT_MAX + JUMP_MAX).contains(&forward.sequence) {
            return Decision::Passed(Passed::Slow);
        }
        match direction.pass(now_ns, forward.sequence, datagram.len()) {
            Ok(()) => Decision::Forwarded(forward.role),
            Err(reason) => Decision::Dropped(match reason {
                DropReason::Expired => Dropped::Expired,
                DropReason::Replay => Dropped::Replay,
                DropReason::Old => Dropped::Old,
                DropReason::FarAhead => Dropped::FarAhead,
                DropReason::HardLimit => Dropped::HardLimit,
                DropReason::SoftLimit => Dropped::SoftLimit,
                other => panic!("{other:?} is no reason of a direction"),
            }),
        }
    }

    fn malformed_control(&self, to: SocketAddr) -> Decision {
        if self.locals.contains(&to.ip()) { self.junk(to, Dropped::Header) } else { Decision::NotOurs }
    }

    /// Decides over a LEASE_PRESENT or LEASE_RENEW.
    fn decide_present(&self, frame: &[u8], found: &Datagram, header: &Header, now_ns: u64) -> Decision {
        if !self.locals.contains(&found.to.ip()) {
            return Decision::NotOurs;
        }
        let Some(present) = Present::decode(header, &frame[found.payload.clone()]) else {
            return self.junk(found.to, Dropped::Header);
        };
        if let Some(proof) = present.proof {
            let given = self.challenges.time_of(
                now_ns / 1_000_000,
                found.from,
                present.session,
                present.role,
                proof.challenge,
            );
            return match given {
                Some(_) => Decision::Passed(Passed::Control),
                None => Decision::Dropped(Dropped::Challenge),
            };
        }
        let is_certain =
            self.sessions.get(&present.session.0).is_none_or(|known| known.session.generation != 0);
        if is_certain && self.may_answer(frame, found) {
            Decision::Answered
        } else {
            Decision::Passed(Passed::Control)
        }
    }

    /// Whether the program answers by itself, if it has the budget.
    fn may_answer(&self, frame: &[u8], found: &Datagram) -> bool {
        let udp_at = found.payload.start - 8;
        let packet = frame.len() - found.ip_at;
        let is_plain = found.payload.end == frame.len()
            && ip_len(frame, found.ip_at, found.to.is_ipv4()) == packet
            && (found.to.is_ipv4() || frame[udp_at + 6..udp_at + 8] != [0, 0]);
        let can_be_a_source = match found.from.ip() {
            IpAddr::V4(ip) => !matches!(ip.octets()[0], 0 | 127 | 224..),
            IpAddr::V6(ip) => ip.octets()[..4] != [0; 4] && !ip.is_multicast(),
        };
        is_plain
            && can_be_a_source
            && found.from.port() != 0
            && frame[6] & 1 == 0
            && !self.locals.contains(&found.from.ip())
    }

    /// The frame of the answer to `frame`, given the time of the challenge in it.
    pub(crate) fn answer(&self, frame: &Frame, time_ms: u64) -> Frame {
        let header = Header::decode(&frame.payload).unwrap();
        let payload = if header.kind == Kind::ProbeReq {
            let mut payload = frame.payload.clone();
            payload[2] = Kind::ProbeRsp as u8;
            payload
        } else {
            let (role, nonce) = match Present::decode(&header, &frame.payload) {
                Some(present) => (present.role, present.nonce),
                None => (Forward::decode(&header, &frame.payload).unwrap().role, 0),
            };
            let SessionId(id) = header.session;
            let challenge = self.challenges.give(frame.from, header.session, role, time_ms);
            let unknown = !self.sessions.contains_key(&id);
            Challenge { session: header.session, unknown, nonce, challenge }.encode().to_vec()
        };
        // In generic mode the device is still to sum what looks as if it were.
        let is_partial = self.is_generic
            && match frame.check {
                Check::Partial => true,
                Check::Wrong(_) => frame.looks_partial(),
                Check::Whole | Check::None => false,
            };
        Frame {
            to_mac: frame.from_mac,
            from_mac: frame.to_mac,
            from: frame.to,
            to: frame.from,
            tos: 0xa0,
            flow_label: 0,
            id: 0,
            flags: 0x4000,
            hops: 64,
            check: if is_partial { Check::Partial } else { Check::Whole },
            ip_error: 0,
            payload,
            slack: 0,
            padding: 0,
            ..*frame
        }
    }

    /// The frame as it leaves: what a sender at the relay would have written, but for an error that was there before.
    pub(crate) fn sent_on(&self, frame: &Frame, session: &Session, role: Role) -> Frame {
        let to = session.peers[role.other() as usize];
        let way = self.ways[&to.way];
        let check = match frame.check {
            // A whole one is made of what looks partial; in generic mode the device will do it.
            Check::Partial if !self.is_generic => Check::Whole,
            Check::Wrong(_) if frame.looks_partial() => Check::Whole,
            check => check,
        };
        Frame {
            to_mac: way.to_mac,
            from_mac: way.from_mac,
            from: SocketAddr::new(way.source, self.port),
            to: to.address,
            id: 0,
            flags: 0x4000,
            hops: 64,
            check,
            ..frame.clone()
        }
    }
}

/// The length of the packet by its IP header.
fn ip_len(frame: &[u8], ip_at: usize, is_v4: bool) -> usize {
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([frame[ip_at + at], frame[ip_at + at + 1]]));
    if is_v4 { u16_at(2) } else { 40 + u16_at(4) }
}
