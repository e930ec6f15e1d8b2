//! The rules, each on a scene: one Service, one source, their claims, and a world that answers the solvers.

mod assignment;
mod choosing;
mod idempotence;
mod outputs;
mod pools;
mod sources;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use api::externalip::reasons::ExternalIpEvent;
use api::externalip::{ClusterExternalIPSource, PoolRef};
use api::{PoolKind, names};
use k8s_openapi::api::core::v1::Service;
use poolutil::Family;

use super::*;
use crate::externalip::answers::{Answers, Failure, FailureKind, Outcome, Ran};
use crate::externalip::cluster::Cluster;
use crate::externalip::facts::{
    Bound, ClaimFacts, Facts, Ingress, Memory, Now, Owner, Pass, PoolFacts, Rules, ServiceFacts, SourceFacts, SourceMemory,
};
use crate::externalip::{provenance, read};

/// How long the DNS server of these scenes lets its answers live.
const TTL: Duration = Duration::from_secs(30);

/// What the world says to a solver.
#[derive(Clone, Debug)]
enum Says {
    Addresses(Vec<IpAddr>),
    Nothing,
    Fails,
    /// It has not come back yet.
    Silence,
}

fn addresses(list: &[&str]) -> Says {
    Says::Addresses(list.iter().map(|text| ip(text)).collect())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn rules() -> Rules {
    Rules {
        allow_private: false,
        allow: Vec::new(),
        deny: Vec::new(),
        load_balancer_class: api::externalip::names::LOAD_BALANCER_CLASS.to_owned(),
        external_dns_prefixes: api::externalip::names::EXTERNAL_DNS_PREFIXES.map(str::to_owned).to_vec(),
        source_grace: Duration::from_secs(300),
        watch_filter: None,
    }
}

/// Everything that plans depend on, changed by what they do.
struct Scene {
    service: Option<ServiceFacts>,
    source: Option<SourceFacts>,
    claims: Vec<ClaimFacts>,
    pools: Vec<PoolFacts>,
    answers: Answers,
    cluster: Cluster,
    rules: Rules,
    memory: Memory,
    told: SourceMemory,
    world: BTreeMap<String, Says>,
    now: Now,
    events: Vec<(ExternalIpEvent, String)>,
    source_events: Vec<(ExternalIpEvent, String)>,
    writes: usize,
}

/// A source named `public` with this spec.
fn source_of(spec: &str) -> SourceFacts {
    let spec: serde_json::Value = serde_yaml_ng::from_str(spec).unwrap();
    let object: ClusterExternalIPSource = serde_json::from_value(serde_json::json!({
        "apiVersion": "externalip.spacebird.dev/v1alpha1", "kind": "ClusterExternalIPSource",
        "metadata": {"name": "public", "uid": "uid-of-public", "generation": 1}, "spec": spec,
    }))
    .unwrap();
    read::source(object, &[])
}

/// A dual-stack Service named `web` with these fields besides.
pub fn service_of(fields: &str) -> ServiceFacts {
    let fields: serde_json::Value = serde_yaml_ng::from_str(fields).unwrap();
    let mut object = serde_json::json!({
        "metadata": {
            "name": "web", "namespace": "team-a", "uid": "uid-of-web", "resourceVersion": "1",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"externalip.spacebird.dev/cluster-external-ip-source": "public"},
        },
        "spec": {
            "type": "ClusterIP", "ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.0.9", "fd00:10:96::9"],
            "ports": [{"port": 443}],
        },
    });
    json_patch::merge(&mut object, &fields);
    let object: Service = serde_json::from_value(object).unwrap();
    read::service(object, &rules())
}

