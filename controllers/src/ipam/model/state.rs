//! All there is at one moment, and the moves that can come next.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use api::v1alpha2::IpPool;

use super::drive::Flight;
use super::process::{At, Clock, Process};
use super::server::{Answer, Event, Kind, Server, digest};
use super::{Budget, Prompt, Scene};
use crate::ipam::world::tests;
use crate::kit::writes::WriteRequest;

/// A request is answered or given up within this time: the writer's time-out.
const GIVEN_UP: Clock = 30_000;
/// A request that was given up may still take effect so long after it was sent.
const LATEST: Clock = 75_000;

/// See the module.
#[derive(Debug, Clone)]
pub struct State {
    pub server: Rc<Server>,
    pub processes: Vec<Rc<Process>>,
    /// Requests whose sender does not listen any more, and which will still be served.
    ghosts: Vec<Ghost>,
    clock: Clock,
    left: Budget,
    pool: Rc<IpPool>,
}

#[derive(Debug, Clone)]
struct Ghost {
    request: Rc<WriteRequest>,
    digest: u64,
    sent: Clock,
}

impl Ghost {
    fn of(flight: &Flight) -> Self {
        Self { request: flight.request.clone(), digest: flight.digest, sent: flight.sent }
    }
}

/// What was worked out before: most moves concern one process or the server alone, and recur in very many states.
#[derive(Default)]
pub struct Known {
    processes: HashMap<(u64, u64, Clock), Rc<Process>>,
    serves: HashMap<(u64, u64), (Rc<Server>, Answer)>,
}

impl Known {
    /// A process after a change of its own, which `what` tells from others.
    fn process(&mut self, what: impl Hash, before: &Rc<Process>, at: At, change: impl FnOnce(&mut Process)) -> Rc<Process> {
        let after = self.processes.entry((before.print(), digest(&what), at.clock)).or_insert_with(|| {
            let mut process = (**before).clone();
            change(&mut process);
            Rc::new(process.sealed(at))
        });
        after.clone()
    }
}

/// One move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Move {
    /// A watch delivers its next event.
    Deliver(usize, Kind),
    /// A pass over the next key; the number is the die's.
    Pass(usize, usize),
    /// A request is served.
    Serve(usize, usize, usize),
    /// An answer arrives.
    Answer(usize, usize, usize),
    /// A request is given up by its sender: lost, or served later.
    GiveUp(usize, usize, usize, Fate),
    /// A request that was given up is served.
    ServeGhost(usize),
    /// A user deletes a claim.
    Delete(usize),
    /// A user makes a claim again.
    Create(usize),
    /// The garbage collector takes the reference to a claim that is gone off its address.
    Collect(usize),
    /// A process ends at this instant, and a new one starts in its place; what happens to its requests.
    Kill(usize, Fate),
    /// A watch has to start over.
    Relist(usize, Kind),
    /// Time passes until the next timer rings.
    Wait,
}

/// What becomes of a request whose sender does not listen any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    Lost,
    Late,
}

impl State {
    /// Claims that were just created, the last by name first, and a manager that will see them in that order. The others have just
    /// started and will see them in a list, which knows no order but the names': they begin with the other claim.
    pub fn new(scene: &Scene) -> Self {
        let mut server = Server::new(scene.claims);
        for name in (0..scene.claims).rev() {
            server.create_claim(name, scene.protected);
        }
        let mut pool = tests::pool(&format!("10.0.0.10-10.0.0.{}", 9 + scene.values), "generation: 1");
        pool.spec.address_reuse_grace_period_seconds = if scene.grace { 3600 } else { 0 };
        let pool = Rc::new(pool);
        let events = std::mem::take(&mut server.events);
        let lists = Kind::ALL.map(|kind| Event::List(server.list(kind)));
        let mut state =
            Self { server: Rc::new(server), processes: Vec::new(), ghosts: Vec::new(), clock: 0, left: scene.budget, pool };
        let at = state.at(scene);
        let mut old = Process::new((*state.pool).clone(), [Event::List(Vec::new()), Event::List(Vec::new())], at);
        for kind in Kind::ALL {
            old.deliver(kind, at);
        }
        for (kind, event) in events {
            old.receive(kind, event);
        }
        state.processes.push(Rc::new(old.sealed(at)));
        for _ in 1..scene.managers {
            state.processes.push(Rc::new(Process::new((*state.pool).clone(), lists.clone(), at)));
        }
        state
    }

    fn at(&self, scene: &Scene) -> At {
        At { clock: self.clock, broken: scene.broken }
    }

    /// Two states with the same fingerprint have the same future. Managers are alike, so it does not matter which is which, unless the
    /// first is prompter than the others.
    pub fn fingerprint(&self, scene: &Scene) -> u64 {
        let mut prints: Vec<u64> = self.processes.iter().map(|process| process.print()).collect();
        prints[usize::from(scene.prompt == Prompt::First)..].sort_unstable();
        let mut ghosts: Vec<(u64, Clock)> = self.ghosts.iter().map(|ghost| (ghost.digest, self.clock - ghost.sent)).collect();
        ghosts.sort_unstable();
        digest(&(self.server.print(), prints, ghosts, self.left))
    }

