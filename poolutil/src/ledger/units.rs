//! A map by unit for a pool that is filled from its lowest value up: its keys lie close together.

use std::collections::BTreeMap;

/// Values by unit, in pages of 256 neighbours. A full page costs nothing but its values, and finding one of them there needs no search.
#[derive(Clone, Debug)]
pub(super) struct Units<V> {
    /// By what the units of a page have in common. No page is empty.
    pages: BTreeMap<u128, Page<V>>,
    len: usize,
}

/// The values of one page with the last eight bits of their units, ascending.
type Page<V> = Vec<(u8, V)>;

impl<V> Default for Units<V> {
    fn default() -> Self {
        Self { pages: BTreeMap::new(), len: 0 }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "that is what it is for")]
fn split(unit: u128) -> (u128, u8) {
    (unit >> 8, unit as u8)
}

/// Where `offset` is in the page, or where it would be.
fn place<V>(page: &Page<V>, offset: u8) -> Result<usize, usize> {
    // No more than `offset` values can stand before it, and no more than `255 - offset` behind it.
    let most = page.len().min(usize::from(offset) + 1);
    let least = page.len().saturating_sub(usize::from(u8::MAX - offset) + 1).min(most);
    match page[least..most].binary_search_by_key(&offset, |(known, _)| *known) {
        Ok(place) => Ok(least + place),
        Err(place) => Err(least + place),
    }
}

impl<V> Units<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        // A page's vector has room for a third more than it holds, on average.
        self.len * size_of::<(u8, V)>() * 4 / 3 + self.pages.len() * size_of::<(u128, Page<V>)>() * 4 / 3
    }

    pub(super) fn get(&self, unit: u128) -> Option<&V> {
        let (page, offset) = split(unit);
        let page = self.pages.get(&page)?;
        place(page, offset).ok().map(|place| &page[place].1)
    }

    pub(super) fn get_mut(&mut self, unit: u128) -> Option<&mut V> {
        let (page, offset) = split(unit);
        let page = self.pages.get_mut(&page)?;
        place(page, offset).ok().map(|place| &mut page[place].1)
    }

    /// Adds a value where there is none; says whether there was none.
    pub(super) fn insert(&mut self, unit: u128, value: V) -> bool {
        let (page, offset) = split(unit);
        let page = self.pages.entry(page).or_default();
        let Err(place) = place(page, offset) else { return false };
        page.insert(place, (offset, value));
        self.len += 1;
        true
    }

    pub(super) fn remove(&mut self, unit: u128) {
        let (number, offset) = split(unit);
        let Some(page) = self.pages.get_mut(&number) else { return };
        let Ok(place) = place(page, offset) else { return };
        page.remove(place);
        self.len -= 1;
        if page.is_empty() {
            self.pages.remove(&number);
        }
    }

    /// Everything from `first` to `last`, ascending.
    pub(super) fn range(&self, first: u128, last: u128) -> impl Iterator<Item = (u128, &V)> {
        let ((low, from), (high, to)) = (split(first), split(last));
        self.pages.range(low..=high).flat_map(move |(&number, page)| {
            let begin = if number == low { place(page, from).unwrap_or_else(|place| place) } else { 0 };
            let end = if number == high { place(page, to).map_or_else(|place| place, |place| place + 1) } else { page.len() };
            page[begin..end].iter().map(move |(offset, value)| (number << 8 | u128::from(*offset), value))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn unit() -> impl Strategy<Value = u128> {
        prop_oneof![0u128..600, (u128::MAX - 300)..=u128::MAX]
    }

    proptest! {
        #[test]
        fn units_agree_with_a_tree(
            steps in prop::collection::vec((any::<bool>(), unit()), 0..400),
            dense in prop::collection::vec(0u128..520, 0..2),
            bounds in (unit(), unit()),
        ) {
            let (mut units, mut model) = (Units::default(), BTreeMap::new());
            let filled = dense.iter().flat_map(|&last| (0..=last).map(|unit| (true, unit)));
            for (number, (add, unit)) in filled.chain(steps).enumerate() {
                if add {
                    let free = !model.contains_key(&unit);
                    prop_assert_eq!(units.insert(unit, number), free);
                    model.entry(unit).or_insert(number);
                } else {
                    units.remove(unit);
                    model.remove(&unit);
                }
                prop_assert_eq!(units.get(unit), model.get(&unit));
                prop_assert_eq!(units.get_mut(unit).copied(), model.get(&unit).copied());
            }
            prop_assert_eq!(units.len(), model.len());
            let (first, last) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            for (first, last) in [(0, u128::MAX), (first, last), (first, first)] {
                let found: Vec<_> = units.range(first, last).map(|(unit, value)| (unit, *value)).collect();
                let expected: Vec<_> = model.range(first..=last).map(|(&unit, &value)| (unit, value)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
