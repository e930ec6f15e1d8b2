//! The keyed work queue on which every capability runs its passes.
//!
//! It keeps four promises, in this order:
//!
//! 1. **One task per key.** A key that is pushed while its task runs is queued again when the task ends.
//! 2. **Intake in order.** Keys leave by lane, then by rank, then by arrival. [`run`] calls `prepare` for each of them in
//!    exactly that order, before any task is spawned: what `prepare` decides under a lock (a reservation, say) is decided in the
//!    order in which the watch delivered the objects, however many tasks then run at once.
//! 3. **Bounded concurrency.** No more tasks run than `capacity()` allows at that moment, so that the choice which key goes next
//!    is made here, by lane, and not in a crowd of tasks behind a semaphore.
//! 4. **Delays coalesce.** A key has at most one timer: the earliest asked for. A push now cancels it.
//!
//! The queue remembers keys, never objects; an idle key costs nothing.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tracing::error;

/// What a key must be: cheap to copy, usable in ordered and hashed collections.
pub trait Key: Copy + Ord + Hash + Send + std::fmt::Debug + 'static {}
impl<T: Copy + Ord + Hash + Send + std::fmt::Debug + 'static> Key for T {}

/// Where a key stands in line: a lower lane goes first, within a lane the lower rank, within a rank the earlier push.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Priority class; 0 goes first.
    pub lane: u8,
    /// Order within the lane, for example the arrival number of an object.
    pub rank: u64,
}

/// What a finished task asks of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing: an event will push the key when something changes.
    Done,
    /// Another pass at once.
    Again(Place),
    /// Another pass after a delay, unless an event comes first.
    After(Place, Duration),
}

/// How long a key rests after its task panicked.
const AFTER_PANIC: Duration = Duration::from_secs(5);
/// Room that an empty queue keeps.
const SMALL: usize = 256;
/// How many keys are prepared before other tasks of the runtime get a turn.
const TURN: usize = 64;

#[derive(Debug)]
enum State {
    Queued { place: Place, seq: u64 },
    Running { again: Option<Place> },
}

#[derive(Debug)]
struct Inner<K> {
    line: BTreeMap<(Place, u64), K>,
    states: HashMap<K, State>,
    timers: BTreeMap<(Instant, K), Place>,
    due: HashMap<K, Instant>,
    pushes: u64,
}

impl<K: Key> Inner<K> {
    fn push(&mut self, key: K, place: Place) {
        self.cancel_timer(key);
        match self.states.get_mut(&key) {
            Some(State::Running { again }) => *again = Some(again.map_or(place, |old| old.min(place))),
            Some(State::Queued { place: old, seq }) if place < *old => {
                self.line.remove(&(*old, *seq));
                *old = place;
                self.line.insert((place, *seq), key);
            }
            Some(State::Queued { .. }) => {}
            None => {
                self.pushes += 1;
                let seq = self.pushes;
                self.line.insert((place, seq), key);
                self.states.insert(key, State::Queued { place, seq });
            }
        }
    }

    fn push_at(&mut self, key: K, place: Place, at: Instant) {
        if matches!(self.states.get(&key), Some(State::Queued { .. })) {
            return; // its pass is due already, and will ask again if it still wants a timer
        }
        match self.due.get(&key) {
            Some(old) if *old <= at => return,
            _ => self.cancel_timer(key),
        }
        self.due.insert(key, at);
        self.timers.insert((at, key), place);
    }

    fn cancel_timer(&mut self, key: K) {
        if let Some(at) = self.due.remove(&key) {
            self.timers.remove(&(at, key));
        }
    }

    fn ring(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry() {
            let (at, key) = *entry.key();
            if at > now {
                break;
            }
            let place = entry.remove();
            self.due.remove(&key);
            self.push(key, place);
        }
    }

    fn pop(&mut self) -> Option<K> {
        let (_, key) = self.line.pop_first()?;
        self.states.insert(key, State::Running { again: None });
        Some(key)
    }

