//! `wavry lease`: keys and leases for operators of a relay without a gateway.
//!
//! Owns the issuer's key file (mode 0600, never overwritten). Prints a lease as one line, so that it can be piped into the
//! file that hosts and clients read.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use rift_crypto::WavryId;
use rift_relay::lease::{self, Claims, IssuerKey, IssuerPublic, KeyRing, LIFETIME_DEFAULT_MS};
use rift_relay::wire::SessionId;
use zeroize::Zeroizing;

/// Largest key file that is read, in bytes.
const KEY_FILE_MAX: u64 = 256;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an issuer's key file and show its public key, which goes into the relay's configuration.
    Keygen {
        /// The file to make. An existing one is not touched.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Sign a lease for one session of one client and one host on one relay, and print it.
    // One Wavry ID in 64 begins with a hyphen.
    Mint {
        /// The issuer's key file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The relay's Wavry ID, which it shows when it starts.
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        relay: WavryId,
        /// The client's Wavry ID (`wavry show-id` there).
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        client: WavryId,
        /// The host's Wavry ID.
        #[arg(long, value_name = "ID", allow_hyphen_values = true)]
        host: WavryId,
        /// The session: 32 hexadecimal digits, the same as in the lease that is to be renewed; a new one if left out.
        #[arg(long, value_name = "ID")]
        session: Option<SessionId>,
        /// Seconds that it is good for.
        #[arg(long, default_value_t = LIFETIME_DEFAULT_MS / 1000, value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
        lifetime: u64,
        /// What each peer may send on average, kbit/s.
        #[arg(long, default_value_t = 50_000)]
        soft_kbps: u32,
        /// What each peer may send for short, kbit/s.
        #[arg(long, default_value_t = 100_000)]
        hard_kbps: u32,
    },
    /// Show what a lease says.
    Show {
        /// The lease, or the file that holds it.
        lease: String,
        /// Check it against this issuer's public key.
        #[arg(long, value_name = "KEY")]
        issuer: Option<IssuerPublic>,
    },
}

pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Keygen { key } => keygen(&key),
        Command::Mint { key, relay, client, host, session, lifetime, soft_kbps, hard_kbps } => {
            let issuer = load(&key)?;
            let now_ms = unix_ms();
            let session = session.map_or_else(random_id, Ok)?;
            let claims = Claims {
                id: random_id()?,
                soft_kbps,
                ..Claims::from_now(session, relay, [client, host], now_ms, lifetime * 1000, hard_kbps)
            };
            let token = issuer.mint(&claims);
            lease::read_unverified(token.as_bytes())
                .context("client and host must differ, and the rates be above 0 with soft at most hard")?;
            say!("{token}");
            Ok(())
        }
        Command::Show { lease, issuer } => show(&lease, issuer),
    }
}

fn keygen(path: &Path) -> anyhow::Result<()> {
    let key = IssuerKey::generate()?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("the key file {} cannot be made", path.display()))?;
    file.write_all(key.to_secret_text().as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    say!("{}", key.public());
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<IssuerKey> {
    let unreadable =
        || format!("the key file {} cannot be read; `wavry lease keygen` makes one", path.display());
    let file = std::fs::File::open(path).with_context(unreadable)?;
    let mode = file.metadata().with_context(unreadable)?.mode();
    ensure!(
        mode & 0o077 == 0,
        "the key file {path} is accessible to others; run `chmod 600 {path}` if nobody has read it, else make a new one",
        path = path.display()
    );
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_MAX as usize));
    file.take(KEY_FILE_MAX).read_to_string(&mut text).with_context(unreadable)?;
    IssuerKey::from_secret_text(&text)
        .with_context(|| format!("the key file {} holds no key", path.display()))
}

fn show(given: &str, issuer: Option<IssuerPublic>) -> anyhow::Result<()> {
    let token = if given.starts_with("v4.") {
        given.to_owned()
    } else {
        std::fs::read_to_string(given)
            .with_context(|| format!("{given} is no lease and no file that can be read"))?
    };
    let token = token.trim().as_bytes();
    let claims = match issuer {
        Some(issuer) => KeyRing::new(vec![issuer]).open(token)?,
        None => lease::read_unverified(token)?,
    };
    let time = lease::format_rfc3339;
    say!("lease    {}", claims.id);
    say!("session  {}", claims.session);
    say!("relay    {}", claims.relay);
    say!("client   {}", claims.client);
    say!("host     {}", claims.host);
    say!("valid    {} to {}", time(claims.not_before_ms), time(claims.expires_ms));
    say!("rates    {} kbit/s on average, {} for short", claims.soft_kbps, claims.hard_kbps);
    say!("key      {}", lease::key_id(token)?);
    if issuer.is_none() {
        say!("the signature was not checked: give --issuer to do so");
    }
    if !claims.is_current(unix_ms()) {
        bail!("the lease is over, or not good yet");
    }
    Ok(())
}

fn random_id() -> anyhow::Result<SessionId> {
    let seed = rift_crypto::random_seed()?;
    Ok(SessionId(std::array::from_fn(|i| seed[i])))
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
