//! The audit: after whatever happened to managers and server, every claim, address and pool is what it should be.
//!
//! [`passes`] is how a trial about failures ends. It proves that
//! 1. no two addresses of a pool share a value, and every address has its claim, its finalizer and its owners;
//! 2. every live claim refers to its own address and says so in both flavours of `Ready`, or says why it has none;
//! 3. the numbers of every pool are those that counting its addresses gives;
//! 4. nothing is left on its way: no reservation, no object that only our finalizer keeps.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use testbed::{Manager, ready_of};

const GROUP: &str = "ipam.cluster.x-k8s.io";
const POOL_KINDS: [&str; 4] = ["InClusterIPPool", "GlobalInClusterIPPool", "InClusterPrefixPool", "GlobalInClusterPrefixPool"];
const PAUSED: &str = "cluster.x-k8s.io/paused";

/// How long managers may take to settle after the last disturbance. Only a failing trial ever waits that long.
const PATIENCE: Duration = Duration::from_secs(180);

/// What was there when the audit passed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Audited {
    /// Claims on pools of ours.
    pub claims: usize,
    /// Those of them that have an address.
    pub bound: usize,
    /// Addresses of pools of ours.
    pub addresses: usize,
    /// Pools of all four kinds.
    pub pools: usize,
}

/// Waits until nothing is wrong any more on the whole server; fails with all that still is.
///
/// The managers given must be the running ones: they are asked for their reservations.
pub async fn passes(client: &kube::Client, capi_version: &'static str, managers: &[&Manager]) -> Result<Audited> {
    testbed::eventually(PATIENCE, async || {
        let store = Store::read(client, capi_version).await?;
        let mut faults = store.faults();
        for manager in managers {
            faults.extend(reservations(manager)?);
        }
        let audited = store.audited();
        ensure!(faults.is_empty(), "the audit found {} faults in {audited:?}:\n{}", faults.len(), head(&faults));
        Ok(audited)
    })
    .await
}

/// The first of many faults.
fn head(faults: &[String]) -> String {
    faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
}

/// What a manager's gauges say is reserved, and what its ledgers say is reserved or held twice if it shows them.
fn reservations(manager: &Manager) -> Result<Vec<String>> {
    let ledgers = match manager.diagnostics("/debug/ledger")? {
        (200, ledgers) => ledgers,
        // Insecure diagnostics have no such page.
        (404, _) => String::new(),
        (status, text) => bail!("/debug/ledger answers {status}: {text}"),
    };
    let marks = ["  reserved ", "  held twice "];
    let left = ledgers.lines().filter(|line| marks.iter().any(|mark| line.starts_with(mark)));
    let metrics = manager.metrics()?;
    let gauges = metrics.lines().filter(|line| line.starts_with("ipam_pool_addresses{") && line.contains("state=\"reserved\""));
    let is_zero = |line: &&str| line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()) == Some(0.0);
    let told = |line: &str| format!("manager {}: {}", manager.pid(), line.trim());
    Ok(left.chain(gauges.filter(|line| !is_zero(line))).map(told).collect())
}

/// A pool's kind, namespace (empty for Global ones) and name.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct PoolName(String, String, String);

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, namespace, name) = self;
        if namespace.is_empty() { write!(f, "{kind} {name}") } else { write!(f, "{kind} {namespace}/{name}") }
    }
}

/// Namespace and name of a claim and its address.
type Name = (String, String);

/// Everything there is.
struct Store {
    capi_version: &'static str,
    claims: BTreeMap<Name, DynamicObject>,
    addresses: BTreeMap<Name, DynamicObject>,
    pools: BTreeMap<PoolName, DynamicObject>,
    clusters: BTreeMap<Name, DynamicObject>,
}

impl Store {
    async fn read(client: &kube::Client, capi_version: &'static str) -> Result<Self> {
        let list = async |group: &str, version: &str, kind: &str| -> Result<Vec<DynamicObject>> {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
            Ok(Api::<DynamicObject>::all_with(client.clone(), &resource).list(&ListParams::default()).await?.items)
        };
        let by_name = |objects: Vec<DynamicObject>| objects.into_iter().map(|object| (name(&object), object)).collect();
        let ours = |objects: Vec<DynamicObject>| objects.into_iter().filter(|object| pool_of(object).is_some()).collect();
        let mut pools = BTreeMap::new();
        for kind in POOL_KINDS {
            for pool in list(GROUP, "v1alpha2", kind).await? {
                let (namespace, name) = name(&pool);
                pools.insert(PoolName(kind.to_owned(), namespace, name), pool);
            }
        }
        Ok(Self {
            capi_version,
            claims: by_name(ours(list(GROUP, capi_version, "IPAddressClaim").await?)),
            addresses: by_name(ours(list(GROUP, capi_version, "IPAddress").await?)),
            clusters: by_name(list("cluster.x-k8s.io", capi_version, "Cluster").await?),
            pools,
        })
    }

