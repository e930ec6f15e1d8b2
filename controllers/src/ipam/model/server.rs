//! The API server of the model: two kinds of objects in one namespace, each request served at one instant, and the events that follow.
//!
//! It is sent the very requests that the driver sends, and keeps their preconditions: names are taken once, a merge patch is guarded
//! by its `resourceVersion`, a JSON patch by its tests, a deletion by its UID. An object whose deletion was asked for goes with its last
//! finalizer. Versions and UIDs are numbered per name, so that the same history of a name gives the same objects, whatever happened
//! elsewhere in between.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use api::capi::{CapiVersion, IpAddress, IpAddressClaim};
use api::names::{FIELD_MANAGER, RELEASE_ADDRESS};
use http::Method;
use serde_json::{Value, json};

use super::NAMES;
use crate::kit::writes::WriteRequest;

pub const NAMESPACE: &str = "team-a";
/// When everything happens: no rule under test asks for it.
pub const TODAY: &str = "2026-01-01T00:00:00Z";

/// The kinds that are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Claims,
    Addresses,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Claims, Self::Addresses];
}

/// One version of an object.
#[derive(Debug)]
pub struct Object {
    pub value: Value,
    pub decoded: Decoded,
    pub digest: u64,
}

#[derive(Debug)]
pub enum Decoded {
    Claim(IpAddressClaim),
    Address(IpAddress),
}

impl Object {
    fn new(kind: Kind, value: Value) -> Rc<Self> {
        let decoded = match kind {
            Kind::Claims => Decoded::Claim(serde_json::from_value(value.clone()).unwrap()),
            Kind::Addresses => Decoded::Address(serde_json::from_value(value.clone()).unwrap()),
        };
        let digest = digest(&value.to_string());
        Rc::new(Self { value, decoded, digest })
    }

    pub fn uid(&self) -> &str {
        self.value["metadata"]["uid"].as_str().unwrap()
    }

    pub fn name(&self) -> usize {
        index(self.value["metadata"]["name"].as_str().unwrap())
    }

    pub fn is_deleting(&self) -> bool {
        !self.value["metadata"]["deletionTimestamp"].is_null()
    }

    fn is_final(&self) -> bool {
        self.is_deleting() && self.value["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
    }

    /// Of a claim: its status names an address.
    pub fn is_bound(&self) -> bool {
        !self.value["status"]["addressRef"].is_null()
    }

    /// Of a claim: the reason of its condition `Ready`.
    pub fn reason(&self) -> &str {
        self.value["status"]["conditions"][0]["reason"].as_str().unwrap_or_default()
    }

    /// Of an address: what it holds.
    pub fn held(&self) -> &str {
        self.value["spec"]["address"].as_str().unwrap()
    }

    /// Of an address: the UID of the claim that owns it.
    pub fn owner(&self) -> &str {
        self.value["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap_or_default()
    }
}

pub fn digest(content: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

pub fn index(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).unwrap()
}

/// What a watch reports.
#[derive(Debug, Clone)]
pub enum Event {
    Changed(Rc<Object>),
    Gone(Rc<Object>),
    /// The watch starts over with what there was at this instant.
    List(Vec<Rc<Object>>),
}

impl Hash for Event {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        match self {
            Self::Changed(object) | Self::Gone(object) => object.digest.hash(state),
            Self::List(objects) => objects.iter().for_each(|object| object.digest.hash(state)),
        }
    }
}

/// What comes back.
#[derive(Debug, Clone)]
pub enum Answer {
    Done(Rc<Object>),
    Conflict,
    AlreadyExists,
    NotFound,
    /// None came in time.
    Silence,
}

impl Hash for Answer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self).hash(state);
        if let Self::Done(object) = self {
            object.digest.hash(state);
        }
    }
}

/// What was ever there under one name.
#[derive(Debug, Clone, Default)]
struct Row {
    object: Option<Rc<Object>>,
    made: u32,
}

