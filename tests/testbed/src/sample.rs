//! The files of `config/samples/`, and the promises in their comments; applied by the demo and held to by a test.
//!
//! Below the line `# What you should see:` every line is a promise about one object, which is named as `namespace/name`,
//! or `name` where it has no namespace:
//!
//! | Promise | About | Kept when |
//! |---|---|---|
//! | `a/web has 192.0.2.10/24` | a claim | it is ready, and refers to its address |
//! | `a/web waits with PoolExhausted` | a claim | it is not ready, for that reason |
//! | `a/web waits in silence` | a claim | it has our finalizer and nothing else |
//! | `a/pool counts total 2, used 1, free 1` | a pool | its status has these numbers |
//! | `pool shows NoOverlap` | a pool, a source, a Service | a condition has that reason |
//! | `a/shop publishes 192.0.2.9 198.51.100.7` | a Service | these are its external IPs, in this order |
//! | `a/edge answers at 198.51.100.80` | a Service | these are the addresses in its ingress status |
//! | `a/blog points to 198.51.100.90` | a Service | external-dns is told these addresses, comma-separated |

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{ControlPlane, DnsServer, eventually_blocking, repository};

const HEADING: &str = "# What you should see:";
const FINALIZER: &str = "ipam.cluster.x-k8s.io/ReleaseAddress";
/// Far more than it takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// One file of `config/samples/`.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Its name, without a folder.
    pub name: String,
    path: PathBuf,
    promises: Vec<Promise>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Promise {
    object: String,
    state: State,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum State {
    Has(String),
    WaitsWith(String),
    WaitsInSilence,
    Counts { total: u64, used: u64, free: u64 },
    Shows(String),
    Publishes(Vec<String>),
    AnswersAt(Vec<String>),
    PointsTo(String),
}

/// The names that samples ask DNS for, and what a server has to answer.
const NAMES: [(&str, &[&str]); 3] = [
    (Sample::NAME, &["198.51.100.7", "2001:db8::7"]),
    ("home.example.net", &["2001:db8:12:3400::1"]),
    ("intranet.example.net", &["10.0.0.5"]),
];

impl Sample {
    /// The name that the first source asks for.
    pub const NAME: &str = "gw.example.net";

    /// For how many seconds a resolver may keep the answers of [`Sample::name_server`].
    pub const TTL: u32 = 5;

    /// A name server that knows the names in the samples.
    pub fn name_server() -> Result<DnsServer> {
        let server = DnsServer::start()?;
        NAMES.iter().try_for_each(|(name, addresses)| server.set(name, Self::TTL, addresses))?;
        Ok(server)
    }

    /// The flags of a manager that can do what the samples show.
    pub fn flags(names: &DnsServer) -> [String; 2] {
        ["--feature-gates=ExternalIPSources=true".to_owned(), format!("--external-ip-dns-server={}", names.address())]
    }

    /// Every sample, by name.
    pub fn all() -> Result<Vec<Self>> {
        let folder = repository().join("config/samples");
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))? {
            let path = PathBuf::from(entry?.file_name());
            if path.extension().is_some_and(|extension| extension == "yaml") {
                names.push(path.to_string_lossy().into_owned());
            }
        }
        names.sort();
        names.iter().map(|name| Self::named(name)).collect()
    }

    /// The sample in `config/samples/<name>`.
    pub fn named(name: &str) -> Result<Self> {
        let path = repository().join("config/samples").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let promises = promises(&text).with_context(|| format!("in {name}"))?;
        Ok(Self { name: name.to_owned(), path, promises })
    }

    /// Creates its objects, as the administrator would.
    pub fn apply(&self, control_plane: &ControlPlane) -> Result<String> {
        control_plane.kubectl(&["apply", "-f", &self.path.to_string_lossy()])
    }

    /// The claims that are to get an address, as `namespace/name`.
    pub fn bound_claims(&self) -> impl Iterator<Item = &str> {
        self.promises.iter().filter(|promise| matches!(promise.state, State::Has(_))).map(|promise| promise.object.as_str())
    }

    /// Waits until every promise is kept.
    pub fn wait(&self, control_plane: &ControlPlane) -> Result<()> {
        eventually_blocking(PATIENCE, || self.check(control_plane)).with_context(|| format!("config/samples/{}", self.name))
    }

    /// Whether every promise is kept now.
    pub fn check(&self, control_plane: &ControlPlane) -> Result<()> {
        let text = control_plane.kubectl(&["get", "-f", &self.path.to_string_lossy(), "-o", "json"])?;
        let list: Value = serde_json::from_str(&text)?;
        let objects = list["items"].as_array().context("kubectl printed no list")?;
        self.promises.iter().try_for_each(|promise| promise.check(objects))
    }
}

