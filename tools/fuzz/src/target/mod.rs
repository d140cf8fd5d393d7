//! The targets. Each takes any bytes and panics only if something is wrong.

mod endpoint;
mod header;
mod input_batch;
mod key_lists;
mod message;
mod noise;
mod pairing;
mod peer;
mod receiver;
mod relay;
mod scenario;
mod script;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also the folder of its corpus.
    pub name: &'static str,
    /// What it holds the code to.
    pub about: &'static str,
    /// The longest input worth trying, in bytes.
    pub input_len_max: usize,
    /// Runs it.
    pub run: fn(&[u8]),
    /// Inputs to begin with where there is no corpus.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "header",
        about: "both datagram headers: what decodes encodes to the same bytes",
        input_len_max: 64,
        run: header::run,
        seeds: header::seeds,
    },
    Target {
        name: "message",
        about: "message decoder against the generic Protocol Buffers decoder, and the encoders against each other",
        input_len_max: 2_048,
        run: message::run,
        seeds: message::seeds,
    },
    Target {
        name: "input_batch",
        about: "input receiver: whatever comes, nothing out of range is applied and state follows events",
        input_len_max: 2_048,
        run: input_batch::run,
        seeds: input_batch::seeds,
    },
    Target {
        name: "noise",
        about: "handshake messages into responder and initiator, XX and IK, and payload decoders",
        input_len_max: 1_200,
        run: noise::run,
        seeds: noise::seeds,
    },
    Target {
        name: "key_lists",
        about: "allow-list and known-hosts files: every line is a peer, a comment, blank or reported",
        input_len_max: 4_096,
        run: key_lists::run,
        seeds: key_lists::seeds,
    },
    Target {
        name: "pairing",
        about: "pairing messages: what decodes encodes to the same bytes, and no guess pairs",
        input_len_max: 128,
        run: pairing::run,
        seeds: pairing::seeds,
    },
    Target {
        name: "receiver",
        about: "video receiver: slices in order and once, all polling ends",
        input_len_max: 4_096,
        run: receiver::run,
        seeds: receiver::seeds,
    },
    Target {
        name: "outsider",
        about: "datagrams of somebody without keys into host and client",
        input_len_max: 4_096,
        run: endpoint::run_outsider,
        seeds: endpoint::outsider_seeds,
    },
    Target {
        name: "host",
        about: "a host whose client has the keys and lost its mind, reliable messages included",
        input_len_max: 8_192,
        run: endpoint::run_host,
        seeds: endpoint::host_seeds,
    },
    Target {
        name: "client",
        about: "a client whose host has the keys and lost its mind, reliable messages included",
        input_len_max: 8_192,
        run: endpoint::run_client,
        seeds: endpoint::client_seeds,
    },
    Target {
        name: "scenario",
        about: "simulator scenarios: what is read is written and read back as the same",
        input_len_max: 1_024,
        run: scenario::run,
        seeds: scenario::seeds,
    },
    Target {
        name: "relay",
        about: "datagrams of strangers into a relay: no session, no answer longer than what it answers",
        input_len_max: 4_096,
        run: relay::run_relay,
        seeds: relay::relay_seeds,
    },
    Target {
        name: "relay_peer",
        about: "datagrams of somebody who is not the relay into a peer of one: never bound",
        input_len_max: 2_048,
        run: relay::run_peer,
        seeds: relay::peer_seeds,
    },
    Target {
        name: "lease",
        about: "leases: only an issuer's opens, and what is read is written and read back as the same",
        input_len_max: 1_024,
        run: relay::run_lease,
        seeds: relay::lease_seeds,
    },
];

impl Target {
    /// The target called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        TARGETS.iter().find(|target| target.name == name)
    }
}