    fn audited(&self) -> Audited {
        let bound = self.claims.values().filter(|claim| address_ref(claim).is_some()).count();
        Audited { claims: self.claims.len(), bound, addresses: self.addresses.len(), pools: self.pools.len() }
    }

    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, claim) in &self.claims {
            faults
                .extend(self.claim_faults(name, claim).into_iter().map(|fault| format!("claim {}/{}: {fault}", name.0, name.1)));
        }
        for (name, address) in &self.addresses {
            let found = self.address_faults(name, address);
            faults.extend(found.into_iter().map(|fault| format!("address {}/{}: {fault}", name.0, name.1)));
        }
        for (name, pool) in &self.pools {
            faults.extend(self.pool_faults(name, pool).into_iter().map(|fault| format!("{name}: {fault}")));
        }
        faults
    }

    fn claim_faults(&self, name: &Name, claim: &DynamicObject) -> Vec<String> {
        let mut faults = Vec::new();
        if claim.metadata.deletion_timestamp.is_some() {
            if is_kept_by_us_alone(claim) && !self.is_held(name, claim) {
                faults.push("deleted, and only our finalizer keeps it".to_owned());
            }
            return faults;
        }
        let ready = match ready_of(claim, self.capi_version) {
            Ok(ready) => ready,
            Err(error) => return vec![format!("{error:#}")],
        };
        let Some(address) = address_ref(claim) else {
            let told =
                ready.is_some_and(|ready| ready.status == "False" && !ready.reason.is_empty() && !ready.message.is_empty());
            if !told && !self.is_held(name, claim) {
                faults.push("neither bound nor told why".to_owned());
            }
            return faults;
        };
        if address != name.1 {
            faults.push(format!("refers to an address of another name: {address}"));
        }
        match self.addresses.get(name) {
            None => faults.push("refers to an address that does not exist".to_owned()),
            Some(found) if pool_of(found) != pool_of(claim) => faults.push(format!("its address is of {:?}", pool_of(found))),
            Some(found) => {
                let text = format!("allocated {}/{}", value(found), found.data["spec"]["prefix"]);
                if !ready.as_ref().is_some_and(|ready| ready.status == "True" && ready.message == text) {
                    faults.push(format!("bound, but Ready is {ready:?}, not {text:?}"));
                }
            }
        }
        if !claim.finalizers().iter().any(|finalizer| finalizer == "ipam.cluster.x-k8s.io/ReleaseAddress") {
            faults.push("bound without our finalizer".to_owned());
        }
        faults
    }

    /// Whether nobody may do anything about a claim: it, its pool or its cluster is paused, or its cluster does not exist.
    fn is_held(&self, name: &Name, claim: &DynamicObject) -> bool {
        let named = claim.data["spec"]["clusterName"]
            .as_str()
            .or(claim.labels().get("cluster.x-k8s.io/cluster-name").map(String::as_str));
        let stopped = named.filter(|cluster| !cluster.is_empty()).is_some_and(|cluster| {
            match self.clusters.get(&(name.0.clone(), cluster.to_owned())) {
                None => claim.metadata.deletion_timestamp.is_none(),
                Some(cluster) => is_paused(cluster) || cluster.data["spec"]["paused"] == true,
            }
        });
        let pool = pool_of(claim).and_then(|pool| self.pools.get(&pool));
        stopped || is_paused(claim) || pool.is_some_and(is_paused)
    }

    fn address_faults(&self, name: &Name, address: &DynamicObject) -> Vec<String> {
        let Some(claim) = self.claims.get(name) else {
            // Whose it was, and who did what last.
            let metadata = serde_json::to_string(&address.metadata).unwrap_or_default();
            return vec![format!("has no claim: {} {metadata}", value(address))];
        };
        let mut faults = Vec::new();
        if address.metadata.deletion_timestamp.is_some()
            && is_kept_by_us_alone(address)
            && claim.metadata.deletion_timestamp.is_none()
        {
            faults.push("deleted, and only our finalizer keeps it".to_owned());
        }
        if claim.metadata.deletion_timestamp.is_none() && address_ref(claim).is_none() {
            faults.push(format!("its claim does not refer to it: {}", value(address)));
        }
        if address.data["spec"]["claimRef"]["name"] != name.1.as_str() {
            faults.push(format!("is for the claim {}", address.data["spec"]["claimRef"]["name"]));
        }
        if !address.finalizers().iter().any(|finalizer| finalizer == "ipam.cluster.x-k8s.io/ProtectAddress") {
            faults.push("has lost its finalizer".to_owned());
        }
        let owned_by =
            |owner: &DynamicObject| address.owner_references().iter().any(|one| Some(&one.uid) == owner.metadata.uid.as_ref());
        if !owned_by(claim) {
            faults.push("is not owned by its claim".to_owned());
        }
        if let Some(pool) = pool_of(address).and_then(|pool| self.pools.get(&pool))
            && !owned_by(pool)
        {
            faults.push("is not owned by its pool".to_owned());
        }
        faults
    }

    fn pool_faults(&self, name: &PoolName, pool: &DynamicObject) -> Vec<String> {
        let mut faults = Vec::new();
        let addresses: Vec<_> = self.addresses.values().filter(|address| pool_of(address).as_ref() == Some(name)).collect();
        let mut spans: Vec<_> = addresses.iter().filter_map(|address| Some((span(address, name)?, *address))).collect();
        spans.sort_by_key(|(span, _)| *span);
        for pair in spans.windows(2) {
            if pair[1].0.0 <= pair[0].0.1 {
                let titles = [&pair[0], &pair[1]].map(|(_, address)| format!("{} of {:?}", value(address), self::name(address)));
                faults.push(format!("shares a value: {}", titles.join(" and ")));
            }
        }
        if pool.metadata.deletion_timestamp.is_some() {
            if addresses.is_empty() && is_kept_by_us_alone(pool) {
                faults.push("deleted, and only our finalizer keeps it".to_owned());
            }
            return faults;
        }
        if !pool.finalizers().iter().any(|finalizer| finalizer == "ipam.cluster.x-k8s.io/ProtectPool") {
            faults.push("has no finalizer of ours".to_owned());
        }
        let status = &pool.data["status"];
        if status["observedGeneration"].as_i64() != pool.metadata.generation {
            faults.push(format!("its status is behind its spec: {status}"));
        }
        let number = |field: &str| status["ipAddresses"][field].as_u64().unwrap_or(u64::MAX);
        let (total, used, free, out_of_range) = (number("total"), number("used"), number("free"), number("outOfRange"));
        let mut values: Vec<_> = spans.iter().map(|(span, _)| *span).collect();
        values.dedup();
        let inside = (values.len() as u64).checked_sub(out_of_range);
        // What a broken spec would give is unknown. Numbers beyond what the field can hold are capped and cannot be compared.
        let is_unknown = (total, free, out_of_range) == (0, 0, 0) || total == i64::MAX as u64;
        let adds_up = is_unknown || inside.and_then(|inside| total.checked_sub(inside)) == Some(free);
        if used != addresses.len() as u64 || !adds_up {
            faults.push(format!("has {} addresses, but counts {}", addresses.len(), status["ipAddresses"]));
        }
        faults
    }
}

