//! The pools themselves: their finalizer, their status with conditions, their memory. Runs beside the claims, on a queue of its own.
//!
//! A pool's first change is shown at once, further ones at most once a second, all pools together at most a hundred times a second.
//! A pool that runs full, or is not full any more, shows it without delay.

pub mod drive;
pub mod observe;
pub mod plan;
