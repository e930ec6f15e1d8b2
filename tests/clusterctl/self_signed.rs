//! The release without cert-manager: the manager makes the webhooks' certificate, and the API server is told whom to trust.
//!
//! No Service leads anywhere here, so the listeners are asked directly, by somebody who trusts what the API server was told.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::ByteString;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use testbed::{ControlPlane, MANAGER_NAMESPACE, Manager, Options, eventually};

use crate::{apply, installed, release};

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "capi-ipam-in-cluster-webhook-service-cert";
const THE_SECRET: [&str; 4] = ["secret", SECRET, "-n", MANAGER_NAMESPACE];
const END: &str = "-----END CERTIFICATE-----\n";
const NAMES: [&str; 2] = [
    "capi-ipam-in-cluster-webhook-service.capi-ipam-in-cluster-system.svc",
    "capi-ipam-in-cluster-webhook-service.capi-ipam-in-cluster-system.svc.cluster.local",
];

fn get(control_plane: &ControlPlane, args: &[&str]) -> Result<Value> {
    let text = control_plane.kubectl(&[&["get", "-o", "json"], args].concat())?;
    Ok(serde_json::from_str(&text)?)
}

fn text(bytes: &Value) -> Result<String> {
    Ok(String::from_utf8(serde_json::from_value::<ByteString>(bytes.clone())?.0)?)
}

/// One text of the Secret.
fn kept(control_plane: &ControlPlane, key: &str) -> Result<String> {
    text(&get(control_plane, &THE_SECRET)?["data"][key]).context(key.to_owned())
}

/// How the API server is to reach our webhooks: five that mutate, five that validate, and the four pools' definitions.
fn client_configs(control_plane: &ControlPlane) -> Result<Vec<Value>> {
    let name = |kind: &str| format!("capi-ipam-in-cluster-{kind}-webhook-configuration");
    let mut configs = Vec::new();
    for kind in ["mutating", "validating"] {
        let found = get(control_plane, &[&format!("{kind}webhookconfiguration"), &name(kind)])?;
        configs.extend(found["webhooks"].as_array().context("no webhooks")?.iter().map(|hook| hook["clientConfig"].clone()));
    }
    let definitions = get(control_plane, &["crds", "-l", "cluster.x-k8s.io/provider=ipam-in-cluster"])?;
    let items = definitions["items"].as_array().context("no definitions")?;
    let pools = items.iter().filter(|crd| crd["spec"]["group"] == "ipam.cluster.x-k8s.io");
    configs.extend(pools.map(|crd| crd["spec"]["conversion"]["webhook"]["clientConfig"].clone()));
    ensure!(configs.len() == 14, "{} client configurations", configs.len());
    Ok(configs)
}

/// Every client configuration trusts what the Secret says, and nothing else.
fn trusted(control_plane: &ControlPlane) -> Result<String> {
    let bundle = kept(control_plane, "ca.crt")?;
    for config in client_configs(control_plane)? {
        ensure!(text(&config["caBundle"]).ok().as_ref() == Some(&bundle), "{config} lacks the authority");
    }
    Ok(bundle)
}

/// Whether webhooks answer at a port, to somebody who trusts these authorities and asks for our Service.
async fn answers(port: u16, name: &str, authorities: &str) -> Result<()> {
    let roots = CertificateDer::pem_slice_iter(authorities.as_bytes()).map(|root| Ok(root?.to_vec()));
    let mut config = kube::Config::new(format!("https://127.0.0.1:{port}").parse()?);
    config.root_cert = Some(roots.collect::<Result<_>>()?);
    config.tls_server_name = Some(name.to_owned());
    let request = http::Request::post("/convert").body(b"{}".to_vec())?;
    match kube::Client::try_from(config)?.request_text(request).await {
        // What is no review is told so: by us, so the greeting went well.
        Err(kube::Error::Api(status)) if status.code == 400 => Ok(()),
        Err(error) => Err(error.into()),
        Ok(answer) => bail!("a review was read from nothing: {answer}"),
    }
}

