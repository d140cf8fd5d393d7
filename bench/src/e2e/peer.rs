//! What a user would pick instead, fed with the same pictures and read by the same eye.
//!
//! The bench writes raw pictures into the sending program and reads raw pictures from the receiving one. A
//! peer's time runs from the moment when it has been given the last byte of a picture to the moment when it
//! hands out the first byte of the same picture decoded, so that the pipes cost it nothing: the figures are
//! what its conversion, codec and network path need, at best.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use wavry_platform::testsource::{Code, PictureRef, Position, Scene, paint_code, read_code};
use wavry_platform::{Geometry, Picture};
use wavry_runtime::clock::Clock;
use wavry_runtime::cores;

use super::own::free_address;
use super::process::{Program, Side, chatter};
use super::stream::Stream;
use super::{Setting, WARM_UP};
use crate::bound::bound;

/// How long a receiver may take to be ready before the first picture is sent.
const RECEIVER_START: Duration = Duration::from_millis(1500);
/// How long the pair may take to deliver its first picture.
const FIRST_PICTURE: Duration = Duration::from_secs(15);
/// A keyframe this seldom: in effect only the first, as the engine does it.
const KEYFRAME_INTERVAL: &str = "100000";

/// Either end of a WebRTC stream.
const WEBRTC_SCRIPT: &str = include_str!("webrtc.py");
/// Succeeds where the bindings that it needs are installed.
const WEBRTC_BINDINGS: &str = "import gi\nfor name in ('Gst', 'GstSdp', 'GstWebRTC'): gi.require_version(name, '1.0')\n\
                               from gi.repository import Gst, GstSdp, GstWebRTC";

/// A pair of programs to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// GStreamer: x264enc zerolatency, RTP over UDP, avdec_h264.
    GstRtp,
    /// GStreamer: the same codecs through webrtcbin, by a script for its Python binding (`webrtc.py`).
    GstWebrtc,
    /// ffmpeg: libx264 zerolatency over RTP.
    FfmpegRtp,
    /// ffmpeg: libx264 zerolatency in MPEG-TS over SRT.
    FfmpegSrt,
}

/// One run of a peer.
#[derive(Debug, Clone)]
pub(crate) struct PeerRun {
    /// Milliseconds from painted to decoded, for each picture that came out, in their order.
    pub(crate) latency_ms: Vec<f64>,
    /// Pictures that went in.
    pub(crate) sent: usize,
    /// Processor seconds of both programs per second of streaming.
    pub(crate) cpu: f64,
}

impl Peer {
    /// All that are known.
    pub(crate) const ALL: [Self; 4] = [Self::GstRtp, Self::GstWebrtc, Self::FfmpegRtp, Self::FfmpegSrt];

