//! Types of every kind the project reads or writes, and the strings that belong to them.
//!
//! - [`pool`]: the four pool kinds by name, and one object type for all of them;
//! - [`v1alpha2`], [`v1alpha1`]: what stands in `spec` and `status` of a pool, one module per served version;
//! - [`crds`]: the complete custom resource definitions, as they are installed;
//! - [`capi`]: the few fields of Cluster API's kinds that we use, in both served versions, and a claim's conditions;
//! - [`externalip`]: external IP sources, as stored and as understood;
//! - [`names`]: finalizers, labels, annotations, API groups;
//! - [`reasons`]: reasons of conditions and events.
//!
//! There is no client, no clock and no decision in this crate.

#[macro_use]
mod words;

pub mod capi;
pub mod crds;
mod decode;
pub mod externalip;
pub mod names;
pub mod pool;
pub mod reasons;
mod schema;
pub mod v1alpha1;
pub mod v1alpha2;

pub use pool::{Pool, PoolKind};
