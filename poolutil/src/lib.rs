//! Pure address arithmetic for pools: syntax, sets, exact counts, overlap, and the [`Ledger`] that
//! knows who holds what.
//!
//! | Item | For |
//! |---|---|
//! | [`parse_entry`], [`parse_prefix`], [`parse_network`], [`parse_ip`], [`parse_plain_ip`] | the one reading of what people write |
//! | [`Pool`] with [`IpPoolSpec`] or [`PrefixPoolSpec`] | a spec, checked, as the set it can hand out |
//! | [`RangeSet`], [`Count`] | sets and sizes up to all of IPv6 |
//! | [`Cidr`], [`class`] | which addresses may be used for what |
//! | [`mask_flaws`], [`merged`] | one address from parts of several |
//! | [`overlaps`] | which pools meet, and where |
//! | [`Ledger`] | one pool's holders, reservations, waiters and numbers |
//!
//! # What this crate does not do
//! It knows no Kubernetes, no clock, no randomness, no I/O and no threads: time, order and chance come in
//! as values. It never walks the values of a range, so a `/8`, `::/0` and one address cost the same.
//! It does not decide who may publish an address, who is told, or when; it answers questions.
//!
//! ```
//! use std::sync::Arc;
//! use poolutil::{Answer, IpPoolSpec, Ledger, Mark, Pool, Want};
//!
//! let addresses = ["10.0.0.0/29".to_owned()];
//! let spec = IpPoolSpec { addresses: &addresses, prefix: 29, gateway: "10.0.0.1", ..IpPoolSpec::default() };
//! let mut ledger = Ledger::new();
//! ledger.resize(Some(Arc::new(Pool::ip(&spec)?)));
//!
//! let Answer::Granted(span) = ledger.reserve("web", Want::Lowest) else { unreachable!() };
//! assert_eq!(span.to_string(), "10.0.0.2");
//! ledger.observe("web", Some(span), Mark::Added(1));
//! assert_eq!(ledger.counts().free.to_string(), "4");
//! # Ok::<(), poolutil::SpecError>(())
//! ```

mod cidr;
mod class;
mod count;
mod intervals;
mod ledger;
mod mask;
mod overlap;
mod parse;
mod pool;
mod range_set;
mod shape;
mod span;
mod spec;

pub use cidr::Cidr;
pub use class::{Class, class};
pub use count::Count;
pub use ledger::{Answer, Counts, Duplicate, Ledger, Mark, Reservation, ReservationState, Standing, Want};
pub use mask::{MaskFlaws, mask_flaws, merged};
pub use overlap::{Overlap, overlaps};
pub use parse::{Entry, ParseError, parse_entry, parse_ip, parse_network, parse_plain_ip, parse_prefix};
pub use pool::{Pool, Refusal};
pub use range_set::RangeSet;
pub use span::{AddrRange, Family, Span};
pub use spec::{IpPoolSpec, PrefixPoolSpec, Problem, SpecError};