/// Everything the API server stores.
#[derive(Debug, Clone)]
pub struct Server {
    claims: Vec<Row>,
    addresses: Vec<Row>,
    /// Of a claim and its address together: numbers of the two can be compared.
    versions: Vec<u32>,
    /// UIDs of the last claim that named an address and of the address that was there at that moment.
    published: Vec<Option<(String, String)>>,
    /// What happened since it was last asked, in order.
    pub events: Vec<(Kind, Event)>,
}

impl Hash for Server {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for row in self.claims.iter().chain(&self.addresses) {
            (row.made, row.object.as_ref().map(|object| object.digest)).hash(state);
        }
        (&self.versions, &self.published).hash(state);
    }
}

impl Server {
    pub fn new(claims: usize) -> Self {
        Self {
            claims: vec![Row::default(); claims],
            addresses: vec![Row::default(); claims],
            versions: vec![0; claims],
            published: vec![None; claims],
            events: Vec::new(),
        }
    }

    fn row(&mut self, kind: Kind, name: usize) -> &mut Row {
        match kind {
            Kind::Claims => &mut self.claims[name],
            Kind::Addresses => &mut self.addresses[name],
        }
    }

    pub fn claim(&self, name: usize) -> Option<&Rc<Object>> {
        self.claims[name].object.as_ref()
    }

    pub fn address(&self, name: usize) -> Option<&Rc<Object>> {
        self.addresses[name].object.as_ref()
    }

    /// The address that was published for a claim, if it is still there.
    pub fn published(&self, claim: &Object) -> Option<&Rc<Object>> {
        let (_, uid) = self.published[claim.name()].as_ref().filter(|(published, _)| published == claim.uid())?;
        self.address(claim.name()).filter(|address| address.uid() == uid)
    }

    /// What it stores, in a number.
    pub fn print(&self) -> u64 {
        digest(self)
    }

    /// The names that are used, by number.
    pub fn names(&self) -> std::ops::Range<usize> {
        0..self.claims.len()
    }

    /// All objects of a kind, as a list shows them.
    pub fn list(&self, kind: Kind) -> Vec<Rc<Object>> {
        let rows = match kind {
            Kind::Claims => &self.claims,
            Kind::Addresses => &self.addresses,
        };
        rows.iter().filter_map(|row| row.object.clone()).collect()
    }

    /// A user asks for an address.
    pub fn create_claim(&mut self, name: usize, protected: bool) {
        let finalizers: &[&str] = if protected { &[RELEASE_ADDRESS] } else { &[] };
        self.create(
            Kind::Claims,
            name,
            json!({
                "metadata": {"name": NAMES[name], "namespace": NAMESPACE, "finalizers": finalizers, "generation": 1},
                "spec": {"poolRef": {"apiGroup": "ipam.cluster.x-k8s.io", "kind": "InClusterIPPool", "name": "blue"}},
            }),
        );
    }

    /// A user needs the address no more.
    pub fn delete_claim(&mut self, name: usize) {
        self.delete(Kind::Claims, name, &Value::Null);
    }

    /// Whether an address refers to a claim that does not exist; one that is deleting is not looked at.
    pub fn is_dangling(&self, name: usize) -> bool {
        let Some(address) = self.address(name).filter(|address| !address.is_deleting()) else { return false };
        let kind = &address.value["metadata"]["ownerReferences"][0]["kind"];
        *kind == "IPAddressClaim" && self.claim(name).is_none_or(|claim| claim.uid() != address.owner())
    }

