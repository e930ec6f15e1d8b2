//! What an author should know about a pool that is admitted all the same.

use api::Pool as PoolObject;
use api::names::NETWORK_DOMAIN_LABEL;
use poolutil::{Pool, parse_entry};

use super::rules::{Entries, Rules};
use crate::index::{PoolIndex, PoolName};

/// How many entries, partners or problems a warning names.
const NAMED: usize = 3;

/// An admitted creation or update.
pub struct Change<'a, S: Rules> {
    /// Which pool.
    pub name: PoolName<'a>,
    /// How it was; `None` if it is new.
    pub old: Option<&'a PoolObject<S>>,
    /// How it will be.
    pub new: &'a PoolObject<S>,
    /// What it will hand out.
    pub space: &'a Pool,
    /// How many addresses it has; not counted if the spec stays as it is.
    pub objects: usize,
}

impl<S: Rules> Change<'_, S> {
    /// All warnings, in the order of the specification.
    pub fn warnings(&self, index: &dyn PoolIndex) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.space.why_empty().map(|cause| format!("this pool has nothing to allocate: {cause}")));
        warnings.extend(self.new.spec.peculiarities(self.space));
        warnings.extend(self.idle_exclusions());
        for Entries { field, texts } in [self.new.spec.listed(), self.new.spec.excluded()] {
            let zoned = texts.iter().filter(|text| parse_entry(text).is_ok_and(|entry| entry.zone_dropped));
            warnings.extend(few(zoned).map(|entries| format!("{field}: the zone in {entries} is ignored")));
        }
        warnings.extend(self.overlaps(index));
        warnings.extend(self.kept_values());
        warnings.extend(self.annotations(index));
        warnings
    }

    fn idle_exclusions(&self) -> Option<String> {
        let Entries { field, texts } = self.new.spec.excluded();
        let listed = self.space.listed_ranges();
        let idle = texts.iter().filter(|text| parse_entry(text).is_ok_and(|entry| !listed.touches(&entry.range)));
        few(idle).map(|entries| {
            format!("{field}: {entries} excludes nothing, it touches no entry of {}", self.new.spec.listed().field)
        })
    }

    fn overlaps(&self, index: &dyn PoolIndex) -> Option<String> {
        let labels = self.new.metadata.labels.as_ref();
        let domain = labels.and_then(|labels| labels.get(NETWORK_DOMAIN_LABEL)).map_or("", String::as_str);
        let partners = index.overlapping(self.name, domain, &self.space.address_ranges());
        let told: Vec<_> = partners.iter().map(|partner| format!("{} at {}", partner.pool, partner.common)).collect();
        let listed = list(&told)?;
        Some(format!("this pool shares addresses with {listed}; each pool hands them out on its own"))
    }

    fn kept_values(&self) -> Vec<String> {
        let Some(old) = self.old.filter(|_| self.objects > 0) else { return Vec::new() };
        let changed = old.spec.copied().into_iter().zip(self.new.spec.copied()).filter(|(old, new)| old != new);
        changed
            .map(|((field, old), _)| format!("{field}: addresses that exist ({}) keep the old value {old:?}", self.objects))
            .collect()
    }

    fn annotations(&self, index: &dyn PoolIndex) -> Option<String> {
        let annotations = self.new.metadata.annotations.as_ref()?;
        let listed = list(&index.annotation_problems(annotations, self.space))?;
        Some(format!("metadata.annotations: ignored: {listed}"))
    }
}

/// Some of the entries, quoted.
fn few<'a>(entries: impl Iterator<Item = &'a String>) -> Option<String> {
    list(&entries.map(|entry| format!("{entry:?}")).collect::<Vec<_>>())
}

/// Some of the texts, and how many more there are.
fn list(texts: &[String]) -> Option<String> {
    let text = texts[..texts.len().min(NAMED)].join(", ");
    match texts.len() {
        0 => None,
        count if count > NAMED => Some(format!("{text} and {} more", count - NAMED)),
        _ => Some(text),
    }
}
