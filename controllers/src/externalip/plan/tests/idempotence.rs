//! Over random facts: what is planned settles, a settled state plans nothing, and nothing foreign is lost.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const CLAIMS: [&str; 2] = ["web-ext4-6aa21bf7", "web-ext6-6aa21bf7"];

fn solver() -> impl Strategy<Value = String> {
    select(vec![
        "{static: {addresses: [203.0.113.7, 203.0.113.8, '2001:db8::7']}}",
        "{static: {addresses: [10.0.0.1]}}",
        "{dnsHostname: {host: gw.example.net}}",
        "{dnsHostname: {host: spare.example.net}}",
        "{loadBalancerIngress: {}}",
        "{ipPool: {poolRef: {kind: GlobalInClusterIPPool, name: public-v4}}}",
        "{merge: {partialSolvers: [{mask: 255.255.255.255, solver: {dnsHostname: {host: gw.example.net}}}]}}",
        "{merge: {partialSolvers: [{mask: 255.255.255.255, solver: {loadBalancerIngress: {}}}]}}",
    ])
    .prop_map(str::to_owned)
}

fn source() -> impl Strategy<Value = String> {
    let list = || (vec(solver(), 1..4), select(vec!["firstFound", "all"]));
    let outputs = vec(select(vec!["ExternalIPs", "LoadBalancerStatus", "ExternalDNSTarget"]), 1..4);
    let more = select(vec![
        "onNoAddress: Remove, maxStaleness: 1m",
        "release: Retain",
        "portConflict: Refuse",
        "familyPolicy: MatchService, maxStaleness: 0s",
        "addressPolicy: {deny: [203.0.113.8/32]}",
    ]);
    (list(), option::of(list()), option::of(outputs), more).prop_map(|(v4, v6, outputs, more)| {
        let list = |(solvers, mode): (Vec<String>, &str)| format!("{{queryMode: {mode}, solvers: [{}]}}", solvers.join(", "));
        // A mask is of one family only.
        let v6 = v6.map(|(solvers, mode)| {
            let plain: Vec<String> = solvers.into_iter().filter(|solver| !solver.starts_with("{merge")).collect();
            format!(", ipv6: {}", list((plain, mode)))
        });
        let outputs = outputs.map(|mut outputs| {
            outputs.sort_unstable();
            outputs.dedup();
            format!(", outputs: [{}]", outputs.join(", "))
        });
        format!("{{ipv4: {}{}{}, {more}}}", list(v4), v6.unwrap_or_default(), outputs.unwrap_or_default())
    })
}

fn entry() -> impl Strategy<Value = String> {
    let known = ["203.0.113.7", "203.0.113.9", "198.51.100.7", "010.0.0.1", "2001:DB8::7", "2001:db8::7", "", "no address"];
    prop_oneof![select(known.to_vec()).prop_map(str::to_owned), "[ -~]{0,12}", "\\PC{0,6}"]
}

fn says() -> impl Strategy<Value = Says> {
    let ip = select(vec!["203.0.113.7", "198.51.100.7", "10.0.0.1", "127.0.0.1", "2001:db8::7", "fd00::1"]).prop_map(ip);
    prop_oneof![vec(ip, 1..3).prop_map(Says::Addresses), Just(Says::Nothing), Just(Says::Fails), Just(Says::Silence)]
}

/// Something that happens between two plans.
#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Answer(&'static str, Vec<&'static str>),
    Fail(&'static str),
    Ingress(Vec<&'static str>),
    Bind,
    DeleteClaims,
    ForgetRecord,
    SpoilRecord,
    Leave,
    Return,
    LoseSource,
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let ips = || vec(select(vec!["203.0.113.7", "203.0.113.9", "2001:db8::9"]), 0..3);
    let host = || select(vec!["gw.example.net", "spare.example.net"]);
    prop_oneof![
        (1..100_u64).prop_map(Event::Wait),
        (host(), ips()).prop_map(|(host, ips)| Event::Answer(host, ips)),
        host().prop_map(Event::Fail),
        ips().prop_map(Event::Ingress),
        Just(Event::Bind),
        Just(Event::DeleteClaims),
        Just(Event::ForgetRecord),
        Just(Event::SpoilRecord),
        Just(Event::Leave),
        Just(Event::Return),
        Just(Event::LoseSource),
        Just(Event::Restart),
    ]
}

fn happen(scene: &mut Scene, event: Event) {
    match event {
        Event::Wait(seconds) => {
            let duration = Duration::from_secs(seconds);
            scene.now = Now { wall: scene.now.wall + duration, instant: scene.now.instant + duration };
        }
        Event::Answer(host, ips) => {
            scene.world.insert(host.to_owned(), addresses(&ips));
        }
        Event::Fail(host) => {
            scene.world.insert(host.to_owned(), Says::Fails);
        }
        Event::Ingress(ips) => scene.edit(|service| {
            service.ingress = ips.iter().map(|text| Ingress { ip: Some(ip(text)), mode: Some("VIP".to_owned()) }).collect();
        }),
        Event::Bind => {
            for (claim, address) in CLAIMS.iter().zip(["203.0.113.9", "2001:db8::9"]) {
                if scene.claims.iter().any(|known| known.name == *claim && !known.deleting) {
                    scene.bind(claim, address);
                }
            }
        }
        Event::DeleteClaims => {
            for claim in CLAIMS {
                if scene.claims.iter().any(|known| known.name == claim) {
                    scene.delete_claim(claim);
                }
            }
        }
        Event::ForgetRecord => scene.edit(|service| service.record = None),
        Event::SpoilRecord => scene.edit(|service| service.record = service.record.take().map(|text| format!("{text}?"))),
        Event::Leave => scene.edit(|service| service.source = None),
        Event::Return => scene.edit(|service| service.source = Some("public".to_owned())),
        Event::LoseSource => {
            scene.source = None;
            scene.answers.forget("public");
            scene.memory.source_missing = Some(scene.now.instant);
        }
        Event::Restart => scene.restart(),
    }
}

/// The entries of the list but for those that a claim may be bound to: these are ours whoever wrote them.
fn unclaimed(list: &[String]) -> Vec<&str> {
    let claimed = ["203.0.113.9", "2001:db8::9"].map(ip);
    list.iter().map(String::as_str).filter(|text| text.parse().map_or(true, |ip| !claimed.contains(&ip))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_it_settles_and_foreign_entries_stay(
        source in source(),
        entries in vec(entry(), 0..5),
        class in any::<bool>(),
        answers in vec(says(), 2),
        events in vec(event(), 0..8),
    ) {
        let class = if class { "{spec: {type: LoadBalancer, loadBalancerClass: externalip.spacebird.dev/external-ip}}" } else { "{}" };
        let mut scene = Scene::new(&source, class).pool("public-v4", Family::V4);
        for (host, says) in ["gw.example.net", "spare.example.net"].into_iter().zip(answers) {
            scene.world.insert(host.to_owned(), says);
        }
        scene.edit(|service| service.external_ips.clone_from(&entries));
        // Each call panics unless it settles, and unless no address is freed while it is published.
        scene.settle();
        for event in events {
            happen(&mut scene, event);
            scene.settle();
        }
        let (before, after) = (unclaimed(&entries), unclaimed(&scene.web().external_ips));
        prop_assert!(after.starts_with(&before), "{before:?} are not first in {after:?}");
    }
}
