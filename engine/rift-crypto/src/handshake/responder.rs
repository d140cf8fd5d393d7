//! The side that answers a handshake: the host.

use snow::HandshakeState;
use zeroize::Zeroizing;

use super::payload::{self, PayloadWriter};
use super::{
    Established, HandshakeError, Local, MAX_MESSAGE_LEN, Msg1, Msg3, Pattern, PeerProof, builder, establish,
    read_message, setup_error, verify_proof, write_message,
};
use crate::{EphemeralSecret, Identity, Suite, SuiteList, WavryId};

/// A handshake from the responder's side. Steps run in the order of the methods; one that is not
/// next is [`HandshakeError::OutOfOrder`].
///
/// A first message makes the responder do several X25519 operations, so under load ask for a
/// [cookie](crate::CookieKey) before making one of these.
pub struct Responder {
    noise: HandshakeState,
    pattern: Pattern,
    local: Local,
    ephemeral: Zeroizing<[u8; 32]>,
    expect: Option<WavryId>,
    stage: Stage,
    /// What brought the XX handshake to where it waits for the third message, for
    /// [`Responder::rewind`].
    msg1: Vec<u8>,
    msg2_payload: Vec<u8>,
    /// A third message failed half way and left the Noise state unusable.
    is_stale: bool,
}

#[derive(Clone, Copy)]
enum Stage {
    ReadMsg1,
    WriteMsg2(SuiteList, Option<PeerProof>),
    ReadMsg3(Suite),
    Done(Suite, PeerProof),
    Failed,
}

impl Responder {
    /// Answers XX.
    ///
    /// # Errors
    /// [`HandshakeError::Crypto`].
    pub fn xx(identity: &Identity) -> Result<Self, HandshakeError> {
        Self::xx_with(identity, EphemeralSecret::generate()?)
    }

    /// [`xx`](Self::xx) with the ephemeral key given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`xx`](Self::xx).
    pub fn xx_with(identity: &Identity, ephemeral: EphemeralSecret) -> Result<Self, HandshakeError> {
        Self::new(Pattern::Xx, identity, ephemeral)
    }

    /// Answers IK. The peer is not live when this handshake ends; see
    /// [`Established::peer_is_live`].
    ///
    /// # Errors
    /// [`HandshakeError::Crypto`].
    pub fn ik(identity: &Identity) -> Result<Self, HandshakeError> {
        Self::ik_with(identity, EphemeralSecret::generate()?)
    }

    /// [`ik`](Self::ik) with the ephemeral key given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`ik`](Self::ik).
    pub fn ik_with(identity: &Identity, ephemeral: EphemeralSecret) -> Result<Self, HandshakeError> {
        Self::new(Pattern::Ik, identity, ephemeral)
    }

    /// Accepts nobody but `id`; anybody else is [`HandshakeError::WrongIdentity`].
    #[must_use]
    pub fn expect_peer(mut self, id: WavryId) -> Self {
        self.expect = Some(id);
        self
    }

    /// Reads the initiator's first message.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`] (IK only) and [`HandshakeError::Malformed`] for bytes that
    /// are no first message; [`HandshakeError::BadSignature`] and
    /// [`HandshakeError::WrongIdentity`] (IK only) end the handshake.
    pub fn read_msg1(&mut self, message: &[u8]) -> Result<Msg1, HandshakeError> {
        let Stage::ReadMsg1 = self.stage else { return Err(HandshakeError::OutOfOrder) };
        let mut buf = [0; MAX_MESSAGE_LEN];
        let payload = read_message(&mut self.noise, message, &mut buf)?;
        self.stage = Stage::Failed;
        let (suites, mut rest) = payload::decode_offer(payload)?;
        let mut peer = None;
        if self.pattern == Pattern::Ik {
            let proof;
            (proof, rest) = payload::decode_proof(rest)?;
            peer = Some(verify_proof(&self.noise, proof, self.expect)?);
        }
        let app = payload::decode_app(rest)?.to_vec();
        if self.pattern == Pattern::Xx {
            self.msg1 = message.to_vec();
        }
        self.stage = Stage::WriteMsg2(suites, peer);
        Ok(Msg1 { suites, peer, app })
    }

