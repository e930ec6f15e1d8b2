//! Which version of a kind the API server serves. Asked again every 10 s while a kind is absent.

use api::capi::CapiVersion;
use http::StatusCode;
use kube::{Client, core::ApiResource};

/// What the server says about a kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Discovered<V> {
    /// It is served; this is the best version of those asked for.
    Served {
        /// How to address it.
        resource: ApiResource,
        /// Which of the versions asked for that is.
        version: V,
    },
    /// None of the versions asked for is served.
    Absent,
}

/// Looks up a kind of Cluster API.
pub async fn capi_kind(client: &Client, group: &str, kind: &str) -> kube::Result<Discovered<CapiVersion>> {
    let versions = [CapiVersion::V1beta2, CapiVersion::V1beta1].map(|version| (version.as_str(), version));
    discover(client, group, kind, &versions).await
}

/// Looks up a kind in the first of `versions` in which it is served: one small request for each
/// version tried.
pub async fn discover<V: Copy>(client: &Client, group: &str, kind: &str, versions: &[(&str, V)]) -> kube::Result<Discovered<V>> {
    for (name, version) in versions {
        let api_version = format!("{group}/{name}");
        let list = match client.list_api_group_resources(&api_version).await {
            Ok(list) => list,
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND => continue,
            Err(error) => return Err(error),
        };
        let main = |resource: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource| {
            resource.kind == kind && !resource.name.contains('/')
        };
        if let Some(found) = list.resources.iter().find(main) {
            let resource = ApiResource {
                group: group.to_owned(),
                version: (*name).to_owned(),
                api_version,
                kind: kind.to_owned(),
                plural: found.name.clone(),
            };
            return Ok(Discovered::Served { resource, version: *version });
        }
    }
    Ok(Discovered::Absent)
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A server that serves these kinds, as (group version, plural, kind).
    fn server(kinds: &'static [(&str, &str, &str)]) -> Client {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let asked = request.uri().path().trim_start_matches("/apis/").to_owned();
                let resources: Vec<_> = kinds
                    .iter()
                    .filter(|(version, ..)| *version == asked)
                    .map(|(_, plural, kind)| json!({ "name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": [] }))
                    .collect();
                let (code, body) = if resources.is_empty() {
                    (404, json!({ "kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": "" }))
                } else {
                    (200, json!({ "groupVersion": asked, "resources": resources }))
                };
                let body = Body::from(serde_json::to_vec(&body).unwrap());
                send.send_response(Response::builder().status(code).body(body).unwrap());
            }
        });
        Client::new(service, "default")
    }

    async fn claims(kinds: &'static [(&str, &str, &str)]) -> Option<(String, CapiVersion)> {
        match capi_kind(&server(kinds), "ipam.cluster.x-k8s.io", "IPAddressClaim").await.unwrap() {
            Discovered::Served { resource, version } => Some((format!("{}/{}", resource.api_version, resource.plural), version)),
            Discovered::Absent => None,
        }
    }

    #[tokio::test]
    async fn the_newer_version_is_preferred() {
        let found = claims(&[
            ("ipam.cluster.x-k8s.io/v1beta1", "ipaddressclaims", "IPAddressClaim"),
            ("ipam.cluster.x-k8s.io/v1beta2", "ipaddressclaims/status", "IPAddressClaim"),
            ("ipam.cluster.x-k8s.io/v1beta2", "ipaddressclaims", "IPAddressClaim"),
        ]);
        let expected = ("ipam.cluster.x-k8s.io/v1beta2/ipaddressclaims".to_owned(), CapiVersion::V1beta2);
        assert_eq!(found.await, Some(expected));
    }

    #[tokio::test]
    async fn an_older_version_does_when_the_newer_one_lacks_the_kind() {
        let found = claims(&[
            ("ipam.cluster.x-k8s.io/v1beta1", "ipaddressclaims", "IPAddressClaim"),
            ("ipam.cluster.x-k8s.io/v1beta2", "others", "Other"),
        ]);
        assert_eq!(found.await.map(|(_, version)| version), Some(CapiVersion::V1beta1));
    }

    #[tokio::test]
    async fn a_kind_that_is_served_in_other_versions_only_is_absent() {
        assert_eq!(claims(&[("ipam.cluster.x-k8s.io/v1alpha2", "ipaddressclaims", "IPAddressClaim")]).await, None);
        assert_eq!(claims(&[]).await, None);
    }
}
