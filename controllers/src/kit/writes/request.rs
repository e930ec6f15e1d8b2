//! The requests that capabilities send: created here, so that all carry our field manager.

use kube::{
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions},
    core::{ApiResource, Request, Resource as _, request::Error},
};
use serde::Serialize;
use serde_json::json;

use super::FIELD_MANAGER;

/// A request that is ready to be sent.
pub type WriteRequest = http::Request<Vec<u8>>;

/// Which part of an object a patch is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// All but the status.
    Main,
    /// The status alone.
    Status,
}

/// Creates `object`.
pub fn create(resource: &ApiResource, namespace: Option<&str>, object: &impl Serialize) -> Result<WriteRequest, Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let body = serde_json::to_vec(object).map_err(Error::SerializeBody)?;
    at(resource, namespace).create(&params, body)
}

/// Changes single fields, each guarded by the `test` operations of the patch.
pub fn json_patch(
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    patch: json_patch::Patch,
) -> Result<WriteRequest, Error> {
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    send_patch(resource, namespace, name, part, &params, &Patch::Json::<()>(patch))
}

/// The patch that removes one finalizer and touches no other, `None` if it is not among `finalizers`: the server refuses if the object
/// or the list is another one.
pub fn without_finalizer(uid: &str, finalizers: &[String], ours: &str) -> Option<json_patch::Patch> {
    let place = finalizers.iter().position(|finalizer| finalizer == ours)?;
    let path = format!("/metadata/finalizers/{place}");
    serde_json::from_value(json!([
        {"op": "test", "path": "/metadata/uid", "value": uid},
        {"op": "test", "path": path, "value": ours},
        {"op": "remove", "path": path},
    ]))
    .ok()
}

/// Merges `patch`; guarded by the `metadata.resourceVersion` in it.
pub fn merge_patch(
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    patch: &impl Serialize,
) -> Result<WriteRequest, Error> {
    merge_patch_as(FIELD_MANAGER, resource, namespace, name, part, patch)
}

/// Merges `patch` under a field manager of its own.
pub fn merge_patch_as(
    manager: &str,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    patch: &impl Serialize,
) -> Result<WriteRequest, Error> {
    let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    send_patch(resource, namespace, name, part, &params, &Patch::Merge(patch))
}

/// Applies the status fields that are ours and takes them over from whoever else set them.
pub fn apply_status(
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    object: &impl Serialize,
) -> Result<WriteRequest, Error> {
    apply(ApplyAs { manager: FIELD_MANAGER, force: true }, resource, namespace, name, Part::Status, object)
}

/// Who applies, and whether fields that others set are taken over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ApplyAs {
    /// The field manager: what it applied before and does not name now goes.
    pub manager: &'static str,
    /// Take fields over that others set to something else; otherwise they are a conflict.
    pub force: bool,
}

/// Applies what one field manager wants of an object.
pub fn apply(
    by: ApplyAs,
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    object: &impl Serialize,
) -> Result<WriteRequest, Error> {
    let params = PatchParams { force: by.force, ..PatchParams::apply(by.manager) };
    send_patch(resource, namespace, name, part, &params, &Patch::Apply(object))
}

/// Deletes the object of that name only if it still is this one, and in this version if one is named.
pub fn delete(
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
) -> Result<WriteRequest, Error> {
    let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: resource_version.map(str::to_owned) };
    at(resource, namespace).delete(name, &DeleteParams::default().preconditions(preconditions))
}

fn at(resource: &ApiResource, namespace: Option<&str>) -> Request {
    Request::new(DynamicObject::url_path(resource, namespace))
}

fn send_patch<P: Serialize>(
    resource: &ApiResource,
    namespace: Option<&str>,
    name: &str,
    part: Part,
    params: &PatchParams,
    patch: &Patch<P>,
) -> Result<WriteRequest, Error> {
    let place = at(resource, namespace);
    match part {
        Part::Main => place.patch(name, params, patch),
        Part::Status => place.patch_subresource("status", name, params, patch),
    }
}
