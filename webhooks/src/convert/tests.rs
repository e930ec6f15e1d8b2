use proptest::prelude::*;

use super::*;

const OLD: &str = "ipam.cluster.x-k8s.io/v1alpha1";
const NEW: &str = "ipam.cluster.x-k8s.io/v1alpha2";
const KINDS: [&str; 2] = ["InClusterIPPool", "GlobalInClusterIPPool"];

fn pool(version: &str, kind: &str, spec: &Value) -> Value {
    json!({ "apiVersion": version, "kind": kind, "metadata": {"name": "blue"}, "spec": spec })
}

#[track_caller]
fn up(object: Value) -> Value {
    convert(object, NEW).unwrap()
}

#[track_caller]
fn down(object: Value) -> Value {
    convert(object, OLD).unwrap()
}

fn data(object: &Value) -> Option<Value> {
    let text = object["metadata"]["annotations"].get(CONVERSION_DATA)?.as_str().unwrap();
    Some(serde_json::from_str(text).unwrap())
}

#[test]
fn a_subnet_becomes_a_range() {
    // V1 to V4
    for (old, new, filled) in [
        (
            json!({"subnet": "10.0.0.0/24", "start": "10.0.0.5", "end": "10.0.0.9", "prefix": 24, "gateway": "10.0.0.1"}),
            json!({"addresses": ["10.0.0.5-10.0.0.9"], "prefix": 24, "gateway": "10.0.0.1"}),
            json!({}),
        ),
        (
            json!({"addresses": ["10.0.0.5", "10.0.0.7/31"], "prefix": 24}),
            json!({"addresses": ["10.0.0.5", "10.0.0.7/31"], "prefix": 24}),
            json!({}),
        ),
        (
            json!({"subnet": "10.0.0.0/24", "start": "10.0.0.5", "end": "10.0.0.9"}),
            json!({"addresses": ["10.0.0.5-10.0.0.9"], "prefix": 24}),
            json!({"prefix": 24}),
        ),
        (
            json!({"subnet": "10.0.0.77/24", "prefix": 0}),
            json!({"addresses": ["10.0.0.1-10.0.0.254"], "prefix": 24}),
            json!({"start": "10.0.0.1", "end": "10.0.0.254", "prefix": 24}),
        ),
        (
            json!({"subnet": "FD00::/64", "addresses": ["fd01::1"], "prefix": 60}),
            json!({"addresses": ["fd01::1", "fd00::1-fd00::ffff:ffff:ffff:fffe"], "prefix": 60}),
            json!({"start": "fd00::1", "end": "fd00::ffff:ffff:ffff:fffe"}),
        ),
        (json!({"start": "10.0.0.5", "end": "10.0.0.9"}), json!({"addresses": ["10.0.0.5-10.0.0.9"], "prefix": 0}), json!({})),
        (json!({"start": "10.0.0.5"}), json!({"addresses": [], "prefix": 0}), json!({})),
        (json!({"addresses": null, "prefix": null}), json!({"addresses": [], "prefix": 0}), json!({})),
        (
            json!({"subnet": "10.0.0.0/31"}),
            json!({"addresses": ["10.0.0.1-10.0.0.0"], "prefix": 31}),
            json!({"start": "10.0.0.1", "end": "10.0.0.0", "prefix": 31}),
        ),
    ] {
        for kind in KINDS {
            let converted = up(pool(OLD, kind, &old));
            assert_eq!((&converted["apiVersion"], &converted["spec"]), (&json!(NEW), &new));
            let mut stored = old.clone();
            stored.as_object_mut().unwrap().extend(filled.as_object().unwrap().clone());
            assert_eq!(data(&converted), Some(json!({"apiVersion": OLD, "kind": kind, "spec": stored, "status": {}})));
            // V6
            assert_eq!(down(converted), pool(OLD, kind, &stored));
        }
    }
}

