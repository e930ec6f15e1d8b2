//! What is remembered of things that the view does not show: of the latest ones, for as many as memory is given for.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// So many things are remembered. Whatever makes one worth remembering (a late request, a late watch) is over long before as many others
/// have come.
const MOST: usize = 1 << 16;

/// A value for each of the latest keys.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Latest<K, T> {
    known: HashMap<K, T>,
    order: VecDeque<K>,
}

impl<K, T> Default for Latest<K, T> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, T: Default> Latest<K, T> {
    /// Remembers a key, if it is not known yet.
    pub fn add(&mut self, key: &K) {
        if self.known.contains_key(key) {
            return;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.known.insert(key.clone(), T::default());
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// What is known of a key.
    pub fn get(&self, key: &K) -> Option<&T> {
        self.known.get(key)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut T> {
        self.known.get_mut(key)
    }

    /// Forgets a key.
    pub fn forget(&mut self, key: &K) {
        if self.known.remove(key).is_some() {
            self.order.retain(|known| known != key);
        }
    }
}

#[cfg(test)]
impl<K: Eq + Hash, T: Hash> Hash for Latest<K, T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.order.iter().for_each(|key| (key, &self.known[key]).hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::compact::Uid;

    fn uid(number: usize) -> Uid {
        Uid::new(&number.to_string())
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut latest = Latest::<Uid, ()>::default();
        for number in 0..=MOST {
            latest.add(&uid(number));
            latest.add(&uid(MOST));
        }
        assert_eq!((latest.known.len(), latest.order.len()), (MOST, MOST));
        assert!(latest.get(&uid(2)).is_some() && latest.get(&uid(0)).is_none());
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut latest = Latest::<Uid, ()>::default();
        latest.add(&uid(1));
        latest.forget(&uid(1));
        latest.forget(&uid(2));
        assert_eq!((latest.known.len(), latest.order.len()), (0, 0));
    }
}
