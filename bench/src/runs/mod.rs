//! The runs, one file each: what is done, and what is printed of it. Called in turn by `main`.

pub mod backlog;
pub mod drain;
pub mod fill;
pub mod ledger;
pub mod limited;
pub mod loaded;
pub mod memory;
pub mod paced;
pub mod restart;
pub mod steady;
pub mod two;
pub mod waiters;
