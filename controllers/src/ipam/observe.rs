//! Reads the facts about one claim out of the cache. Called under the cache's lock, right before the plan is made.

use std::time::{Duration, Instant};

use api::names::{CLUSTER_NAME_LABEL, PROTECT_ADDRESS, WATCH_FILTER_LABEL};
use k8s_openapi::jiff::Timestamp;
use poolutil::{Mark, ReservationState, Span, Standing};

use super::compact::{Revision, Seconds};
use super::facts::{
    AddressFacts, ClaimFacts, ClusterFacts, Contest, Facts, Memory, MotionFacts, Policy, PoolFacts, PoolView, Relation, Repair,
    ReservedFacts, Wishes,
};
use super::owners;
use super::records::{Address, Claim, Entry, Motion, PoolEntry, PoolId, PoolRecord, Slot};
use super::world::World;

/// How long a view that lacks our own write is waited for.
const BELIEVED: Duration = Duration::from_secs(10);

/// Everything a plan may want to know about the claim and address in `slot`. `None` if there is nothing under it any more.
pub fn observe(world: &World, slot: Slot, policy: Policy, wall: Timestamp, now: Instant) -> Option<Facts> {
    let entry = world.entry(slot)?;
    let motion = entry.motion.as_deref();
    let pool_id = world.pool_of(slot);
    let pool = pool_id.and_then(|id| world.pool(id));
    let reader = Reader { world, slot, entry, pool_id, pool };
    let post = motion.and_then(|motion| motion.post.as_ref());
    let reservation = pool.and_then(|pool| pool.ledger.reservation(slot)).map(|held| (held.span, held.state)).or_else(|| {
        // An object of that name came and went while ours was on its way: the reservation went with it, but ours may be there yet.
        let served = entry.claim.as_ref().is_some_and(|claim| claim.deleting.is_none());
        let post = post.filter(|post| entry.address.is_none() && (post.answered.is_some() || !served))?;
        Some((post.span, if post.answered.is_some() { ReservationState::Answered } else { ReservationState::Sent }))
    });
    let reservation = reservation.map(|(span, state)| ReservedFacts {
        span,
        state,
        age: post.map_or(Duration::ZERO, |post| {
            let since = post.answered.as_ref().filter(|_| state == ReservationState::Answered).map_or(post.sent, |(at, _)| *at);
            now.saturating_duration_since(since)
        }),
    });
    Some(Facts {
        namespace: world.names.text(entry.namespace).to_string(),
        name: entry.name.to_string(),
        capi: world.capi,
        claim: entry.claim.as_deref().map(|claim| reader.claim(claim)),
        cluster: reader.cluster(),
        pool: reader.pool(),
        address: entry.address.as_deref().map(|address| reader.address(address)),
        reservation,
        refused: None,
        wishes: reader.wishes(wall),
        motion: reader.motion(motion, wall, now),
        policy,
    })
}

/// Why a pool that exists gives nothing out, if it does not.
pub fn trouble(world: &World, pool: &PoolEntry) -> Option<String> {
    let record = pool.record.as_ref()?;
    match &record.space {
        Err(error) => Some(format!("invalid spec: {error}")),
        Ok(_) if pool.key.kind.is_global() && !world.addresses_everywhere => {
            Some("addresses of other namespaces are not visible to this manager".to_owned())
        }
        Ok(space) => space.why_empty(),
    }
}

struct Reader<'a> {
    world: &'a World,
    slot: Slot,
    entry: &'a Entry,
    pool_id: Option<PoolId>,
    pool: Option<&'a PoolEntry>,
}

