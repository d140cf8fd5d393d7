//! Giving up what only the start needs.
//!
//! Owns the list. Never takes anything back. Capabilities belong to threads: each calls this for itself once it has
//! opened what it opens, and threads that it starts afterwards begin without.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// Gives up every capability by which a process can change the network, load programs into the kernel or become
/// more than it is. What was opened with them stays open.
pub(super) fn give_up() {
    let wanted = CapabilitySet::NET_ADMIN
        | CapabilitySet::NET_RAW
        | CapabilitySet::BPF
        | CapabilitySet::PERFMON
        | CapabilitySet::SYS_ADMIN
        | CapabilitySet::SYS_MODULE
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::SYS_NICE;
    let result = capabilities(None).and_then(|mut sets| {
        sets.effective -= wanted;
        sets.permitted -= wanted;
        sets.inheritable -= wanted;
        set_capabilities(None, sets)
    });
    if let Err(error) = result {
        tracing::warn!(%error, "capabilities that are no longer needed could not be given up");
    }
}

/// Runs something that starts threads, which begin without those capabilities; the calling thread keeps them.
pub(super) fn without<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            give_up();
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_gone_for_the_thread_and_its_children_only() {
        let before = capabilities(None).unwrap();
        without(|| {
            let child = std::thread::spawn(|| capabilities(None).unwrap()).join().unwrap();
            for sets in [capabilities(None).unwrap(), child] {
                assert!(!sets.effective.intersects(CapabilitySet::BPF | CapabilitySet::NET_ADMIN));
                assert!(!sets.permitted.intersects(CapabilitySet::BPF | CapabilitySet::NET_ADMIN));
            }
        });
        assert_eq!(capabilities(None).unwrap(), before);
    }
}