    /// What comes by itself, if only one waits: everything but time, faults and users.
    fn pending(&self, scene: &Scene) -> Vec<Move> {
        let passes = |at: usize| {
            let sides = if self.processes[at].throws_dice() && scene.values > 1 { 2 } else { 1 };
            (0..sides).map(move |side| Move::Pass(at, side))
        };
        let due = |at: &usize| self.processes[*at].next().is_some();
        if let Some(at) = (0..self.processes.len()).find(|at| scene.prompt != Prompt::Nothing && due(at)) {
            return passes(at).collect();
        }
        let mut moves = Vec::new();
        for (at, process) in self.processes.iter().enumerate() {
            if scene.prompt == Prompt::First && at > 0 && !moves.is_empty() {
                return moves;
            }
            moves.extend(Kind::ALL.into_iter().filter(|kind| process.has_events(*kind)).map(|kind| Move::Deliver(at, kind)));
            if due(&at) {
                moves.extend(passes(at));
            }
            for (name, task) in &process.tasks {
                for (flight, sent) in task.flights.iter().enumerate() {
                    let came = sent.answer.is_some();
                    moves.push(if came { Move::Answer(at, *name, flight) } else { Move::Serve(at, *name, flight) });
                }
            }
        }
        moves.extend((0..self.ghosts.len()).map(Move::ServeGhost));
        moves
    }

    /// Time may pass as far as the next timer, but not beyond the life of a request.
    fn next_ring(&self) -> Option<Clock> {
        let ring = self.processes.iter().filter_map(|process| process.alarm()).min()?.max(self.clock);
        let flights = self.processes.iter().flat_map(|process| process.tasks.values()).flat_map(|task| &task.flights);
        let lives = flights.map(|flight| flight.sent + GIVEN_UP).chain(self.ghosts.iter().map(|ghost| ghost.sent + LATEST));
        lives.min().is_none_or(|end| ring <= end).then_some(ring)
    }

    /// The moves that come by themselves, and those that cost something from the budget.
    pub fn moves(&self, scene: &Scene) -> (Vec<Move>, Vec<Move>) {
        let mut free = self.pending(scene);
        let mut paid = Vec::new();
        if self.next_ring().is_some() {
            if free.is_empty() {
                free.push(Move::Wait);
            } else if self.left.early_waits > 0 {
                paid.push(Move::Wait);
            }
        }
        for name in self.server.names() {
            match self.server.claim(name) {
                Some(claim) if self.left.deletions > 0 && !claim.is_deleting() => paid.push(Move::Delete(name)),
                None if self.left.creations > 0 => paid.push(Move::Create(name)),
                _ => {}
            }
            if self.left.collections > 0 && self.server.is_dangling(name) {
                paid.push(Move::Collect(name));
            }
        }
        for (at, process) in self.processes.iter().enumerate() {
            if self.left.silences > 0 {
                for (name, task) in &process.tasks {
                    for (flight, sent) in task.flights.iter().enumerate() {
                        paid.push(Move::GiveUp(at, *name, flight, Fate::Lost));
                        if sent.answer.is_none() {
                            paid.push(Move::GiveUp(at, *name, flight, Fate::Late));
                        }
                    }
                }
            }
            if self.left.kills > 0 {
                paid.push(Move::Kill(at, Fate::Lost));
                if process.tasks.values().flat_map(|task| &task.flights).any(|flight| flight.answer.is_none()) {
                    paid.push(Move::Kill(at, Fate::Late));
                }
            }
            if self.left.relists > 0 {
                paid.extend(Kind::ALL.map(|kind| Move::Relist(at, kind)));
            }
        }
        (free, paid)
    }

    /// A move in words.
    pub fn describe(&self, step: Move) -> String {
        let request = |process: usize, name: usize, flight: usize| {
            let request = &self.processes[process].tasks[&name].flights[flight].request;
            format!("{} {}", request.method(), request.uri().path().split('/').skip(6).collect::<Vec<_>>().join("/"))
        };
        match &step {
            Move::Serve(process, name, flight) | Move::Answer(process, name, flight) | Move::GiveUp(process, name, flight, _) => {
                format!("{step:?} {}", request(*process, *name, *flight))
            }
            _ => format!("{step:?}"),
        }
    }

