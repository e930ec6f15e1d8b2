//! The unit of a pool: what one allocation takes. Shared by pools and the ledger.

use crate::span::{AddrRange, Family, Span};

/// Numbers the spans of one family and length, 1 to 128: `address >> (bits - length)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) family: Family,
    pub(crate) length: u8,
}

impl Shape {
    fn shift(self) -> u8 {
        self.family.bits() - self.length
    }

    /// The number of a span of this shape.
    pub(crate) fn unit(self, span: &Span) -> Option<u128> {
        (span.family() == self.family && span.length() == self.length).then(|| span.first() >> self.shift())
    }

    /// The first and the last unit that share an address with the span, if it is of this family.
    pub(crate) fn units(self, span: &Span) -> Option<(u128, u128)> {
        (span.family() == self.family).then(|| self.around(&span.range()))
    }

    /// The first and the last unit that share an address with the range, which is of this family.
    pub(crate) fn around(self, range: &AddrRange) -> (u128, u128) {
        (range.first() >> self.shift(), range.last() >> self.shift())
    }

    /// The span of a unit.
    pub(crate) fn span(self, unit: u128) -> Span {
        Span::around(self.family, unit << self.shift(), self.length)
    }

    /// The span, or the unit around it if it is smaller.
    pub(crate) fn region(self, span: &Span) -> Span {
        if span.family() == self.family && span.length() > self.length {
            Span::around(self.family, span.first(), self.length)
        } else {
            *span
        }
    }

    /// Everything.
    pub(crate) fn all(self) -> Span {
        Span::around(self.family, 0, 0)
    }
}
