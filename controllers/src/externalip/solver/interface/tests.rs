use std::{fs, process::Command, thread};

use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

/// Runs a test in a network namespace of its own, which goes away with the thread, whatever becomes of it.
fn in_a_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace, which needs root");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("this test needs `ip` of iproute2");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

async fn addresses(interfaces: &Interfaces, name: Option<&str>, family: Family) -> Vec<String> {
    let found = interfaces.addresses(name, family).await.unwrap();
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn only_steady_addresses_of_the_interface_and_family_are_found() {
    in_a_namespace(async || {
        ip("link add out0 type veth peer name out1");
        ip("link set out0 up");
        ip("link set out1 up");
        fs::write("/proc/sys/net/ipv6/conf/out0/use_tempaddr", "2").unwrap();
        for address in [
            "203.0.113.9/24 dev out0",
            "10.0.0.9/24 dev out0",
            "192.0.2.1 peer 192.0.2.2/32 dev out0",
            "2001:db8::9/64 dev out0 nodad",
            "fd00::9/64 dev out0 nodad",
            "2001:db8:d::1/64 dev out0 nodad preferred_lft 0",
            "2001:db8:f::1/64 dev out0 nodad mngtmpaddr",
            "203.0.113.10/24 dev out1",
        ] {
            ip(&format!("address add {address}"));
        }
        let interfaces = Interfaces::new();
        assert_eq!(addresses(&interfaces, Some("out0"), Family::V4).await, ["10.0.0.9", "192.0.2.1", "203.0.113.9"]);
        assert_eq!(addresses(&interfaces, Some("out0"), Family::V6).await, ["2001:db8::9", "2001:db8:f::1", "fd00::9"]);
        assert_eq!(addresses(&interfaces, None, Family::V4).await, ["10.0.0.9", "192.0.2.1", "203.0.113.9", "203.0.113.10"]);
        let missing = interfaces.addresses(Some("out2"), Family::V4).await.unwrap_err();
        assert_eq!(missing, failure(FailureKind::NoSuchInterface, "there is no interface out2"));
    });
}

#[test]
fn a_change_of_links_or_addresses_is_heard_of() {
    in_a_namespace(async || {
        let interfaces = Interfaces::new();
        let mut changes = interfaces.changes();
        // Once it listens.
        tokio::time::timeout(DEADLINE, changes.changed()).await.unwrap().unwrap();
        let missing = interfaces.addresses(Some("out0"), Family::V6).await.unwrap_err();
        assert_eq!(missing.kind, FailureKind::NoSuchInterface);
        ip("link add out0 type veth peer name out1");
        ip("link set out1 up");
        ip("link set out0 up");
        // Not yet ready: it has to be shown that nobody else has it.
        ip("address add 2001:db8::9/64 dev out0");
        let mut found = Vec::new();
        while found != ["2001:db8::9"] {
            tokio::time::timeout(DEADLINE, changes.changed()).await.unwrap().unwrap();
            found = addresses(&interfaces, Some("out0"), Family::V6).await;
        }
        ip("address del 2001:db8::9/64 dev out0");
        while !found.is_empty() {
            tokio::time::timeout(DEADLINE, changes.changed()).await.unwrap().unwrap();
            found = addresses(&interfaces, Some("out0"), Family::V6).await;
        }
    });
}

#[test]
fn an_address_that_may_not_stay_is_passed_over() {
    let message = |ip: &str, header: AddressHeaderFlags, all: AddressFlags| {
        let mut message = AddressMessage::default();
        message.header.flags = header;
        message.attributes = vec![AddressAttribute::Address(ip.parse().unwrap()), AddressAttribute::Flags(all)];
        usable(&message).map(|ip| ip.to_string())
    };
    let (none, all) = (AddressHeaderFlags::empty(), AddressFlags::empty());
    for (header, flags) in [
        (AddressHeaderFlags::Tentative, all),
        (AddressHeaderFlags::Dadfailed, all),
        (AddressHeaderFlags::Deprecated, all),
        (AddressHeaderFlags::Secondary, all),
        (none, AddressFlags::Tentative),
        (none, AddressFlags::Deprecated | AddressFlags::StablePrivacy),
    ] {
        assert_eq!(message("2001:db8::9", header, flags), None, "{header:?} {flags:?}");
    }
    let steady = AddressFlags::Permanent | AddressFlags::Managetempaddr | AddressFlags::StablePrivacy;
    assert_eq!(message("2001:db8::9", AddressHeaderFlags::Permanent, steady), Some("2001:db8::9".to_owned()));
    // For IPv4 the bit of "temporary" only says that the interface has several addresses in one network.
    assert_eq!(message("203.0.113.9", AddressHeaderFlags::Secondary, all), Some("203.0.113.9".to_owned()));
}
