use std::collections::BTreeMap;
use std::sync::Mutex;

use poolutil::RangeSet;

use super::*;
use crate::index::{InUse, NotSynced, Partner};
use crate::review::GroupVersionKind;

const IP_KINDS: [PoolKind; 2] = [PoolKind::InClusterIPPool, PoolKind::GlobalInClusterIPPool];
const PREFIX_KINDS: [PoolKind; 2] = [PoolKind::InClusterPrefixPool, PoolKind::GlobalInClusterPrefixPool];

/// A memory that says what it is told to.
#[derive(Default)]
struct Memory {
    in_use: Vec<&'static str>,
    length: u8,
    unparsable: usize,
    unsynced: bool,
    partners: usize,
    problems: Vec<String>,
    /// Which pools it was asked about.
    asked: Mutex<Vec<String>>,
}

impl Memory {
    fn holding(in_use: &[&'static str]) -> Self {
        Self { in_use: in_use.to_vec(), ..Self::default() }
    }

    fn prefixes(length: u8, in_use: &[&'static str]) -> Self {
        Self { in_use: in_use.to_vec(), length, ..Self::default() }
    }
}

impl PoolIndex for Memory {
    fn in_use(&self, pool: PoolName<'_>) -> Result<InUse, NotSynced> {
        self.asked.lock().unwrap().push(pool.to_string());
        if self.unsynced {
            return Err(NotSynced);
        }
        let read = |text: &&str| if self.length == 0 { Span::parse_host(text) } else { Span::parse(text, self.length) };
        let values = self.in_use.iter().map(|text| read(text).unwrap()).collect();
        Ok(InUse { objects: self.in_use.len() + self.unparsable, values })
    }

    fn overlapping(&self, pool: PoolName<'_>, domain: &str, addresses: &RangeSet) -> Vec<Partner> {
        let common = addresses.iter().next().into_iter().cycle();
        let partner = |(number, common)| Partner { pool: format!("{} {number} of {domain:?}", pool.kind), common };
        (1..=self.partners).zip(common).map(partner).collect()
    }

    fn annotation_problems(&self, annotations: &BTreeMap<String, String>, _: &poolutil::Pool) -> Vec<String> {
        if annotations.is_empty() { Vec::new() } else { self.problems.clone() }
    }
}

fn request(kind: PoolKind, operation: Operation, old: Option<&Value>, new: Option<&Value>) -> Request {
    Request {
        uid: "u".to_owned(),
        kind: GroupVersionKind { group: IPAM_GROUP.to_owned(), version: "v1alpha2".to_owned(), kind: kind.kind().to_owned() },
        name: "blue".to_owned(),
        namespace: if kind.is_global() { String::new() } else { "team-a".to_owned() },
        operation,
        object: new.cloned(),
        old_object: old.cloned(),
    }
}

fn pool(kind: PoolKind, spec: &Value) -> Value {
    json!({
        "apiVersion": "ipam.cluster.x-k8s.io/v1alpha2",
        "kind": kind.kind(),
        "metadata": {"name": "blue", "namespace": "team-a"},
        "spec": spec,
    })
}

fn create(kind: PoolKind, spec: &Value, index: &Memory) -> Answer {
    validate(kind, &request(kind, Operation::Create, None, Some(&pool(kind, spec))), index)
}

fn update(kind: PoolKind, old: &Value, new: &Value, index: &Memory) -> Answer {
    validate(kind, &request(kind, Operation::Update, Some(&pool(kind, old)), Some(&pool(kind, new))), index)
}

fn delete(kind: PoolKind, old: &Value, index: &Memory) -> Answer {
    validate(kind, &request(kind, Operation::Delete, Some(old), None), index)
}

/// The code and message of a denial.
#[track_caller]
fn denied(answer: Answer) -> (u16, String) {
    let Outcome::Denied(denial) = answer.outcome else { panic!("admitted: {answer:?}") };
    (denial.code(), denial.status().message.unwrap())
}

/// `field: message` of every broken rule.
#[track_caller]
fn broken(answer: Answer) -> Vec<String> {
    let Outcome::Denied(denial @ Denial::Invalid { .. }) = answer.outcome else { panic!("not invalid: {answer:?}") };
    let causes = denial.status().details.unwrap().causes.unwrap();
    causes.into_iter().map(|cause| format!("{}: {}", cause.field.unwrap(), cause.message.unwrap())).collect()
}

#[track_caller]
fn warnings(answer: Answer) -> Vec<String> {
    assert_eq!(answer.outcome, Outcome::Admitted, "{answer:?}");
    answer.warnings
}

#[track_caller]
fn contain(texts: &[String], expected: &[&str]) {
    assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    for (text, expected) in texts.iter().zip(expected) {
        assert!(text.contains(expected), "{text:?} lacks {expected:?}");
    }
}

#[test]
fn what_a_correct_ip_pool_says_is_left_as_it_is() {
    // W4
    for spec in [
        json!({"addresses": ["10.0.0.10", "10.0.0.11"], "prefix": 24, "gateway": "10.0.0.1"}),
        json!({"addresses": ["10.0.0.10", "10.0.0.11"], "prefix": 24}),
        json!({"addresses": ["10.0.0.10"], "prefix": 24, "gateway": "10.0.0.1", "excludedAddresses": ["10.0.1.0/24"]}),
        json!({"addresses": ["fe80::10", "fe80::20-fe80::30", "fe80::/120"], "prefix": 64, "gateway": "fe80::1"}),
        json!({"addresses": ["fe80::10", "fe80::20-fe80::30", "fe80::/120"], "prefix": 64}),
        json!({"addresses": ["fe80::10"], "prefix": 64, "gateway": "fe80::1", "excludedAddresses": ["fe80::20"]}),
        json!({"addresses": ["10.0.0.10"], "prefix": 24, "addressReuseGracePeriodSeconds": 60}),
        // W6
        json!({"addresses": ["10.0.0.10"], "prefix": 0}),
        json!({"addresses": ["10.0.0.10"]}),
        // Allowed on purpose.
        json!({"addresses": ["10.0.0.10", "10.0.0.10", "10.0.0.0/24"], "prefix": 24, "gateway": "192.168.0.1"}),
    ] {
        for kind in IP_KINDS {
            let memory = Memory::default();
            let object = pool(kind, &spec);
            for operation in [Operation::Create, Operation::Update] {
                assert_eq!(default(kind, &request(kind, operation, None, Some(&object))), Answer::admitted());
            }
            for answer in [create(kind, &spec, &memory), update(kind, &spec, &spec, &memory), delete(kind, &object, &memory)] {
                assert_eq!(answer.outcome, Outcome::Admitted, "{spec}");
            }
        }
    }
}

const BAD_ENTRY: &str = "spec.addresses: Invalid value: \"X\": provided address is not a valid IP, range, nor CIDR";
const OTHER_SUBNET: &str = "provided address belongs to a different subnet than others";

#[test]
fn a_broken_ip_pool_is_refused_and_can_be_deleted() {
    // W5, rows 1 to 12 of the table.
    let one = |entry: &str| json!({"addresses": ["10.0.1.0", entry], "prefix": 24, "gateway": "10.0.1.1"});
    let bad = |entry: &str| BAD_ENTRY.replace('X', entry);
    let garbage =
        [("garbage", bad("garbage")), ("10.0.1.30-10.0.1.20", bad("10.0.1.30-10.0.1.20")), ("10.0.1.0/33", bad("10.0.1.0/33"))];
    let mut table: Vec<(Value, Vec<String>)> = garbage.map(|(entry, text)| (one(entry), vec![text])).into();
    // Above the subnet; what lies below moves the subnet, so that the first entry is outside.
    for (entry, outside) in [
        ("10.0.2.7", "10.0.2.7"),
        ("10.0.2.10-10.0.2.20", "10.0.2.10-10.0.2.20"),
        ("10.0.1.250-10.0.2.20", "10.0.1.250-10.0.2.20"),
        ("10.0.2.0/24", "10.0.2.0/24"),
        ("10.0.0.10-10.0.0.20", "10.0.1.0"),
        ("10.0.0.0/24", "10.0.1.0"),
    ] {
        table.push((one(entry), vec![format!("spec.addresses: Invalid value: {outside:?}: {OTHER_SUBNET}")]));
    }
    for (entry, outside) in [("10.0.0.250-10.0.1.20", "10.0.0.250-10.0.1.20"), ("10.0.0.0/23", "10.0.0.0/23")] {
        let texts = ["10.0.1.0", outside].map(|text| format!("spec.addresses: Invalid value: {text:?}: {OTHER_SUBNET}"));
        table.push((one(entry), texts.into()));
    }
    for (spec, text) in [
        (json!({"addresses": [], "prefix": 24}), "spec.addresses: Invalid value: \"\": addresses is required"),
        (json!({"prefix": 24}), "spec.addresses: Invalid value: \"\": addresses is required"),
        (json!({"addresses": ["10.0.0.1"], "prefix": -1}), "spec.prefix: Invalid value: -1: a valid prefix is required"),
        (json!({"addresses": ["10.0.0.1"], "prefix": 9999}), "spec.prefix: Invalid value: 9999: provided prefix is not valid"),
        (json!({"addresses": ["fd00::1"], "prefix": 129}), "spec.prefix: Invalid value: 129: provided prefix is not valid"),
        (
            json!({"addresses": ["10.0.0.1", "fd00::1"], "prefix": 24}),
            "spec.addresses: Invalid value: \"10.0.0.1,fd00::1\": provided addresses are of mixed IP families",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "gateway": "invalid"}),
            "spec.gateway: Invalid value: \"invalid\": ParseAddr(\"invalid\"): unable to parse IP",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "gateway": "fd00::1"}),
            "spec.gateway: Invalid value: \"fd00::1\": provided gateway and addresses are of mixed IP families",
        ),
        (
            json!({"addresses": ["fd00::1"], "prefix": 64, "gateway": "10.0.0.1"}),
            "spec.gateway: Invalid value: \"10.0.0.1\": provided gateway and addresses are of mixed IP families",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "excludedAddresses": ["x"]}),
            "spec.excludedAddresses: Invalid value: \"x\": provided address is not a valid IP, range, nor CIDR",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "excludedAddresses": ["10.0.0.2", "fd00::1"]}),
            "spec.excludedAddresses: Invalid value: \"10.0.0.2,fd00::1\": provided addresses are of mixed IP families",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "excludedAddresses": ["fd00::1"]}),
            "spec.excludedAddresses: Invalid value: \"fd00::1\": addresses and excluded addresses are of mixed IP families",
        ),
        (
            json!({"addresses": ["10.0.0.1"], "prefix": 24, "addressReuseGracePeriodSeconds": -1}),
            "spec.addressReuseGracePeriodSeconds: Invalid value: -1: addressReuseGracePeriodSeconds must not be negative",
        ),
    ] {
        table.push((spec, vec![text.to_owned()]));
    }
    for (spec, expected) in table {
        let expected: Vec<_> = expected.iter().map(String::as_str).collect();
        for kind in IP_KINDS {
            let memory = Memory::default();
            contain(&broken(create(kind, &spec, &memory)), &expected);
            contain(&broken(update(kind, &spec, &spec, &memory)), &expected);
            assert_eq!(delete(kind, &pool(kind, &spec), &memory), Answer::admitted());
        }
    }
}

