//! The ledger against sets that are counted value by value, over random sequences of all its operations.

#![allow(clippy::unwrap_used)] // The lint's exception for tests ends at helper functions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use poolutil::{
    Answer, Count, Counts, Duplicate, Family, IpPoolSpec, Ledger, Mark, Pool, PrefixPoolSpec, ReservationState, Span, Standing,
    Want,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// A value near the lower or the upper end of a space.
#[derive(Clone, Copy, Debug)]
struct Place {
    top: bool,
    at: u8,
}

impl Place {
    fn below(self, max: u128) -> u128 {
        let at = u128::from(self.at).min(max);
        if self.top { max - at } else { at }
    }
}

fn place() -> impl Strategy<Value = Place> {
    (any::<bool>(), 0u8..10).prop_map(|(top, at)| Place { top, at })
}

/// A value of the current pool's shape, or something near it.
#[derive(Clone, Copy, Debug)]
struct Near {
    place: Place,
    /// Added to the pool's length.
    longer: i16,
    /// The last part of the unit instead of the first, when it is longer.
    behind: bool,
    other_family: bool,
}

fn near() -> impl Strategy<Value = Near> {
    let longer =
        prop_oneof![12 => Just(0i16), 1 => Just(-1), 1 => Just(-3), 1 => Just(1), 1 => Just(2), 1 => Just(200), 1 => Just(-200)];
    (place(), longer, any::<bool>(), prop::bool::weighted(0.05)).prop_map(|(place, longer, behind, other_family)| Near {
        place,
        longer,
        behind,
        other_family,
    })
}

#[derive(Clone, Debug)]
enum PoolSeed {
    Addresses {
        family: Family,
        ranges: Vec<(Place, u8)>,
        prefix: u8,
        gateway: Option<Place>,
        excluded: Vec<(Place, u8)>,
        allocate_reserved: bool,
    },
    Blocks {
        length: u8,
        /// A block, and by how many bits the listed prefix is shorter.
        listed: Vec<(Place, u8)>,
        excluded: Vec<Near>,
    },
}

fn pool_seed() -> impl Strategy<Value = PoolSeed> {
    let addresses = (
        prop_oneof![Just(Family::V4), Just(Family::V6)],
        vec((place(), 0u8..6), 1..4),
        prop_oneof![Just(0u8), Just(24), Just(29), Just(32)],
        prop::option::of(place()),
        vec((place(), 0u8..3), 0..3),
        any::<bool>(),
    )
        .prop_map(|(family, ranges, v4_prefix, gateway, excluded, allocate_reserved)| {
            let prefix = match family {
                Family::V4 => v4_prefix,
                Family::V6 => v4_prefix * 4,
            };
            PoolSeed::Addresses { family, ranges, prefix, gateway, excluded, allocate_reserved }
        });
    let length = prop_oneof![1u8..=128, Just(1), Just(2), Just(64), Just(64), Just(127), Just(128)];
    let exclusion = near().prop_map(|near| Near { longer: near.longer.max(-1), other_family: false, ..near });
    let blocks = (length, vec((place(), 0u8..3), 1..5), vec(exclusion, 0..3))
        .prop_map(|(length, listed, excluded)| PoolSeed::Blocks { length, listed, excluded });
    prop_oneof![addresses, blocks]
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    family: Family,
    length: u8,
}

impl Shape {
    fn span(self, near: Near) -> Span {
        let family = match (self.family, near.other_family) {
            (family, false) => family,
            (Family::V4, true) => Family::V6,
            (Family::V6, true) => Family::V4,
        };
        let length = self.length.min(family.bits());
        let shift = family.bits() - length;
        let unit = near.place.below(family.max() >> shift) << shift;
        let behind = if near.behind && shift > 0 { family.max() >> length } else { 0 };
        let length = (i16::from(length) + near.longer).clamp(0, family.bits().into());
        Span::new(family, unit | behind, length.try_into().unwrap()).unwrap()
    }
}

/// A pool with the values it hands out, counted one by one.
#[derive(Clone, Debug)]
struct Counted {
    pool: Arc<Pool>,
    shape: Shape,
    prefixes: bool,
    allowed: BTreeSet<Span>,
}

