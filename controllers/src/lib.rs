//! The capabilities.

pub mod config;
pub mod externalip;
pub mod ipam;
pub mod kit;
mod run;
pub mod serving;

pub use run::{Manager, RunError, start};