impl Reader<'_> {
    fn claim(&self, claim: &Claim) -> ClaimFacts {
        ClaimFacts {
            uid: claim.uid.clone(),
            revision: claim.revision.clone(),
            generation: claim.generation.into(),
            deleting: claim.deleting.map(Seconds::get),
            moving: claim.moving,
            paused: claim.paused,
            finalizers: self.world.names.texts(claim.finalizers),
            release_now: claim.release_now,
            lost: claim.lost().cloned(),
            bound: claim.bound,
            conditions: claim.conditions.whole(),
            cluster_label: claim.label.map(|name| self.world.names.text(name).to_string()),
        }
    }

    fn cluster(&self) -> ClusterFacts {
        let Some(name) = self.entry.claim.as_ref().and_then(|claim| claim.cluster) else {
            return ClusterFacts::Unnamed;
        };
        match self.world.clusters.get(&(self.entry.namespace, name)).and_then(|cluster| cluster.paused) {
            Some(true) => ClusterFacts::Paused,
            Some(false) => ClusterFacts::Running,
            None => ClusterFacts::Missing(self.world.names.text(name).to_string()),
        }
    }

    fn pool(&self) -> PoolFacts {
        let Some(pool) = self.pool else {
            // Nothing here refers to a pool of ours: an address of another provider, and no claim.
            return PoolFacts::Absent(api::PoolKind::InClusterIPPool, String::new());
        };
        let Some(record) = &pool.record else {
            return PoolFacts::Absent(pool.key.kind, pool.key.name.to_string());
        };
        PoolFacts::Known(Box::new(PoolView {
            kind: pool.key.kind,
            name: pool.key.name.to_string(),
            uid: record.uid.clone(),
            paused: record.paused,
            deleting: record.deleting || record.moving,
            trouble: trouble(self.world, pool),
            grace: record.grace,
            prefix: record.prefix,
            gateway: record.gateway.clone(),
            total: pool.ledger.counts().total.to_string(),
            used: pool.ledger.counts().used as u64,
        }))
    }

    fn address(&self, address: &Address) -> AddressFacts {
        let relation = self.relation(address);
        let fresh = address.ours && self.entry.claim.as_ref().is_none_or(|claim| !claim.bound);
        let made_here = self.made_here();
        let finalizers = self.world.names.texts(address.finalizers);
        let span = address.span();
        AddressFacts {
            uid: address.uid.clone(),
            revision: address.revision.clone(),
            deleting: address.deleting.map(Seconds::get),
            moving: address.moving,
            claim_uid: self.world.owner_of(self.slot),
            span,
            text: span.map_or_else(|| "an unreadable address".to_owned(), |span| format!("{}/{}", span.ip(), address.prefix)),
            repair: self.repair(address, &finalizers).filter(|_| relation == Relation::Ours),
            finalizers,
            fresh: fresh || made_here,
            made_here,
            contest: span.and_then(|span| self.contest(address, &span, fresh || made_here)),
            relation,
        }
    }

    /// This process posted the object, and nobody was told of it. A later claim of this name may yet make something of what was posted
    /// for an earlier one.
    fn made_here(&self) -> bool {
        self.world.was_posted(self.slot) || self.entry.claim.is_none() && self.world.is_stray(self.slot)
    }

    fn owners(&self, address: &Address) -> Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
        let key = address.pool.and_then(|pool| self.world.pool(pool)).map(|pool| &pool.key);
        address.owners(&self.entry.name, key, &self.world.names)
    }

    fn relation(&self, address: &Address) -> Relation {
        let Some(claim) = &self.entry.claim else {
            return if self.world.serves_address(self.slot, address) {
                Relation::Ours
            } else {
                Relation::Other("is not looked after by this manager".to_owned())
            };
        };
        if let Some(other) = address.other_claim() {
            return Relation::Other(format!("belongs to claim {other:?}"));
        }
        if address.pool != Some(claim.pool) {
            return Relation::Other("belongs to another pool".to_owned());
        }
        let owner = self.world.owner_of(self.slot);
        let later = claim.deleting.is_some() && owner.as_ref().is_some_and(|owner| *owner != claim.uid);
        if later || (address.deleting.is_some() && owner.as_ref() != Some(&claim.uid)) {
            return Relation::Another;
        }
        Relation::Ours
    }

    /// What an address of ours lacks.
    fn repair(&self, address: &Address, finalizers: &[String]) -> Option<Repair> {
        let claim = self.entry.claim.as_ref()?;
        let pool = self.pool?;
        // A pool that is deleting may have the garbage collector take its reference away: putting it back would be a quarrel.
        let staying = pool.record.as_ref().filter(|record| !record.deleting);
        let wanted_pool = staying.map(|record| owners::pool_reference(pool.key.kind, &pool.key.name, &record.uid));
        let wanted_claim = owners::claim_reference(self.world.capi, &self.entry.name, &claim.uid);
        let owners = owners::completed(&self.owners(address), wanted_claim, wanted_pool);
        let protected = address.deleting.is_some() || finalizers.iter().any(|name| name == PROTECT_ADDRESS);
        let finalizers = (!protected).then(|| finalizers.iter().cloned().chain([PROTECT_ADDRESS.to_owned()]).collect());
        let mut labels = Vec::new();
        if let Some(name) = claim.label.filter(|name| address.cluster_label != Some(*name)) {
            labels.push((CLUSTER_NAME_LABEL.to_owned(), self.world.names.text(name).to_string()));
        }
        if let Some(filter) = self.world.scope.watch_filter.as_ref().filter(|_| !address.filtered) {
            labels.push((WATCH_FILTER_LABEL.to_owned(), filter.clone()));
        }
        let complete = owners.is_none() && finalizers.is_none() && labels.is_empty();
        let untold = || !claim.bound && (self.world.was_posted(self.slot) || self.world.is_stray(self.slot));
        let changes_owner = || self.world.owner_of(self.slot).as_ref() != Some(&claim.uid);
        (!complete).then(|| Repair { owners, finalizers, labels, untold: untold(), changes_owner: changes_owner() })
    }

    /// The other holders of the value. A fresh address that provably precedes them all has none to fear; one that we did not make
    /// and that is not published is judged by age, which every manager sees alike.
    fn contest(&self, address: &Address, span: &Span, fresh: bool) -> Option<Contest> {
        let ledger = &self.world.pool(address.pool?)?.ledger;
        let first = match ledger.standing(self.slot, span) {
            Standing::Alone => return None,
            Standing::First if fresh => return None,
            Standing::Behind(first) => Some(first),
            Standing::First | Standing::Unseen => None,
        };
        let own_mark = ledger.holders(span).find(|(key, _)| *key == self.slot).map(|(_, mark)| mark);
        let mut contest = Contest { holder: String::new(), published: false, behind: false, fresh: false, elder: false };
        let mut holder = first;
        for (key, mark) in ledger.holders(span).filter(|(key, _)| *key != self.slot) {
            let Some((entry, other)) = self.world.entry(key).and_then(|entry| Some((entry, entry.address.as_deref()?))) else {
                continue;
            };
            let published = entry.claim.as_ref().is_none_or(|claim| claim.bound);
            let rival = other.ours && !published;
            // A fresh one that provably came later loses, and deletes itself.
            let alive = rival && !own_mark.is_some_and(|own: Mark| own.precedes(mark));
            let elder = !rival && (other.created, other.uid.to_string()) < (address.created, address.uid.to_string());
            contest.published |= published;
            contest.behind |= own_mark.is_some_and(|own| mark.precedes(own));
            contest.fresh |= alive;
            contest.elder |= elder;
            if published || alive || elder {
                holder = holder.or(Some(key));
            }
        }
        contest.holder = holder.map_or_else(|| "another claim".to_owned(), |holder| self.world.title(holder));
        Some(contest)
    }

    fn wishes(&self, wall: Timestamp) -> Wishes {
        let (Some(claim), Some(id), Some(pool)) = (&self.entry.claim, self.pool_id, self.pool) else { return Wishes::default() };
        let Some((record, space)) = pool.record.as_ref().and_then(|record| Some((record, record.space.as_ref().ok()?))) else {
            return Wishes::default();
        };
        let motion = self.entry.motion.as_deref();
        let key = self.world.memory_key(self.slot, id);
        let requested = claim.requested().map(|text| {
            let span = space.parse_request(text).map_err(|error| format!("requested address {text:?}: {error}"))?;
            match record.pre_allocations.owner(span).filter(|owner| *owner != key) {
                Some(owner) => Err(format!("requested address {span} is pre-allocated to {owner}")),
                None => Ok(span),
            }
        });
        Wishes {
            named: requested.or_else(|| record.pre_allocations.get(&key).map(Ok)),
            former: motion.and_then(|motion| motion.former),
            remembered: record.sticky.and_then(|_| record.memory.get(&key, wall)),
            collided: motion.is_some_and(|motion| motion.collisions > 0),
        }
    }

    fn motion(&self, motion: Option<&Motion>, wall: Timestamp, now: Instant) -> MotionFacts {
        let Some(motion) = motion else {
            return MotionFacts { memory: self.memory(wall), ..MotionFacts::default() };
        };
        let claim = self.entry.claim.as_ref().map(|claim| &claim.revision);
        let address = self.entry.address.as_ref().map(|address| &address.revision);
        let unseen = |wrote: &Option<(Revision, Instant)>, seen: Option<&Revision>| {
            wrote.as_ref().is_some_and(|(before, at)| Some(before) == seen && now.saturating_duration_since(*at) < BELIEVED)
        };
        let removed = motion.removed.as_ref().is_some_and(|(uid, at)| {
            let in_view = self.entry.address.as_ref().is_some_and(|address| address.uid == *uid);
            in_view && now.saturating_duration_since(*at) < BELIEVED
        });
        MotionFacts {
            own_write_unseen: removed || unseen(&motion.wrote_claim, claim) || unseen(&motion.wrote_address, address),
            waiting: motion.waiting.map(|(waiting, since)| (waiting, now.saturating_duration_since(since))),
            position: motion.waiting.and_then(|_| self.pool?.ledger.position(self.slot)).map(|ahead| ahead + 1),
            refusal: motion
                .refusal
                .as_ref()
                .filter(|(_, until)| *until > now)
                .map(|(words, until)| (words.clone(), *until - now)),
            moved: motion.moved,
            bereft: motion.bereft.is_some() && motion.bereft.as_ref() == self.entry.claim.as_ref().map(|claim| &claim.uid),
            memory: self.memory(wall),
        }
    }

    fn memory(&self, wall: Timestamp) -> Memory {
        let (Some(id), Some(pool), Some(address)) = (self.pool_id, self.pool, &self.entry.address) else { return Memory::Off };
        let remembers = |record: &&PoolRecord| {
            record.sticky.is_some() && !record.deleting && !record.moving && self.world.serves_pool(record)
        };
        let Some(record) = pool.record.as_ref().filter(remembers) else { return Memory::Off };
        // What the pool cannot give again is not worth remembering.
        let again = |span: &Span| record.space.as_ref().is_ok_and(|space| space.is_allocatable(span));
        let Some(span) = address.span().filter(again) else { return Memory::Off };
        let written = record.memory.get(&self.world.memory_key(self.slot, id), wall);
        if written == Some(span) { Memory::Written } else { Memory::Missing }
    }
}