fn start(control_plane: &ControlPlane) -> Result<(Manager, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let manager = installed(control_plane)?.arg(format!("--webhook-port=127.0.0.1:{port}")).start(control_plane)?;
    Ok((manager, port))
}

/// A configuration under the provider's label that is somebody else's, in all but the label.
fn foreign() -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "others", "labels": {"cluster.x-k8s.io/provider": "ipam-in-cluster"}},
        "webhooks": [{
            "name": "others.example.org",
            "clientConfig": {"service": {"name": "others", "namespace": MANAGER_NAMESPACE, "path": "/", "port": 443}},
            "rules": [{"apiGroups": ["example.org"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["others"]}],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    })
}

#[tokio::test]
async fn without_cert_manager_every_replica_serves_with_a_certificate_that_the_api_server_trusts() -> Result<()> {
    let control_plane = ControlPlane::start(Options { own_crds: false, ..Options::default() })?;
    apply(&control_plane, &std::fs::read_to_string(release().folder().join("ipam-components-self-signed.yaml"))?)?;
    apply(&control_plane, &foreign().to_string())?;
    let others = ["validatingwebhookconfiguration", "others"];
    let before = get(&control_plane, &others)?;

    // Ready is who has a certificate.
    let (leader, first) = start(&control_plane)?;
    let (_follower, second) = start(&control_plane)?;
    eventually(PATIENCE, async || trusted(&control_plane)).await?;
    let bundle = trusted(&control_plane)?;
    for port in [first, second] {
        for name in NAMES {
            answers(port, name, &bundle).await?;
        }
        assert!(answers(port, "others.capi-ipam-in-cluster-system.svc", &bundle).await.is_err());
    }
    assert!(answers(first, NAMES[0], &std::fs::read_to_string(control_plane.authority())?).await.is_err());

    let due =
        ["authority", "certificate"].map(|what| format!("in-cluster.ipam.cluster.x-k8s.io/{what}-renewal=2026-01-01T00:00:00Z"));
    control_plane.kubectl(&[&["annotate", "--overwrite"][..], &THE_SECRET, &[&due[0], &due[1]]].concat())?;
    let bundle = renewal_is_taken_up_by_all(&control_plane, &bundle, &[first, second]).await?;

    // As cert-manager leaves it.
    let stripped = r#"[{"op": "remove", "path": "/data/ca.key"}, {"op": "remove", "path": "/metadata/annotations"}]"#;
    control_plane.kubectl(&[&["patch"][..], &THE_SECRET, &["--type=json", "-p", stripped]].concat())?;
    let bundle = renewal_is_taken_up_by_all(&control_plane, &bundle, &[first, second]).await?;
    assert_eq!(get(&control_plane, &others)?, before);

    // Without the leader and without the Secret, the other one begins again.
    leader.kill();
    control_plane.kubectl(&[&["delete"][..], &THE_SECRET].concat())?;
    eventually(PATIENCE, async || answers(second, NAMES[0], &trusted(&control_plane)?).await).await?;
    assert!(!trusted(&control_plane)?.contains(&bundle));
    assert_eq!(get(&control_plane, &others)?, before);
    Ok(())
}

/// The authority comes first, beside the one before it, and then all serve with what it signed. Returns what is trusted.
async fn renewal_is_taken_up_by_all(control_plane: &ControlPlane, earlier: &str, ports: &[u16]) -> Result<String> {
    let signing = |bundle: &str| bundle.split_inclusive(END).next().unwrap_or_default().to_owned();
    let renewed = || {
        let bundle = trusted(control_plane)?;
        ensure!(bundle == format!("{}{}", signing(&bundle), signing(earlier)), "the authority is the earlier one");
        Ok(bundle)
    };
    eventually(PATIENCE, async || renewed().map(drop)).await?;
    let bundle = renewed()?;
    eventually(PATIENCE, async || {
        for port in ports {
            answers(*port, NAMES[0], &signing(&bundle)).await?;
        }
        Ok(())
    })
    .await?;
    Ok(bundle)
}