impl Counted {
    fn new(seed: &PoolSeed) -> Self {
        match seed {
            PoolSeed::Addresses { family, ranges, prefix, gateway, excluded, allocate_reserved } => {
                Self::addresses(*family, ranges, *prefix, *gateway, excluded, *allocate_reserved)
            }
            PoolSeed::Blocks { length, listed, excluded } => Self::blocks(*length, listed, excluded),
        }
    }

    fn addresses(
        family: Family,
        ranges: &[(Place, u8)],
        prefix: u8,
        gateway: Option<Place>,
        excluded: &[(Place, u8)],
        allocate_reserved: bool,
    ) -> Self {
        let host = |value| Span::new(family, value, family.bits()).unwrap();
        let ends = |&(place, more): &(Place, u8)| {
            let first = place.below(family.max() - u128::from(more));
            (first, first + u128::from(more))
        };
        let text = |range| {
            let (first, last) = ends(range);
            if first == last { host(first).to_string() } else { format!("{}-{}", host(first), host(last)) }
        };
        let mut values: BTreeSet<u128> = ranges.iter().flat_map(|range| ends(range).0..=ends(range).1).collect();
        let subnet = Span::new(family, *values.first().unwrap(), prefix).unwrap();
        for (first, last) in excluded.iter().map(ends) {
            values.retain(|value| !(first..=last).contains(value));
        }
        if !allocate_reserved {
            values.remove(&subnet.first());
            if family == Family::V4 {
                values.remove(&subnet.last());
            }
        }
        let gateway = gateway.map(|place| place.below(family.max()));
        if let Some(gateway) = gateway {
            values.remove(&gateway);
        }
        let (addresses, excluded): (Vec<_>, Vec<_>) = (ranges.iter().map(text).collect(), excluded.iter().map(text).collect());
        let spec = IpPoolSpec {
            addresses: &addresses,
            prefix: prefix.into(),
            gateway: &gateway.map_or(String::new(), |gateway| host(gateway).to_string()),
            excluded: &excluded,
            allocate_reserved,
            grace_seconds: 0,
        };
        Self {
            pool: Arc::new(Pool::ip(&spec).unwrap()),
            shape: Shape { family, length: family.bits() },
            prefixes: false,
            allowed: values.into_iter().map(host).collect(),
        }
    }

    fn blocks(length: u8, listed: &[(Place, u8)], excluded: &[Near]) -> Self {
        let shape = Shape { family: Family::V6, length };
        let (shift, max) = (128 - length, u128::MAX);
        let mut allowed = BTreeSet::new();
        let mut prefixes = Vec::new();
        for &(place, wider) in listed {
            let base = place.below(max >> shift) << shift;
            let prefix = Span::new(Family::V6, base, length.saturating_sub(wider)).unwrap();
            prefixes.push(format!("{prefix}/{}", prefix.length()));
            let units = prefix.first() >> shift..=prefix.last() >> shift;
            allowed.extend(units.map(|unit| Span::new(Family::V6, unit << shift, length).unwrap()));
        }
        let excluded: Vec<Span> = excluded.iter().map(|&near| shape.span(near)).collect();
        allowed.retain(|block| !excluded.iter().any(|span| span.overlaps(block)));
        let excluded: Vec<String> = excluded.iter().map(|span| format!("{span}/{}", span.length())).collect();
        let spec = PrefixPoolSpec { prefixes: &prefixes, length: length.into(), gateway: "", excluded: &excluded };
        Self { pool: Arc::new(Pool::prefixes(&spec).unwrap()), shape, prefixes: true, allowed }
    }
}

type Key = u16;