impl Scene {
    fn new(source: &str, service: &str) -> Self {
        let start = Instant::now() + Duration::from_secs(1_000_000);
        let service = service_of(service);
        let mut cluster = Cluster::default();
        cluster.insert(&service);
        Self {
            service: Some(service),
            source: Some(source_of(source)),
            claims: Vec::new(),
            pools: Vec::new(),
            answers: Answers::default(),
            cluster,
            rules: rules(),
            memory: Memory {
                own_write_unseen: false,
                began: start,
                source_missing: None,
                service_missing: None,
                troubles: BTreeMap::new(),
                told: BTreeMap::new(),
            },
            told: SourceMemory { began: Some(start), ..SourceMemory::default() },
            world: BTreeMap::new(),
            now: Now { wall: "2026-03-01T10:00:00Z".parse().unwrap(), instant: start },
            events: Vec::new(),
            source_events: Vec::new(),
            writes: 0,
        }
    }

    fn says(mut self, target: &str, says: Says) -> Self {
        self.world.insert(target.to_owned(), says);
        self
    }

    fn pool(mut self, name: &str, family: Family) -> Self {
        self.pools.push(PoolFacts { pool: pool(name), family: Some(family) });
        self
    }

    fn web(&self) -> &ServiceFacts {
        self.service.as_ref().unwrap()
    }

    /// Changes the Service as somebody else would.
    fn edit(&mut self, edit: impl FnOnce(&mut ServiceFacts)) {
        let service = self.service.as_mut().unwrap();
        self.cluster.remove(service);
        edit(service);
        self.cluster.insert(service);
    }

    fn plan(&self) -> Plan {
        let key = crate::externalip::facts::ServiceKey { namespace: "team-a".to_owned(), name: "web".to_owned() };
        let named = self.service.as_ref().and_then(|service| source_name(service));
        service(
            &Facts {
                key: &key,
                service: self.service.as_ref(),
                claims: &self.claims,
                source: self.source.as_ref().filter(|source| Some(source.name.as_str()) == named),
                pools: &self.pools,
                namespace_labels: None,
                answers: &self.answers,
                cluster: &self.cluster,
                rules: &self.rules,
                memory: &self.memory,
            },
            self.now,
        )
    }

