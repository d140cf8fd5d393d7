//! What the fast path has to decide, made of the parts that decide in userspace: the parser of frames, the readers of
//! the protocol's headers and [`Direction`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use rift_relay::wire::{DATAGRAM_MAX, Forward, Header, Kind, Malformed, Role};
use wavry_relay::direction::{Direction, JUMP_MAX};
use wavry_relay::drop_reason::DropReason;
use wavry_xdp::packet::parse;
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
                        // Userspace counts these.
                        Some(Kind::LeasePresent | Kind::LeaseRenew | Kind::ProbeReq) => {
                            return Decision::Passed(Passed::Control);
                        }
                        _ => Dropped::Kind,
                    },
                };
                return self.junk(found.to, reason);
            }
        };
        match header.kind {
            Kind::Forward => {}
            Kind::LeasePresent | Kind::LeaseRenew | Kind::ProbeReq => {
                return Decision::Passed(Passed::Control);
            }
            _ => return self.junk(found.to, Dropped::Kind),
        }
        let Some(forward) = Forward::decode(&header, datagram) else {
            return self.junk(found.to, Dropped::Header);
        };
        let Some(known) = self.sessions.get_mut(&forward.session.0) else {
            return if self.locals.contains(&found.to.ip()) {
                Decision::Passed(Passed::Absent)
            } else {
                Decision::NotOurs
            };
        };
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
