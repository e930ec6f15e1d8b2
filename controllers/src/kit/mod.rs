//! What all capabilities share: everything about running that has nothing to do with addresses.

pub(crate) mod bucket;
pub mod client;
pub mod diagnostics;
pub mod discovery;
pub mod duration;
pub mod events;
pub mod health;
pub mod leader;
mod lease;
pub mod listen;
pub mod metrics;
mod process;
mod proxy;
pub mod queue;
pub mod shutdown;
mod tls;
pub mod watch;
pub mod writes;
