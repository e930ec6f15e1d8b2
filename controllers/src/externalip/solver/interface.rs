//! `interface`: the addresses of the network namespace that the manager runs in, read from the kernel.
//!
//! Reading them needs no privilege. A second socket hears of every change, so that an answer can be asked for again at once.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use poolutil::{Class, Family, class};
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_route::{
        AddressFamily,
        address::{AddressAttribute, AddressFlags, AddressMessage},
        link::{LinkAttribute, LinkMessage},
    },
};
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use super::failure;
use crate::externalip::answers::{Failure, FailureKind};

/// After the kernel has hung up.
const LISTEN_AGAIN: Duration = Duration::from_secs(5);
/// IPv6's meaning of the bit that is "secondary" for IPv4.
const TEMPORARY: AddressFlags = AddressFlags::Secondary;

/// Ends a task when it goes out of scope.
#[derive(Debug)]
struct Task(AbortHandle);

impl<T> From<JoinHandle<T>> for Task {
    fn from(task: JoinHandle<T>) -> Self {
        Self(task.abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads addresses and hears of changes.
#[derive(Debug)]
pub(super) struct Interfaces {
    changes: watch::Receiver<()>,
    _listening: Task,
}

impl Interfaces {
    /// Begins to listen for changes. Must be called where tasks can be spawned.
    pub(super) fn new() -> Self {
        let (teller, changes) = watch::channel(());
        Self { changes, _listening: tokio::spawn(listen(teller)).into() }
    }

    /// Changes whenever a link or an address does.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// The addresses of a family that one interface has, or all have.
    pub(super) async fn addresses(&self, name: Option<&str>, family: Family) -> Result<BTreeSet<IpAddr>, Failure> {
        let (connection, handle, _unasked) = new_connection().map_err(|error| unreadable(&error))?;
        let _answering = Task::from(tokio::spawn(connection));
        let index = match name {
            Some(name) => Some(index_of(&handle, name).await?),
            None => None,
        };
        let mut request = handle.address().get();
        request.message_mut().header.family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        let messages: Vec<AddressMessage> = request.execute().try_collect().await.map_err(|error| unreadable(&error))?;
        let of_interface = |message: &&AddressMessage| index.is_none_or(|index| message.header.index == index);
        let found = messages.iter().filter(of_interface).filter_map(usable);
        // The kernel may be too old to send one family alone.
        Ok(found.filter(|ip| Family::of(*ip) == family).collect())
    }
}

/// The index of the interface of this name.
async fn index_of(handle: &Handle, name: &str) -> Result<u32, Failure> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(|error| unreadable(&error))?;
    let is_name = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(is) if is == name);
    let link = links.iter().find(|link| link.attributes.iter().any(is_name));
    let missing = || failure(FailureKind::NoSuchInterface, format!("there is no interface {name}"));
    link.map(|link| link.header.index).ok_or_else(missing)
}

/// The address in a message, unless it is about to go, not ready, a passing one, or of no use outside this machine or link.
fn usable(message: &AddressMessage) -> Option<IpAddr> {
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Flags(all) => flags |= *all,
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a link between two hosts `address` is the other end.
    let ip = local.or(address)?;
    let unsteady = match ip {
        IpAddr::V4(_) => AddressFlags::empty(),
        IpAddr::V6(_) => AddressFlags::Tentative | AddressFlags::Deprecated | AddressFlags::Dadfailed | TEMPORARY,
    };
    // Every interface has a link-local address. It would be the last one, and so the one that a merge takes.
    let is_reached_from_afar = class(ip) != Class::Never;
    (is_reached_from_afar && !flags.intersects(unsteady)).then_some(ip)
}

async fn listen(teller: watch::Sender<()>) {
    loop {
        match notifications() {
            Ok((_hearing, mut messages)) => {
                // What happened before anybody listened.
                teller.send_replace(());
                while messages.next().await.is_some() {
                    teller.send_replace(());
                }
            }
            Err(error) => tracing::warn!(%error, "changes of network interfaces are seen only by looking again"),
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
}

fn notifications() -> io::Result<(Task, impl Stream<Item = impl Sized>)> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, _handle, messages) = new_multicast_connection(&groups)?;
    Ok((tokio::spawn(connection).into(), messages))
}

fn unreadable(error: &(dyn std::error::Error + 'static)) -> Failure {
    tracing::debug!(error, "network interfaces cannot be read");
    failure(FailureKind::ConnectFailed, "the kernel does not tell its network interfaces")
}

#[cfg(test)]
mod tests;
