//! One manager of the model: the real world, fed by two streams of events, and the real decisions, taken key by key.
//!
//! What stands around them in production is kept as small as it is there: the queue (one task per key, by lane and rank, one timer per
//! key), the begin of work once everything is in view, and time, which is a number here. The steps are carried out in `drive`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use api::PoolKind;
use api::capi::{CapiVersion, Cluster};
use api::v1alpha2::{IpPool, PrefixPool};
use k8s_openapi::jiff::Timestamp;
use poolutil::{Mark, Span};

use super::drive::Task;
use super::server::{Decoded, Event, Kind, NAMESPACE, Object, TODAY, digest};
use super::{Broken, NAMES};
use crate::ipam::facts::Policy;
use crate::ipam::plan::Row;
use crate::ipam::records::Slot;
use crate::ipam::world::{Scope, Wake, World};
use crate::ipam::{decide_in_turn, observe};
use crate::kit::watch::Seen;

const POLICY: Policy = Policy {
    honor_foreign_finalizers: true,
    release_orphans_namespaced: true,
    release_orphans_global: false,
    external_ips: false,
};

/// Milliseconds since the model began.
pub type Clock = u64;

/// A timer that rings so late, as that of a grace which does not end, is none.
const NEVER: Duration = Duration::from_secs(1800);

/// What every move of a process is told.
#[derive(Debug, Clone, Copy)]
pub struct At {
    pub clock: Clock,
    pub broken: Option<Broken>,
}

impl At {
    pub fn now(self) -> Instant {
        epoch() + Duration::from_millis(self.clock)
    }
}

/// The instant at which the model begins: years ahead, so that no instant of the real clock is taken for one of the model's.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(|| Instant::now() + Duration::from_secs(100_000_000))
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Process {
    pub world: Rc<World>,
    /// What the watches are about to deliver, by kind.
    streams: [VecDeque<Event>; 2],
    line: BTreeSet<Slot>,
    timers: BTreeMap<Slot, Clock>,
    /// The tasks that run, by the claim's number.
    pub tasks: BTreeMap<usize, Task>,
    /// The state of the world, the queue and the timers.
    world_print: u64,
    /// The state of everything.
    print: u64,
}

impl Process {
    /// A manager that has just started, with its two lists on the way.
    pub fn new(pool: IpPool, lists: [Event; 2], at: At) -> Self {
        let mut world = World::new(Scope::default());
        world.clusters(Seen::<Cluster>::NotServed);
        for kind in PoolKind::ALL {
            if kind.is_prefix() {
                world.pools(kind, Seen::<PrefixPool>::NotServed);
            } else {
                world.pools(kind, Seen::<IpPool>::NotServed);
            }
        }
        world.pools(PoolKind::InClusterIPPool, Seen::Changed(pool));
        let streams = lists.map(|list| VecDeque::from([list]));
        let (line, timers, tasks) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let mut process = Self { world: Rc::new(world), streams, line, timers, tasks, world_print: 0, print: 0 };
        process.heed(at);
        process.sealed(at)
    }

    /// The same process after a change, with its fingerprint.
    pub fn sealed(mut self, at: At) -> Self {
        let tasks: Vec<(usize, u64)> = self.tasks.iter().map(|(name, task)| (*name, task.fingerprint(at))).collect();
        self.print = digest(&(self.world_print, &self.streams, tasks));
        self
    }

    /// The state it is in: two processes with the same fingerprint act alike from here on.
    pub fn print(&self) -> u64 {
        self.print
    }

    pub fn world(&mut self) -> &mut World {
        Rc::make_mut(&mut self.world)
    }

    /// The server has something to tell the watch of a kind.
    pub fn receive(&mut self, kind: Kind, event: Event) {
        self.streams[kind as usize].push_back(event);
    }

    /// The watch of a kind starts over.
    pub fn relist(&mut self, kind: Kind, list: Event) {
        self.streams[kind as usize] = VecDeque::from([list]);
    }

    pub fn has_events(&self, kind: Kind) -> bool {
        !self.streams[kind as usize].is_empty()
    }

