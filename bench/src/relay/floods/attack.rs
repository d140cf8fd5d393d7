//! The floods: what is in their datagrams, and the one whose senders have to answer.
//!
//! Owns nothing. Every datagram of a flood is as long as those of the sessions.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rift_relay::present::{Challenge, Present, Proof};
use rift_relay::wire::{Header, Kind, Role, SessionId};
use wavry_xdp::load::{Flood, Flow, Results};

use super::super::lab::{Lab, RELAY};
use super::super::sessions::{self, Issuer, forward_head};
use super::PORT;

/// Sources of a flood that spoofs.
const SPOOFED: u32 = 1_000_000;
/// Senders of bogus leases, each in a network of its own, and what they send per second.
const BOGUS_SENDERS: usize = 512;
const BOGUS_PER_SECOND: u64 = 10_000;

/// What comes beside the sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    Junk,
    UnknownSessions,
    Presents,
    BogusLeases,
}

impl Attack {
    /// For the generator.
    pub(super) fn kind(self, rate: u32) -> (Flood, u32, u32) {
        match self {
            Self::Junk => (Flood::Junk, rate, 1),
            Self::UnknownSessions => (Flood::Sessions, rate, SPOOFED),
            Self::Presents | Self::BogusLeases => (Flood::Fixed, rate, SPOOFED),
        }
    }

    pub(super) const ALL: [Self; 4] = [Self::Junk, Self::UnknownSessions, Self::Presents, Self::BogusLeases];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::UnknownSessions => "FORWARD of unknown sessions, 1 M sources",
            Self::Presents => "LEASE_PRESENT, 1 M sources",
            Self::BogusLeases => "bogus leases with proofs, 10 k/s",
        }
    }
}

/// A datagram of a flood, as long as those of the sessions.
pub(super) fn flood(lab: &Lab, attack: Attack, to: SocketAddrV4, len: usize) -> Flow {
    let mut payload = match attack {
        Attack::UnknownSessions => forward_head(SessionId([0xee; 16])).to_vec(),
        Attack::Presents => {
            // Header, role, token length, token, nonce, no proof. A relay does not look into the token before a proof.
            let token = vec![b'x'; len - 20 - 3 - 8 - 1];
            let present = Present {
                renew: false,
                session: SessionId([0xee; 16]),
                role: Role::Host,
                token: &token,
                nonce: 1,
                proof: None,
            };
            let mut out = Vec::new();
            present.encode(&mut out);
            // Beyond its head a flood has the content of the sessions' datagrams, which is zeroes.
            out.truncate(64);
            out
        }
        Attack::Junk | Attack::BogusLeases => Vec::new(),
    };
    payload.resize(len, 0);
    Flow {
        ethernet: lab.through.ethernet,
        from: SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 0), PORT),
        to,
        payload,
        key: [0; 2],
    }
}

/// Senders of leases whose signature is wrong, with proofs that answer a real challenge, so that the relay has to look at
/// them.
pub(super) struct BogusSenders(Vec<(UdpSocket, Vec<u8>)>);

impl BogusSenders {
    /// Has each of them ask for its challenge.
    pub(super) fn new(lab: &Lab, issuer: &Issuer) -> anyhow::Result<Self> {
        let relay = SocketAddrV4::new(RELAY, sessions::PORT);
        let session = SessionId([0xbb; 16]);
        let token = issuer.bogus_token(session)?;
        let mut senders = Vec::new();
        for number in 0..BOGUS_SENDERS {
            let address = Ipv4Addr::new(10, 96 + (number >> 8) as u8, number as u8, 1);
            let socket = lab.sender.with(|| UdpSocket::bind((address, PORT)))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            let mut datagram = Vec::new();
            let token = token.as_bytes();
            let present = Present { renew: false, session, role: Role::Host, token, nonce: 1, proof: None };
            present.encode(&mut datagram);
            let challenge = ask(&socket, relay, &datagram)?;
            datagram.clear();
            let proof = Proof { challenge: &challenge, public: &[9; 32], signature: &[7; 64] };
            Present { proof: Some(proof), ..present }.encode(&mut datagram);
            senders.push((socket, datagram));
        }
        Ok(Self(senders))
    }

    /// Has them send for as long as `work` takes, which tells what else happened.
    pub(super) fn beside(
        &self,
        lab: &Lab,
        work: impl FnOnce() -> anyhow::Result<Results>,
    ) -> anyhow::Result<Results> {
        let relay = SocketAddrV4::new(RELAY, sessions::PORT);
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut results = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = wavry_runtime::cores::pin_to(lab.generator_core);
                let begun = Instant::now();
                for (number, (socket, datagram)) in (1..).zip(self.0.iter().cycle()) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let _ = socket.send_to(datagram, relay);
                    sent.store(number, Ordering::Relaxed);
                    let due = Duration::from_nanos(number * 1_000_000_000 / BOGUS_PER_SECOND);
                    std::thread::sleep(due.saturating_sub(begun.elapsed()));
                }
            });
            let results = work();
            stop.store(true, Ordering::Relaxed);
            results
        })?;
        results.flood_sent = sent.into_inner();
        Ok(results)
    }
}

fn ask(socket: &UdpSocket, relay: SocketAddrV4, datagram: &[u8]) -> anyhow::Result<[u8; 24]> {
    let mut answer = [0; 1500];
    for _ in 0..20 {
        socket.send_to(datagram, relay)?;
        let Ok(len) = socket.recv(&mut answer) else { continue };
        let Ok(header) = Header::decode(&answer[..len]) else { continue };
        if header.kind == Kind::LeaseChallenge
            && let Some(challenge) = Challenge::decode(&header, &answer[..len])
        {
            return Ok(challenge.challenge);
        }
    }
    anyhow::bail!("the relay gives no challenge")
}