    fn finish(&mut self, key: K, next: Next) {
        let again = match self.states.remove(&key) {
            Some(State::Running { again }) => again,
            Some(queued @ State::Queued { .. }) => {
                self.states.insert(key, queued);
                return;
            }
            None => None,
        };
        if let Some(place) = again {
            self.push(key, place);
        }
        if self.states.is_empty() {
            // What a burst needed is given back.
            self.states.shrink_to(SMALL);
        }
        match next {
            Next::Done => {}
            Next::Again(place) => self.push(key, place),
            Next::After(place, delay) => self.push_at(key, place, Instant::now() + delay),
        }
    }
}

/// The handle with which watches, timers and tasks ask for a pass over a key. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Queue<K> {
    inner: Arc<Mutex<Inner<K>>>,
    bell: Arc<Notify>,
}

impl<K: Key> Default for Queue<K> {
    fn default() -> Self {
        let inner =
            Inner { line: BTreeMap::new(), states: HashMap::new(), timers: BTreeMap::new(), due: HashMap::new(), pushes: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), bell: Arc::new(Notify::new()) }
    }
}

impl<K: Key> Queue<K> {
    /// Asks for a pass as soon as the key's turn comes. A key that waits already keeps the better of its two places.
    pub fn push(&self, key: K, place: Place) {
        self.lock().push(key, place);
        self.bell.notify_one();
    }

    /// Asks for a pass after `delay`. The earliest such wish counts; a [`push`](Self::push) in between fulfils it.
    pub fn push_after(&self, key: K, place: Place, delay: Duration) {
        self.lock().push_at(key, place, Instant::now() + delay);
        self.bell.notify_one();
    }

    /// How many keys wait in line, not counting timers and running tasks.
    pub fn len(&self) -> usize {
        self.lock().line.len()
    }

    /// Whether no key waits in line.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a key's task runs.
    pub fn is_busy(&self) -> bool {
        self.lock().states.values().any(|state| matches!(state, State::Running { .. }))
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn finish(&self, key: K, next: Next) {
        self.lock().finish(key, next);
    }

    /// The next key whose turn it is, and when the next timer rings.
    fn take(&self) -> (Option<K>, Option<Instant>) {
        let mut inner = self.lock();
        inner.ring(Instant::now());
        let key = inner.pop();
        (key, inner.timers.keys().next().map(|(at, _)| *at))
    }
}

/// Runs passes until `stop` resolves, then lets the running ones end for at most `patience`.
///
/// `prepare` is called in the queue's order, one key at a time, never concurrently with itself; it returns the work that is left
/// to do asynchronously, or the answer at once. `capacity` is asked before each key.
pub async fn run<K, P, F>(
    queue: &Queue<K>,
    capacity: impl Fn() -> usize,
    stop: impl Future<Output = ()>,
    patience: Duration,
    mut prepare: P,
) where
    K: Key,
    P: FnMut(K) -> Result<F, Next>,
    F: Future<Output = Next> + Send + 'static,
{
    let mut tasks = JoinSet::new();
    let mut keys: HashMap<Id, K> = HashMap::new();
    tokio::pin!(stop);
    loop {
        let mut alarm = None;
        let mut prepared = 0;
        while tasks.len() < capacity().max(1) && prepared < TURN {
            let (key, next_timer) = queue.take();
            alarm = next_timer;
            let Some(key) = key else { break };
            prepared += 1;
            match prepare(key) {
                Ok(work) => {
                    keys.insert(tasks.spawn(work).id(), key);
                }
                Err(next) => queue.finish(key, next),
            }
        }
        let busy = tasks.len() >= capacity().max(1);
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => settle(queue, &mut keys, ended),
            () = tokio::task::yield_now(), if prepared == TURN => {}
            () = queue.bell.notified(), if !busy => {}
            () = until(alarm), if !busy && prepared < TURN => {}
        }
    }
    let drain = async {
        while let Some(ended) = tasks.join_next_with_id().await {
            settle(queue, &mut keys, ended);
        }
    };
    let _ = tokio::time::timeout(patience, drain).await;
}