/// The promises of a file; every claim, pool and source in it needs one, and every Service.
fn promises(text: &str) -> Result<Vec<Promise>> {
    let comment = text.lines().take_while(|line| line.starts_with('#'));
    let lines = comment.skip_while(|line| *line != HEADING).skip(1);
    let promises = lines.map(promise).collect::<Result<Vec<_>>>()?;
    for document in text.split("\n---\n") {
        let object: Value = serde_yaml_ng::from_str(document)?;
        let kind = object["kind"].as_str().context("an object without kind")?;
        let title = title(&object);
        let needs = ["IPAddressClaim", "ClusterExternalIPSource", "Service"].contains(&kind) || kind.ends_with("Pool");
        ensure!(!needs || promises.iter().any(|promise| promise.object == title), "nothing is promised of {kind} {title}");
    }
    Ok(promises)
}

fn promise(line: &str) -> Result<Promise> {
    let words: Vec<&str> = line.trim_start_matches('#').split_whitespace().collect();
    let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let number = |word: &str| word.trim_end_matches(',').parse().with_context(|| format!("no number: {word}"));
    let (object, state) = match words[..] {
        [object, "has", address] => (object, State::Has(address.to_owned())),
        [object, "waits", "with", reason] => (object, State::WaitsWith(reason.to_owned())),
        [object, "waits", "in", "silence"] => (object, State::WaitsInSilence),
        [object, "counts", "total", total, "used", used, "free", free] => {
            (object, State::Counts { total: number(total)?, used: number(used)?, free: number(free)? })
        }
        [object, "publishes", ref addresses @ ..] => (object, State::Publishes(owned(addresses))),
        [object, "answers", "at", ref addresses @ ..] => (object, State::AnswersAt(owned(addresses))),
        [object, "points", "to", target] => (object, State::PointsTo(target.to_owned())),
        [object, "shows", reason] => (object, State::Shows(reason.to_owned())),
        _ => bail!("not a promise: {line}"),
    };
    Ok(Promise { object: object.to_owned(), state })
}