    /// Its name on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GstRtp => "gstreamer-rtp",
            Self::GstWebrtc => "gstreamer-webrtc",
            Self::FfmpegRtp => "ffmpeg-rtp",
            Self::FfmpegSrt => "ffmpeg-srt",
        }
    }

    /// The program it needs.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::GstRtp => "gst-launch-1.0",
            // The distribution's, which is the one that its packages of bindings are for.
            Self::GstWebrtc => "/usr/bin/python3",
            Self::FfmpegRtp | Self::FfmpegSrt => "ffmpeg",
        }
    }

    /// Whether that program, and what it needs, is here.
    pub(crate) fn is_installed(self) -> bool {
        let succeeds = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let has_elements = |elements: &[&str]| {
            elements.iter().all(|element| succeeds("gst-inspect-1.0", &["--exists", element]))
        };
        match self {
            Self::GstRtp => has_elements(&["x264enc", "avdec_h264", "rtph264pay", "rawvideoparse"]),
            Self::GstWebrtc => {
                // ICE, DTLS and SRTP come from plugins of their own.
                has_elements(&["x264enc", "avdec_h264", "rtph264pay", "webrtcbin", "dtlsenc", "srtpenc"])
                    && succeeds("gst-inspect-1.0", &["nice"])
                    && succeeds(self.program(), &["-c", WEBRTC_BINDINGS])
            }
            Self::FfmpegRtp | Self::FfmpegSrt => {
                succeeds("ffmpeg", &["-hide_banner", "-h", "encoder=libx264"])
            }
        }
    }

    fn receiver(self, address: &str, sdp: &str) -> Command {
        let port = address.rsplit(':').next().unwrap_or_default();
        let mut command = bound(self.program());
        // Not `-fflags nobuffer`: it throws away what was read to recognise the stream, the only keyframe too.
        match self {
            Self::GstRtp => command.arg("-q").args(words(&format!(
                "udpsrc address=127.0.0.1 port={port} buffer-size=4000000 \
                 caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96 \
                 ! rtph264depay ! avdec_h264 max-threads=1 ! video/x-raw,format=I420 ! fdsink fd=1 sync=false"
            ))),
            Self::GstWebrtc => command.args(["-c", WEBRTC_SCRIPT, "receive", port]),
            Self::FfmpegRtp => command
                .args(words(
                    "-hide_banner -loglevel error -protocol_whitelist file,udp,rtp -flags low_delay \
                     -max_delay 0 -reorder_queue_size 0 -analyzeduration 100000 -threads 1 -i",
                ))
                .arg(sdp)
                .args(words("-fps_mode passthrough -f rawvideo -pix_fmt yuv420p -")),
            Self::FfmpegSrt => command
                .args(words(
                    "-hide_banner -loglevel error -flags low_delay -analyzeduration 100000 -threads 1 \
                     -f mpegts -i",
                ))
                .arg(format!("srt://{address}?mode=listener&latency=0"))
                .args(words("-fps_mode passthrough -f rawvideo -pix_fmt yuv420p -")),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(chatter());
        command
    }

    fn sender(self, setting: &Setting, address: &str) -> Command {
        let Stream { geometry: Geometry { width, height }, fps } = setting.stream;
        let (threads, mbps) = (setting.threads, setting.bitrate_mbps);
        let port = address.rsplit(':').next().unwrap_or_default();
        let mut command = bound(self.program());
        let from_ffmpeg = format!(
            "-hide_banner -loglevel error -f rawvideo -pix_fmt bgr0 -video_size {width}x{height} \
             -framerate {fps} -probesize 32 -fflags nobuffer -i - -c:v libx264 -preset ultrafast \
             -tune zerolatency -threads {threads} -b:v {mbps}M -maxrate {mbps}M -bufsize {}k -pix_fmt yuv420p \
             -g {KEYFRAME_INTERVAL} -flush_packets 1 -fps_mode passthrough",
            mbps * 1000 / fps
        );
        match self {
            Self::GstRtp => command.arg("-q").args(words(&format!(
                "fdsrc fd=0 blocksize={} ! rawvideoparse format=bgrx width={width} height={height} \
                 framerate={fps}/1 ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency \
                 speed-preset=ultrafast threads={threads} bitrate={} key-int-max={KEYFRAME_INTERVAL} \
                 ! rtph264pay mtu=1200 config-interval=-1 aggregate-mode=zero-latency \
                 ! udpsink host=127.0.0.1 port={port} sync=false async=false",
                width * height * 4,
                mbps * 1000
            ))),
            Self::GstWebrtc => command
                .args(["-c", WEBRTC_SCRIPT, "send", port])
                .args([width, height, fps, threads, mbps * 1000].map(|number| number.to_string())),
            Self::FfmpegRtp => command
                .args(words(&from_ffmpeg))
                .args(words(&format!("-f rtp -payload_type 96 rtp://{address}?pkt_size=1200"))),
            Self::FfmpegSrt => command.args(words(&from_ffmpeg)).args(words(&format!(
                "-muxdelay 0 -muxpreload 0 -f mpegts srt://{address}?mode=caller&latency=0&pkt_size=1316"
            ))),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(chatter());
        command
    }
}

/// Streams once through a peer.
///
/// # Errors
/// When one of its programs fails or nothing comes out.
pub(crate) fn measure(peer: Peer, setting: &Setting) -> anyhow::Result<PeerRun> {
    let name = peer.name();
    let address = free_address()?;
    let sdp = std::env::temp_dir().join(format!("wavry-e2e-{}.sdp", std::process::id()));
    std::fs::write(&sdp, session_description(address.parse()?))
        .context("cannot write a session description")?;
    let sdp_path = sdp.to_str().context("the directory for temporary files has an unusual name")?;

    let mut receiver = Program::start(name, &mut peer.receiver(&address, sdp_path), Side::Client)?;
    std::thread::sleep(RECEIVER_START);
    let mut sender = Program::start(name, &mut peer.sender(setting, &address), Side::Host)?;

    let stop = Arc::new(AtomicBool::new(false));
    let first = Arc::new(AtomicBool::new(false));
    let input = sender.child().stdin.take().context("the sender has no input")?;
    let output = receiver.child().stdout.take().context("the receiver has no output")?;
    let feeding = {
        let (stream, stop) = (setting.stream, Arc::clone(&stop));
        std::thread::spawn(move || feed(stream, input, &stop))
    };
    let reading = {
        let (stream, first) = (setting.stream, Arc::clone(&first));
        std::thread::spawn(move || read_pictures(stream, output, &first))
    };
    let window = watch(setting, &first, &sender, &receiver);
    stop.store(true, Ordering::Relaxed);
    // All is measured, and not all of them end when asked to: dropping ends them by force, and with that the
    // pipes and both threads.
    let _ = std::fs::remove_file(&sdp);
    drop((sender, receiver));
    let given = feeding.join().map_err(|_| anyhow::anyhow!("feeding {name} panicked"))?;
    let seen = reading.join().map_err(|_| anyhow::anyhow!("reading from {name} panicked"))?;
    let window =
        window.with_context(|| format!("{name} failed; WAVRY_BENCH_VERBOSE=1 shows what it says"))?;

    let measured: BTreeMap<u32, u64> =
        given.into_iter().filter(|(_, at)| (window.started..window.ended).contains(at)).collect();
    let latency_ms: Vec<f64> = seen
        .iter()
        .filter_map(|(number, at)| Some(at.saturating_sub(*measured.get(number)?) as f64 / 1e6))
        .collect();
    ensure!(!latency_ms.is_empty(), "no picture came out of {name} that could be read");
    let cpu = window.cpu / ((window.ended - window.started) as f64 / 1e9);
    Ok(PeerRun { latency_ms, sent: measured.len(), cpu })
}

struct Window {
    started: u64,
    ended: u64,
    cpu: f64,
}

/// Waits for the first picture, lets the pair settle, and measures for as long as was asked.
fn watch(
    setting: &Setting,
    first: &AtomicBool,
    sender: &Program,
    receiver: &Program,
) -> anyhow::Result<Window> {
    let end = Clock.now() + FIRST_PICTURE.as_nanos() as u64;
    while !first.load(Ordering::Relaxed) {
        ensure!(Clock.now() < end, "no picture within {FIRST_PICTURE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(WARM_UP);
    let (started, before) = (Clock.now(), sender.cpu_seconds()? + receiver.cpu_seconds()?);
    std::thread::sleep(setting.measured);
    let cpu = sender.cpu_seconds()? + receiver.cpu_seconds()? - before;
    Ok(Window { started, ended: Clock.now(), cpu })
}

/// Paints pictures at the stream's pace and hands them over. Gives back when each had been handed over.
fn feed(stream: Stream, mut input: impl Write, stop: &AtomicBool) -> Vec<(u32, u64)> {
    // Where the engine paints; without it the figures are only less even.
    let _ = Side::Host.enter();
    cores::raise_priority(false);
    let scene = Scene::new(stream.geometry);
    let mut picture = Picture::new(stream.geometry);
    let mut given = Vec::with_capacity(1 << 16);
    let started = Clock.now();
    for number in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = started + u64::from(number) * stream.interval_ns();
        std::thread::sleep(Duration::from_nanos(due.saturating_sub(Clock.now())));
        let mut canvas = picture.as_bgrx_mut();
        scene.paint(&mut canvas, number);
        let code = Code { frame: number, timestamp_us: Clock.now() / 1000 };
        paint_code(&mut canvas, Position::Top, &code);
        paint_code(&mut canvas, Position::Bottom, &code);
        if input.write_all(picture.data()).is_err() {
            break;
        }
        given.push((number, Clock.now()));
    }
    given
}

/// Reads decoded pictures until the program ends. Gives back the number in each and when it began to come.
fn read_pictures(stream: Stream, mut output: impl Read, first: &AtomicBool) -> Vec<(u32, u64)> {
    let _ = Side::Client.enter();
    cores::raise_priority(false);
    let geometry = stream.geometry;
    let (width, luma) = (geometry.width as usize, (geometry.width * geometry.height) as usize);
    let mut picture = vec![0u8; luma * 3 / 2];
    let mut seen = Vec::with_capacity(1 << 16);
    loop {
        let begun = match output.read(&mut picture) {
            Ok(begun) if begun > 0 => begun,
            _ => return seen,
        };
        let at = Clock.now();
        if output.read_exact(&mut picture[begun..]).is_err() {
            return seen;
        }
        let plane = PictureRef::Luma { data: &picture[..luma], stride: width, geometry };
        let (top, bottom) = (read_code(&plane, Position::Top), read_code(&plane, Position::Bottom));
        if let Some(code) = top.filter(|_| top == bottom) {
            seen.push((code.frame, at));
            first.store(true, Ordering::Relaxed);
        }
    }
}

/// RFC 8866; the parameter sets come with the stream.
fn session_description(address: SocketAddr) -> String {
    format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n",
        address.port()
    )
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fed_is_read() {
        let stream: Stream = "320x96@240".parse().unwrap();
        let stop = AtomicBool::new(false);
        /// Keeps five pictures as luma planes with grey chroma, then refuses.
        struct Keep(Vec<u8>);
        impl Write for &mut Keep {
            fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
                if self.0.len() >= 5 * 320 * 96 * 3 / 2 {
                    return Err(std::io::ErrorKind::BrokenPipe.into());
                }
                self.0.extend(data.as_chunks::<4>().0.iter().map(|pixel| pixel[1]));
                self.0.extend(std::iter::repeat_n(128, 320 * 96 / 2));
                Ok(data.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut kept = Keep(Vec::new());
        let given = feed(stream, &mut kept, &stop);
        assert_eq!(given.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let first = AtomicBool::new(false);
        let seen = read_pictures(stream, &kept.0[..], &first);
        assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(first.into_inner());
    }
}
