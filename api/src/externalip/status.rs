//! What a source shows of its solvers. Written by the controller, read by people; nothing in it is needed after a restart.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::null_is_absent;
use crate::schema;

/// What was found for a source, and how its solvers are.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterExternalIPSourceStatus {
    /// The generation of the spec that this was concluded from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "int64"))]
    pub observed_generation: Option<i64>,

    /// How many Services are bound to the source and allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::integer")]
    pub services: Option<i64>,

    /// The IPv4 side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<FamilyStatus>,

    /// The IPv6 side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<FamilyStatus>,

    /// Accepted, Ready and Degraded.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// What was found in one family.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct FamilyStatus {
    /// What the solvers give now; absent if that depends on the Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<String>>,

    /// The solvers, in the order of the spec.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    pub solvers: Vec<SolverStatus>,
}

/// How one solver is.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SolverStatus {
    /// Its place in the list, counted from 0.
    #[schemars(schema_with = "schema::integer")]
    pub index: i64,

    /// Its type, as the key in the spec.
    #[serde(rename = "type")]
    pub type_: String,

    /// What it asks: a host, a provider, an interface, a pool.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,

    /// What its last answers amount to.
    #[schemars(extend("enum" = ["Fresh", "Held", "Empty", "Failed", "Idle", "PerService"]))]
    pub state: String,

    /// The first addresses of its answer in use.
    #[serde(default, deserialize_with = "null_is_absent", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub addresses: Vec<String>,

    /// What is the matter with it, in one word.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,

    /// What is the matter with it, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,

    /// Since when state and addresses are what they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}