#[test]
fn what_v1alpha1_knows_stays_on_the_way_down() {
    // V5
    for kind in KINDS {
        let spec = json!({"addresses": ["10.0.0.5"], "prefix": 24, "gateway": "10.0.0.1"});
        assert_eq!(down(pool(NEW, kind, &spec)), pool(OLD, kind, &spec));
        let empty = json!({"addresses": [], "prefix": 0, "gateway": ""});
        assert_eq!(down(pool(NEW, kind, &empty)), pool(OLD, kind, &json!({"gateway": ""})));
    }
}

#[test]
fn a_subnet_that_does_not_convert_is_an_error() {
    for subnet in
        ["nonsense", "10.0.0.0", "10.0.0.0/33", "10.0.0.0/24/7", "10.0.0.5-10.0.0.9", "255.255.255.255/32", "0.0.0.0/32"]
    {
        let error = convert(pool(OLD, KINDS[0], &json!({"subnet": subnet})), NEW).unwrap_err().to_string();
        assert!(error.starts_with(&format!("spec.subnet: Invalid value: {subnet:?}: ")), "{error}");
    }
    for spec in [json!({"subnet": 7}), json!({"start": []}), json!({"end": {}}), json!({"addresses": "x"}), json!("text")] {
        let error = convert(pool(OLD, KINDS[0], &spec), NEW).unwrap_err().to_string();
        assert!(error.starts_with("spec") && error.contains(": Invalid value: "), "{error}");
    }
}

