//! How many writes may be under way at once, and whose turn is next.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::Priority;
use crate::kit::metrics::Metrics;

const START: usize = 16;
/// An answer may take so many times what the quickest takes before the server counts as having too much at once …
const SLOW: f64 = 3.0;
/// … and so many writes may wait there even then, so that it never runs dry.
const QUEUE: f64 = 16.0;
/// How long the quickest answer is believed before it is measured again, by so many writes one after the other.
const BELIEVED: Duration = Duration::from_secs(30);
const PROBES: usize = 3;
/// A server that asks for a longer pause is asked again after this one.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What an answer says about the load of the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Load {
    /// It answered.
    Fine,
    /// It is overloaded: 429, 503, 504, a webhook that failed, a time-out.
    TooMuch,
    /// Nothing can be told: cancelled, or no connection.
    Unknown,
}

/// The write window as arithmetic: grows by one for each window of successes, halves on overload, and shrinks by one for each
/// window of answers that is slow because they wait for each other at the server: more at once would only wait longer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Window {
    size: usize,
    max: usize,
    successes: usize,
    /// What these successes took together.
    took: Duration,
    /// What the quickest success took since when.
    quickest: Option<(Duration, Instant)>,
    /// The size to come back to once the quickest is measured again.
    before_probe: Option<usize>,
    issued: u64,
    /// Tickets before this one belong to a window that was halved or made small already.
    changed_at: u64,
}

/// How the server answered one write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) load: Load,
    /// From its being sent to its answer.
    pub(crate) took: Duration,
    /// Whether more writes than the window lets through were there to be sent.
    pub(crate) crowded: bool,
}

impl Window {
    /// A window of 16, or of `max` if that is less; never below 1.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            size: START.min(max),
            max,
            successes: 0,
            took: Duration::ZERO,
            quickest: None,
            before_probe: None,
            issued: 0,
            changed_at: 0,
        }
    }

    /// How many writes may be under way.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// A number for a write that begins now.
    pub(crate) fn ticket(&mut self) -> u64 {
        self.issued += 1;
        self.issued
    }

    /// Learns from the answer to the write with that ticket.
    pub(crate) fn learn(&mut self, ticket: u64, answered: Answered, now: Instant) {
        match answered.load {
            Load::Fine => self.succeed(ticket, answered, now),
            Load::TooMuch if ticket > self.changed_at => self.resize((self.size / 2).max(1)),
            Load::TooMuch | Load::Unknown => {}
        }
    }

    fn succeed(&mut self, ticket: u64, answered: Answered, now: Instant) {
        let (quickest, since) = self.quickest.unwrap_or((answered.took, now));
        self.quickest = Some((quickest.min(answered.took), since));
        // What was sent before the last change says how the server did with another size.
        if ticket <= self.changed_at {
            return;
        }
        self.successes += 1;
        self.took += answered.took;
        let enough = if self.before_probe.is_some() { PROBES } else { self.size };
        if self.successes < enough {
            return;
        }
        if let Some(size) = self.before_probe.take() {
            return self.resize(size);
        }
        if now - since >= BELIEVED {
            self.quickest = None;
            self.before_probe = Some(self.size);
            return self.resize(1);
        }
        let waiting = self.waiting();
        (self.successes, self.took) = (0, Duration::ZERO);
        if waiting > QUEUE {
            self.size = (self.size - 1).max(1);
        } else if answered.crowded {
            self.size = (self.size + 1).min(self.max);
        }
    }

    /// How many of the writes under way wait for others, by how long answers take on average.
    #[allow(clippy::cast_precision_loss, reason = "a window is small")]
    fn waiting(&self) -> f64 {
        let quickest = self.quickest.map_or(Duration::ZERO, |(quickest, _)| quickest).as_secs_f64();
        let average = self.took.as_secs_f64() / self.successes as f64;
        if average > 0.0 { self.size as f64 * (1.0 - SLOW * quickest / average) } else { 0.0 }
    }

    fn resize(&mut self, size: usize) {
        self.size = size;
        (self.successes, self.took) = (0, Duration::ZERO);
        self.changed_at = self.issued;
    }
}

/// Hands out permits to write: by priority, then first in, first out.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    window: Window,
    inflight: usize,
    closed_until: Instant,
    arrivals: u64,
    waiting: BTreeMap<(Priority, u64), oneshot::Sender<Permit>>,
}

/// The right to have one write under way; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once given back.
    gate: Option<Arc<Gate>>,
    ticket: u64,
    sent: Instant,
    load: Load,
    pause: Option<Duration>,
}