    fn with_pass<T>(&self, then: impl FnOnce(&Pass<'_>) -> T) -> Option<T> {
        let source = self.source.as_ref()?;
        let bound: Vec<Bound<'_>> = self
            .service
            .iter()
            .filter(|service| source_name(service) == Some(source.name.as_str()))
            .map(|service| Bound { service, claims: &self.claims, pools: &self.pools, namespace_labels: None })
            .collect();
        let pass = Pass {
            source,
            bound: &bound,
            answers: &self.answers,
            cluster: &self.cluster,
            rules: &self.rules,
            memory: &self.told,
        };
        Some(then(&pass))
    }

    /// Lets the solvers run that are due, and the source be shown, until nothing changes.
    fn resolve(&mut self) {
        for _ in 0..100 {
            let keys = self.with_pass(|pass| asked(pass, self.now));
            let mut changed = false;
            if let (Some(keys), Some(source)) = (keys, &self.source) {
                let terms = match &source.spec {
                    Ok(spec) => terms(spec, &self.rules),
                    Err(_) => continue,
                };
                changed = self.answers.use_by("public", &terms, keys, &self.cluster, self.now.instant);
            }
            let mut silent = true;
            while let Some(key) = self.answers.due(self.now.instant) {
                self.answers.begin(&key, self.now.instant);
                let target = provenance::target(&api::externalip::Solver::Shared(key.solver.clone()));
                let (outcome, fresh_for) = match self.world.get(&target).cloned().unwrap_or(Says::Nothing) {
                    Says::Addresses(mut list) => {
                        list.retain(|ip| Family::of(*ip) == key.family);
                        if list.is_empty() {
                            (Outcome::Empty("no such record".to_owned()), None)
                        } else {
                            (Outcome::Found { addresses: list, truncated: false }, Some(TTL))
                        }
                    }
                    Says::Nothing => (Outcome::Empty("no such record".to_owned()), None),
                    Says::Fails => (Outcome::Failed(Failure { kind: FailureKind::Timeout, text: "timeout".to_owned() }), None),
                    Says::Silence => continue,
                };
                silent = false;
                self.answers.finish(&key, Ran { outcome, fresh_for }, &self.cluster, self.now.instant, 0.5);
            }
            if !changed && silent {
                break;
            }
        }
        if let Some(plan) = self.with_pass(|pass| source(pass, self.now)) {
            for note in plan.notes {
                self.told.told.insert(note.reason, note.text.clone());
                self.source_events.push((note.reason, note.text));
            }
            if let (Some(status), Some(source)) = (plan.status, &mut self.source) {
                source.status = Some(status);
            }
            assert_eq!(self.with_pass(|pass| source(pass, self.now)).unwrap().status, None, "a shown source is shown again");
        }
    }

    /// Resolves and plans until nothing is left to do.
    fn settle(&mut self) {
        for _ in 0..8 {
            self.resolve();
            let plan = self.plan();
            if plan.steps.is_empty() {
                return;
            }
            self.apply_all(plan.steps);
        }
        panic!("it does not settle: {:?}", self.plan().steps);
    }

    fn wait(&mut self, seconds: u64) {
        let duration = Duration::from_secs(seconds);
        self.now = Now { wall: self.now.wall + duration, instant: self.now.instant + duration };
        self.settle();
    }

    /// Another process takes over: it knows what is in the API.
    fn restart(&mut self) {
        self.answers = Answers::default();
        self.memory = Memory {
            began: self.now.instant,
            source_missing: None,
            service_missing: None,
            troubles: BTreeMap::new(),
            ..self.memory.clone()
        };
        self.told = SourceMemory { began: Some(self.now.instant), ..self.told.clone() };
        self.edit(|service| service.lingering = None);
        for claim in &mut self.claims {
            claim.seen = self.now.instant;
        }
    }

    fn apply_all(&mut self, steps: Vec<Step>) {
        for step in steps {
            self.apply(step);
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Emit(note) => {
                self.memory.told.insert(note.reason, note.text.clone());
                self.events.push((note.reason, note.text));
                return;
            }
            Step::CreateClaim { name, object } => {
                let pool = &object["spec"]["poolRef"];
                let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
                assert!(self.claims.iter().all(|claim| claim.name != name), "the name {name} is taken");
                self.claims.push(ClaimFacts {
                    uid: format!("uid-of-{name}"),
                    revision: "1".to_owned(),
                    deleting: false,
                    finalizers: vec![text(&object["metadata"]["finalizers"][0])],
                    service: object["metadata"]["labels"][api::externalip::names::SERVICE_LABEL].as_str().map(str::to_owned),
                    owner: Some(owner(&object["metadata"]["ownerReferences"][0])),
                    pool: PoolRef { kind: PoolKind::from_kind(&text(&pool["kind"])).unwrap(), name: text(&pool["name"]) },
                    requested: object["metadata"]["annotations"][names::REQUESTED_ADDRESS].as_str().map(str::to_owned),
                    address: None,
                    waiting: None,
                    seen: self.now.instant,
                    name,
                });
            }
            Step::AdoptClaim { name, owner: reference, .. } => self.claim(&name).owner = Some(owner(&reference[0])),
            Step::DeleteClaim { name, .. } => self.delete_claim(&name),
            Step::FreeClaim { name, .. } => {
                let claim = self.claim(&name);
                assert!(claim.deleting);
                let address = claim.address;
                self.claims.retain(|claim| claim.name != name);
                if let (Some(ip), Some(service)) = (address, &self.service) {
                    let targets =
                        service.targets.iter().filter(|target| target.ours).filter_map(|target| target.value.as_deref());
                    let texts = service.external_ips.iter().map(String::as_str).chain(targets.flat_map(|value| value.split(',')));
                    let listed = texts.into_iter().any(|text| text.parse() == Ok(ip));
                    let shown = service.ingress_ours && service.ingress.iter().any(|entry| entry.ip == Some(ip));
                    assert!(!listed && !shown, "{ip} is free while it is published");
                }
            }
            Step::PatchService { .. } | Step::ApplyTarget { .. } | Step::ApplyStatus { .. } | Step::ApplyConditions { .. } => {
                self.edit(|service| write(service, step));
            }
        }
        self.writes += 1;
    }

    fn claim(&mut self, name: &str) -> &mut ClaimFacts {
        self.claims.iter_mut().find(|claim| claim.name == name).unwrap()
    }

    fn delete_claim(&mut self, name: &str) {
        let claim = self.claim(name);
        claim.deleting = true;
        if claim.finalizers.is_empty() {
            self.claims.retain(|claim| claim.name != name);
        }
    }

    fn bind(&mut self, name: &str, address: &str) {
        let claim = self.claim(name);
        claim.address = Some(ip(address));
        claim.waiting = None;
    }

    /// The entries of `spec.externalIPs`.
    fn list(&self) -> Vec<&str> {
        self.web().external_ips.iter().map(String::as_str).collect()
    }

    /// Reason and message of the condition `Ready`.
    fn ready(&self) -> (&str, &str) {
        let ready = self.web().conditions.iter().find(|condition| condition.type_ == api::externalip::names::READY).unwrap();
        assert_eq!(ready.status == "True", ready.reason == "Assigned");
        (&ready.reason, &ready.message)
    }

    /// The record as JSON, or null.
    fn record(&self) -> serde_json::Value {
        self.web().record.as_deref().map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap())
    }

