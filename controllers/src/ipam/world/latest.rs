//! What is known of claims that the view does not show: of the latest ones, for as many as memory is given for.

use std::collections::{HashMap, VecDeque};

use crate::ipam::compact::Uid;

/// So many claims are remembered. Whatever makes a claim worth remembering (a late request, a late watch) is over long before as many
/// others have come.
const MOST: usize = 1 << 16;

/// A value for each of the latest claims.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub struct Latest<T> {
    claims: HashMap<Uid, T>,
    order: VecDeque<Uid>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self { claims: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T: Default> Latest<T> {
    /// Remembers a claim, if it is not known yet.
    pub fn add(&mut self, claim: &Uid) {
        if self.claims.contains_key(claim) {
            return;
        }
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.claims.remove(&oldest);
        }
        self.order.push_back(claim.clone());
        self.claims.insert(claim.clone(), T::default());
    }

    /// What is known of a claim.
    pub fn get(&self, claim: &Uid) -> Option<&T> {
        self.claims.get(claim)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, claim: &Uid) -> Option<&mut T> {
        self.claims.get_mut(claim)
    }

    /// Forgets a claim.
    pub fn forget(&mut self, claim: &Uid) {
        if self.claims.remove(claim).is_some() {
            self.order.retain(|known| known != claim);
        }
    }
}

#[cfg(test)]
impl<T: std::hash::Hash> std::hash::Hash for Latest<T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.order.iter().for_each(|claim| (claim, &self.claims[claim]).hash(state));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(number: usize) -> Uid {
        Uid::new(&number.to_string())
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut latest = Latest::<()>::default();
        for number in 0..=MOST {
            latest.add(&uid(number));
            latest.add(&uid(MOST));
        }
        assert_eq!((latest.claims.len(), latest.order.len()), (MOST, MOST));
        assert!(latest.get(&uid(2)).is_some() && latest.get(&uid(0)).is_none());
    }

    #[test]
    fn what_is_forgotten_makes_room() {
        let mut latest = Latest::<()>::default();
        latest.add(&uid(1));
        latest.forget(&uid(1));
        latest.forget(&uid(2));
        assert_eq!((latest.claims.len(), latest.order.len()), (0, 0));
    }
}
