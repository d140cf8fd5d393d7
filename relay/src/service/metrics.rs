//! Counters, as Prometheus reads them (text format 0.0.4).
//!
//! Owns one atomic per figure, each written by one thread: every forwarding thread has counters of its own, which are
//! added up when somebody asks. Never holds an address or an id.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wavry_xdp::relay::{CounterMap, Dropped, Passed};

use crate::core::SessionCounters;
use crate::drop_reason::DropReason;

/// Everything that one forwarding thread counts, and what serves it.
#[derive(Debug)]
pub struct Metrics {
    pub(super) forwarded: AtomicU64,
    pub(super) forwarded_bytes: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) sessions: AtomicU64,
    pub(super) verified: AtomicU64,
    pub(super) receive_overflow: AtomicU64,
    pub(super) merging_changes: AtomicU64,
    pub(super) ready: AtomicBool,
    /// Sessions that the fast path carries.
    pub(super) fast_sessions: AtomicU64,
    pub(super) handed_over: AtomicU64,
    pub(super) taken_back: AtomicU64,
    pub(super) fast_path_errors: AtomicU64,
    /// What the fast path counts by itself, if there is one.
    pub(super) fast_path: OnceLock<CounterMap>,
    /// What the guard of the sockets counts, if there is one.
    pub(super) guard: OnceLock<CounterMap>,
    dropped: [AtomicU64; DropReason::ALL.len()],
    session_events: [AtomicU64; 7],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            forwarded: AtomicU64::default(),
            forwarded_bytes: AtomicU64::default(),
            answered: AtomicU64::default(),
            sessions: AtomicU64::default(),
            verified: AtomicU64::default(),
            receive_overflow: AtomicU64::default(),
            merging_changes: AtomicU64::default(),
            ready: AtomicBool::default(),
            fast_sessions: AtomicU64::default(),
            handed_over: AtomicU64::default(),
            taken_back: AtomicU64::default(),
            fast_path_errors: AtomicU64::default(),
            fast_path: OnceLock::new(),
            guard: OnceLock::new(),
            dropped: std::array::from_fn(|_| AtomicU64::default()),
            session_events: std::array::from_fn(|_| AtomicU64::default()),
        }
    }
}

/// Adds to a counter that only the calling thread writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

impl Metrics {
    #[inline]
    pub(super) fn on_drop(&self, reason: DropReason) {
        add(&self.dropped[reason as usize], 1);
    }

    pub(super) fn set_sessions(&self, count: usize, counters: SessionCounters) {
        self.sessions.store(count as u64, Ordering::Relaxed);
        for (counter, (_, value)) in self.session_events.iter().zip(events(counters)) {
            counter.store(value, Ordering::Relaxed);
        }
    }

    /// Whether all threads take new sessions.
    #[must_use]
    pub fn are_ready(all: &[Arc<Self>]) -> bool {
        all.iter().all(|metrics| metrics.ready.load(Ordering::Relaxed))
    }

