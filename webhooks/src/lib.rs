//! Admission and conversion: pure functions behind a TLS listener.
//!
//! | Path | Answers | Rules in |
//! |---|---|---|
//! | [`registration::default_path`] | what a pool gets that leaves it out | `pools` |
//! | [`registration::validate_path`] | whether a pool may be created, changed, deleted; what to warn about | `pools` |
//! | [`registration::CLAIM_PATH`] | the finalizer of a new claim of ours | `claims` |
//! | [`registration::SOURCE_PATH`] | whether an external IP source may be created or changed; what to warn about | `externalip` |
//! | [`registration::CONVERT_PATH`] | pools in the other served version | `convert` |
//!
//! # What this crate does not do
//! It has no API client: all it knows comes with the request, or from the manager's memory through [`PoolIndex`].
//! It does not parse an address: [`poolutil`] does, for admission and allocation alike. It decides nothing that
//! correctness stands on: finalizers and the ledger hold while it is away.

mod certificate;
mod claims;
mod convert;
mod denial;
mod externalip;
mod index;
mod pools;
pub mod registration;
mod review;
mod server;

pub use certificate::{CertificateFiles, CertificateKeeper, CertificateSource, CertificateState};
pub use index::{InUse, NotSynced, Partner, PoolIndex, PoolName};
pub use server::{RELOAD_EVERY, Report, Scope, Tls, Webhooks, serve};