#[test]
fn all_broken_rules_are_told_together() {
    let spec = json!({
        "addresses": ["x", "10.0.0.1", "fd00::1"],
        "prefix": -1,
        "gateway": "y",
        "excludedAddresses": ["z"],
        "addressReuseGracePeriodSeconds": -2,
    });
    contain(
        &broken(create(PoolKind::InClusterIPPool, &spec, &Memory::default())),
        &["a valid prefix", "\"x\"", "mixed IP families", "\"y\"", "\"z\"", "must not be negative"],
    );
    // Length and subnet wait until the rest is right.
    let spec = json!({"addresses": ["10.0.0.1", "10.1.0.1"], "prefix": 33, "addressReuseGracePeriodSeconds": -2});
    contain(&broken(create(PoolKind::InClusterIPPool, &spec, &Memory::default())), &["must not be negative"]);
}

#[test]
fn an_ip_in_use_must_stay_allocatable() {
    // W2
    let memory = Memory::holding(&["10.0.0.10", "10.0.0.12", "10.0.0.11", "10.0.0.20", "10.0.0.20"]);
    let old = json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": "10.0.0.1"});
    for (new, lost) in [
        (json!({"addresses": ["10.0.0.13-10.0.0.19"], "prefix": 24}), "10.0.0.10-10.0.0.12 10.0.0.20-10.0.0.20"),
        (json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "excludedAddresses": ["10.0.0.11"]}), "10.0.0.11-10.0.0.11"),
        (json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24, "gateway": "10.0.0.20"}), "10.0.0.20-10.0.0.20"),
        (json!({"addresses": ["fd00::1-fd00::9"], "prefix": 64}), "10.0.0.10-10.0.0.12 10.0.0.20-10.0.0.20"),
    ] {
        for kind in IP_KINDS {
            let message = format!("pool addresses do not contain allocated addresses: [{lost}]");
            assert_eq!(denied(update(kind, &old, &new, &memory)), (400, message), "{new}");
        }
    }
    for kept in [
        json!({"addresses": ["10.0.0.10-10.0.0.12", "10.0.0.20"], "prefix": 24}),
        json!({"addresses": ["10.0.0.0/24"], "prefix": 24, "excludedAddresses": ["10.0.0.13"], "gateway": "10.0.0.2"}),
    ] {
        assert_eq!(update(IP_KINDS[0], &old, &kept, &memory).outcome, Outcome::Admitted);
    }
}

