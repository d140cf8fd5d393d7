//! A stream through a relay, and what the relay and `wavry lease` say when something is wrong.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rift_relay::wire::{FORWARD_LEN, Header, Kind};

use crate::support::{Place, Running, assert_fails, assert_succeeds, program};

/// Bytes of RIFT's transport header.
const RIFT_HEADER: usize = 18;

/// A relay, an issuer, and a host and a client that are paired and have a lease.
struct Net {
    place: Place,
    relay: Option<Running>,
    relay_address: String,
    host: Running,
    host_address: String,
}

fn wavry(place: &Place, home: &str, arguments: &[&str]) -> String {
    let mut command = program("wavry");
    command.arg("--config-dir").arg(place.join(home)).args(arguments);
    let output = command.output().unwrap();
    assert_succeeds(&output);
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn start_relay(place: &Place) -> (Running, String, String) {
    let mut command = program("wavry-relay");
    command.arg("--config").arg(place.join("relay.toml")).env("WAVRY_LOG", "info");
    let running = Running::start(command);
    let line = running.wait_for("wavry-relay ");
    let (id, address) = line.split_once(" listens on ").unwrap();
    (running, id.to_owned(), address.to_owned())
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Net {
    fn start(name: &str) -> Self {
        let place = Place::new(name);
        let key = place.join("issuer");
        let key = key.to_str().unwrap();
        let issuer = wavry(&place, "client", &["lease", "keygen", "--key", key]);
        fs::write(
            place.join("relay.toml"),
            format!(
                "listen = \"127.0.0.1:{}\"\nidentity = {:?}\nissuers = [\"{issuer}\"]\nmetrics = \"127.0.0.1:{}\"\ndrain_seconds = 1\n",
                free_port(),
                place.join("relay-identity"),
                free_port(),
            ),
        )
        .unwrap();
        let (relay, relay_id, relay_address) = start_relay(&place);
        let client_id = wavry(&place, "client", &["keygen"]);
        let host_id = wavry(&place, "host", &["keygen"]);
        let mint =
            ["lease", "mint", "--key", key, "--relay", &relay_id, "--client", &client_id, "--host", &host_id];
        fs::write(place.join("lease"), wavry(&place, "client", &mint)).unwrap();

        let mut command = program("wavry-server");
        command
            .args(["--listen", "127.0.0.1:0", "--source", "test:320x192", "--fps", "30", "--pair", "--relay"])
            .args([&relay_address, "--lease"])
            .arg(place.join("lease"))
            .arg("--config-dir")
            .arg(place.join("host"));
        let host = Running::start(command);
        let pin = host.wait_for("Pairing PIN: ").split_once('(').unwrap().0.trim().to_owned();
        let host_address = host.wait_for("listens on ");
        wavry(&place, "client", &["pair", &host_address, "--pin", &pin]);
        Self { place, relay: Some(relay), relay_address, host, host_address }
    }

    fn client(&self, relay: &str, seconds: &str) -> Running {
        let mut command = program("wavry-client");
        command
            .args([
                &self.host_address,
                "--headless",
                "--verify",
                "both",
                "--duration",
                seconds,
                "--relay",
                relay,
            ])
            .arg("--lease")
            .arg(self.place.join("lease"))
            .arg("--config-dir")
            .arg(self.place.join("client"));
        Running::start(command)
    }

    fn metric(&self, name: &str) -> u64 {
        let config = fs::read_to_string(self.place.join("relay.toml")).unwrap();
        let address = config.split("metrics = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let values = text.lines().filter(|line| line.starts_with(name));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// Stands between a client and a relay and keeps copies of small forwarded datagrams of the client.
struct Observer {
    address: String,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
}

impl Observer {
    fn start(relay: &str) -> Self {
        let relay: SocketAddr = relay.parse().unwrap();
        let outside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inside = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = outside.local_addr().unwrap().to_string();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        for socket in [&outside, &inside] {
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        }
        let client = Arc::new(Mutex::new(None));
        let copy = |socket: &UdpSocket| socket.try_clone().unwrap();
        let (from, to) = (copy(&outside), copy(&inside));
        let (kept, ended, known) = (Arc::clone(&seen), Arc::clone(&stop), Arc::clone(&client));
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, sender)) = from.recv_from(&mut bytes) else { continue };
                *known.lock().unwrap() = Some(sender);
                let datagram = &bytes[..len];
                let forward = Header::decode(datagram).is_ok_and(|header| header.kind == Kind::Forward);
                if forward && len < 200 {
                    kept.lock().unwrap().push(datagram[FORWARD_LEN..].to_vec());
                }
                let _ = to.send_to(datagram, relay);
            }
        });
        let ended = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut bytes = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, _)) = inside.recv_from(&mut bytes) else { continue };
                let to = *client.lock().unwrap();
                if let Some(to) = to {
                    let _ = outside.send_to(&bytes[..len], to);
                }
            }
        });
        Self { address, seen, stop }
    }

    /// A sealed packet of the client: with a transport header, and not among the first.
    fn packet(&self) -> Vec<u8> {
        let seen = self.seen.lock().unwrap();
        let sealed = |p: &&Vec<u8>| p.len() > RIFT_HEADER + 16 && p[4..8] != [0; 4];
        seen.iter().rfind(sealed).expect("the client sent nothing").clone()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn opens(algorithm: &'static Algorithm, key: &[u8], packet: &[u8], scratch: &mut Vec<u8>) -> bool {
    let (header, sealed) = packet.split_at(RIFT_HEADER);
    let id = u64::from_be_bytes(header[8..16].try_into().unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&id.to_le_bytes());
    scratch.clear();
    scratch.extend(sealed);
    let key = LessSafeKey::new(UnboundKey::new(algorithm, key).unwrap());
    key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(header), scratch).is_ok()
}