    /// The garbage collector takes that reference off; the pool's stays.
    pub fn collect(&mut self, name: usize) {
        let Some(mut value) = self.address(name).map(|address| address.value.clone()) else { return };
        let references = value["metadata"]["ownerReferences"].as_array_mut().unwrap();
        references.retain(|reference| reference["kind"] != "IPAddressClaim");
        let collected = json!({"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:metadata": {"f:ownerReferences": {}}}});
        value["metadata"]["managedFields"].as_array_mut().unwrap().push(collected);
        self.store(Kind::Addresses, name, value);
    }

    /// Serves one request.
    pub fn serve(&mut self, request: &WriteRequest) -> Answer {
        let mut path =
            request.uri().path().strip_prefix("/apis/ipam.cluster.x-k8s.io/v1beta2/namespaces/team-a/").unwrap().split('/');
        let kind = match path.next() {
            Some("ipaddresses") => Kind::Addresses,
            _ => Kind::Claims,
        };
        let name = path.next();
        let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
        let json_patch = request.headers().get("content-type").is_some_and(|kind| kind == "application/json-patch+json");
        match (request.method(), name) {
            (&Method::POST, _) => self.create(kind, index(body["metadata"]["name"].as_str().unwrap()), body),
            (&Method::GET, Some(name)) => self.row(kind, index(name)).object.clone().map_or(Answer::NotFound, Answer::Done),
            (&Method::DELETE, Some(name)) => self.delete(kind, index(name), &body["preconditions"]),
            (&Method::PATCH, Some(name)) => self.patch(kind, index(name), body, json_patch),
            other => unreachable!("{other:?}"),
        }
    }

    fn create(&mut self, kind: Kind, name: usize, mut value: Value) -> Answer {
        let row = self.row(kind, name);
        if row.object.is_some() {
            return Answer::AlreadyExists;
        }
        row.made += 1;
        value["metadata"]["uid"] = json!(format!("{kind:?}-{}-{}", NAMES[name], row.made));
        value["metadata"]["creationTimestamp"] = json!(TODAY);
        if kind == Kind::Addresses {
            value["metadata"]["managedFields"] =
                json!([{"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": {"f:spec": {}}}]);
        }
        self.store(kind, name, value)
    }

    fn delete(&mut self, kind: Kind, name: usize, preconditions: &Value) -> Answer {
        let Some(object) = self.row(kind, name).object.clone() else { return Answer::NotFound };
        let meta = &object.value["metadata"];
        if ["uid", "resourceVersion"].into_iter().any(|key| !preconditions[key].is_null() && preconditions[key] != meta[key]) {
            return Answer::Conflict;
        }
        if object.is_deleting() {
            return Answer::Done(object);
        }
        let mut value = object.value.clone();
        value["metadata"]["deletionTimestamp"] = json!(TODAY);
        self.store(kind, name, value)
    }

    fn patch(&mut self, kind: Kind, name: usize, patch: Value, is_json_patch: bool) -> Answer {
        let Some(object) = self.row(kind, name).object.clone() else { return Answer::NotFound };
        let mut value = object.value.clone();
        if is_json_patch {
            let patch: json_patch::Patch = serde_json::from_value(patch).unwrap();
            if json_patch::patch(&mut value, &patch).is_err() {
                return Answer::Conflict;
            }
        } else {
            let version = &patch["metadata"]["resourceVersion"];
            if version.is_null() || *version != value["metadata"]["resourceVersion"] {
                return Answer::Conflict;
            }
            json_patch::merge(&mut value, &patch);
        }
        if value == object.value { Answer::Done(object) } else { self.store(kind, name, value) }
    }

    fn store(&mut self, kind: Kind, name: usize, mut value: Value) -> Answer {
        self.versions[name] += 1;
        value["metadata"]["resourceVersion"] = json!(self.versions[name].to_string());
        let object = Object::new(kind, value);
        if kind == Kind::Claims
            && object.is_bound()
            && self.published[name].as_ref().is_none_or(|(claim, _)| claim != object.uid())
        {
            self.published[name] = self.address(name).map(|address| (object.uid().to_owned(), address.uid().to_owned()));
        }
        let row = self.row(kind, name);
        let event = if object.is_final() {
            row.object = None;
            Event::Gone(object.clone())
        } else {
            row.object = Some(object.clone());
            Event::Changed(object.clone())
        };
        self.events.push((kind, event));
        Answer::Done(object)
    }
}

/// A live read.
pub fn get(kind: Kind, name: usize) -> WriteRequest {
    let plural = match kind {
        Kind::Claims => "ipaddressclaims",
        Kind::Addresses => "ipaddresses",
    };
    let group = CapiVersion::V1beta2.api_version();
    http::Request::get(format!("/apis/{group}/namespaces/{NAMESPACE}/{plural}/{}", NAMES[name])).body(Vec::new()).unwrap()
}