#[derive(Clone, Debug)]
enum Step {
    Resize(Option<PoolSeed>),
    Observe { key: Key, near: Option<Near>, listed: bool },
    ObserveReserved { key: Key },
    ObserveAgain { key: Key },
    Forget { key: Key },
    ForgetStranger { key: Key, near: Near },
    Reserve { key: Key },
    ReserveNth { key: Key, n: usize },
    ReserveExactly { key: Key, near: Near },
    SetState { key: Key },
    Cancel { key: Key },
    Wait { key: Key, rank: u64, near: Option<Near> },
    Leave { key: Key },
    Serve,
    Withhold(Vec<Near>),
    Park { near: Near, order: u64 },
    Unpark { near: Near },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0u16..14;
    prop_oneof![
        2 => prop::option::weighted(0.9, pool_seed()).prop_map(Step::Resize),
        6 => (key(), prop::option::weighted(0.95, near()), any::<bool>())
            .prop_map(|(key, near, listed)| Step::Observe { key, near, listed }),
        3 => key().prop_map(|key| Step::ObserveReserved { key }),
        1 => key().prop_map(|key| Step::ObserveAgain { key }),
        5 => key().prop_map(|key| Step::Forget { key }),
        1 => (key(), near()).prop_map(|(key, near)| Step::ForgetStranger { key, near }),
        3 => key().prop_map(|key| Step::Reserve { key }),
        1 => (key(), 0usize..64).prop_map(|(key, n)| Step::ReserveNth { key, n }),
        3 => (key(), near()).prop_map(|(key, near)| Step::ReserveExactly { key, near }),
        1 => key().prop_map(|key| Step::SetState { key }),
        3 => key().prop_map(|key| Step::Cancel { key }),
        4 => (key(), 0u64..6, prop::option::weighted(0.4, near())).prop_map(|(key, rank, near)| Step::Wait { key, rank, near }),
        1 => key().prop_map(|key| Step::Leave { key }),
        3 => Just(Step::Serve),
        1 => vec(near(), 0..4).prop_map(Step::Withhold),
        2 => (near(), 0u64..5).prop_map(|(near, order)| Step::Park { near, order }),
        1 => near().prop_map(|near| Step::Unpark { near }),
    ]
}

#[derive(Clone, Debug)]
struct Model {
    pool: Option<Counted>,
    shape: Shape,
    objects: BTreeMap<Key, (Option<Span>, Mark)>,
    reserved: BTreeMap<Key, (Span, ReservationState)>,
    waiters: BTreeMap<Key, (u64, Option<Span>)>,
    parked: BTreeMap<Span, u64>,
    withheld: BTreeSet<Span>,
}

impl Model {
    fn new() -> Self {
        Self {
            pool: None,
            shape: Shape { family: Family::V6, length: 128 },
            objects: BTreeMap::new(),
            reserved: BTreeMap::new(),
            waiters: BTreeMap::new(),
            parked: BTreeMap::new(),
            withheld: BTreeSet::new(),
        }
    }

    fn allowed(&self) -> impl Iterator<Item = Span> {
        self.pool.iter().flat_map(|pool| pool.allowed.iter().copied())
    }