impl Permit {
    /// Gives the permit back with what the answer says.
    pub(crate) fn done(mut self, load: Load, pause: Option<Duration>) {
        self.load = load;
        self.pause = pause;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.give_back(self.ticket, self.sent, self.load, self.pause);
        }
    }
}

impl Gate {
    /// How many writes may be under way.
    pub(crate) fn size(&self) -> usize {
        self.lock().window.size()
    }

    pub(crate) fn new(max: usize, metrics: Metrics) -> Self {
        let gate = Self {
            state: Mutex::new(State {
                window: Window::new(max),
                inflight: 0,
                closed_until: Instant::now(),
                arrivals: 0,
                waiting: BTreeMap::new(),
            }),
            metrics,
        };
        gate.metrics.writes(0, gate.lock().window.size());
        gate
    }

    /// Waits for a permit. A caller that stops waiting leaves the queue.
    pub(crate) async fn permit(self: &Arc<Self>, priority: Priority) -> Permit {
        loop {
            let turn = {
                let mut state = self.lock();
                let (give, turn) = oneshot::channel();
                let place = (priority, state.arrivals);
                state.arrivals += 1;
                state.waiting.insert(place, give);
                self.admit(&mut state);
                turn
            };
            if let Ok(permit) = turn.await {
                return permit;
            }
        }
    }