fn name(object: &DynamicObject) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The pool that a claim or an address refers to, if it is one of ours. Claims must name the group, addresses may leave it out.
fn pool_of(object: &DynamicObject) -> Option<PoolName> {
    let reference = &object.data["spec"]["poolRef"];
    let is_address = object.data["spec"]["address"].is_string();
    let group = reference["apiGroup"].as_str().unwrap_or_default();
    let kind = reference["kind"].as_str().filter(|kind| POOL_KINDS.contains(kind))?;
    let namespace = if kind.starts_with("Global") { String::new() } else { object.namespace()? };
    let ours = group == GROUP || is_address && group.is_empty();
    ours.then(|| PoolName(kind.to_owned(), namespace, reference["name"].as_str().unwrap_or_default().to_owned()))
}

fn address_ref(claim: &DynamicObject) -> Option<&str> {
    claim.data["status"]["addressRef"]["name"].as_str()
}

fn value(address: &DynamicObject) -> &str {
    address.data["spec"]["address"].as_str().unwrap_or_default()
}

/// First and last address that an address object of this pool takes.
fn span(address: &DynamicObject, pool: &PoolName) -> Option<(u128, u128)> {
    let bits = match value(address).parse().ok()? {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    if !pool.0.contains("Prefix") {
        return Some((bits, bits));
    }
    let length = u32::try_from(address.data["spec"]["prefix"].as_u64()?).ok()?;
    let hosts = u128::MAX.checked_shr(length).unwrap_or(0);
    Some((bits & !hosts, bits | hosts))
}

fn is_paused(object: &DynamicObject) -> bool {
    object.annotations().contains_key(PAUSED)
}

fn is_kept_by_us_alone(object: &DynamicObject) -> bool {
    object.finalizers().iter().all(|finalizer| finalizer.starts_with("ipam.cluster.x-k8s.io/"))
}
