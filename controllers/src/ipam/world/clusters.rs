//! Intake of clusters: whether each exists and is paused.

use std::collections::HashSet;

use api::capi::Cluster;
use api::names::PAUSED;

use super::{Watched, World};
use crate::ipam::compact::Name;
use crate::ipam::records::{Slot, annotation};
use crate::kit::watch::Seen;

impl World {
    /// Takes in what the watch of clusters reports.
    pub fn clusters(&mut self, seen: Seen<Cluster>) {
        match seen {
            Seen::ListBegan => self.listed_clusters = Some(HashSet::new()),
            Seen::Listed(cluster) => {
                let key = self.set_cluster(&cluster, true);
                self.listed_clusters.get_or_insert_default().insert(key);
            }
            Seen::ListEnded => {
                self.syncs.insert(Watched::Clusters, super::Sync::Synced);
                let listed = self.listed_clusters.take().unwrap_or_default();
                let known = self.clusters.iter().filter(|(_, entry)| entry.paused.is_some());
                let gone: Vec<_> = known.map(|(key, _)| *key).filter(|key| !listed.contains(key)).collect();
                for key in gone {
                    self.set_paused(key, None);
                }
            }
            Seen::Changed(cluster) => {
                self.set_cluster(&cluster, true);
            }
            Seen::Gone(cluster) => {
                self.set_cluster(&cluster, false);
            }
            Seen::NotServed => self.not_served(Watched::Clusters),
        }
    }

    fn set_cluster(&mut self, cluster: &Cluster, exists: bool) -> (Name, Name) {
        let meta = &cluster.metadata;
        let key = (
            self.names.intern(meta.namespace.as_deref().unwrap_or_default()),
            self.names.intern(meta.name.as_deref().unwrap_or_default()),
        );
        let paused = cluster.spec.paused || annotation(meta, PAUSED).is_some();
        self.set_paused(key, exists.then_some(paused));
        key
    }

    fn set_paused(&mut self, key: (Name, Name), paused: Option<bool>) {
        let entry = self.clusters.entry(key).or_default();
        if entry.paused == paused {
            return;
        }
        entry.paused = paused;
        let members: Vec<Slot> = entry.members.iter().copied().collect();
        if paused.is_none() && members.is_empty() {
            self.clusters.remove(&key);
        }
        self.wake_in_order(members);
    }
}
