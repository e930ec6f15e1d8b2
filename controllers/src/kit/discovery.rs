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
