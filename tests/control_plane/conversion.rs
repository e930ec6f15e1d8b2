//! One pool spoken of in two versions, as people and older tools do it.

use anyhow::{Context, Result, ensure};
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};

use crate::admission::Stage;
use crate::fixture::Standalone;
use crate::standalone;

pub fn trials() -> Vec<Standalone> {
    standalone![a_pool_reads_the_same_in_both_versions, what_the_older_version_cannot_say_survives_it]
}

const KINDS: [(&str, &str); 2] = [("InClusterIPPool", "inclusterippools"), ("GlobalInClusterIPPool", "globalinclusterippools")];

fn yaml(stage: &Stage, version: &str, kind: &str, name: &str, spec: &str) -> String {
    let namespace = &stage.scene.namespace;
    format!(
        "{{apiVersion: ipam.cluster.x-k8s.io/{version}, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
         spec: {spec}}}"
    )
}

/// What kubectl shows of a pool in a version.
fn show(stage: &Stage, plural: &str, version: &str, name: &str, output: &[&str]) -> Result<String> {
    let resource = format!("{plural}.{version}.ipam.cluster.x-k8s.io");
    let mut args = vec!["get", &resource, name, "-n", &stage.scene.namespace];
    args.extend(output);
    stage.control_plane.kubectl(&args)
}

fn object(stage: &Stage, plural: &str, version: &str, name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&show(stage, plural, version, name, &["-o", "json"])?)?)
}

/// V1 to V6, both.
async fn a_pool_reads_the_same_in_both_versions() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    for (kind, plural) in KINDS {
        for (name, older, newer, again) in [
            (
                "v1",
                "{subnet: 10.0.0.0/24, start: 10.0.0.10, end: 10.0.0.20, prefix: 24, gateway: 10.0.0.1}",
                json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": "10.0.0.1"}),
                json!({"subnet": "10.0.0.0/24", "start": "10.0.0.10", "end": "10.0.0.20", "prefix": 24, "gateway": "10.0.0.1"}),
            ),
            (
                "v2",
                "{addresses: [10.1.0.10-10.1.0.20, 10.1.0.30], prefix: 24, gateway: 10.1.0.1}",
                json!({"addresses": ["10.1.0.10-10.1.0.20", "10.1.0.30"], "prefix": 24, "gateway": "10.1.0.1"}),
                json!({"addresses": ["10.1.0.10-10.1.0.20", "10.1.0.30"], "prefix": 24, "gateway": "10.1.0.1"}),
            ),
            (
                "v4",
                "{subnet: 10.2.0.0/24}",
                json!({"addresses": ["10.2.0.1-10.2.0.254"], "prefix": 24}),
                json!({"subnet": "10.2.0.0/24", "start": "10.2.0.1", "end": "10.2.0.254", "prefix": 24}),
            ),
        ] {
            stage.control_plane.apply_by_hand(&yaml(&stage, "v1alpha1", kind, name, older))?;
            assert_eq!(object(&stage, plural, "v1alpha2", name)?["spec"], newer, "{kind} {name}");
            assert_eq!(object(&stage, plural, "v1alpha1", name)?["spec"], again, "{kind} {name}");
        }
        let spec = "{addresses: [10.3.0.10], prefix: 24, gateway: 10.3.0.1}";
        stage.control_plane.apply_by_hand(&yaml(&stage, "v1alpha2", kind, "v5", spec))?;
        let older = object(&stage, plural, "v1alpha1", "v5")?;
        assert_eq!(older["spec"], json!({"addresses": ["10.3.0.10"], "prefix": 24, "gateway": "10.3.0.1"}));

        let bad = stage.control_plane.apply_by_hand(&yaml(&stage, "v1alpha1", kind, "bad", "{subnet: nonsense}"));
        let text = format!("{:#}", bad.err().context("nonsense was converted")?);
        ensure!(text.contains("spec.subnet: Invalid value"), "{text}");
        // What the conversion yields is judged like any other pool.
        let bad = stage.control_plane.apply_by_hand(&yaml(&stage, "v1alpha1", kind, "bad", "{subnet: 10.0.0.0/31}"));
        let text = format!("{:#}", bad.err().context("a reversed range was admitted")?);
        ensure!(text.contains("spec.addresses: Invalid value"), "{text}");
    }
    Ok(())
}

/// Line 15.
async fn what_the_older_version_cannot_say_survives_it() -> Result<()> {
    let stage = Stage::start(&[]).await?;
    let scene = &stage.scene;
    let exclusions = json!(["10.0.0.10", "10.0.0.12"]);
    for (kind, plural) in KINDS {
        let older = |gateway: &str| {
            let spec = format!("{{subnet: 10.0.0.0/24, start: 10.0.0.10, end: 10.0.0.20, gateway: {gateway}}}");
            yaml(&stage, "v1alpha1", kind, "blue", &spec)
        };
        stage.control_plane.apply_by_hand(&older("10.0.0.1"))?;
        let printed = show(&stage, plural, "v1alpha1", "blue", &[])?;
        let (heading, row) = printed.split_once('\n').context("kubectl prints no row")?;
        for (column, value) in [("FIRST", "10.0.0.10"), ("LAST", "10.0.0.20")] {
            let at = heading.find(column).with_context(|| format!("no column {column}: {printed}"))?;
            ensure!(row[at..].split_whitespace().next() == Some(value), "{column} is not {value}: {printed}");
        }

        let added = json!({"spec": {"excludedAddresses": exclusions, "addressReuseGracePeriodSeconds": 1}});
        scene.patch(kind, "blue", &added).await?;
        let newer = |gateway: &str| {
            json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": gateway,
                "excludedAddresses": exclusions, "addressReuseGracePeriodSeconds": 1})
        };
        assert_eq!(object(&stage, plural, "v1alpha2", "blue")?["spec"], newer("10.0.0.1"));
        let shown = object(&stage, plural, "v1alpha1", "blue")?["spec"].clone();
        assert_eq!(
            (&shown["start"], &shown["end"], &shown["subnet"]),
            (&json!("10.0.0.10"), &json!("10.0.0.20"), &json!("10.0.0.0/24"))
        );

        // Edited by a person, then read, changed and written whole by a program.
        stage.control_plane.apply_by_hand(&older("10.0.0.2"))?;
        assert_eq!(object(&stage, plural, "v1alpha2", "blue")?["spec"], newer("10.0.0.2"));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("ipam.cluster.x-k8s.io", "v1alpha1", kind));
        let api: Api<DynamicObject> = if kind.starts_with("Global") {
            Api::all_with(scene.client.clone(), &resource)
        } else {
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
        };
        testbed::eventually(std::time::Duration::from_secs(30), async || {
            let mut pool = api.get("blue").await?;
            pool.data["spec"]["gateway"] = json!("10.0.0.3");
            Ok(api.replace("blue", &PostParams::default(), &pool).await?)
        })
        .await?;
        assert_eq!(object(&stage, plural, "v1alpha2", "blue")?["spec"], newer("10.0.0.3"));
        let pool = testbed::Pool { kind, name: "blue".to_owned() };
        assert_eq!(scene.claim_address(&format!("{plural}-claim"), &pool).await?, "10.0.0.11");
    }
    Ok(())
}