    fn is_allowed(&self, span: &Span) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.allowed.contains(span))
    }

    fn holders(&self, span: &Span) -> BTreeSet<Key> {
        let objects = self.objects.iter().filter(|(_, (held, _))| held.is_some_and(|held| held.overlaps(span)));
        objects.map(|(&key, _)| key).collect()
    }

    fn promised(&self, span: &Span) -> BTreeSet<Key> {
        self.reserved.iter().filter(|(_, (other, _))| other.overlaps(span)).map(|(&key, _)| key).collect()
    }

    fn is_free(&self, span: &Span) -> bool {
        self.is_allowed(span) && self.holders(span).is_empty() && self.promised(span).is_empty()
    }

    fn open(&self) -> Vec<Span> {
        self.allowed()
            .filter(|span| self.is_free(span) && !self.parked.contains_key(span) && !self.withheld.contains(span))
            .collect()
    }

    /// What would be given to one key after the other.
    fn sequence(&self) -> Vec<Span> {
        let mut parked: Vec<(u64, Span)> = self.parked.iter().map(|(&span, &order)| (order, span)).collect();
        parked.retain(|(_, span)| self.is_free(span) && !self.withheld.contains(span));
        parked.sort_unstable();
        let mut sequence = self.open();
        sequence.extend(parked.into_iter().map(|(_, span)| span));
        sequence
    }

    fn grant(&mut self, key: Key, span: Span) {
        self.waiters.remove(&key);
        self.reserved.insert(key, (span, ReservationState::Unsent));
    }

    fn observe(&mut self, key: Key, span: Option<Span>, mark: Mark) {
        self.objects.entry(key).or_insert((span, mark));
        if let Some(span) = span
            && self.reserved.get(&key).is_some_and(|&(other, _)| other == span)
        {
            self.reserved.remove(&key);
        }
    }

    /// The waiters of a queue in order.
    fn queue(&self, want: Option<Span>) -> Vec<Key> {
        let mut queue: Vec<(u64, Key)> =
            self.waiters.iter().filter(|(_, waiter)| waiter.1 == want).map(|(&key, &(rank, _))| (rank, key)).collect();
        queue.sort_unstable();
        queue.into_iter().map(|(_, key)| key).collect()
    }

    fn serve(&mut self) -> Vec<Key> {
        let mut served = Vec::new();
        let wanted: BTreeSet<Span> = self.waiters.values().filter_map(|&(_, want)| want).collect();
        for span in wanted {
            if self.is_free(&span) {
                let key = self.queue(Some(span))[0];
                self.grant(key, span);
                served.push(key);
            }
        }
        for key in self.queue(None) {
            let Some(&span) = self.sequence().first() else { break };
            self.grant(key, span);
            served.push(key);
        }
        served
    }

    fn standing(&self, key: Key, span: &Span) -> (bool, BTreeSet<Key>, bool) {
        let Some((_, mark)) = self.objects.get(&key).filter(|(held, _)| *held == Some(*span)) else {
            return (false, BTreeSet::new(), false);
        };
        let mut others = self.holders(span);
        others.remove(&key);
        let alone = others.is_empty();
        others.retain(|other| {
            let (Mark::Listed(ours) | Mark::Added(ours)) = mark;
            !matches!(self.objects[other].1, Mark::Added(theirs) if *ours < theirs)
        });
        (true, others, alone)
    }

    fn duplicates(&self) -> Vec<Duplicate<Key>> {
        let held: BTreeSet<Span> = self.objects.values().filter_map(|&(span, _)| span).collect();
        let of_shape = |span: &Span| (span.family(), span.length()) == (self.shape.family, self.shape.length);
        held.into_iter()
            .filter_map(|span| {
                let same = self.objects.values().filter(|(held, _)| *held == Some(span)).count();
                let holders: Vec<Key> = self.holders(&span).into_iter().collect();
                let several = if of_shape(&span) { same > 1 } else { holders.len() > 1 };
                several.then_some(Duplicate { span, holders })
            })
            .collect()
    }

    fn counts(&self) -> Counts {
        let number = |count: usize| Count::from(count as u128);
        let outside: Vec<Option<Span>> =
            self.objects.values().map(|&(span, _)| span).filter(|span| !span.is_some_and(|s| self.is_allowed(&s))).collect();
        let out_of_range = match &self.pool {
            None => 0,
            Some(pool) if pool.prefixes => outside.len(),
            Some(_) => outside.iter().flatten().collect::<BTreeSet<_>>().len(),
        };
        Counts {
            total: number(self.allowed().count()),
            used: self.objects.len(),
            free: number(self.allowed().filter(|span| self.holders(span).is_empty()).count()),
            out_of_range,
            reserved: self.reserved.len(),
            parked: self.parked.len(),
        }
    }
}

/// The two side by side.
struct Pair {
    ledger: Ledger<Key>,
    model: Model,
    now: u64,
}