    /// The watch of a kind delivers its next event.
    pub fn deliver(&mut self, kind: Kind, at: At) {
        let began = self.world.is_settled();
        match self.streams[kind as usize].pop_front().unwrap() {
            Event::Changed(object) => self.see(&object, at, Sight::Changed),
            Event::Gone(object) => self.see(&object, at, Sight::Gone),
            Event::List(objects) => {
                self.bracket(kind, true);
                for object in objects {
                    self.see(&object, at, Sight::Listed);
                }
                self.bracket(kind, false);
            }
        }
        if self.world.is_settled() && !began {
            self.world().wake_all();
        }
        self.heed(at);
    }

    /// Begins or ends a list.
    fn bracket(&mut self, kind: Kind, begins: bool) {
        match (kind, begins) {
            (Kind::Claims, true) => self.world().claims(Seen::ListBegan, CapiVersion::V1beta2),
            (Kind::Claims, false) => self.world().claims(Seen::ListEnded, CapiVersion::V1beta2),
            (Kind::Addresses, true) => self.world().addresses(Seen::ListBegan),
            (Kind::Addresses, false) => self.world().addresses(Seen::ListEnded),
        }
    }

    pub fn see(&mut self, object: &Object, at: At, sight: Sight) {
        match &object.decoded {
            Decoded::Claim(claim) => self.world().claims(sight.of(claim.clone()), CapiVersion::V1beta2),
            Decoded::Address(address) => {
                if at.broken == Some(Broken::ListTellsOrder) && sight == Sight::Listed {
                    self.world().addresses(Seen::Changed(address.clone()));
                }
                self.world().addresses(sight.of(address.clone()));
            }
        }
    }

    /// The key whose turn it is.
    pub fn next(&self) -> Option<Slot> {
        let waiting = self.line.iter().copied().filter(|slot| self.world.is_settled() && !self.runs(*slot));
        waiting.min_by_key(|slot| self.world.place(*slot))
    }

    fn runs(&self, slot: Slot) -> bool {
        self.tasks.values().any(|task| task.slot == slot)
    }

    /// Whether one of several values may be taken at random.
    pub fn throws_dice(&self) -> bool {
        self.world.entries.iter().any(|(_, entry)| entry.motion.as_ref().is_some_and(|motion| motion.collisions > 0))
    }

    /// One pass over the key whose turn it is.
    pub fn pass(&mut self, dice: fn(usize) -> usize, at: At) {
        let Some(slot) = self.next() else { return };
        self.line.remove(&slot);
        self.world().dice = dice;
        let today: Timestamp = TODAY.parse().unwrap();
        if let Some((facts, plan)) = decide_in_turn(POLICY, self.world(), slot, today, at.now()) {
            if plan.steps.is_empty() {
                if matches!(plan.row, Row::Settled | Row::Nothing) {
                    self.world().settled(slot);
                }
                self.heed(at);
                self.world().sweep(slot);
                self.rest(slot, plan.recheck, at);
            } else {
                self.heed(at);
                let name = super::server::index(&facts.name);
                self.tasks.insert(name, Task::new(slot, name, facts.claim.as_ref(), plan));
                self.proceed(name, at);
            }
        }
        self.heed(at);
    }

    pub fn push(&mut self, slot: Slot) {
        self.timers.remove(&slot);
        self.line.insert(slot);
    }

    /// Another pass after a while, unless an event comes first.
    pub fn rest(&mut self, slot: Slot, delay: Option<Duration>, at: At) {
        if self.line.contains(&slot) && !self.runs(slot) {
            return;
        }
        if let Some(delay) = delay.filter(|delay| *delay < NEVER) {
            let due = at.clock + u64::try_from(delay.as_millis()).unwrap();
            let timer = self.timers.entry(slot).or_insert(due);
            *timer = due.min(*timer);
        }
    }

    /// When the next timer rings.
    pub fn alarm(&self) -> Option<Clock> {
        self.timers.values().copied().min()
    }

    pub fn ring(&mut self, at: At) {
        let due: Vec<Slot> = self.timers.iter().filter(|(_, due)| **due <= at.clock).map(|(slot, _)| *slot).collect();
        for slot in due {
            self.push(slot);
        }
        self.heed(at);
    }

