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

/// The write window as arithmetic: grows by one for each window of successes, halves on overload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Window {
    size: usize,
    max: usize,
    successes: usize,
    issued: u64,
    /// Tickets before this one belong to a window that was halved already.
    halved_at: u64,
}

impl Window {
    /// A window of 16, or of `max` if that is less; never below 1.
    pub(crate) fn new(max: usize) -> Self {
        let max = max.max(1);
        Self { size: START.min(max), max, successes: 0, issued: 0, halved_at: 0 }
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
    pub(crate) fn learn(&mut self, ticket: u64, load: Load) {
        match load {
            Load::Fine => {
                self.successes += 1;
                if self.successes >= self.size {
                    self.successes = 0;
                    self.size = (self.size + 1).min(self.max);
                }
            }
            Load::TooMuch if ticket > self.halved_at => {
                self.size = (self.size / 2).max(1);
                self.successes = 0;
                self.halved_at = self.issued;
            }
            Load::TooMuch | Load::Unknown => {}
        }
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
            gate.give_back(self.ticket, self.load, self.pause);
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
            let permit = Permit { gate: Some(Arc::clone(self)), ticket: state.window.ticket(), load: Load::Unknown, pause: None };
            match give.send(permit) {
                Ok(()) => state.inflight += 1,
                // Nobody waits for it any more; it must not come back through its drop.
                Err(mut unwanted) => unwanted.gate = None,
            }
        }
        self.metrics.writes(state.inflight, state.window.size());
    }

    fn give_back(self: &Arc<Self>, ticket: u64, load: Load, pause: Option<Duration>) {
        let mut state = self.lock();
        state.inflight -= 1;
        state.window.learn(ticket, load);
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

    fn answered(window: &mut Window, count: usize, load: Load) {
        for _ in 0..count {
            let ticket = window.ticket();
            window.learn(ticket, load);
        }
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
            window.learn(ticket, Load::TooMuch);
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
        window.learn(ticket, Load::Unknown);
        assert_eq!(window, before);
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