impl Pair {
    fn new() -> Self {
        Self { ledger: Ledger::new(), model: Model::new(), now: 0 }
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let span = |model: &Model, near: Near| model.shape.span(near);
        match step {
            Step::Resize(seed) => {
                let pool = seed.as_ref().map(Counted::new);
                self.ledger.resize(pool.as_ref().map(|pool| Arc::clone(&pool.pool)));
                self.model.shape = pool.as_ref().map_or(self.model.shape, |pool| pool.shape);
                self.model.pool = pool;
            }
            Step::Observe { key, near, listed } => {
                let span = near.map(|near| span(&self.model, near));
                self.observe(key, span, listed);
            }
            Step::ObserveReserved { key } => {
                if let Some(&(span, _)) = self.model.reserved.get(&key) {
                    self.observe(key, Some(span), false);
                }
            }
            Step::ObserveAgain { key } => {
                if let Some(&(span, _)) = self.model.objects.get(&key) {
                    self.observe(key, span, true);
                }
            }
            Step::Forget { key } => {
                if let Some((span, _)) = self.model.objects.remove(&key) {
                    self.ledger.forget(key, span);
                }
            }
            Step::ForgetStranger { key, near } => {
                let span = Some(span(&self.model, near));
                if self.model.objects.get(&key).is_none_or(|(held, _)| *held != span) {
                    self.ledger.forget(key, span);
                }
            }
            Step::Reserve { key } => self.reserve(key, Want::Lowest)?,
            Step::ReserveNth { key, n } => self.reserve(key, Want::Nth(n))?,
            Step::ReserveExactly { key, near } => self.reserve(key, Want::Exactly(span(&self.model, near)))?,
            Step::SetState { key } => {
                self.ledger.set_state(key, ReservationState::Sent);
                if let Some((_, state)) = self.model.reserved.get_mut(&key) {
                    *state = ReservationState::Sent;
                }
            }
            Step::Cancel { key } => {
                let expected = self.model.reserved.remove(&key).map(|(span, _)| span);
                prop_assert_eq!(self.ledger.cancel(key), expected);
            }
            Step::Wait { key, rank, near } => {
                let want = near.map(|near| span(&self.model, near));
                self.ledger.wait(key, rank, want);
                if !self.model.reserved.contains_key(&key) {
                    self.model.waiters.insert(key, (rank, want));
                }
            }
            Step::Leave { key } => {
                self.ledger.leave(key);
                self.model.waiters.remove(&key);
            }
            Step::Serve => {
                prop_assert_eq!(self.ledger.serve(), self.model.serve());
                let waits = self.model.waiters.values().any(|(_, want)| want.is_none());
                prop_assert!(!waits || self.drained().is_empty(), "somebody waits while something is there");
            }
            Step::Withhold(nears) => {
                let spans: BTreeSet<Span> = nears.into_iter().map(|near| span(&self.model, near)).collect();
                self.ledger.withhold(spans.iter().copied());
                self.model.withheld = spans;
            }
            Step::Park { near, order } => {
                let span = span(&self.model, near);
                self.ledger.park(span, order);
                self.model.parked.insert(span, order);
            }
            Step::Unpark { near } => {
                let span = span(&self.model, near);
                self.ledger.unpark(&span);
                self.model.parked.remove(&span);
            }
        }
        Ok(())
    }

    fn observe(&mut self, key: Key, span: Option<Span>, listed: bool) {
        if let Some(&(old, _)) = self.model.objects.get(&key)
            && old != span
        {
            self.ledger.forget(key, old);
            self.model.objects.remove(&key);
        }
        let mark = if listed {
            Mark::Listed(self.now)
        } else {
            self.now += 1;
            Mark::Added(self.now)
        };
        self.ledger.observe(key, span, mark);
        self.model.observe(key, span, mark);
    }

    fn reserve(&mut self, key: Key, want: Want) -> Result<(), TestCaseError> {
        let answer = self.ledger.reserve(key, want);
        if let Some(&(span, _)) = self.model.reserved.get(&key) {
            prop_assert_eq!(answer, Answer::Granted(span));
            return Ok(());
        }
        let Some(pool) = &self.model.pool else {
            prop_assert_eq!(answer, Answer::NoPool);
            return Ok(());
        };
        if let Want::Exactly(span) = want {
            let (holders, promised) = (self.model.holders(&span), self.model.promised(&span));
            match answer {
                Answer::NotAllocatable(refusal) => prop_assert_eq!(pool.pool.refusal(&span), Some(refusal)),
                Answer::HeldBy(other) => prop_assert!(holders.contains(&other)),
                Answer::ReservedBy(other) => prop_assert!(holders.is_empty() && promised.contains(&other)),
                other => {
                    prop_assert_eq!(other, Answer::Granted(span));
                    prop_assert!(self.model.is_free(&span));
                    self.model.grant(key, span);
                    return Ok(());
                }
            }
            prop_assert!(!self.model.is_free(&span));
            prop_assert_eq!(matches!(answer, Answer::NotAllocatable(_)), !self.model.is_allowed(&span));
            return Ok(());
        }
        let open = self.model.open();
        let expected = match want {
            Want::Nth(n) if !open.is_empty() => {
                let lowest = &open[..open.len().min(n + 1)];
                Some(lowest[n % lowest.len()])
            }
            _ => self.model.sequence().first().copied(),
        };
        prop_assert_eq!(answer, expected.map_or(Answer::NoRoom, Answer::Granted));
        if let Some(span) = expected {
            self.model.grant(key, span);
        }
        Ok(())
    }