    /// The number of writes that wait for a permit.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(self: &Arc<Self>, state: &mut State) {
        while state.inflight < state.window.size() && state.closed_until <= Instant::now() {
            let Some((_, give)) = state.waiting.pop_first() else {
                break;
            };
            let permit = Permit {
                gate: Some(Arc::clone(self)),
                ticket: state.window.ticket(),
                sent: Instant::now(),
                load: Load::Unknown,
                pause: None,
            };
            match give.send(permit) {
                Ok(()) => state.inflight += 1,
                // Nobody waits for it any more; it must not come back through its drop.
                Err(mut unwanted) => unwanted.gate = None,
            }
        }
        self.metrics.writes(state.inflight, state.window.size());
    }

    fn give_back(self: &Arc<Self>, ticket: u64, sent: Instant, load: Load, pause: Option<Duration>) {
        let mut state = self.lock();
        let now = Instant::now();
        let crowded = state.inflight >= state.window.size();
        state.inflight -= 1;
        state.window.learn(ticket, Answered { load, took: now - sent, crowded }, now);
        if let Some(pause) = pause {
            self.close(&mut state, pause.min(LONGEST_PAUSE));
        }
        self.admit(&mut state);
    }

    fn close(self: &Arc<Self>, state: &mut State, pause: Duration) {
        let now = Instant::now();
        let until = now + pause;
        if until <= state.closed_until {
            return;
        }
        self.metrics.throttled(until - state.closed_until.max(now));
        state.closed_until = until;
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            let mut state = gate.lock();
            gate.admit(&mut state);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(2);

    fn answer(load: Load) -> Answered {
        Answered { load, took: QUICK, crowded: true }
    }

    fn answered(window: &mut Window, count: usize, load: Load) {
        for _ in 0..count {
            let ticket = window.ticket();
            window.learn(ticket, answer(load), Instant::now());
        }
    }

    /// A server that takes one write after the other, `each` apart, from `begin` for so many windows; how large they become.
    fn sizes(window: &mut Window, each: Duration, begin: Instant, windows: u32) -> Vec<usize> {
        let mut now = begin;
        (0..windows)
            .map(|_| {
                let size = u32::try_from(window.size()).unwrap();
                for _ in 0..size {
                    now += each;
                    let ticket = window.ticket();
                    window.learn(ticket, Answered { load: Load::Fine, took: (each * size).max(QUICK), crowded: true }, now);
                }
                window.size()
            })
            .collect()
    }

    #[test]
    fn a_full_window_of_successes_adds_one() {
        let mut window = Window::new(128);
        answered(&mut window, 15, Load::Fine);
        assert_eq!(window.size(), 16);
        answered(&mut window, 1, Load::Fine);
        assert_eq!(window.size(), 17);
        answered(&mut window, 17, Load::Fine);
        assert_eq!(window.size(), 18);
    }

    #[test]
    fn the_window_stays_between_one_and_the_maximum() {
        let mut window = Window::new(18);
        answered(&mut window, 1000, Load::Fine);
        assert_eq!(window.size(), 18);
        answered(&mut window, 100, Load::TooMuch);
        assert_eq!(window.size(), 1);
        assert_eq!(Window::new(4).size(), 4);
        assert_eq!(Window::new(0).size(), 1);
    }

    #[test]
    fn the_refusals_of_one_window_halve_it_once() {
        let mut window = Window::new(128);
        let tickets: Vec<_> = (0..16).map(|_| window.ticket()).collect();
        for ticket in tickets {
            window.learn(ticket, answer(Load::TooMuch), Instant::now());
        }
        assert_eq!(window.size(), 8);
        answered(&mut window, 1, Load::TooMuch);
        assert_eq!(window.size(), 4);
    }

    #[test]
    fn an_answer_that_tells_nothing_changes_nothing() {
        let mut window = Window::new(128);
        let ticket = window.ticket();
        let before = window.clone();
        window.learn(ticket, answer(Load::Unknown), Instant::now());
        assert_eq!(window, before);
    }

    #[test]
    fn a_server_that_takes_one_write_at_a_time_gets_no_crowd() {
        let (mut window, begin) = (Window::new(128), Instant::now());
        window.quickest = Some((QUICK, begin));
        let sizes = sizes(&mut window, QUICK, begin, 100);
        assert_eq!(sizes[..3], [17, 18, 19]);
        assert!(sizes.iter().skip(3).all(|size| [19, 20].contains(size)), "{sizes:?}");
    }

    #[test]
    fn a_server_that_takes_many_writes_at_a_time_gets_them() {
        let (mut window, begin) = (Window::new(128), Instant::now());
        let sizes = sizes(&mut window, QUICK / 50, begin, 200);
        assert!(sizes.last().is_some_and(|size| *size >= 50), "{sizes:?}");
    }

    #[test]
    fn a_server_that_has_become_slower_is_measured_anew() {
        let (mut window, begin) = (Window::new(128), Instant::now());
        window.quickest = Some((QUICK / 10, begin));
        let slow = sizes(&mut window, QUICK, begin, 100);
        assert_eq!(slow.last(), Some(&16));
        let later = sizes(&mut window, QUICK, begin + BELIEVED, 100);
        assert_eq!(later[..4], [1, 1, 1, 16]);
        assert!(later.last().is_some_and(|size| [19, 20].contains(size)), "{later:?}");
    }

    #[test]
    fn a_window_that_is_not_filled_does_not_grow() {
        let mut window = Window::new(128);
        for _ in 0..100 {
            let ticket = window.ticket();
            window.learn(ticket, Answered { crowded: false, ..answer(Load::Fine) }, Instant::now());
        }
        assert_eq!(window.size(), START);
    }

    fn gate(max: usize) -> Arc<Gate> {
        Arc::new(Gate::new(max, Metrics::new("test")))
    }

    #[tokio::test(start_paused = true)]
    async fn permits_go_by_priority_then_by_arrival() {
        let gate = gate(1);
        let first = gate.permit(Priority::Backfill).await;
        let (order, mut granted) = tokio::sync::mpsc::unbounded_channel();
        for (name, priority) in [
            ("status", Priority::PoolStatus),
            ("bind 1", Priority::Bind),
            ("bind 2", Priority::Bind),
            ("release", Priority::Release),
        ] {
            let (gate, order) = (Arc::clone(&gate), order.clone());
            let waiting = Arc::clone(&gate);
            let queued = waiting.waiting() + 1;
            tokio::spawn(async move {
                let _permit = gate.permit(priority).await;
                order.send(name).unwrap();
            });
            while waiting.waiting() < queued {
                tokio::task::yield_now().await;
            }
        }
        drop(first);
        let mut names = Vec::new();
        for _ in 0..4 {
            names.push(granted.recv().await.unwrap());
        }
        assert_eq!(names, ["release", "bind 1", "bind 2", "status"]);
    }

    #[tokio::test(start_paused = true)]
    async fn retry_after_closes_the_gate_for_that_long() {
        let gate = gate(4);
        let permit = gate.permit(Priority::Bind).await;
        let start = Instant::now();
        permit.done(Load::TooMuch, Some(Duration::from_secs(3)));
        drop(gate.permit(Priority::Release).await);
        assert_eq!(start.elapsed().as_secs(), 3);
        assert_eq!(gate.size(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_takes_no_permit_with_it() {
        let gate = gate(1);
        let held = gate.permit(Priority::Bind).await;
        for _ in 0..3 {
            let waiting = gate.permit(Priority::Bind);
            assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
        }
        drop(held);
        drop(gate.permit(Priority::Bind).await);
        assert_eq!(gate.lock().inflight, 0);
    }
}
