//! Runs on all cores, told of in their order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// How many threads [`run`] takes for so many jobs.
pub(super) fn cores(jobs: usize) -> usize {
    thread::available_parallelism().map_or(1, usize::from).clamp(1, jobs.max(1))
}

/// Does `work` for every job, on as many threads as there are cores, and hands what comes out to `tell` on this thread,
/// in the order of the jobs. What `tell` refuses ends the work: jobs that nobody began are left.
pub(super) fn run<J: Sync, R: Send, E>(
    jobs: &[J],
    work: impl Fn(&J) -> R + Sync,
    mut tell: impl FnMut(&J, R) -> Result<(), E>,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let (done, results) = mpsc::channel();
        for _ in 0..cores(jobs.len()) {
            let (done, next, work) = (done.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(at) else { break };
                    if done.send((at, work(job))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(done);
        let mut early = BTreeMap::new();
        let mut due = 0;
        for (at, result) in results {
            early.insert(at, result);
            while let Some(result) = early.remove(&due) {
                tell(&jobs[due], result)?;
                due += 1;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_jobs() {
        let jobs: Vec<u64> = (0..200).collect();
        let mut told = Vec::new();
        let work = |&job: &u64| {
            std::thread::sleep(std::time::Duration::from_micros(job * 37 % 400));
            job * 2
        };
        let all = run(&jobs, work, |&job, result| {
            told.push((job, result));
            Ok::<_, ()>(())
        });
        assert_eq!(all, Ok(()));
        assert_eq!(told, jobs.iter().map(|&job| (job, job * 2)).collect::<Vec<_>>());
        assert_eq!(run(&[0u8; 0], |_| (), |_, ()| Err(())), Ok(()));
    }

    #[test]
    fn a_refusal_ends_it() {
        let begun = AtomicUsize::new(0);
        let work = |_: &u64| begun.fetch_add(1, Ordering::Relaxed);
        let result = run(&(0..1_000_000).collect::<Vec<u64>>(), work, |_, _| Err("full"));
        assert_eq!(result, Err("full"));
        assert!(begun.into_inner() < 1_000_000);
    }
}
