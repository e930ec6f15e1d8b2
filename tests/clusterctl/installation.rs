//! A release on a control plane that has none: by clusterctl, and by `kubectl apply`.

use anyhow::Result;
use testbed::{BuiltRelease, CapiCrds, ControlPlane, MANAGER_NAMESPACE, Options, Scene};

use crate::{apply, bare, clusterctl, installed_arguments, release, start_installed, without_webhooks};

#[tokio::test]
async fn clusterctl_installs_it_from_a_folder_and_it_serves() -> Result<()> {
    let control_plane = ControlPlane::start(bare())?;
    clusterctl()?.init(&control_plane, BuiltRelease::VERSION)?;
    let inventory = ["get", "providers.clusterctl.cluster.x-k8s.io", "ipam-in-cluster", "-n", MANAGER_NAMESPACE];
    let found = control_plane.kubectl(&[&inventory[..], &["-o", "jsonpath={.providerName} {.type} {.version}"]].concat())?;
    assert_eq!(found, format!("in-cluster IPAMProvider {}", BuiltRelease::VERSION));
    assert_eq!(
        installed_arguments(&control_plane)?,
        [
            "--leader-elect",
            "--diagnostics-address=:8443",
            "--insecure-diagnostics=false",
            "--feature-gates=ExternalIPSources=false,ExternalIPClaims=false,CloudExternalIPs=false,StaticEgress=false",
        ]
    );

    without_webhooks(&control_plane)?;
    let _manager = start_installed(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "installed", CapiCrds::Newest).await?;
    let pool = scene.pool("blue", "{addresses: [10.0.0.10-10.0.0.20], prefix: 24}").await?;
    assert_eq!(scene.claim_address("web", &pool).await?, "10.0.0.10");
    Ok(())
}

#[tokio::test]
async fn a_plain_apply_of_the_components_is_accepted_and_serves_with_its_variables_as_they_are() -> Result<()> {
    let control_plane = ControlPlane::start(Options { own_crds: false, ..Options::default() })?;
    control_plane.install_cert_manager_crds()?;
    apply(&control_plane, release().components())?;
    let arguments = installed_arguments(&control_plane)?;
    assert!(arguments.iter().any(|argument| argument.contains("${EXP_STATIC_EGRESS:=false}")), "{arguments:?}");

    without_webhooks(&control_plane)?;
    let _manager = start_installed(&control_plane)?;
    let scene = Scene::create(control_plane.client().await?, "applied", CapiCrds::Newest).await?;
    let pool = scene.prefix_pool("blue", "{prefixes: ['fd00::/48']}").await?;
    assert_eq!(scene.claim_address("site", &pool).await?, "fd00::");
    Ok(())
}

#[tokio::test]
async fn the_pools_of_the_templates_are_accepted() -> Result<()> {
    let control_plane = ControlPlane::start(Options { capi_crds: CapiCrds::None, ..Options::default() })?;
    let clusterctl = clusterctl()?;
    for provider in ["metal3", "proxmox", "vsphere"] {
        let template = release().folder().join("templates").join(provider).with_extension("yaml").display().to_string();
        let filled_in = clusterctl.run(&["generate", "yaml", "--from", &template])?;
        // The machines' kinds are other providers'.
        let pools: Vec<_> = filled_in.split("\n---\n").filter(|text| text.contains("kind: InClusterIPPool\nmetadata:")).collect();
        let applied = control_plane.apply(&pools.join("\n---\n"))?;
        assert_eq!(applied.lines().count(), 1, "{provider}: {applied}");
    }
    Ok(())
}