    /// Takes the world's wishes to the queue, its instants to the model's time, and notes what state it is in.
    pub fn heed(&mut self, at: At) {
        for wake in self.world().take_wakes() {
            if let Wake::Claim(slot, _) = wake {
                self.push(slot);
            }
        }
        for (_, entry) in &mut self.world().entries {
            let Some(motion) = entry.motion.as_deref_mut() else { continue };
            motion.since = epoch();
            let post = motion.post.iter_mut().flat_map(|post| [Some(&mut post.sent), post.answered.as_mut().map(|(at, _)| at)]);
            let wrote =
                [&mut motion.wrote_claim, &mut motion.wrote_address].into_iter().map(|wrote| wrote.as_mut().map(|(_, at)| at));
            let others = [motion.waiting.as_mut().map(|(_, at)| at), motion.removed.as_mut().map(|(_, at)| at)];
            for instant in post.chain(wrote).chain(others).flatten().filter(|instant| **instant < epoch()) {
                *instant = at.now();
            }
        }
        let world = &self.world;
        self.line.retain(|slot| world.entry(*slot).is_some());
        self.timers.retain(|slot, _| world.entry(*slot).is_some());
        self.world_print = self.world_print(at);
    }

    /// Names instead of slots, ages instead of instants, ranks instead of running numbers.
    fn world_print(&self, at: At) -> u64 {
        let mut state = std::collections::hash_map::DefaultHasher::new();
        let (today, now) = (TODAY.parse().unwrap(), at.now());
        let slots: Vec<Option<Slot>> = NAMES.iter().map(|name| self.world.find(NAMESPACE, name)).collect();
        let arrivals = slots.iter().map(|slot| self.world.place(slot.as_ref().copied()?).map(|place| place.rank));
        ranks(arrivals).hash(&mut state);
        for slot in slots.iter().copied().flatten() {
            let age = |instant: Instant| now.saturating_duration_since(instant);
            format!("{:?}", observe::observe(&self.world, slot, POLICY, today, now)).hash(&mut state);
            if let Some(motion) = self.world.entry(slot).and_then(|entry| entry.motion.as_deref()) {
                let post = motion.post.as_ref();
                post.map(|post| {
                    (&post.claim, post.told, age(post.sent), post.answered.as_ref().map(|(at, uid)| (age(*at), uid)))
                })
                .hash(&mut state);
                for wrote in [&motion.wrote_claim, &motion.wrote_address] {
                    wrote.as_ref().map(|(revision, at)| (revision, age(*at))).hash(&mut state);
                }
                motion.removed.as_ref().map(|(uid, at)| (uid, age(*at))).hash(&mut state);
                motion.waiting.map(|(waiting, at)| (waiting, age(at))).hash(&mut state);
                (motion.moved, motion.collisions > 0).hash(&mut state);
            }
            (self.line.contains(&slot), self.timers.get(&slot).map(|due| due.saturating_sub(at.clock))).hash(&mut state);
        }
        for (_, pool) in &self.world.pools {
            let values = ["10.0.0.10", "10.0.0.11"].map(|text| Span::parse_host(text).unwrap());
            let mark =
                |slot: &Option<Slot>, span| pool.ledger.holders(span).find(|(key, _)| Some(*key) == *slot).map(|(_, mark)| mark);
            let marks: Vec<Option<Mark>> =
                values.iter().flat_map(|span| slots.iter().map(move |slot| mark(slot, span))).collect();
            marks.iter().map(|mark| mark.map(|mark| matches!(mark, Mark::Added(_)))).collect::<Vec<_>>().hash(&mut state);
            ranks(marks.into_iter().map(|mark| mark.map(|(Mark::Added(n) | Mark::Listed(n))| n))).hash(&mut state);
            slots.iter().map(|slot| pool.ledger.position((*slot)?)).collect::<Vec<_>>().hash(&mut state);
            pool.unserved.hash(&mut state);
        }
        (&self.world.strays, &self.world.buried).hash(&mut state);
        self.world.is_settled().hash(&mut state);
        state.finish()
    }
}

/// How an object is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    Listed,
    Changed,
    Gone,
}

impl Sight {
    fn of<K>(self, object: K) -> Seen<K> {
        match self {
            Self::Listed => Seen::Listed(object),
            Self::Changed => Seen::Changed(object),
            Self::Gone => Seen::Gone(object),
        }
    }
}

/// The numbers' places in their order.
fn ranks(numbers: impl Iterator<Item = Option<u64>>) -> Vec<Option<usize>> {
    let numbers: Vec<Option<u64>> = numbers.collect();
    let order: BTreeSet<u64> = numbers.iter().copied().flatten().collect();
    numbers.iter().map(|number| number.map(|number| order.range(..number).count())).collect()
}