fn title(object: &Value) -> String {
    let word = |name: &str| object["metadata"][name].as_str();
    let name = word("name").unwrap_or_default();
    word("namespace").map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

impl Promise {
    fn check(&self, objects: &[Value]) -> Result<()> {
        let object = objects.iter().find(|object| object["kind"] != "Namespace" && title(object) == self.object);
        let object = object.with_context(|| format!("there is no {}", self.object))?;
        let status = &object["status"];
        let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let ready_is =
            |wanted: &str, field: &str, text: &str| ready.is_some_and(|ready| ready["status"] == wanted && ready[field] == text);
        let kept = match &self.state {
            State::Has(address) => {
                ready_is("True", "message", &format!("allocated {address}"))
                    && status["addressRef"]["name"] == object["metadata"]["name"]
            }
            State::WaitsWith(reason) => ready_is("False", "reason", reason) && status["addressRef"].is_null(),
            State::WaitsInSilence => {
                let finalizers = object["metadata"]["finalizers"].as_array();
                status.is_null() && finalizers.is_some_and(|finalizers| finalizers.iter().any(|name| name == FINALIZER))
            }
            State::Counts { total, used, free } => {
                let counts = &status["ipAddresses"];
                counts["total"] == *total && counts["used"] == *used && counts["free"] == *free
            }
            State::Publishes(addresses) => object["spec"]["externalIPs"] == json!(addresses),
            State::AnswersAt(addresses) => {
                let ingress = status["loadBalancer"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default();
                ingress.iter().map(|ingress| &ingress["ip"]).eq(addresses)
            }
            State::PointsTo(target) => object["metadata"]["annotations"]["external-dns.kubernetes.io/target"] == target.as_str(),
            State::Shows(reason) => conditions.iter().any(|condition| condition["reason"] == reason.as_str()),
        };
        ensure!(kept, "{} is not as promised ({:?}) but {status}", self.object, self.state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_claim_and_pool_of_every_sample_has_a_promise() {
        assert!(Sample::all().unwrap().len() > 5);
    }

    #[test]
    fn a_claim_without_a_promise_and_a_promise_that_is_none_are_errors() {
        let file = |promise: &str| {
            format!("# A claim.\n#\n{HEADING}\n# {promise}\nkind: IPAddressClaim\nmetadata: {{name: web, namespace: a}}\n")
        };
        assert_eq!(promises(&file("a/web has 192.0.2.10/24")).unwrap().len(), 1);
        assert!(promises(&file("a/other has 192.0.2.10/24")).unwrap_err().to_string().contains("nothing is promised of"));
        assert!(promises(&file("a/web should be fine")).unwrap_err().to_string().contains("not a promise"));
    }

    #[test]
    fn a_promise_is_kept_only_by_the_state_it_names() {
        let claim = |status: Value| {
            [json!({"kind": "IPAddressClaim", "status": status,
                    "metadata": {"name": "web", "namespace": "a", "finalizers": [FINALIZER]}})]
        };
        let ready = |status: &str, reason: &str, message: &str| json!({"type": "Ready", "status": status, "reason": reason, "message": message});
        let bound = claim(json!({
            "addressRef": {"name": "web"},
            "conditions": [ready("True", "AddressAllocated", "allocated 192.0.2.10/24")],
        }));
        let waiting = claim(json!({"conditions": [ready("False", "PoolExhausted", "no room")]}));
        let silent = claim(Value::Null);
        for (line, keeper) in
            [("a/web has 192.0.2.10/24", 0), ("a/web waits with PoolExhausted", 1), ("a/web waits in silence", 2)]
        {
            let promise = promise(line).unwrap();
            let kept = [&bound, &waiting, &silent].map(|objects| promise.check(objects).is_ok());
            assert_eq!(kept.iter().position(|kept| *kept), Some(keeper), "{line}");
            assert_eq!(kept.iter().filter(|kept| **kept).count(), 1, "{line}");
        }
        assert!(promise("a/web has 192.0.2.11/24").unwrap().check(&bound).is_err());

        let pool = [json!({"kind": "InClusterIPPool", "metadata": {"name": "web", "namespace": "a"},
                           "status": {"ipAddresses": {"total": 2, "used": 1, "free": 1}, "conditions": [{"reason": "NoOverlap"}]}})];
        let kept = |line: &str| promise(line).unwrap().check(&pool).is_ok();
        let service = [json!({
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "a", "annotations": {"external-dns.kubernetes.io/target": "192.0.2.1"}},
            "spec": {"externalIPs": ["192.0.2.1", "192.0.2.2"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.3", "ipMode": "VIP"}]}},
        })];
        for (line, is_kept) in [
            ("a/web publishes 192.0.2.1 192.0.2.2", true),
            ("a/web publishes 192.0.2.1", false),
            ("a/web answers at 192.0.2.3", true),
            ("a/web answers at 192.0.2.1", false),
            ("a/web points to 192.0.2.1", true),
            ("a/web points to 192.0.2.2", false),
        ] {
            assert_eq!(promise(line).unwrap().check(&service).is_ok(), is_kept, "{line}");
        }
        assert!(kept("a/web counts total 2, used 1, free 1") && kept("a/web shows NoOverlap"));
        assert!(!kept("a/web counts total 2, used 0, free 1") && !kept("a/web shows OverlapsOtherPool"));
    }
}
