//! Under which names and paths the API server calls us; for the manifests, and for the listener.

use api::PoolKind;
use api::names::IPAM_GROUP;

/// The Service in front of the listener.
pub const SERVICE_NAME: &str = "webhook-service";

/// The port of that Service.
pub const SERVICE_PORT: i32 = 443;

/// The version of pools that is admitted; with match policy `Equivalent`, requests in the other one are converted to it.
pub const POOL_VERSION: &str = api::v1alpha2::VERSION;

/// The versions of `AdmissionReview` that are understood; the one asked in is answered in.
pub const ADMISSION_REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

/// The versions of `ConversionReview` that are understood. These are not the versions of the pools.
pub const CONVERSION_REVIEW_VERSIONS: [&str; 1] = ["v1"];

/// Where pools are converted.
pub const CONVERT_PATH: &str = "/convert";

/// Where new claims get their finalizer.
pub const CLAIM_PATH: &str = "/mutate-ipam-cluster-x-k8s-io-ipaddressclaim";

/// The name of that webhook. It is never needed for correctness: its failure policy is `Ignore`.
pub const CLAIM_NAME: &str = "default.ipaddressclaim.in-cluster.ipam.cluster.x-k8s.io";

/// The versions of claims it is asked about.
pub const CLAIM_VERSIONS: [&str; 3] = ["v1alpha1", "v1beta1", "v1beta2"];

/// How long the API server waits for it.
pub const CLAIM_TIMEOUT_SECONDS: i32 = 2;

/// The name of the match condition that keeps claims of other providers away from it.
pub const CLAIM_CONDITION_NAME: &str = "pool-is-in-cluster";

/// That condition, in CEL.
pub fn claim_condition() -> String {
    let kinds: Vec<_> = PoolKind::ALL.iter().map(|kind| format!("'{kind}'")).collect();
    let reference = "object.spec.poolRef";
    format!("has({reference}.apiGroup) && {reference}.apiGroup == '{IPAM_GROUP}' && {reference}.kind in [{}]", kinds.join(", "))
}

/// Where external IP sources are checked.
pub const SOURCE_PATH: &str = "/validate-externalip-spacebird-dev-v1alpha1-clusterexternalipsource";

/// The name of that webhook.
pub const SOURCE_NAME: &str = "validation.clusterexternalipsource.externalip.spacebird.dev";

/// The version of external IP sources that is checked.
pub const SOURCE_VERSION: &str = api::externalip::VERSION;

/// Where pools of a kind get their defaults.
pub fn default_path(kind: PoolKind) -> String {
    format!("/mutate-ipam-cluster-x-k8s-io-{POOL_VERSION}-{}", kind.singular())
}

/// The name of that webhook.
pub fn default_name(kind: PoolKind) -> String {
    format!("default.{}.{IPAM_GROUP}", kind.singular())
}

/// Where pools of a kind are checked.
pub fn validate_path(kind: PoolKind) -> String {
    format!("/validate-ipam-cluster-x-k8s-io-{POOL_VERSION}-{}", kind.singular())
}

/// The name of that webhook.
pub fn validate_name(kind: PoolKind) -> String {
    format!("validation.{}.{IPAM_GROUP}", kind.singular())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_are_those_of_installed_configurations() {
        let kind = PoolKind::GlobalInClusterIPPool;
        assert_eq!(default_path(kind), "/mutate-ipam-cluster-x-k8s-io-v1alpha2-globalinclusterippool");
        assert_eq!(validate_path(kind), "/validate-ipam-cluster-x-k8s-io-v1alpha2-globalinclusterippool");
        assert_eq!(default_name(kind), "default.globalinclusterippool.ipam.cluster.x-k8s.io");
        assert_eq!(validate_name(kind), "validation.globalinclusterippool.ipam.cluster.x-k8s.io");
    }

    #[test]
    fn the_condition_names_group_and_kinds() {
        assert_eq!(
            claim_condition(),
            "has(object.spec.poolRef.apiGroup) && object.spec.poolRef.apiGroup == 'ipam.cluster.x-k8s.io' && \
             object.spec.poolRef.kind in ['InClusterIPPool', 'GlobalInClusterIPPool', 'InClusterPrefixPool', \
             'GlobalInClusterPrefixPool']"
        );
    }
}