    /// What new keys would get from the ledger, one after the other.
    fn drained(&self) -> Vec<Span> {
        let mut ledger = self.ledger.clone();
        let granted = (1000..).map_while(|key| match ledger.reserve(key, Want::Lowest) {
            Answer::Granted(span) => Some(span),
            _ => None,
        });
        granted.collect()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Self { ledger, model, .. } = self;
        prop_assert_eq!(ledger.counts(), model.counts());
        let drained = self.drained();
        prop_assert_eq!(&drained, &model.sequence());
        for span in model.allowed() {
            // free ∩ held = ∅, free ∪ ((held ∪ reserved) ∩ allocatable) = allocatable
            let taken = !model.holders(&span).is_empty() || !model.promised(&span).is_empty();
            prop_assert_ne!(taken, drained.contains(&span) || (model.withheld.contains(&span) && model.is_free(&span)));
        }

        let reserved: Vec<_> = ledger.reservations().map(|(key, r)| (key, (r.span, r.state))).collect();
        prop_assert_eq!(reserved, model.reserved.iter().map(|(&key, &r)| (key, r)).collect::<Vec<_>>());
        let parked: Vec<_> = ledger.parked().collect();
        prop_assert_eq!(parked, model.parked.iter().map(|(&span, &order)| (span, order)).collect::<Vec<_>>());

        let mut duplicates = ledger.duplicates(usize::MAX);
        duplicates.sort_by_key(|duplicate| duplicate.span);
        prop_assert_eq!(ledger.duplicate_count(), duplicates.len());
        prop_assert_eq!(duplicates, model.duplicates());

        for key in 0..14 {
            let waiter = model.waiters.get(&key);
            prop_assert_eq!(ledger.is_waiting(key), waiter.is_some());
            let position = waiter.and_then(|&(_, want)| model.queue(want).iter().position(|&other| other == key));
            prop_assert_eq!(ledger.position(key), position);
            let Some(&(Some(span), _)) = model.objects.get(&key) else { continue };
            prop_assert_eq!(ledger.holders(&span).map(|(key, _)| key).collect::<BTreeSet<_>>(), model.holders(&span));
            for seen_by in [key, key + 1] {
                let (seen, ahead, alone) = model.standing(seen_by, &span);
                match ledger.standing(seen_by, &span) {
                    Standing::Unseen => prop_assert!(!seen),
                    Standing::Alone => prop_assert!(seen && alone),
                    Standing::First => prop_assert!(seen && !alone && ahead.is_empty()),
                    Standing::Behind(other) => prop_assert!(seen && ahead.contains(&other)),
                }
            }
        }
        prop_assert_eq!(ledger.waiting(), model.waiters.len());
        Ok(())
    }
}

proptest! {
    #[test]
    fn a_pool_hands_out_what_can_be_counted_one_by_one(seed in pool_seed(), nears in vec(near(), 10)) {
        let counted = Counted::new(&seed);
        let pool = &counted.pool;
        prop_assert_eq!(pool.total(), Count::from(counted.allowed.len() as u128));
        prop_assert_eq!(pool.why_empty().is_some(), counted.allowed.is_empty());
        let spans = nears.iter().map(|&near| counted.shape.span(near)).chain(counted.allowed.iter().copied());
        let ranges = pool.address_ranges();
        for span in spans {
            let allowed = counted.allowed.contains(&span);
            prop_assert_eq!(pool.is_allocatable(&span), allowed);
            prop_assert_eq!(pool.refusal(&span).is_none(), allowed);
            let touched = counted.allowed.iter().any(|other| other.overlaps(&span));
            prop_assert_eq!(ranges.touches(&span.range()), touched);
        }
    }

    #[test]
    fn the_ledger_agrees_with_counting_one_by_one(seed in pool_seed(), steps in vec(step(), 0..70)) {
        let mut pair = Pair::new();
        pair.run(Step::Resize(Some(seed)))?;
        pair.check()?;
        for step in steps {
            let told = format!("{step:?}");
            pair.run(step).and_then(|()| pair.check()).map_err(|error| TestCaseError::fail(format!("after {told}: {error}")))?;
        }
    }
}
