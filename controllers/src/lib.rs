//! The capabilities.

pub mod config;
pub mod kit;
