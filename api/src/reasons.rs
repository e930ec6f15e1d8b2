//! Reasons of conditions and events, as closed lists: what a plan may say and a driver may write.
//!
//! Their spelling is part of the API: people alert on it.

words! {
    /// Why a claim is ready, or is not.
    ///
    /// ```
    /// use api::reasons::{ClaimReason, Severity};
    ///
    /// assert_eq!(ClaimReason::PoolExhausted.as_str(), "PoolExhausted");
    /// assert_eq!(ClaimReason::PoolExhausted.severity(), Some(Severity::Warning));
    /// ```
    ClaimReason {
        /// The claim is bound.
        AddressAllocated,
        /// The pool has no room.
        PoolExhausted,
        /// The pool is absent, invalid, deleting, or has no allocatable address at all.
        PoolNotReady,
        /// The requested address is refused, the name is taken, an old address is still going, or the server refused.
        AllocationFailed,
    }
}

impl ClaimReason {
    /// Whether `Ready` is true with this reason.
    pub const fn is_ready(self) -> bool {
        matches!(self, Self::AddressAllocated)
    }

    /// The severity in the legacy condition, which has one only while it is false.
    pub const fn severity(self) -> Option<Severity> {
        match self {
            Self::AddressAllocated => None,
            Self::PoolExhausted | Self::PoolNotReady => Some(Severity::Warning),
            Self::AllocationFailed => Some(Severity::Error),
        }
    }
}

words! {
    /// How bad a legacy condition that is false is, in Cluster API's words.
    Severity {
        /// Something must change before it works.
        Error,
        /// It may go by itself.
        Warning,
    }
}

words! {
    /// The types of a pool's conditions.
    PoolCondition {
        /// The pool gives out addresses.
        Ready,
        /// Nothing is free.
        Exhausted,
        /// Another pool of the same network domain can give out some of the same addresses.
        Overlapping,
        /// One address is held twice.
        Conflicting,
    }
}

words! {
    /// Why a pool's condition is what it is.
    PoolReason {
        /// `Ready` is true.
        PoolReady,
        /// `Ready` is false: the pool goes.
        Deleting,
        /// `Ready` is false: the message names field and value.
        InvalidSpec,
        /// `Ready` is false: the manager may not see all addresses of the pool.
        AddressesNotVisible,
        /// `Ready` is false: the pool gives out nothing, whoever asks.
        NoAllocatableAddresses,
        /// `Exhausted` is true.
        NoFreeAddresses,
        /// `Exhausted` is false.
        AddressesAvailable,
        /// `Overlapping` is true.
        OverlapsOtherPool,
        /// `Overlapping` is false.
        NoOverlap,
        /// `Conflicting` is true.
        DuplicateAddresses,
        /// `Conflicting` is false.
        NoDuplicates,
    }
}

words! {
    /// Reasons of events on claims, addresses and pools.
    EventReason {
        /// On a claim: it got an address.
        AddressAllocated,
        /// On a claim: its address is free again.
        AddressReleased,
        /// On a claim: its Cluster does not exist yet.
        WaitingForCluster,
        /// On a claim that is deleted: somebody else's finalizer is still on it.
        WaitingForConsumer,
        /// On a claim that is deleted: its address stays taken until the time named.
        ReuseGracePeriod,
        /// On a claim: see [`ClaimReason::PoolExhausted`].
        PoolExhausted,
        /// On a claim: see [`ClaimReason::PoolNotReady`].
        PoolNotReady,
        /// On a claim: see [`ClaimReason::AllocationFailed`].
        AllocationFailed,
        /// On a claim: it names a kind of ours without the API group, so we leave it alone.
        PoolGroupMissing,
        /// On a claim: an address of its name belongs to somebody else.
        AddressNameTaken,
        /// On a claim: its address was also given to another claim, which keeps it.
        AddressConflict,
        /// On a claim: its address object vanished and the same value could not be given again.
        AddressChanged,
        /// On a claim that is bound: another request comes too late.
        RequestedAddressIgnored,
        /// On an address: its claim does not exist any more.
        OrphanedAddress,
        /// On an address: its value cannot be read.
        UnparsableAddress,
        /// On a pool: something is free again.
        CapacityAvailable,
        /// On a pool: nothing is free any more.
        NoFreeAddresses,
        /// On a pool: it began to overlap another.
        PoolsOverlap,
        /// On a pool: an address is held twice.
        DuplicateAddresses,
        /// On a pool: its spec cannot be read.
        InvalidSpec,
    }
}

impl EventReason {
    /// Whether the event is of type `Warning` rather than `Normal`.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::AddressAllocated
            | Self::AddressReleased
            | Self::WaitingForCluster
            | Self::WaitingForConsumer
            | Self::ReuseGracePeriod
            | Self::CapacityAvailable => false,
            Self::PoolExhausted
            | Self::PoolNotReady
            | Self::AllocationFailed
            | Self::PoolGroupMissing
            | Self::AddressNameTaken
            | Self::AddressConflict
            | Self::AddressChanged
            | Self::RequestedAddressIgnored
            | Self::OrphanedAddress
            | Self::UnparsableAddress
            | Self::NoFreeAddresses
            | Self::PoolsOverlap
            | Self::DuplicateAddresses
            | Self::InvalidSpec => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_reason_that_is_also_an_event_is_spelled_the_same() {
        for reason in ClaimReason::ALL {
            let event = EventReason::ALL.iter().find(|event| event.as_str() == reason.as_str());
            assert_eq!(event.map(|event| event.is_warning()), Some(!reason.is_ready()), "{reason}");
        }
    }

    #[test]
    fn only_a_false_condition_has_a_severity() {
        for reason in ClaimReason::ALL {
            assert_eq!(reason.severity().is_none(), reason.is_ready(), "{reason}");
        }
    }
}
