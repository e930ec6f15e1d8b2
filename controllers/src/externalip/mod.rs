//! Gives Services their public addresses: finds them by the rules of a source, and writes them down on the Service.

mod accept;
mod answers;
mod claims;
mod cluster;
mod facts;
mod plan;
mod provenance;
mod record;
pub mod solver;