async fn until(alarm: Option<Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn settle<K: Key>(queue: &Queue<K>, keys: &mut HashMap<Id, K>, ended: Result<(Id, Next), tokio::task::JoinError>) {
    let (id, next) = match ended {
        Ok((id, next)) => (id, next),
        Err(panic) => {
            error!(error = %panic, "a pass panicked; its key rests before the next try");
            (panic.id(), Next::After(Place { lane: u8::MAX, rank: 0 }, AFTER_PANIC))
        }
    };
    if let Some(key) = keys.remove(&id) {
        queue.finish(key, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const fn at(lane: u8, rank: u64) -> Place {
        Place { lane, rank }
    }

    fn order(queue: &Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| {
            let key = queue.take().0?;
            queue.finish(key, Next::Done);
            Some(key)
        })
        .collect()
    }

    #[tokio::test]
    async fn keys_leave_by_lane_then_rank_then_arrival() {
        let queue = Queue::default();
        for (key, place) in [(1, at(2, 7)), (2, at(2, 3)), (3, at(0, 9)), (4, at(2, 3))] {
            queue.push(key, place);
        }
        assert_eq!(order(&queue), [3, 2, 4, 1]);
    }

    #[tokio::test]
    async fn a_key_pushed_twice_runs_once_at_the_better_place() {
        let queue = Queue::default();
        queue.push(1, at(2, 1));
        queue.push(2, at(2, 2));
        queue.push(2, at(0, 0));
        queue.push(1, at(3, 0));
        assert_eq!(order(&queue), [2, 1]);
    }

    #[tokio::test]
    async fn a_key_pushed_while_it_runs_gets_another_pass_after() {
        let queue = Queue::default();
        queue.push(1, at(0, 0));
        let (key, _) = queue.take();
        queue.push(1, at(0, 0));
        assert_eq!((key, queue.take().0), (Some(1), None));
        queue.finish(1, Next::Done);
        assert_eq!(queue.take().0, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_timer_of_a_key_counts_and_a_push_fulfils_it() {
        let queue = Queue::default();
        queue.push_after(1, at(0, 0), Duration::from_secs(9));
        queue.push_after(1, at(0, 0), Duration::from_secs(3));
        queue.push_after(1, at(0, 0), Duration::from_secs(6));
        assert_eq!(queue.take().0, None);
        tokio::time::advance(Duration::from_secs(3)).await;
        assert_eq!(queue.take().0, Some(1));
        queue.finish(1, Next::After(at(0, 0), Duration::from_secs(1)));
        queue.push(1, at(0, 0));
        assert_eq!(order(&queue), [1]);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(queue.take().0, None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_tasks_run_than_capacity_allows_and_preparation_keeps_the_order() {
        let queue: Queue<u32> = Queue::default();
        for key in 0..20 {
            queue.push(key, at(0, u64::from(key)));
        }
        let running = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let mut prepared = Vec::new();
        let stop = tokio::time::sleep(Duration::from_secs(60));
        run(
            &queue,
            || 3,
            stop,
            Duration::ZERO,
            |key| {
                prepared.push(key);
                let (running, most) = (running.clone(), most.clone());
                Ok(async move {
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(u64::from(100 - key))).await;
                    running.fetch_sub(1, Ordering::SeqCst);
                    Next::Done
                })
            },
        )
        .await;
        assert_eq!((prepared, most.load(Ordering::SeqCst)), ((0..20).collect(), 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_panicking_pass_rests_its_key_and_harms_no_other() {
        let queue: Queue<u32> = Queue::default();
        queue.push(1, at(0, 0));
        queue.push(2, at(0, 1));
        let mut seen = Vec::new();
        run(
            &queue,
            || 1,
            tokio::time::sleep(AFTER_PANIC * 2),
            Duration::ZERO,
            |key| {
                seen.push(key);
                let first = seen.len() == 1;
                Ok(async move {
                    assert!(!first, "the first pass fails");
                    Next::Done
                })
            },
        )
        .await;
        assert_eq!(seen, [1, 2, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_queue_lets_running_passes_end() {
        let queue: Queue<u32> = Queue::default();
        queue.push(1, at(0, 0));
        let ended = Arc::new(AtomicUsize::new(0));
        let stop = tokio::time::sleep(Duration::from_millis(1));
        run(
            &queue,
            || 1,
            stop,
            Duration::from_secs(5),
            |_| {
                let ended = ended.clone();
                Ok(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                    Next::Done
                })
            },
        )
        .await;
        assert_eq!(ended.load(Ordering::SeqCst), 1);
    }
}