    /// The state after a move, or what is wrong with it.
    pub fn after(&self, step: Move, scene: &Scene, known: &mut Known) -> Result<Self, String> {
        let mut next = self.clone();
        let at = self.at(scene);
        match step {
            Move::Deliver(process, kind) => {
                next.change(process, ("deliver", kind), at, known, |process| process.deliver(kind, at));
            }
            Move::Pass(process, side) => {
                let dice: fn(usize) -> usize = if side == 0 { |_| 0 } else { |_| 1 };
                next.change(process, ("pass", side), at, known, |process| process.pass(dice, at));
            }
            Move::Serve(process, name, flight) => {
                let sent = &self.processes[process].tasks[&name].flights[flight];
                let answer = next.serve(&sent.request, sent.digest, known);
                if matches!(scene.prompt, Prompt::Answers | Prompt::First) {
                    next.answer((process, name, flight), &answer, at, known);
                } else {
                    let what = ("serve", name, flight, digest(&answer));
                    let noted =
                        |process: &mut Process| process.tasks.get_mut(&name).unwrap().flights[flight].answer = Some(answer);
                    next.change(process, what, at, known, noted);
                }
            }
            Move::Answer(process, name, flight) => {
                let answer = self.processes[process].tasks[&name].flights[flight].answer.clone().unwrap();
                next.answer((process, name, flight), &answer, at, known);
            }
            Move::GiveUp(process, name, flight, fate) => {
                next.left.silences -= 1;
                if fate == Fate::Late {
                    next.ghosts.push(Ghost::of(&self.processes[process].tasks[&name].flights[flight]));
                }
                next.answer((process, name, flight), &Answer::Silence, at, known);
            }
            Move::ServeGhost(ghost) => {
                let ghost = next.ghosts.remove(ghost);
                next.serve(&ghost.request, ghost.digest, known);
            }
            Move::Delete(name) => {
                next.left.deletions -= 1;
                Rc::make_mut(&mut next.server).delete_claim(name);
            }
            Move::Create(name) => {
                next.left.creations -= 1;
                Rc::make_mut(&mut next.server).create_claim(name, scene.protected);
            }
            Move::Collect(name) => {
                next.left.collections -= 1;
                Rc::make_mut(&mut next.server).collect(name);
            }
            Move::Kill(process, fate) => {
                next.left.kills -= 1;
                let flights = self.processes[process].tasks.values().flat_map(|task| &task.flights);
                next.ghosts.extend(flights.filter(|flight| fate == Fate::Late && flight.answer.is_none()).map(Ghost::of));
                let lists = Kind::ALL.map(|kind| Event::List(self.server.list(kind)));
                next.processes[process] = Rc::new(Process::new((*self.pool).clone(), lists, at));
            }
            Move::Relist(process, kind) => {
                next.left.relists -= 1;
                next.relist(process, kind, at, known);
            }
            Move::Wait => {
                next.left.early_waits -= u8::from(!self.pending(scene).is_empty());
                next.clock = self.next_ring().unwrap();
                let at = next.at(scene);
                for process in 0..next.processes.len() {
                    next.change(process, ("ring", self.clock), at, known, |process| process.ring(at));
                }
            }
        }
        next.tell(at, known)?;
        next.check_values()?;
        Ok(next)
    }

    /// Sends what happened to the watches.
    fn tell(&mut self, at: At, known: &mut Known) -> Result<(), String> {
        if self.server.events.is_empty() {
            return Ok(());
        }
        for (kind, event) in std::mem::take(&mut Rc::make_mut(&mut self.server).events) {
            for process in 0..self.processes.len() {
                self.change(process, ("receive", kind, &event), at, known, |process| process.receive(kind, event.clone()));
            }
            if let Event::Gone(object) = event {
                self.check_removal(kind, &object)?;
            }
        }
        Ok(())
    }

    fn serve(&mut self, request: &WriteRequest, digest: u64, known: &mut Known) -> Answer {
        let (server, answer) = known.serves.entry((self.server.print(), digest)).or_insert_with(|| {
            let mut server = (*self.server).clone();
            let answer = server.serve(request);
            (Rc::new(server), answer)
        });
        self.server = server.clone();
        answer.clone()
    }

    fn answer(&mut self, (process, name, flight): (usize, usize, usize), answer: &Answer, at: At, known: &mut Known) {
        let restarts = self.processes[process].tasks[&name].flights[flight].restarts_watch(answer);
        self.change(process, ("answer", name, flight, answer), at, known, |process| process.answered(name, flight, answer, at));
        if restarts {
            self.relist(process, Kind::Addresses, at, known);
        }
    }

    fn relist(&mut self, process: usize, kind: Kind, at: At, known: &mut Known) {
        let list = Event::List(self.server.list(kind));
        self.change(process, ("relist", kind, &list), at, known, |process| process.relist(kind, list.clone()));
    }

    fn change(&mut self, process: usize, what: impl Hash, at: At, known: &mut Known, change: impl FnOnce(&mut Process)) {
        self.processes[process] = known.process(what, &self.processes[process], at, change);
    }
}

impl Hash for Budget {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { deletions, creations, collections, kills, relists, silences, early_waits } = *self;
        [deletions, creations, collections, kills, relists, silences, early_waits].hash(state);
    }
}

/// What a trace shows of a state.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.1}s ", Duration::from_millis(self.clock).as_secs_f32())?;
        for name in self.server.names() {
            let claim = self.server.claim(name).map_or("-".to_owned(), |claim| {
                format!(
                    "{}{}{}",
                    claim.uid(),
                    if claim.is_bound() { " bound" } else { "" },
                    if claim.is_deleting() { " deleting" } else { "" }
                )
            });
            let address = self.server.address(name).map_or("-".to_owned(), |address| {
                format!("{}={}{}", address.uid(), address.held(), if address.is_deleting() { " deleting" } else { "" })
            });
            write!(f, " [{claim} | {address}]")?;
        }
        Ok(())
    }
}
