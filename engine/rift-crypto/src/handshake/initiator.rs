//! The side that starts a handshake: the client.

use snow::HandshakeState;

use super::payload::{self, PROOF_LEN, PayloadWriter};
use super::{
    Established, HandshakeError, Local, MAX_MESSAGE_LEN, MSG3_OVERHEAD, Msg2, Pattern, PeerProof, builder,
    establish, read_message, setup_error, verify_proof, write_message,
};
use crate::{EphemeralSecret, Identity, Suite, SuiteList, WavryId};

/// A handshake from the initiator's side. Steps run in the order of the methods; one that is not
/// next is [`HandshakeError::OutOfOrder`].
pub struct Initiator {
    noise: HandshakeState,
    pattern: Pattern,
    proof: [u8; PROOF_LEN],
    offered: SuiteList,
    expect: Option<WavryId>,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    WriteMsg1,
    ReadMsg2,
    WriteMsg3(Suite, PeerProof),
    Done(Suite, PeerProof),
    Failed,
}

impl Initiator {
    /// Starts XX: for a host whose static key is unknown. `suites` are offered best first.
    ///
    /// # Errors
    /// [`HandshakeError::NoSuites`], [`HandshakeError::Crypto`].
    pub fn xx(identity: &Identity, suites: &[Suite]) -> Result<Self, HandshakeError> {
        Self::xx_with(identity, suites, EphemeralSecret::generate()?)
    }

    /// [`xx`](Self::xx) with the ephemeral key given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`xx`](Self::xx).
    pub fn xx_with(
        identity: &Identity,
        suites: &[Suite],
        ephemeral: EphemeralSecret,
    ) -> Result<Self, HandshakeError> {
        let local = Local::of(identity);
        let noise = builder(Pattern::Xx, ephemeral.into_bytes())?
            .local_private_key(&*local.static_private)
            .and_then(snow::Builder::build_initiator)
            .map_err(setup_error)?;
        Self::new(noise, Pattern::Xx, &local, suites, None)
    }

    /// Starts IK: for a host known by its X25519 static key `host_static` and its identity
    /// `expect`, as a pairing or an earlier XX handshake left them.
    ///
    /// # Errors
    /// [`HandshakeError::NoSuites`], [`HandshakeError::Crypto`].
    pub fn ik(
        identity: &Identity,
        host_static: [u8; 32],
        expect: WavryId,
        suites: &[Suite],
    ) -> Result<Self, HandshakeError> {
        Self::ik_with(identity, host_static, expect, suites, EphemeralSecret::generate()?)
    }

    /// [`ik`](Self::ik) with the ephemeral key given, for runs that must be repeatable.
    ///
    /// # Errors
    /// As [`ik`](Self::ik).
    pub fn ik_with(
        identity: &Identity,
        host_static: [u8; 32],
        expect: WavryId,
        suites: &[Suite],
        ephemeral: EphemeralSecret,
    ) -> Result<Self, HandshakeError> {
        let local = Local::of(identity);
        let noise = builder(Pattern::Ik, ephemeral.into_bytes())?
            .local_private_key(&*local.static_private)
            .and_then(|builder| builder.remote_public_key(&host_static))
            .and_then(snow::Builder::build_initiator)
            .map_err(setup_error)?;
        Self::new(noise, Pattern::Ik, &local, suites, Some(expect))
    }

    /// Accepts nobody but `id`; anybody else is [`HandshakeError::WrongIdentity`].
    #[must_use]
    pub fn expect_peer(mut self, id: WavryId) -> Self {
        self.expect = Some(id);
        self
    }

    /// Writes the first message and returns its length. `app` is readable by all in XX.
    ///
    /// # Errors
    /// [`HandshakeError::BufferTooSmall`], [`HandshakeError::AppTooLong`] (either can be repeated
    /// with better arguments), [`HandshakeError::NotAuthentic`] if the host's static key given to
    /// [`ik`](Self::ik) is worthless.
    pub fn write_msg1(&mut self, app: &[u8], out: &mut [u8]) -> Result<usize, HandshakeError> {
        let Stage::WriteMsg1 = self.stage else { return Err(HandshakeError::OutOfOrder) };
        let mut payload = PayloadWriter::new().offer(&self.offered);
        if self.pattern == Pattern::Ik {
            payload = payload.proof(&self.proof);
        }
        let payload = payload.app(app)?;
        self.write(self.pattern.msg1_overhead(), payload.as_slice(), out, Stage::ReadMsg2)
    }

    /// Reads the responder's answer.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`] and [`HandshakeError::Malformed`] for a message that is not
    /// the peer's: wait for the right one. Anything else ends the handshake.
    pub fn read_msg2(&mut self, message: &[u8]) -> Result<Msg2, HandshakeError> {
        let Stage::ReadMsg2 = self.stage else { return Err(HandshakeError::OutOfOrder) };
        let mut buf = [0; MAX_MESSAGE_LEN];
        let payload = read_message(&mut self.noise, message, &mut buf)?;
        // From here on the message is the responder's own; what is wrong with it stays wrong.
        self.stage = Stage::Failed;
        let (suite, rest) = payload::decode_choice(payload)?;
        let (proof, rest) = payload::decode_proof(rest)?;
        let app = payload::decode_app(rest)?.to_vec();
        let peer = verify_proof(&self.noise, proof, self.expect)?;
        if !self.offered.contains(suite) {
            return Err(HandshakeError::SuiteNotOffered);
        }
        self.stage = match self.pattern {
            Pattern::Xx => Stage::WriteMsg3(suite, peer),
            Pattern::Ik => Stage::Done(suite, peer),
        };
        Ok(Msg2 { suite, peer, app })
    }

    /// Writes the third message, in XX only, and returns its length.
    ///
    /// # Errors
    /// [`HandshakeError::BufferTooSmall`], [`HandshakeError::AppTooLong`]; either can be repeated
    /// with better arguments.
    pub fn write_msg3(&mut self, app: &[u8], out: &mut [u8]) -> Result<usize, HandshakeError> {
        let Stage::WriteMsg3(suite, peer) = self.stage else { return Err(HandshakeError::OutOfOrder) };
        let payload = PayloadWriter::new().proof(&self.proof).app(app)?;
        self.write(MSG3_OVERHEAD, payload.as_slice(), out, Stage::Done(suite, peer))
    }

    /// Ends the handshake and hands out its keys.
    ///
    /// # Errors
    /// [`HandshakeError::OutOfOrder`] before the last message, or if a step failed for good.
    pub fn into_keys(self) -> Result<Established, HandshakeError> {
        let Stage::Done(suite, peer) = self.stage else { return Err(HandshakeError::OutOfOrder) };
        establish(self.noise, suite, peer, true)
    }

    fn new(
        noise: HandshakeState,
        pattern: Pattern,
        local: &Local,
        suites: &[Suite],
        expect: Option<WavryId>,
    ) -> Result<Self, HandshakeError> {
        let offered = SuiteList::new(suites);
        if offered.as_slice().is_empty() {
            return Err(HandshakeError::NoSuites);
        }
        Ok(Self { noise, pattern, proof: local.proof, offered, expect, stage: Stage::WriteMsg1 })
    }

    fn write(
        &mut self,
        overhead: usize,
        payload: &[u8],
        out: &mut [u8],
        next: Stage,
    ) -> Result<usize, HandshakeError> {
        let result = write_message(&mut self.noise, overhead, payload, out);
        self.stage = match result {
            Ok(_) => next,
            Err(HandshakeError::BufferTooSmall) => self.stage,
            Err(_) => Stage::Failed,
        };
        result
    }
}
