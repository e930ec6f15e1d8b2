//! Reasons of conditions and events of external IP sources, as closed lists. Their spelling is part of the API.

words! {
    /// The types of a source's conditions.
    SourceCondition {
        /// The spec can be read.
        Accepted,
        /// Each family of the spec has an address, or depends on the Service.
        Ready,
        /// Something is wrong although there may be addresses.
        Degraded,
    }
}

words! {
    /// Why a source's condition is what it is.
    SourceReason {
        /// `Accepted` is true.
        Valid,
        /// `Accepted` and `Ready` are false: the message names each field.
        InvalidSpec,
        /// `Ready` is true.
        AddressFound,
        /// `Ready` is true: the addresses depend on the Service.
        PerService,
        /// `Ready` is false: nothing was found.
        NoAddress,
        /// `Ready` is false: one family has an address, the other has none.
        Partial,
        /// `Ready` is false: no solver has answered yet.
        Resolving,
        /// `Degraded` is true: the message names each failing solver.
        SolverFailing,
        /// `Degraded` is true: an address was found that is not acceptable.
        AddressRefused,
        /// `Degraded` is true: a host is named after a Service that gets its addresses from it.
        PossibleLoop,
        /// `Degraded` is false.
        AllSolversHealthy,
    }
}

words! {
    /// What a solver's last answers amount to.
    SolverState {
        /// The last answer is in use.
        Fresh,
        /// It fails, and its last good answer is in use.
        Held,
        /// There is no address, and that is certain.
        Empty,
        /// It fails, and nothing is held.
        Failed,
        /// It is not asked, since one before it has an answer.
        Idle,
        /// The answer depends on the Service.
        PerService,
    }
}

words! {
    /// Why a Service has its addresses, or has not.
    ServiceReason {
        /// It has them: the only reason with which the condition is true.
        Assigned,
        /// There is no source of that name.
        SourceNotFound,
        /// The source's spec cannot be read.
        SourceInvalid,
        /// The source does not allow this Service.
        NotAllowed,
        /// No solver finds one.
        NoAddress,
        /// No solver has answered yet.
        Resolving,
        /// The pool has no room.
        PoolExhausted,
        /// There is no such pool.
        PoolNotFound,
        /// Somebody else has a claim of the name that ours would have.
        ClaimConflict,
        /// An earlier claim is still going.
        ClaimTerminating,
        /// All that was found is not acceptable.
        AddressRefused,
        /// An admission plugin denies it.
        DeniedByAdmission,
        /// The API server refuses it.
        WriteRejected,
        /// Somebody else keeps changing what we write.
        Contended,
        /// The place to publish is somebody else's.
        OutputUnavailable,
        /// The record cannot be read.
        RecordInvalid,
        /// An older Service has the same address and port.
        PortConflict,
    }
}

words! {
    /// The reason of the condition [`super::names::PORT_CONFLICT`].
    PortConflictReason {
        /// The message names the other Service.
        SharedAddressAndPort,
    }
}

words! {
    /// Reasons of events on Services and sources.
    ExternalIpEvent {
        /// On a Service: its addresses changed.
        ExternalIPsUpdated,
        /// On a Service: its addresses were taken back.
        ExternalIPsReleased,
        /// On a Service: see [`ServiceReason::SourceNotFound`].
        UnknownExternalIPSource,
        /// On a Service: no address was found for it.
        FailedExternalIPLookup,
        /// On a Service: somebody else's entry is no address.
        InvalidExternalIP,
        /// On a Service: see [`ServiceReason::NotAllowed`].
        NotAllowed,
        /// On a Service: see [`ServiceReason::PortConflict`].
        PortConflict,
        /// On a Service: see [`ServiceReason::Contended`].
        Contended,
        /// On a Service: see [`ServiceReason::DeniedByAdmission`].
        DeniedByAdmission,
        /// On a Service: see [`ServiceReason::WriteRejected`].
        WriteRejected,
        /// On a Service: see [`ServiceReason::OutputUnavailable`].
        OutputUnavailable,
        /// On a Service: see [`ServiceReason::ClaimConflict`].
        ClaimConflict,
        /// On a Service: see [`ServiceReason::RecordInvalid`].
        RecordInvalid,
        /// On a Service of our load balancer class: it names no source.
        NoSource,
        /// On a source: its spec cannot be read.
        InvalidIPSource,
        /// On a source: see [`SourceReason::SolverFailing`].
        SolverFailing,
        /// On a source: see [`SourceReason::AddressRefused`].
        AddressRefused,
        /// On a source: see [`SourceReason::PossibleLoop`].
        PossibleLoop,
        /// On a source: a solver that failed answers again.
        SolverRecovered,
        /// On a source: what its solvers find changed.
        AddressChanged,
        /// On a source: this API server warns of the field that it publishes in.
        ExternalIPsDeprecated,
    }
}

impl ExternalIpEvent {
    /// Whether the event is of type `Warning` rather than `Normal`.
    pub const fn is_warning(self) -> bool {
        !matches!(
            self,
            Self::ExternalIPsUpdated
                | Self::ExternalIPsReleased
                | Self::SolverRecovered
                | Self::AddressChanged
                | Self::ExternalIPsDeprecated
        )
    }
}