    /// State and addresses of each solver, as the source shows them.
    fn solvers(&self, family: Family) -> Vec<(String, Vec<String>)> {
        let status = self.source.as_ref().unwrap().status.clone().unwrap();
        let status = if family == Family::V4 { status.ipv4 } else { status.ipv6 }.unwrap();
        status.solvers.into_iter().map(|solver| (solver.state, solver.addresses)).collect()
    }

    /// Reason of a condition of the source, with `!` before it if it is false.
    fn source_condition(&self, type_: &str) -> String {
        let status = self.source.as_ref().unwrap().status.as_ref().unwrap();
        let condition = status.conditions.iter().find(|condition| condition.type_ == type_).unwrap();
        format!("{}{}", if condition.status == "True" { "" } else { "!" }, condition.reason)
    }
}

fn owner(reference: &serde_json::Value) -> Owner {
    let text = |key: &str| reference[key].as_str().unwrap().to_owned();
    assert_eq!((&reference["controller"], &reference["blockOwnerDeletion"]), (&true.into(), &false.into()));
    Owner { api_version: text("apiVersion"), kind: text("kind"), name: text("name"), uid: text("uid") }
}

fn pool(name: &str) -> PoolRef {
    PoolRef { kind: PoolKind::GlobalInClusterIPPool, name: name.to_owned() }
}

/// What the API server makes of a write.
fn write(service: &mut ServiceFacts, step: Step) {
    match step {
        Step::PatchService { external_ips, record, .. } => {
            if let Some(list) = external_ips {
                service.external_ips = list;
                service.external_ips_managers.clear();
            }
            match record {
                Some(RecordChange::Set(text)) => service.record = Some(text),
                Some(RecordChange::Remove) => service.record = None,
                None => {}
            }
        }
        Step::ApplyTarget { annotations } => {
            for target in &mut service.targets {
                match annotations.get(&target.annotation) {
                    Some(value) => {
                        assert!(target.other.is_none() || target.value.as_ref() == Some(value), "it is somebody else's");
                        (target.value, target.ours) = (Some(value.clone()), true);
                    }
                    None if target.ours => {
                        target.ours = false;
                        target.value = target.value.take().filter(|_| target.other.is_some());
                    }
                    None => {}
                }
            }
        }
        Step::ApplyStatus { ingress } => {
            service.ingress_ours = ingress.is_some();
            let ingress = ingress.unwrap_or_default().into_iter();
            service.ingress = ingress.map(|(ip, mode)| Ingress { ip: Some(ip), mode: Some(mode.as_str().to_owned()) }).collect();
        }
        Step::ApplyConditions { conditions } => service.conditions = conditions,
        Step::CreateClaim { .. }
        | Step::AdoptClaim { .. }
        | Step::DeleteClaim { .. }
        | Step::FreeClaim { .. }
        | Step::Emit(_) => unreachable!("not a write to the Service"),
    }
}