    /// Everything as text, added up over the threads.
    #[must_use]
    pub fn render(all: &[Arc<Self>]) -> String {
        let mut out = String::with_capacity(4096);
        let read = |of: fn(&Self) -> &AtomicU64| {
            all.iter().map(|metrics| of(metrics).load(Ordering::Relaxed)).sum::<u64>()
        };
        // To the kernel, what a guard refuses is a drop of the socket like any other.
        let guard = all.first().and_then(|first| first.guard.get()?.read_guard().ok()).unwrap_or_default();
        let guarded: u64 = Dropped::ALL.iter().map(|&reason| guard.dropped(reason)).sum();
        for (name, kind, value) in [
            ("forwarded_datagrams_total", "counter", read(|m| &m.forwarded)),
            ("forwarded_bytes_total", "counter", read(|m| &m.forwarded_bytes)),
            ("answers_total", "counter", read(|m| &m.answered)),
            ("verifications_total", "counter", read(|m| &m.verified)),
            ("receive_overflow_total", "counter", read(|m| &m.receive_overflow).saturating_sub(guarded)),
            ("merging_changes_total", "counter", read(|m| &m.merging_changes)),
            ("sessions", "gauge", read(|m| &m.sessions)),
        ] {
            let _ = writeln!(out, "# TYPE wavry_relay_{name} {kind}\nwavry_relay_{name} {value}");
        }
        out.push_str("# TYPE wavry_relay_thread_sessions gauge\n");
        for (thread, metrics) in all.iter().enumerate() {
            let sessions = metrics.sessions.load(Ordering::Relaxed);
            let _ = writeln!(out, "wavry_relay_thread_sessions{{thread=\"{thread}\"}} {sessions}");
        }
        out.push_str("# TYPE wavry_relay_session_events_total counter\n");
        let sum = |counters: &mut dyn Iterator<Item = &AtomicU64>| {
            counters.map(|counter| counter.load(Ordering::Relaxed)).sum::<u64>()
        };
        for (number, (event, _)) in events(SessionCounters::default()).into_iter().enumerate() {
            let count = sum(&mut all.iter().map(|metrics| &metrics.session_events[number]));
            let _ = writeln!(out, "wavry_relay_session_events_total{{event=\"{event}\"}} {count}");
        }
        out.push_str("# TYPE wavry_relay_dropped_datagrams_total counter\n");
        for &reason in DropReason::ALL {
            let count = sum(&mut all.iter().map(|metrics| &metrics.dropped[reason as usize]));
            let label = reason.label();
            let _ = writeln!(out, "wavry_relay_dropped_datagrams_total{{reason=\"{label}\"}} {count}");
        }
        out.push_str("# TYPE wavry_relay_guard_dropped_datagrams_total counter\n");
        for &reason in Dropped::ALL {
            let (label, count) = (reason.label(), guard.dropped(reason));
            let _ = writeln!(out, "wavry_relay_guard_dropped_datagrams_total{{reason=\"{label}\"}} {count}");
        }
        // All threads count the fast path there.
        if let Some(first) = all.first() {
            first.render_fast_path(&mut out);
        }
        out
    }

    /// The same for the fast path, whose datagrams are not among those above.
    fn render_fast_path(&self, out: &mut String) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = self.fast_path.get().and_then(|map| map.read().ok());
        let counts = counts.unwrap_or_default();
        for (name, kind, value) in [
            ("forwarded_datagrams_total", "counter", counts.forwarded),
            ("forwarded_bytes_total", "counter", counts.forwarded_bytes),
            ("answers_total", "counter", counts.answered),
            ("attached", "gauge", u64::from(self.fast_path.get().is_some())),
            ("sessions", "gauge", read(&self.fast_sessions)),
            ("sessions_handed_over_total", "counter", read(&self.handed_over)),
            ("sessions_taken_back_total", "counter", read(&self.taken_back)),
            ("errors_total", "counter", read(&self.fast_path_errors)),
        ] {
            let _ = writeln!(out, "# TYPE wavry_relay_fast_{name} {kind}\nwavry_relay_fast_{name} {value}");
        }
        let mut reasons = |name: &str, values: &mut dyn Iterator<Item = (&'static str, u64)>| {
            let _ = writeln!(out, "# TYPE wavry_relay_fast_{name}_datagrams_total counter");
            for (label, count) in values {
                let _ =
                    writeln!(out, "wavry_relay_fast_{name}_datagrams_total{{reason=\"{label}\"}} {count}");
            }
        };
        reasons("dropped", &mut Dropped::ALL.iter().map(|&reason| (reason.label(), counts.dropped(reason))));
        reasons("passed_up", &mut Passed::ALL.iter().map(|&reason| (reason.label(), counts.passed(reason))));
    }
}

fn events(c: SessionCounters) -> [(&'static str, u64); 7] {
    [
        ("bound", c.bound),
        ("renewed", c.renewed),
        ("moved", c.moved),
        ("activated", c.activated),
        ("expired", c.expired),
        ("revoked", c.revoked),
        ("rejected", c.rejected),
    ]
}
