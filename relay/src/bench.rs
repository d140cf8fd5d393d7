//! What a machine can do, without a network: decisions on the forwarding core, verifications beside it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use rift_crypto::Identity;
use rift_relay::lease::{Claims, IssuerKey, KeyRing};
use rift_relay::peer::{PeerConfig, RelayPeer};
use rift_relay::wire::{FORWARD_LEN, SessionId};
use zeroize::Zeroizing;

use crate::core::{Action, Now, Relay, RelayLimits};
use crate::verify::{Job, Policy, Verifier};

/// Payload of each datagram.
const PAYLOAD: usize = 1200;
/// Datagrams per session that are decided on.
const ROUNDS: u32 = 200;

/// Measures and prints.
///
/// # Errors
/// When no keys can be made, or a session does not come up.
pub fn run(sessions: u32) -> anyhow::Result<()> {
    let issuer = IssuerKey::generate()?;
    let identity = Identity::generate()?;
    let policy = Policy { issuers: KeyRing::new(vec![issuer.public()]), ..Policy::default() };
    let (mut verifier, key) = Verifier::new(&identity, &Zeroizing::new([7; 32]), Arc::new(policy))?;
    let limits = RelayLimits {
        sessions: sessions as usize,
        answers_per_second: u32::MAX / 2,
        proofs_per_second: u32::MAX / 2,
        proofs_burst: u32::MAX / 2,
        hard_kbps_max: 10_000_000,
        soft_kbps_max: 10_000_000,
        ..RelayLimits::default()
    };
    let mut relay = Relay::new(limits, key, [3; 64]);
    let now = Now { ns: 1_000_000_000, unix_ms: 1_700_000_000_000 };
    let mut peers = Vec::new();
    let mut verifying = std::time::Duration::ZERO;
    for number in 0..sessions {
        let seed = |role: u8| {
            let mut seed = [role; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            seed
        };
        let (client, host) = (Identity::from_seed(seed(1))?, Identity::from_seed(seed(2))?);
        let mut session = [0x5a; 16];
        session[..4].copy_from_slice(&number.to_be_bytes());
        let token = issuer.mint(&Claims {
            id: SessionId(session),
            session: SessionId(session),
            relay: identity.wavry_id(),
            client: client.wavry_id(),
            host: host.wavry_id(),
            issued_ms: now.unix_ms,
            not_before_ms: now.unix_ms,
            expires_ms: now.unix_ms + 3_600_000,
            soft_kbps: 10_000_000,
            hard_kbps: 10_000_000,
        });
        for (identity, port) in [(client, 1), (host, 2)] {
            let address =
                SocketAddr::from(([10, (number >> 16) as u8, (number >> 8) as u8, number as u8], port));
            let config = PeerConfig { identity, token: token.clone(), seed: seed(3 + port as u8) };
            let mut peer = RelayPeer::new(config, 0)?;
            peer.handle_timeout(0);
            for _ in 0..2 {
                let Some(datagram) = peer.poll_transmit(0) else { break };
                match relay.handle_datagram(now, address, datagram) {
                    Action::Answer => {}
                    Action::Verify { .. } => {
                        let begun = Instant::now();
                        let job = Job::new(address, datagram).context("a presentation was too long")?;
                        let outcome =
                            verifier.verify(&job, now.unix_ms).context("a presentation was not read")?;
                        verifying += begun.elapsed();
                        relay.handle_verified(now, &outcome);
                    }
                    other => anyhow::bail!("a session did not come up: {other:?}"),
                }
                peer.handle_datagram(0, relay.answer());
            }
            anyhow::ensure!(peer.is_bound(), "a session did not come up");
            peers.push((address, peer));
        }
    }
    println!("sessions           {sessions}, {:.1} MB", relay.memory_bytes() as f64 / 1e6);
    println!("verification       {:.0} us each", verifying.as_secs_f64() * 1e6 / f64::from(sessions * 2));

    let mut datagram = [0; FORWARD_LEN + PAYLOAD];
    let (mut spent, mut decided, mut at) = (std::time::Duration::ZERO, 0_u64, 0_usize);
    let total = u64::from(ROUNDS) * u64::from(sessions.min(10_000));
    // A prime step, so that neighbours in time are not neighbours in memory.
    let step = (7919 % peers.len().max(1)) | 1;
    for tick in 0..total {
        at = (at + step) % peers.len();
        let (address, peer) = &mut peers[at];
        if let Some(head) = datagram.first_chunk_mut() {
            peer.wrap(0, PAYLOAD, head);
        }
        let now = Now { ns: now.ns + tick * 2_000, ..now };
        let begun = Instant::now();
        let action = relay.handle_datagram(now, *address, std::hint::black_box(&datagram));
        spent += begun.elapsed();
        anyhow::ensure!(matches!(action, Action::Forward(_)), "a datagram was not forwarded: {action:?}");
        decided += 1;
    }
    let clock = {
        let begun = Instant::now();
        for _ in 0..100_000 {
            std::hint::black_box(Instant::now());
        }
        begun.elapsed().as_secs_f64() * 1e9 / 1e5
    };
    let each = spent.as_secs_f64() * 1e9 / decided as f64 - clock;
    println!("decision           {each:.0} ns each, {decided} datagrams in shuffled order");
    Ok(())
}
