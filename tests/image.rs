//! The image layout that a release brings: what an engine or registry tool reads in it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// Runs a program and returns what it prints.
fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let output = Command::new(&program).args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Makes a layout of a program that is not one, in `folder/name`.
fn layout(folder: &Path, name: &str) -> PathBuf {
    let (program, out) = (folder.join("program"), folder.join(name));
    fs::write(&program, "what the image is about").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).unwrap();
    let path = |path: &Path| path.display().to_string();
    let args = [&path(&program), "/manager", "arm64", "localhost/ipam-in-cluster:v2.0.0", &path(&out)];
    run(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/image"), &args);
    out
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn sha256(path: &Path) -> String {
    format!("sha256:{}", run("sha256sum", &[&path.display().to_string()]).split(' ').next().unwrap())
}

/// The file that a descriptor refers to, after a look at its digest and size.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap();
    let path = layout.join("blobs").join(digest.replace(':', "/"));
    assert_eq!(sha256(&path), digest);
    assert_eq!(descriptor["size"], fs::metadata(&path).unwrap().len());
    path
}

#[test]
fn the_layout_holds_one_image_that_runs_the_program_as_nobody_in_particular() {
    let folder = tempfile::tempdir().unwrap();
    let layout = layout(folder.path(), "image");
    assert_eq!(json_of(layout.join("oci-layout")), json!({"imageLayoutVersion": "1.0.0"}));
    let index = json_of(layout.join("index.json"));
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["platform"], json!({"architecture": "arm64", "os": "linux"}));
    assert_eq!(descriptor["annotations"]["org.opencontainers.image.ref.name"], "localhost/ipam-in-cluster:v2.0.0");

    let manifest = json_of(blob(&layout, descriptor));
    assert_eq!(manifest["mediaType"], descriptor["mediaType"]);
    let config = json_of(blob(&layout, &manifest["config"]));
    assert_eq!((&config["architecture"], &config["os"]), (&json!("arm64"), &json!("linux")));
    assert_eq!(config["config"], json!({"User": "65532:65532", "Entrypoint": ["/manager"]}));

    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer = blob(&layout, &manifest["layers"][0]);
    let listed = run("tar", &["--list", "--verbose", "--numeric-owner", "--gzip", "--file", &layer.display().to_string()]);
    assert!(listed.starts_with("-rwxr-xr-x 0/0") && listed.trim_end().ends_with(" manager"), "{listed}");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let unpacked = folder.path().join("layer.tar");
    let gunzip = Command::new("gzip").args(["--decompress", "--stdout"]).arg(&layer).output().unwrap();
    fs::write(&unpacked, gunzip.stdout).unwrap();
    assert_eq!(config["rootfs"], json!({"type": "layers", "diff_ids": [sha256(&unpacked)]}));
}

#[test]
fn the_same_program_gives_the_same_image() {
    let folder = tempfile::tempdir().unwrap();
    let indexes = ["first", "second"].map(|name| fs::read(layout(folder.path(), name).join("index.json")).unwrap());
    assert_eq!(indexes[0], indexes[1]);
}
