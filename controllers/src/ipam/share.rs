//! Lets another capability hear what the watches of claims, addresses and IP pools deliver, so that nothing is watched twice.

use api::PoolKind;
use api::capi::{CapiVersion, IpAddress, IpAddressClaim};
use api::v1alpha2::IpPool;

use super::Ctx;
use crate::kit::watch::Seen;

/// Hears every event of a watch, in its order and before this capability takes it in.
pub trait Listener: Send + Sync {
    /// A claim, as it is served in `version`.
    fn claims(&self, seen: &Seen<IpAddressClaim>, version: CapiVersion);
    /// An address.
    fn addresses(&self, seen: &Seen<IpAddress>);
    /// An IP pool of either kind.
    fn pools(&self, kind: PoolKind, seen: &Seen<IpPool>);
}

impl Ctx {
    /// Tells the listener, if there is one.
    pub(super) fn share(&self, tell: impl FnOnce(&dyn Listener)) {
        if let Some(listener) = self.listener.get() {
            tell(&**listener);
        }
    }
}
