//! Everything secret in RIFT: who a peer is, how two peers agree on keys, and how a datagram is
//! sealed with them.
//!
//! Owns: long-term identities and their file, the Noise handshakes, the packet keys and their
//! renewal, the replay window, the RETRY cookie, PIN pairing, and the two lists of peers an
//! operator can read and edit (who may connect, which hosts are known).
//!
//! Never does: sockets, clocks, threads, retransmission, padding, headers. It is handed bytes and
//! times and returns bytes. Only [`Identity::load_or_create`], [`AllowList`] and [`KnownHosts`]
//! touch files, and nothing here runs per packet except [`SealKey`], [`OpenKey`] and
//! [`ReplayWindow`], which neither allocate nor lock nor enter the kernel.
//!
//! Invariants:
//! * Packet keys come from Noise `Split()` or from a ratchet step on such a key, never from the
//!   handshake hash or anything else an observer can compute.
//! * No function that reads bytes from the network panics, whatever the bytes.
//! * A secret is wiped when its owner is dropped. Two places are outside our reach: `snow` leaves
//!   its chaining key and `spake2` its password scalar to the allocator when a handshake ends.
//!
//! # One handshake, from both ends
//!
//! ```
//! use rift_crypto::{Identity, Initiator, MAX_MESSAGE_LEN, Responder, Suite};
//!
//! let (host, client) = (Identity::generate()?, Identity::generate()?);
//! let mut buf = [0; MAX_MESSAGE_LEN];
//! let mut initiator = Initiator::xx(&client, Suite::supported())?;
//! let mut responder = Responder::xx(&host)?;
//!
//! let len = initiator.write_msg1(b"", &mut buf)?;
//! let msg1 = responder.read_msg1(&buf[..len])?;
//! let suite = Suite::choose(Suite::supported(), &msg1.suites).ok_or("no common suite")?;
//! let len = responder.write_msg2(suite, b"host alias", &mut buf)?;
//! let msg2 = initiator.read_msg2(&buf[..len])?;
//! assert_eq!(msg2.peer.id, host.wavry_id());
//! let len = initiator.write_msg3(b"client alias, Hello", &mut buf)?;
//! let msg3 = responder.read_msg3(&buf[..len])?;
//! assert_eq!(msg3.peer.id, client.wavry_id());
//!
//! let (client_side, host_side) = (initiator.into_keys()?, responder.into_keys()?);
//! let header = [7; 18];
//! let mut packet = b"a video chunk".to_vec();
//! let tag = host_side.keys.seal.seal_in_place(0, &header, &mut packet);
//! packet.extend(tag);
//! assert_eq!(client_side.keys.open.open_in_place(0, &header, &mut packet)?, b"a video chunk");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod cookie;
mod ephemeral;
mod error;
mod files;
mod handshake;
mod id;
mod identity;
mod kdf;
mod packet;
mod pairing;
mod replay;
mod seed;
mod suite;

pub use cookie::{COOKIE_LEN, CookieKey};
pub use ephemeral::EphemeralSecret;
pub use error::CryptoError;
pub use files::allow_list::{AllowList, AllowedPeer};
pub use files::identity_file::{Created, IdentityError};
pub use files::known_hosts::{KnownHost, KnownHosts};
pub use files::list_file::{BadLine, ListError, MAX_LIST_BYTES};
pub use handshake::initiator::Initiator;
pub use handshake::payload::{self, MAX_APP_LEN};
pub use handshake::responder::Responder;
pub use handshake::{Established, HandshakeError, MAX_MESSAGE_LEN, Msg1, Msg2, Msg3, PeerProof};
pub use id::{ParseWavryIdError, WavryId};
pub use identity::Identity;
pub use packet::{HEADER_LEN, OpenError, OpenKey, PacketKeys, SealKey, TAG_LEN};
pub use pairing::client::{PairingClient, PairingClientConfirmed};
pub use pairing::gate::{PairingGate, PairingHost};
pub use pairing::message::{PairingMessage, Refusal};
pub use pairing::pin::{ParsePinError, Pin};
pub use pairing::{CONFIRM_LEN, PairingError, SPAKE_LEN};
pub use replay::{Replay, ReplayWindow};
pub use seed::random_seed;
pub use suite::{Suite, SuiteList};