#[test]
fn reserved_addresses_in_use_keep_the_option_that_gave_them() {
    let memory = Memory::holding(&["10.0.0.0", "10.0.0.255"]);
    let old = json!({"addresses": ["10.0.0.0/24"], "prefix": 24, "allocateReservedIPAddresses": true});
    let new = json!({"addresses": ["10.0.0.0/24"], "prefix": 24});
    let (code, message) = denied(update(IP_KINDS[0], &old, &new, &memory));
    assert!(code == 400 && message.ends_with("[10.0.0.0-10.0.0.0 10.0.0.255-10.0.0.255]"), "{message}");
}

#[test]
fn what_was_out_of_range_before_does_not_matter() {
    // 17.16
    let memory = Memory::holding(&["10.0.0.10", "192.168.0.1"]);
    let old = json!({"addresses": ["10.0.0.10-10.0.0.20"], "prefix": 24});
    let new = json!({"addresses": ["10.0.0.10-10.0.0.15"], "prefix": 24});
    assert_eq!(update(IP_KINDS[0], &old, &new, &memory).outcome, Outcome::Admitted);
    // Under a spec that handed out nothing, nothing is lost.
    let broken = json!({"addresses": ["garbage"], "prefix": 24});
    let other = json!({"addresses": ["10.1.0.1"], "prefix": 24});
    assert_eq!(update(IP_KINDS[0], &broken, &other, &memory).outcome, Outcome::Admitted);
}