    /// Writes the answer with the suite chosen (see [`Suite::choose`]) and returns its length.
    ///
    /// # Errors
    /// [`HandshakeError::SuiteNotOffered`], [`HandshakeError::BufferTooSmall`],
    /// [`HandshakeError::AppTooLong`] (any can be repeated with better arguments);
    /// [`HandshakeError::NotAuthentic`] if the peer's key is worthless.
    pub fn write_msg2(&mut self, suite: Suite, app: &[u8], out: &mut [u8]) -> Result<usize, HandshakeError> {
        let Stage::WriteMsg2(offered, peer) = self.stage else { return Err(HandshakeError::OutOfOrder) };
        if !offered.contains(suite) {
            return Err(HandshakeError::SuiteNotOffered);
        }
        let payload = PayloadWriter::new().choice(suite).proof(&self.local.proof).app(app)?;
        let result = write_message(&mut self.noise, self.pattern.msg2_overhead(), payload.as_slice(), out);
        self.stage = match (&result, peer) {
            (Ok(_), Some(peer)) => Stage::Done(suite, peer),
            (Ok(_), None) => Stage::ReadMsg3(suite),
            (Err(HandshakeError::BufferTooSmall), _) => self.stage,
            (Err(_), _) => Stage::Failed,
        };
        if self.pattern == Pattern::Xx && result.is_ok() {
            self.msg2_payload = payload.as_slice().to_vec();
        }
        result
    }

    /// Reads the third message, in XX only.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`] and [`HandshakeError::Malformed`] for a message that is not
    /// the peer's: wait for the right one. Anything else ends the handshake.
    pub fn read_msg3(&mut self, message: &[u8]) -> Result<Msg3, HandshakeError> {
        let Stage::ReadMsg3(suite) = self.stage else { return Err(HandshakeError::OutOfOrder) };
        if self.is_stale {
            self.rewind()?;
        }
        let mut buf = [0; MAX_MESSAGE_LEN];
        let payload =
            read_message(&mut self.noise, message, &mut buf).inspect_err(|_| self.is_stale = true)?;
        // From here on the message is the initiator's own; what is wrong with it stays wrong.
        self.stage = Stage::Failed;
        let (proof, rest) = payload::decode_proof(payload)?;
        let app = payload::decode_app(rest)?.to_vec();
        let peer = verify_proof(&self.noise, proof, self.expect)?;
        self.stage = Stage::Done(suite, peer);
        Ok(Msg3 { peer, app })
    }

    /// Ends the handshake and hands out its keys.
    ///
    /// # Errors
    /// [`HandshakeError::OutOfOrder`] before the last message, or if a step failed for good.
    pub fn into_keys(self) -> Result<Established, HandshakeError> {
        let Stage::Done(suite, peer) = self.stage else { return Err(HandshakeError::OutOfOrder) };
        establish(self.noise, suite, peer, self.pattern == Pattern::Xx)
    }

    fn new(
        pattern: Pattern,
        identity: &Identity,
        ephemeral: EphemeralSecret,
    ) -> Result<Self, HandshakeError> {
        let (local, ephemeral) = (Local::of(identity), ephemeral.into_bytes());
        Ok(Self {
            noise: noise_state(pattern, &local, &ephemeral)?,
            pattern,
            local,
            ephemeral,
            expect: None,
            stage: Stage::ReadMsg1,
            msg1: Vec::new(),
            msg2_payload: Vec::new(),
            is_stale: false,
        })
    }

    /// Puts the Noise state back to where it waits for the third message.
    ///
    /// `snow` restores its transcript after a failed read but not the cipher key that the read had
    /// moved on to, so a third message with a genuine static key and a damaged rest, which anybody
    /// on the path can make, would shut out the genuine one. Going through the same steps with the
    /// same ephemeral key arrives at the same state; nothing is sent a second time.
    fn rewind(&mut self) -> Result<(), HandshakeError> {
        let mut noise = noise_state(self.pattern, &self.local, &self.ephemeral)?;
        let mut buf = [0; MAX_MESSAGE_LEN];
        read_message(&mut noise, &self.msg1, &mut buf)?;
        write_message(&mut noise, self.pattern.msg2_overhead(), &self.msg2_payload, &mut buf)?;
        self.noise = noise;
        self.is_stale = false;
        Ok(())
    }
}

fn noise_state(
    pattern: Pattern,
    local: &Local,
    ephemeral: &Zeroizing<[u8; 32]>,
) -> Result<HandshakeState, HandshakeError> {
    builder(pattern, ephemeral.clone())?
        .local_private_key(&*local.static_private)
        .and_then(snow::Builder::build_responder)
        .map_err(setup_error)
}
