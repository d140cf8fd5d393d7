//! `/metrics`, `/healthz` and `/readyz` over HTTP/1.1, for the monitoring of the machine.
//!
//! Owns a TCP listener on a thread of its own. Never reads more than one small request per connection, and never waits
//! longer than a second for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::Metrics;

const REQUEST_MAX: usize = 2048;
const PATIENCE: Duration = Duration::from_secs(1);

/// Answers from now on.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(super) fn start(address: SocketAddr, metrics: Vec<Arc<Metrics>>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::AddrNotAvailable if address.ip().is_loopback() => {
                "the loopback device is down: `ip link set lo up`"
            }
            ErrorKind::AddrNotAvailable => "no device of this machine has that address",
            _ => "choose another port",
        };
        anyhow::Error::new(error)
            .context(format!("the metrics endpoint {address} cannot be opened; {remedy}"))
    })?;
    let thread = std::thread::Builder::new().name("relay-metrics".to_owned());
    thread.spawn(move || {
        for stream in listener.incoming().flatten() {
            // Somebody who hangs up early is none of our business.
            let _ = serve(stream, &metrics);
        }
    })?;
    Ok(())
}

fn serve(mut stream: TcpStream, metrics: &[Arc<Metrics>]) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut request = [0; REQUEST_MAX];
    let mut len = 0;
    while len < REQUEST_MAX && !request[..len].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut request[len..])? {
            0 => break,
            read => len += read,
        }
    }
    let (status, body) = respond(&request[..len], metrics);
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What is answered to a request.
fn respond(request: &[u8], metrics: &[Arc<Metrics>]) -> (&'static str, String) {
    let line = request.split(|&b| b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&b| b == b' ');
    match (words.next(), words.next()) {
        (Some(b"GET"), Some(b"/metrics")) => ("200 OK", Metrics::render(metrics)),
        (Some(b"GET"), Some(b"/healthz")) => ("200 OK", "ok\n".to_owned()),
        (Some(b"GET"), Some(b"/readyz")) if Metrics::are_ready(metrics) => ("200 OK", "ready\n".to_owned()),
        (Some(b"GET"), Some(b"/readyz")) => ("503 Service Unavailable", "draining\n".to_owned()),
        (Some(b"GET"), Some(_)) => ("404 Not Found", "there is /metrics, /healthz and /readyz\n".to_owned()),
        _ => ("400 Bad Request", "only GET\n".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn requests_are_answered() {
        let metrics = [Arc::new(Metrics::default()), Arc::new(Metrics::default())];
        let status = |request: &[u8]| respond(request, &metrics).0;
        assert_eq!(status(b"GET /metrics HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status(b"GET /healthz HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status(b"GET /readyz HTTP/1.1\r\n\r\n"), "503 Service Unavailable");
        metrics[0].ready.store(true, Ordering::Relaxed);
        assert_eq!(status(b"GET /readyz HTTP/1.1\r\n\r\n"), "503 Service Unavailable", "not all of them");
        metrics[1].ready.store(true, Ordering::Relaxed);
        assert_eq!(status(b"GET /readyz HTTP/1.1\r\n\r\n"), "200 OK");
        assert_eq!(status(b"GET / HTTP/1.1\r\n\r\n"), "404 Not Found");
        assert_eq!(status(b"\xff\0"), "400 Bad Request");
        assert_eq!(status(b""), "400 Bad Request");
        let text = respond(b"GET /metrics ", &metrics).1;
        assert!(text.contains("wavry_relay_dropped_datagrams_total{reason=\"far_ahead\"} 0"), "{text}");
    }
}