/// Whether anything in the writable memory of a process, taken as a key, opens the packet.
fn memory_holds_key(pid: u32, packet: &[u8]) -> Option<bool> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut scratch = Vec::new();
    let mut read_any = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next()?, words.next()?);
        if !access.starts_with("rw-p") {
            continue;
        }
        let (from, to) = range.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; (to - from) as usize];
        if memory.seek(SeekFrom::Start(from)).is_err() || memory.read_exact(&mut bytes).is_err() {
            continue;
        }
        read_any = true;
        for window in bytes.windows(32).step_by(8) {
            // A key is random: it has no zero word, and hardly a repeated one.
            let looks_random = window.chunks(8).all(|word| word != [0; 8] && word != [0xff; 8])
                && window.iter().filter(|&&byte| byte == 0).count() < 4;
            if looks_random
                && [&CHACHA20_POLY1305, &AES_256_GCM]
                    .into_iter()
                    .any(|a| opens(a, window, packet, &mut scratch))
            {
                return Some(true);
            }
        }
    }
    read_any.then_some(false)
}

#[test]
fn output_that_cannot_be_written_does_not_end_a_relay() {
    let place = Place::new("relay-output");
    let issuer = wavry(&place, "a", &["lease", "keygen", "--key", place.join("issuer").to_str().unwrap()]);
    let text = format!(
        "listen = \"127.0.0.1:{}\"\nidentity = {:?}\nissuers = [\"{issuer}\"]\n",
        free_port(),
        place.join("relay-identity"),
    );
    fs::write(place.join("relay.toml"), text).unwrap();
    let mut command = program("wavry-relay");
    command.arg("--dry-run").arg("--config").arg(place.join("relay.toml"));
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_stream_through_a_relay_loses_nothing_and_the_relay_holds_no_key() {
    let mut net = Net::start("stream");
    let observer = Observer::start(&net.relay_address);
    let mut client = net.client(&observer.address, "5");
    client.wait_for("connected to ");
    std::thread::sleep(Duration::from_millis(1500));

    let packet = observer.packet();
    let relay_pid = net.relay.as_ref().unwrap().child.id();
    match (memory_holds_key(client.child.id(), &packet), memory_holds_key(relay_pid, &packet)) {
        (Some(client_holds), Some(relay_holds)) => {
            assert!(client_holds, "the search does not find the key where it is");
            assert!(!relay_holds, "the relay holds a session key");
        }
        _ => println!("skipped: this user may not read the memory of the programs"),
    }
    client.wait_for("verified: ");
    assert_eq!(client.exit_code(), Some(0));

    assert!(net.metric("wavry_relay_forwarded_datagrams_total") > 100);
    assert_eq!(net.metric("wavry_relay_session_events_total{event=\"activated\"}"), 1);
    // Before both had presented, a datagram may have come too early; nothing else goes missing.
    for reason in
        ["mac", "address", "replay", "old", "far_ahead", "hard_limit", "soft_limit", "no_buffer", "header"]
    {
        assert_eq!(
            net.metric(&format!("wavry_relay_dropped_datagrams_total{{reason=\"{reason}\"}}")),
            0,
            "{reason}"
        );
    }
    let mut relay = net.relay.take().unwrap();
    relay.signal("INT");
    assert_eq!(relay.exit_code(), Some(0), "drains and ends");
    net.host.signal("TERM");
    assert_eq!(net.host.exit_code(), Some(0));
}

#[test]
fn a_stream_goes_on_when_the_relay_is_killed_and_started_again() {
    let mut net = Net::start("restart");
    let mut client = net.client(&net.relay_address, "6");
    client.wait_for("connected to ");
    std::thread::sleep(Duration::from_millis(1000));
    let relay = net.relay.take().unwrap();
    relay.signal("KILL");
    drop(relay);
    let (relay, _, address) = start_relay(&net.place);
    assert_eq!(address, net.relay_address);
    net.relay = Some(relay);
    let begun = Instant::now();
    while net.metric("wavry_relay_forwarded_datagrams_total") < 20 {
        assert!(begun.elapsed() < Duration::from_secs(5), "the session did not come back");
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("back after {:?}", begun.elapsed());
    client.wait_for("verified: ");
    assert_eq!(client.exit_code(), Some(0));
}

#[test]
fn a_relay_says_what_is_wrong() {
    let place = Place::new("relay-wrong");
    let relay = |config: &str| {
        fs::write(place.join("relay.toml"), config).unwrap();
        let mut command = program("wavry-relay");
        command.arg("--config").arg(place.join("relay.toml")).arg("--dry-run");
        command.output().unwrap()
    };
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let good = format!(
        "listen = \"127.0.0.1:{port}\"\nidentity = {:?}\nissuers = [\"k4.public.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"]\n",
        place.join("identity")
    );
    assert_fails(&relay(&good), &[&port.to_string(), "already in use"]);
    drop(taken);
    assert_succeeds(&relay(&good));
    let first = fs::read(place.join("identity")).unwrap();
    assert_succeeds(&relay(&good));
    assert_eq!(fs::read(place.join("identity")).unwrap(), first, "the identity is kept");
    assert_fails(&relay("sesions = 1"), &["sesions"]);
    assert_fails(&relay(""), &["issuers", "wavry lease keygen"]);
    fs::remove_file(place.join("relay.toml")).unwrap();
    let output = program("wavry-relay").arg("--config").arg(place.join("relay.toml")).output().unwrap();
    assert_fails(&output, &["relay.toml", "cannot be read"]);
}

#[test]
fn leases_are_minted_and_shown() {
    let place = Place::new("lease");
    let key = place.join("issuer");
    let key = key.to_str().unwrap();
    let issuer = wavry(&place, "a", &["lease", "keygen", "--key", key]);
    let again = program("wavry").args(["lease", "keygen", "--key", key]).output().unwrap();
    assert_fails(&again, &["issuer"]);
    let (one, two) = (wavry(&place, "a", &["keygen"]), wavry(&place, "b", &["keygen"]));
    let mint = ["lease", "mint", "--key", key, "--relay", &one, "--client", &one, "--host", &two];
    let token = wavry(&place, "a", &mint);
    let shown = wavry(&place, "a", &["lease", "show", &token, "--issuer", &issuer]);
    assert!(shown.contains(&format!("host     {two}")) && !shown.contains("not checked"), "{shown}");
    let stranger = "k4.public.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let output = program("wavry").args(["lease", "show", &token, "--issuer", stranger]).output().unwrap();
    assert_fails(&output, &["issuers"]);
    let mint = ["lease", "mint", "--key", key, "--relay", &one, "--client", &one, "--host", &one];
    assert_fails(&program("wavry").args(mint).output().unwrap(), &["must differ"]);
    // One ID in 64 begins as an option does.
    let ids =
        (0..=255).map(|seed| rift_crypto::Identity::from_seed([seed; 32]).unwrap().wavry_id().to_string());
    let [a, b]: [String; 2] =
        ids.filter(|id| id.starts_with('-')).take(2).collect::<Vec<_>>().try_into().unwrap();
    wavry(&place, "a", &["lease", "mint", "--key", key, "--relay", &a, "--client", &a, "--host", &b]);
    assert_fails(&program("wavry").args(["lease", "show", "nothing"]).output().unwrap(), &["nothing"]);
    let mut command = program("wavry-client");
    command.args(["127.0.0.1:9", "--headless", "--relay", "127.0.0.1:9", "--lease", &token, "--config-dir"]);
    let output = command.arg(place.join("c")).output().unwrap();
    assert_fails(&output, &["the lease is for other machines"]);
}
