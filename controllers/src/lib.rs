//! The capabilities.

pub mod config;
pub mod kit;
mod run;

pub use run::{RunError, run};