#[test]
fn many_lost_addresses_are_counted() {
    let texts: Vec<&'static str> = (0..60).map(|host| &*format!("10.0.0.{}", host * 2 + 1).leak()).collect();
    let old = json!({"addresses": ["10.0.0.0/24"], "prefix": 24});
    let new = json!({"addresses": ["10.0.0.200"], "prefix": 24});
    let (_, message) = denied(update(IP_KINDS[0], &old, &new, &Memory::holding(&texts)));
    assert!(message.contains("[10.0.0.1-10.0.0.1 10.0.0.3-10.0.0.3 ") && message.ends_with(" and 10 more]"), "{message}");
}

#[test]
fn an_update_that_keeps_the_spec_asks_nobody() {
    let memory = Memory { unsynced: true, ..Memory::default() };
    for (kind, spec) in [
        (IP_KINDS[0], json!({"addresses": ["10.0.0.10"], "prefix": 24})),
        (PREFIX_KINDS[0], json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": 64})),
    ] {
        assert_eq!(update(kind, &spec, &spec, &memory).outcome, Outcome::Admitted);
    }
    // Absent and default are the same spec.
    let (old, new) = (json!({"prefixes": ["fd00::/48"]}), json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": 64}));
    assert_eq!(update(PREFIX_KINDS[0], &old, &new, &memory).outcome, Outcome::Admitted);
    assert_eq!(*memory.asked.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn what_needs_the_index_fails_until_it_is_synced() {
    let memory = Memory { unsynced: true, ..Memory::default() };
    let (old, new) = (json!({"addresses": ["10.0.0.10"], "prefix": 24}), json!({"addresses": ["10.0.0.11"], "prefix": 24}));
    for kind in IP_KINDS {
        let not_yet = (500, "address index is not synced yet, retry".to_owned());
        assert_eq!(denied(update(kind, &old, &new, &memory)), not_yet);
        assert_eq!(denied(delete(kind, &pool(kind, &old), &memory)), not_yet);
        assert_eq!(create(kind, &new, &memory).outcome, Outcome::Admitted);
    }
    let names = ["InClusterIPPool team-a/blue", "GlobalInClusterIPPool blue"];
    assert_eq!(*memory.asked.lock().unwrap(), [[names[0]; 2], [names[1]; 2]].concat());
}

#[test]
fn a_pool_with_addresses_is_deleted_only_on_request() {
    // W1, W3, W9
    for kind in PoolKind::ALL {
        let free = Memory::default();
        let held = Memory { unparsable: 1, ..Memory::holding(&["10.0.0.10", "10.0.0.11"]) };
        let object = pool(kind, &json!({}));
        let (code, message) = denied(delete(kind, &object, &held));
        assert!(code == 400 && message.starts_with("Pool has IPAddresses allocated: 3 of them. Delete"), "{message}");
        assert_eq!(delete(kind, &object, &free), Answer::admitted());

        for annotation in [SKIP_VALIDATE_DELETE, DELETE_FOR_MOVE] {
            let mut marked = object.clone();
            marked["metadata"]["annotations"] = json!({ annotation: "" });
            assert_eq!(delete(kind, &marked, &held), Answer::admitted());
        }
        let mut deleting = object.clone();
        deleting["metadata"]["deletionTimestamp"] = json!("2026-01-31T10:00:00Z");
        assert_eq!(delete(kind, &deleting, &held), Answer::admitted());
    }
}

#[test]
fn a_deleting_pool_is_changed_without_any_check() {
    for kind in PoolKind::ALL {
        let mut object = pool(kind, &json!({"addresses": "nonsense", "prefixes": 7}));
        object["metadata"]["deletionTimestamp"] = json!("2026-01-31T10:00:00Z");
        let request = request(kind, Operation::Update, Some(&object), Some(&object));
        assert_eq!(validate(kind, &request, &Memory { unsynced: true, ..Memory::default() }), Answer::admitted());
        assert_eq!(default(kind, &request), Answer::admitted());
    }
}

type Twist = fn(&mut Request);

#[test]
fn a_request_about_something_else_is_refused() {
    let kind = PoolKind::InClusterIPPool;
    let object = pool(kind, &json!({"addresses": ["10.0.0.1"], "prefix": 24}));
    let twists: [Twist; 7] = [
        |request| request.kind.group = "other".to_owned(),
        |request| request.kind.version = "v1alpha1".to_owned(),
        |request| request.kind.kind = "InClusterPrefixPool".to_owned(),
        |request| request.object = None,
        |request| request.old_object = None,
        |request| request.object = Some(json!("text")),
        |request| request.object = Some(json!({"spec": {"addresses": 7}})),
    ];
    for twist in twists {
        let mut request = request(kind, Operation::Update, Some(&object), Some(&object));
        twist(&mut request);
        assert_eq!(denied(validate(kind, &request, &Memory::default())).0, 400, "{request:?}");
    }
}

#[test]
fn the_length_of_prefixes_gets_its_default() {
    for kind in PREFIX_KINDS {
        for (spec, missing) in [
            (json!({"prefixes": ["fd00::/48"]}), true),
            (json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": 0}), true),
            (json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": null}), true),
            (json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": 56}), false),
            (json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": "x"}), false),
            (json!("garbage"), false),
            (json!(null), false),
        ] {
            for operation in [Operation::Create, Operation::Update] {
                let answer = default(kind, &request(kind, operation, None, Some(&pool(kind, &spec))));
                let patch = json!([{"op": "add", "path": "/spec/allocationPrefixLength", "value": 64}]);
                let outcome = if missing { Outcome::Patched(patch) } else { Outcome::Admitted };
                assert_eq!(answer.outcome, outcome, "{spec}");
            }
        }
        assert_eq!(default(kind, &request(kind, Operation::Create, None, Some(&json!(7)))), Answer::admitted());
    }
    let ip = pool(IP_KINDS[0], &json!({}));
    assert_eq!(default(IP_KINDS[0], &request(IP_KINDS[0], Operation::Create, None, Some(&ip))), Answer::admitted());
}

#[test]
fn a_broken_prefix_pool_is_refused_and_can_be_deleted() {
    // W7 and the table of prefix pools.
    let cases: [(Value, &[&str]); 16] = [
        (json!({"prefixes": [], "gateway": "x"}), &["spec.prefixes: Invalid value: \"\": prefixes is required"]),
        (json!({}), &["prefixes is required"]),
        (
            json!({"prefixes": ["x"], "allocationPrefixLength": 129}),
            &["spec.allocationPrefixLength: Invalid value: 129: allocationPrefixLength must be between 1 and 128"],
        ),
        (json!({"prefixes": ["x"], "allocationPrefixLength": 0}), &["allocationPrefixLength must be between 1 and 128"]),
        (json!({"prefixes": ["x"], "allocationPrefixLength": -1}), &["allocationPrefixLength must be between 1 and 128"]),
        (
            json!({"prefixes": ["fd00::1"]}),
            &["spec.prefixes: Invalid value: \"fd00::1\": provided entry is not a valid IPv6 CIDR"],
        ),
        (json!({"prefixes": ["fd00::-fd00::9"]}), &["provided entry is not a valid IPv6 CIDR"]),
        (json!({"prefixes": ["10.0.0.0/24"]}), &["only IPv6 prefixes are supported"]),
        (json!({"prefixes": ["fd00::1/48"]}), &["CIDR must be network-aligned"]),
        (json!({"prefixes": ["fd00::/65"]}), &["CIDR prefix length must be <= allocationPrefixLength (64)"]),
        (json!({"prefixes": ["fd00::/48"], "gateway": "x"}), &["spec.gateway: Invalid value: \"x\": ParseAddr(\"x\"): "]),
        (json!({"prefixes": ["fd00::/48"], "gateway": "10.0.0.1"}), &["provided gateway must be IPv6"]),
        (
            json!({"prefixes": ["fd00::/48"], "excludedPrefixes": ["x"]}),
            &["spec.excludedPrefixes: Invalid value: \"x\": provided entry is not a valid IP, range, nor CIDR"],
        ),
        (json!({"prefixes": ["fd00::/48"], "excludedPrefixes": ["10.0.0.1"]}), &["only IPv6 excluded prefixes are supported"]),
        (
            json!({"prefixes": ["fd00::/48"], "excludedPrefixes": ["10.0.0.0-10.0.0.9"]}),
            &["only IPv6 excluded prefixes are supported"],
        ),
        (
            json!({"prefixes": ["fd00::1", "fd00::/65"], "gateway": "10.0.0.1", "excludedPrefixes": ["x"]}),
            &["not a valid IPv6 CIDR", "(64)", "gateway must be IPv6", "nor CIDR"],
        ),
    ];
    for (spec, expected) in cases {
        for kind in PREFIX_KINDS {
            let memory = Memory::default();
            contain(&broken(create(kind, &spec, &memory)), expected);
            contain(&broken(update(kind, &spec, &spec, &memory)), expected);
            assert_eq!(delete(kind, &pool(kind, &spec), &memory), Answer::admitted());
        }
    }
}

#[test]
fn a_correct_prefix_pool_is_admitted() {
    // W8
    let mut specs = vec![json!({"prefixes": ["fd00::/48", "fd10::/56"], "gateway": "fd00::1", "allocationPrefixLength": 64})];
    specs.extend([56, 64, 96, 128].map(|length| json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": length})));
    for spec in specs {
        for kind in PREFIX_KINDS {
            let memory = Memory::default();
            for answer in [create(kind, &spec, &memory), update(kind, &spec, &spec, &memory)] {
                assert_eq!(answer.outcome, Outcome::Admitted, "{spec}");
            }
        }
    }
}

#[test]
fn a_prefix_in_use_must_stay_allocatable() {
    // W10, W11
    let memory = Memory::prefixes(64, &["fd00:0:0:3::", "fd00::"]);
    let old = json!({"prefixes": ["fd00::/62"]});
    for (new, lost) in [
        (json!({"prefixes": ["fd10::/62"]}), "fd00:: fd00:0:0:3::"),
        (json!({"prefixes": ["fd00::/63"]}), "fd00:0:0:3::"),
        (json!({"prefixes": ["fd00::/62"], "excludedPrefixes": ["fd00::7"]}), "fd00::"),
    ] {
        for kind in PREFIX_KINDS {
            let message = format!("existing allocations become non-allocatable: [{lost}]");
            assert_eq!(denied(update(kind, &old, &new, &memory)), (400, message));
        }
    }
    for kept in [
        json!({"prefixes": ["fd00::/62", "fd10::/48"], "gateway": "fd00::1"}),
        json!({"prefixes": ["fd00::/62"], "excludedPrefixes": ["fd00:0:0:1::/64"]}),
    ] {
        assert_eq!(update(PREFIX_KINDS[0], &old, &kept, &memory).outcome, Outcome::Admitted);
    }
    // What has another length was never allocatable.
    let foreign = Memory::prefixes(56, &["fd00::"]);
    assert_eq!(update(PREFIX_KINDS[0], &old, &json!({"prefixes": ["fd10::/62"]}), &foreign).outcome, Outcome::Admitted);
}

#[test]
fn the_length_of_prefixes_cannot_change() {
    // W12
    for kind in PREFIX_KINDS {
        for (old, new) in [(json!(64), json!(72)), (json!(72), json!(64)), (json!(0), json!(72))] {
            let spec = |length| json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": length});
            let (code, message) = denied(update(kind, &spec(old), &spec(new), &Memory::default()));
            assert!(code == 400 && message.starts_with("spec.allocationPrefixLength is immutable"), "{message}");
        }
    }
}

#[test]
fn prefixes_of_length_128_are_warned_about() {
    // W13
    let spec =
        |length: u8, gateway: &str| json!({"prefixes": ["fd00::/48"], "allocationPrefixLength": length, "gateway": gateway});
    for kind in PREFIX_KINDS {
        for (spec, expected) in [
            (spec(128, ""), &["behaves like host-address allocation"][..]),
            (spec(128, "fd10::1"), &["behaves like host-address allocation"]),
            (spec(128, "fd00::1"), &["behaves like host-address allocation", "is not reserved"]),
            (spec(64, "fd10::1"), &[]),
            (spec(64, "fd00::1"), &[]),
        ] {
            let memory = Memory::default();
            contain(&warnings(create(kind, &spec, &memory)), expected);
            contain(&warnings(update(kind, &spec, &spec, &memory)), expected);
        }
    }
}

#[test]
fn a_pool_without_surprises_is_admitted_without_a_word() {
    for (kind, spec) in [
        (IP_KINDS[0], json!({"addresses": ["10.0.0.0/24"], "prefix": 24, "gateway": "10.0.0.1"})),
        (
            IP_KINDS[1],
            json!({"addresses": ["fd00::/120"], "prefix": 64, "gateway": "fd00::1%eth0", "excludedAddresses": ["fd00::1"]}),
        ),
        (PREFIX_KINDS[0], json!({"prefixes": ["fd00::/48"], "gateway": "fe80::1", "excludedPrefixes": ["fd00::1"]})),
    ] {
        assert_eq!(create(kind, &spec, &Memory::default()), Answer::admitted());
    }
}

#[test]
fn surprises_of_an_ip_pool_are_warned_about() {
    for (spec, expected) in [
        // 17.17
        (
            json!({"addresses": ["10.0.0.0/31"], "prefix": 31}),
            &["this pool has nothing to allocate: 10.0.0.0 is reserved as the network address, 10.0.0.1 is reserved as"][..],
        ),
        (json!({"addresses": ["10.0.0.0/31"], "prefix": 31, "allocateReservedIPAddresses": true}), &[]),
        (
            json!({"addresses": ["10.0.0.5"], "prefix": 24, "gateway": "10.0.1.1"}),
            &["spec.gateway: 10.0.1.1 is outside the pool's subnet 10.0.0.0/24"],
        ),
        (
            json!({"addresses": ["10.0.0.5"], "prefix": 24, "excludedAddresses": ["10.0.0.6", "10.0.0.7", "10.0.0.0/28", "10.0.1.1", "10.0.1.2"]}),
            &[
                "this pool has nothing to allocate: every address is excluded",
                "spec.excludedAddresses: \"10.0.0.6\", \"10.0.0.7\", \"10.0.1.1\" and 1 more excludes nothing",
            ],
        ),
        (
            json!({"addresses": ["fe80::1%eth0", "fe80::2"], "prefix": 64, "excludedAddresses": ["fe80::1%\u{7}"]}),
            &[
                "spec.addresses: the zone in \"fe80::1%eth0\" is ignored",
                "spec.excludedAddresses: the zone in \"fe80::1%\\u{7}\" is ignored",
            ],
        ),
    ] {
        contain(&warnings(create(IP_KINDS[0], &spec, &Memory::default())), expected);
        contain(&warnings(update(IP_KINDS[0], &spec, &spec, &Memory::default())), expected);
    }
}

#[test]
fn a_prefix_pool_with_everything_excluded_is_warned_about() {
    let spec = json!({"prefixes": ["fd00::/64"], "excludedPrefixes": ["fd00::1", "fd00:0:0:1::/64"]});
    contain(
        &warnings(create(PREFIX_KINDS[0], &spec, &Memory::default())),
        &[
            "nothing to allocate: every block of length 64",
            "\"fd00:0:0:1::/64\" excludes nothing, it touches no entry of spec.prefixes",
        ],
    );
}

#[test]
fn pools_that_share_addresses_are_named() {
    let spec = json!({"addresses": ["10.0.0.4-10.0.0.9"], "prefix": 24});
    let kind = IP_KINDS[0];
    let mut object = pool(kind, &spec);
    object["metadata"]["labels"] = json!({ "in-cluster.ipam.cluster.x-k8s.io/network-domain": "site" });
    let request = request(kind, Operation::Create, None, Some(&object));
    let ask = |partners| warnings(validate(kind, &request, &Memory { partners, ..Memory::default() }));
    contain(&ask(0), &[]);
    contain(&ask(1), &["this pool shares addresses with InClusterIPPool 1 of \"site\" at 10.0.0.4-10.0.0.9; each"]);
    contain(&ask(5), &["InClusterIPPool 3 of \"site\" at 10.0.0.4-10.0.0.9 and 2 more; each"]);
}

#[test]
fn existing_addresses_keep_gateway_and_prefix() {
    let old = json!({"addresses": ["10.0.0.4-10.0.0.9"], "prefix": 24, "gateway": "10.0.0.1"});
    let new = json!({"addresses": ["10.0.0.4-10.0.0.9"], "prefix": 25, "gateway": "10.0.0.2"});
    contain(
        &warnings(update(IP_KINDS[0], &old, &new, &Memory::holding(&["10.0.0.4"]))),
        &[
            "spec.gateway: addresses that exist (1) keep the old value \"10.0.0.1\"",
            "spec.prefix: addresses that exist (1) keep the old value \"24\"",
        ],
    );
    contain(&warnings(update(IP_KINDS[0], &old, &new, &Memory::default())), &[]);
    let grown = json!({"addresses": ["10.0.0.4-10.0.0.19"], "prefix": 24, "gateway": "10.0.0.1"});
    contain(&warnings(update(IP_KINDS[0], &old, &grown, &Memory::holding(&["10.0.0.4"]))), &[]);

    let (old, new) = (json!({"prefixes": ["fd00::/48"]}), json!({"prefixes": ["fd00::/48"], "gateway": "fd00::1"}));
    contain(
        &warnings(update(PREFIX_KINDS[0], &old, &new, &Memory::prefixes(64, &["fd00::"]))),
        &["spec.gateway: addresses that exist (1) keep the old value \"\""],
    );
}

#[test]
fn malformed_annotations_are_told_with_their_reasons() {
    let problems: Vec<_> = (1..=4).map(|number| format!("sticky: {number}\nis wrong")).collect();
    let kind = PREFIX_KINDS[1];
    let mut object = pool(kind, &json!({"prefixes": ["fd00::/48"]}));
    let ask = |object: &Value, problems: &[String]| {
        let memory = Memory { problems: problems.to_vec(), ..Memory::default() };
        warnings(validate(kind, &request(kind, Operation::Create, None, Some(object)), &memory))
    };
    contain(&ask(&object, &problems), &[]);
    object["metadata"]["annotations"] = json!({"in-cluster.ipam.cluster.x-k8s.io/sticky": "x"});
    contain(&ask(&object, &[]), &[]);
    contain(
        &ask(&object, &problems),
        &["metadata.annotations: ignored: sticky: 1 is wrong, sticky: 2 is wrong, sticky: 3 is wrong and 1 more"],
    );
}
