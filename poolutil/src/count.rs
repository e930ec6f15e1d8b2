//! Exact sizes of address sets, from nothing to all of IPv6. Used by every set and by pool status.

use std::fmt;

/// An exact number from 0 to 2^128, which is one more than a `u128` can say.
///
/// ```
/// use poolutil::{Count, RangeSet, parse_entry};
/// let all = RangeSet::from(parse_entry("::/0")?.range);
/// assert_eq!(all.count().to_string(), "340282366920938463463374607431768211456");
/// assert_eq!(all.count().capped(), i64::MAX);
/// # Ok::<(), poolutil::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Count {
    /// Set only for 2^128, when `low` is 0. First, so that the derived order is the numeric one.
    whole: bool,
    low: u128,
}

impl Count {
    /// Nothing.
    pub const ZERO: Self = Self { whole: false, low: 0 };

    /// 2^128, the size of all of IPv6.
    pub const MAX: Self = Self { whole: true, low: 0 };

    /// The number of values from `first` to `last`, both included.
    pub(crate) const fn between(first: u128, last: u128) -> Self {
        match (last - first).checked_add(1) {
            Some(low) => Self { whole: false, low },
            None => Self::MAX,
        }
    }

    /// The sum, at most [`Count::MAX`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        match self.low.checked_add(other.low) {
            Some(low) if !self.whole && !other.whole => Self { whole: false, low },
            _ => Self::MAX,
        }
    }

    /// The difference, at least zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        match (self.whole, other.whole) {
            (_, true) => Self::ZERO,
            (true, false) if other.low == 0 => self,
            (true, false) => Self { whole: false, low: (u128::MAX - other.low) + 1 },
            (false, false) => Self { whole: false, low: self.low.saturating_sub(other.low) },
        }
    }

    /// Whether this is zero.
    pub const fn is_zero(self) -> bool {
        !self.whole && self.low == 0
    }

    /// The number as the integer status fields show it: at most `i64::MAX`.
    pub fn capped(self) -> i64 {
        if self.whole { i64::MAX } else { i64::try_from(self.low).unwrap_or(i64::MAX) }
    }

    /// The number as a `u128`, which only 2^128 itself does not fit.
    pub const fn saturating(self) -> u128 {
        if self.whole { u128::MAX } else { self.low }
    }

    /// Whether [`Count::capped`] loses something, so that the exact text is needed beside it.
    pub fn exceeds_i64(self) -> bool {
        self.whole || i64::try_from(self.low).is_err()
    }
}

impl From<u128> for Count {
    fn from(low: u128) -> Self {
        Self { whole: false, low }
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.whole { f.pad("340282366920938463463374607431768211456") } else { fmt::Display::fmt(&self.low, f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ipv6_is_counted_exactly() {
        let all = Count::between(0, u128::MAX);
        assert_eq!(all, Count::MAX);
        assert_eq!(all.to_string(), "340282366920938463463374607431768211456");
        let rest = all.minus(1.into());
        assert_eq!(rest, Count::from(u128::MAX));
        assert_eq!(rest.plus(1.into()), all);
        assert!(rest < all && all.exceeds_i64());
    }

    #[test]
    fn sums_and_differences_stop_at_the_ends() {
        assert_eq!(Count::MAX.plus(Count::MAX), Count::MAX);
        assert_eq!(Count::from(3).minus(5.into()), Count::ZERO);
        assert_eq!(Count::MAX.minus(Count::MAX), Count::ZERO);
        assert_eq!(Count::MAX.minus(Count::ZERO), Count::MAX);
        assert!(Count::ZERO.is_zero() && !Count::MAX.is_zero());
    }

    #[test]
    fn the_integer_form_is_capped() {
        let edge = u128::from(i64::MAX.unsigned_abs());
        assert_eq!(Count::from(edge).capped(), i64::MAX);
        assert!(!Count::from(edge).exceeds_i64());
        assert_eq!(Count::from(edge + 1).capped(), i64::MAX);
        assert!(Count::from(edge + 1).exceeds_i64());
        assert_eq!(Count::from(7).capped(), 7);
    }
}