#[test]
fn unknown_groups_kinds_and_versions_are_named() {
    let object = |version: &str, kind: &str| pool(version, kind, &json!({}));
    for (object, desired, named) in [
        (json!(7), NEW, "not an object: 7"),
        (object("v1", KINDS[0]), NEW, "unknown group in \"v1\""),
        (object("other/v1alpha1", KINDS[0]), NEW, "unknown group in \"other/v1alpha1\""),
        (object(OLD, KINDS[0]), "", "unknown group in \"\""),
        (object(OLD, "Pod"), NEW, "unknown kind \"Pod\""),
        (object(OLD, KINDS[0]), "ipam.cluster.x-k8s.io/v2", "unknown version \"v2\" of InClusterIPPool"),
        (object("ipam.cluster.x-k8s.io/v2", KINDS[1]), NEW, "unknown version \"v2\" of GlobalInClusterIPPool"),
        (object(OLD, "InClusterPrefixPool"), NEW, "unknown version \"v1alpha1\" of InClusterPrefixPool"),
    ] {
        let error = convert(object, desired).unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn the_same_version_is_the_same_object() {
    for (version, kind) in [(OLD, KINDS[0]), (NEW, KINDS[1]), (NEW, "GlobalInClusterPrefixPool")] {
        let object = pool(version, kind, &json!({"subnet": "nonsense", "prefixes": 7}));
        assert_eq!(convert(object.clone(), version), Ok(object));
    }
}

#[test]
fn an_object_without_spec_gets_none() {
    for (from, to) in [(OLD, NEW), (NEW, OLD)] {
        for extra in [json!({}), json!({"spec": null}), json!({"status": {"conditions": []}})] {
            let object = |version: &str| {
                let mut object = json!({"apiVersion": version, "kind": KINDS[0], "metadata": {"annotations": {"a": "b"}}});
                object.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
                object
            };
            assert_eq!(convert(object(from), to), Ok(object(to)));
        }
    }
}

#[test]
fn everything_else_passes_as_it_is() {
    let mut object = pool(OLD, KINDS[0], &json!({"addresses": ["10.0.0.1"], "prefix": 24, "future": {"a": [1.5]}}));
    object["metadata"]["annotations"] = json!({"a": "b"});
    object["metadata"]["managedFields"] = json!([{"fieldsV1": {"f:spec": {}}}]);
    object["status"] = json!({"ipAddresses": {"total": 1}});
    object["more"] = json!(true);
    let mut converted = up(object.clone());
    assert_eq!(data(&converted).unwrap()["status"], object["status"]);
    converted["metadata"]["annotations"].as_object_mut().unwrap().remove(CONVERSION_DATA);
    converted["apiVersion"] = json!(OLD);
    assert_eq!(converted, object);
}

#[test]
fn our_own_status_is_absent_in_v1alpha1() {
    let mut object = pool(NEW, KINDS[0], &json!({"addresses": ["10.0.0.1"], "prefix": 24}));
    object["status"] = json!({"ipAddresses": {"total": 1}, "conditions": [], "observedGeneration": 3, "ipAddressesExact": {}});
    assert_eq!(down(object)["status"], json!({"ipAddresses": {"total": 1}}));
}

#[test]
fn an_edit_in_v1alpha2_shows_in_v1alpha1() {
    for kind in KINDS {
        for (field, value) in [("addresses", json!(["10.0.0.5"])), ("prefix", json!(25)), ("gateway", json!("10.0.0.2"))] {
            let mut object = up(pool(OLD, kind, &json!({"subnet": "10.0.0.0/24"})));
            object["spec"][field] = value.clone();
            let read = down(object.clone());
            assert_eq!((&read["spec"][field], read["spec"].get("subnet"), data(&read)), (&value, None, None));
            assert_eq!(up(read)["spec"], object["spec"]);
        }
    }
}

#[test]
fn what_v1alpha1_cannot_say_survives_an_edit_there() {
    // 17.15
    for kind in KINDS {
        let mut object = up(pool(OLD, kind, &json!({"subnet": "10.0.0.0/24"})));
        object["spec"]["excludedAddresses"] = json!(["10.0.0.9"]);
        object["spec"]["allocateReservedIPAddresses"] = json!(true);
        object["spec"]["addressReuseGracePeriodSeconds"] = json!(60);

        let mut read = down(object.clone());
        let filled = json!({"subnet": "10.0.0.0/24", "start": "10.0.0.1", "end": "10.0.0.254", "prefix": 24});
        assert_eq!(read["spec"], filled);
        assert_eq!(data(&read), Some(json!({"apiVersion": NEW, "kind": kind, "spec": object["spec"]})));

        read["spec"]["end"] = json!("10.0.0.99");
        let edited = up(read.clone());
        let mut expected = object["spec"].clone();
        expected["addresses"] = json!(["10.0.0.1-10.0.0.99"]);
        assert_eq!(edited["spec"], expected);
        // What is stored has the known format.
        assert_eq!(data(&edited), Some(json!({"apiVersion": OLD, "kind": kind, "spec": read["spec"], "status": {}})));
    }
}

#[test]
fn unreadable_data_does_not_stop_a_read() {
    let spec = json!({"addresses": ["10.0.0.1-10.0.0.254"], "prefix": 24});
    for text in [
        json!("{"),
        json!(""),
        json!("7"),
        json!("[]"),
        json!("{}"),
        json!(r#"{"apiVersion":7,"spec":{}}"#),
        json!(r#"{"spec":7}"#),
        json!(r#"{"apiVersion":"ipam.cluster.x-k8s.io/v1alpha1","spec":{"subnet":"nonsense"}}"#),
        json!(r#"{"apiVersion":"ipam.cluster.x-k8s.io/v1alpha1","spec":{"subnet":7}}"#),
        json!(r#"{"apiVersion":"ipam.cluster.x-k8s.io/v1alpha2","spec":{"subnet":"10.0.0.0/24"}}"#),
        json!("[".repeat(100_000)),
        json!(7),
    ] {
        let mut object = pool(NEW, KINDS[1], &spec);
        object["metadata"]["annotations"] = json!({ CONVERSION_DATA: text });
        assert_eq!(down(object), pool(OLD, KINDS[1], &spec), "{text}");
    }
    // The data of a converter that left the version out.
    let mut object = pool(NEW, KINDS[0], &spec);
    object["metadata"]["annotations"] = json!({ CONVERSION_DATA: r#"{"spec":{"subnet":"10.0.0.0/24"}}"# });
    assert_eq!(down(object)["spec"], json!({"subnet": "10.0.0.0/24"}));
}

/// Built without patterns: strings from regular expressions take most of a test's time.
fn address() -> impl Strategy<Value = String> {
    let letters = prop::collection::vec(prop::sample::select(b"af09./:%-".to_vec()), 0..8);
    prop_oneof![
        (0u8..9, 1u8..9).prop_map(|(third, last)| format!("10.0.{third}.{last}")),
        (0u8..9, 1u8..9).prop_map(|(third, last)| format!("10.0.{third}.1-10.0.9.{last}")),
        (0u8..9, 10u8..20).prop_map(|(second, length)| format!("10.{second}.0.0/{length}")),
        any::<u16>().prop_map(|last| format!("fd00::{last:x}")),
        letters.prop_map(|letters| letters.into_iter().map(char::from).collect()),
    ]
}

fn letters(most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(any::<char>(), 0..most).prop_map(String::from_iter)
}

/// An object of the fields that are there; each may be absent.
fn fields(fields: Vec<(&'static str, BoxedStrategy<Value>)>) -> impl Strategy<Value = Value> {
    let optional: Vec<_> =
        fields.into_iter().map(|(name, value)| prop::option::of(value.prop_map(move |value| (name.to_owned(), value)))).collect();
    optional.prop_map(|fields| Value::Object(fields.into_iter().flatten().collect()))
}

fn texts() -> BoxedStrategy<Value> {
    prop::collection::vec(address(), 0..4).prop_map(|texts| json!(texts)).boxed()
}

fn text() -> BoxedStrategy<Value> {
    prop_oneof![Just(String::new()), address()].prop_map(|text| json!(text)).boxed()
}

fn number(range: std::ops::RangeInclusive<i64>) -> BoxedStrategy<Value> {
    range.prop_map(|number| json!(number)).boxed()
}

/// One object of each kind.
fn objects(version: &'static str, spec: impl Strategy<Value = Value>) -> impl Strategy<Value = [Value; 2]> {
    let status = fields(vec![("ipAddresses", number(0..=9).prop_map(|total| json!({ "total": total })).boxed())]);
    let metadata = fields(vec![
        ("annotations", Just(json!({"a": "b"})).boxed()),
        ("labels", Just(json!({"c": "d"})).boxed()),
        ("name", Just(json!("blue")).boxed()),
    ]);
    (spec, prop::option::of(status), metadata).prop_map(move |(spec, status, metadata)| {
        KINDS.map(|kind| {
            let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec });
            if let Some(status) = &status {
                object["status"] = status.clone();
            }
            object
        })
    })
}

/// Objects as a v1alpha1 client writes them; the subnet is one.
fn older() -> impl Strategy<Value = [Value; 2]> {
    let subnet = prop_oneof![
        (0u8..=255, 1u8..=31).prop_map(|(byte, length)| format!("10.0.{byte}.0/{length}")),
        (0u16..=999, 1u8..=127).prop_map(|(group, length)| format!("fd00:{group}::/{length}")),
    ];
    objects(
        OLD,
        fields(vec![
            ("addresses", texts()),
            ("subnet", prop_oneof![Just(String::new()), subnet].prop_map(|text| json!(text)).boxed()),
            ("start", text()),
            ("end", text()),
            ("prefix", number(0..=128)),
            ("gateway", text()),
        ]),
    )
}

/// Objects as they are stored: what is required is there, and no option is spelled out that is off.
fn newer() -> impl Strategy<Value = [Value; 2]> {
    let options = fields(vec![
        ("gateway", text()),
        ("allocateReservedIPAddresses", Just(json!(true)).boxed()),
        ("excludedAddresses", prop::collection::vec(address(), 1..4).prop_map(|texts| json!(texts)).boxed()),
        ("addressReuseGracePeriodSeconds", number(1..=999)),
    ]);
    let spec = (options, texts(), 0..=128i64).prop_map(|(mut spec, addresses, prefix)| {
        spec["addresses"] = addresses;
        spec["prefix"] = json!(prefix);
        spec
    });
    objects(NEW, spec)
}

/// Without the annotation of ours.
fn bare(mut object: Value) -> Value {
    let mut metadata = object["metadata"].take();
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(CONVERSION_DATA);
        if annotations.is_empty() {
            metadata.as_object_mut().unwrap().remove("annotations");
        }
    }
    object["metadata"] = metadata;
    object
}

/// Any JSON, with the keys that conversion reads in most places.
fn garbage() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(|value| json!(value)),
        any::<i64>().prop_map(|value| json!(value)),
        any::<f64>().prop_map(|value| json!(value)),
        letters(8).prop_map(|value| json!(value)),
        address().prop_map(|value| json!(value)),
        prop::sample::select(&[OLD, NEW, KINDS[0], KINDS[1], "InClusterPrefixPool"][..]).prop_map(|value| json!(value)),
    ];
    let keys = [
        "apiVersion",
        "kind",
        "metadata",
        "annotations",
        CONVERSION_DATA,
        "spec",
        "status",
        "addresses",
        "subnet",
        "start",
        "end",
        "prefix",
        "gateway",
        "excludedAddresses",
        "conditions",
    ];
    leaf.prop_recursive(3, 16, 6, move |inner| {
        let key = prop::sample::select(keys.to_vec()).prop_map(ToOwned::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|list| json!(list)),
            prop::collection::btree_map(key, inner, 0..8).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    // Each case holds an object of either kind.
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn v1alpha2_comes_back_from_v1alpha1_as_it_was(objects in newer()) {
        for object in objects {
            prop_assert_eq!(bare(up(down(object.clone()))), object);
        }
    }

    #[test]
    fn v1alpha1_comes_back_from_v1alpha2_with_its_defaults(objects in older()) {
        for object in objects {
            let stored = up(object.clone());
            let mut expected = object;
            expected["spec"] = data(&stored).unwrap()["spec"].take();
            let back = down(stored.clone());
            prop_assert_eq!(&back, &expected);
            // From then on nothing changes.
            prop_assert_eq!(up(back), stored);
        }
    }

    #[test]
    fn an_unchanged_read_and_write_through_v1alpha1_changes_nothing(objects in older(), options in newer()) {
        for object in objects {
            let mut stored = up(object);
            for field in ["allocateReservedIPAddresses", "excludedAddresses", "addressReuseGracePeriodSeconds"] {
                if let Some(value) = options[0]["spec"].get(field) {
                    stored["spec"][field] = value.clone();
                }
            }
            prop_assert_eq!(up(down(stored.clone())), stored);
        }
    }

    #[test]
    fn a_garbage_subnet_is_an_error(subnet in prop_oneof![letters(20), address()]) {
        let fails = !subnet.is_empty() && poolutil::parse_network(&subnet).is_err();
        for kind in KINDS {
            let converted = convert(pool(OLD, kind, &json!({ "subnet": subnet })), NEW);
            let named = matches!(converted, Err(ConvertError::Field { field: "spec.subnet", .. }));
            prop_assert!(named || !fails, "{converted:?}");
        }
    }

    #[test]
    fn garbage_never_panics(spec in garbage(), metadata in garbage(), data in garbage()) {
        for kind in KINDS {
            for (from, to) in [(OLD, NEW), (NEW, OLD)] {
                let mut object = json!({ "apiVersion": from, "kind": kind, "metadata": metadata, "spec": spec, "status": data });
                if object["metadata"]["annotations"].is_object() {
                    object["metadata"]["annotations"][CONVERSION_DATA] = json!(data.to_string());
                }
                if let Ok(converted) = convert(object, to) {
                    prop_assert_eq!(&converted["apiVersion"], to);
                }
                let _ = convert(data.clone(), to);
            }
        }
    }
}
