//! A DNS server on loopback: a test changes its records while it runs, lets it fail in many ways, and asks what it was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{CNAME, SOA};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use crate::background::Background;
use crate::control_plane::lock;

/// How long a resolver may keep the answer that there is no such name or record, unless a test says otherwise.
const NEGATIVE_TTL: u32 = 1;
/// Connections over TCP are closed when nothing was asked for that long.
const IDLE: Duration = Duration::from_secs(30);

/// What a name answers instead of its records.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// `SERVFAIL`.
    ServerFailure,
    /// `REFUSED`.
    Refused,
    /// `NXDOMAIN`.
    NoSuchName,
    /// The name exists and has no record of any kind.
    NoRecords,
    /// Nothing at all.
    Silence,
    /// The records, but only after this time.
    Delay(Duration),
    /// The records over TCP; over UDP only that the answer was cut off.
    Truncation,
}

/// A name server for any name. Dropping it ends it.
///
/// Names are given without trailing dot and in lower case. A name nobody has set is answered with `NXDOMAIN`.
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let dns = testbed::DnsServer::start()?;
/// dns.set("gw.example.net", 5, &["198.51.100.7"])?;
/// println!("--external-ip-dns-server={}", dns.address());
/// assert_eq!(dns.queries("gw.example.net", "A"), 0);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct DnsServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    listening: Mutex<Option<Background>>,
}

#[derive(Debug, Default)]
struct Zone {
    negative_ttl: Option<u32>,
    names: BTreeMap<String, Entry>,
    /// Queries by name and record type.
    asked: BTreeMap<(String, String), usize>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    ttl: u32,
    addresses: Vec<IpAddr>,
    alias: Option<String>,
    fault: Option<Fault>,
}

impl DnsServer {
    /// Starts to listen, for UDP and TCP, on a free port of 127.0.0.1.
    pub fn start() -> Result<Self> {
        let zone = Arc::new(Mutex::new(Zone::default()));
        let (address, listening) = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &zone)?;
        Ok(Self { address, zone, listening: Mutex::new(Some(listening)) })
    }

    /// Where it listens; the same for its whole life.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives a name these addresses, of either family, and takes all from it that it had before, faults too.
    pub fn set(&self, name: &str, ttl: u32, addresses: &[&str]) -> Result<()> {
        let parse = |text: &&str| text.parse().with_context(|| format!("{text:?} is no address"));
        let addresses = addresses.iter().map(parse).collect::<Result<_>>()?;
        lock(&self.zone).names.insert(name.to_owned(), Entry { ttl, addresses, ..Entry::default() });
        Ok(())
    }

    /// Makes a name an alias (CNAME) of another one.
    pub fn set_alias(&self, name: &str, ttl: u32, target: &str) {
        let entry = Entry { ttl, alias: Some(target.to_owned()), ..Entry::default() };
        lock(&self.zone).names.insert(name.to_owned(), entry);
    }

    /// Makes a name fail from now on, or answer with its records again.
    pub fn fail(&self, name: &str, fault: Option<Fault>) {
        lock(&self.zone).names.entry(name.to_owned()).or_default().fault = fault;
    }

    /// How many seconds a resolver may keep the answer that there is no such name or record.
    pub fn set_negative_ttl(&self, ttl: u32) {
        lock(&self.zone).negative_ttl = Some(ttl);
    }

    /// How often a name was asked for records of a type (`"A"`, `"AAAA"`), over UDP and TCP.
    pub fn queries(&self, name: &str, record_type: &str) -> usize {
        lock(&self.zone).asked.get(&(name.to_owned(), record_type.to_owned())).copied().unwrap_or_default()
    }

    /// Every name that was ever asked for.
    pub fn names_asked(&self) -> BTreeSet<String> {
        lock(&self.zone).asked.keys().map(|(name, _)| name.clone()).collect()
    }

    /// Closes the server's sockets: a query meets a closed port.
    pub fn stop(&self) {
        lock(&self.listening).take();
    }

    /// Listens again, where it did before.
    pub fn resume(&self) -> Result<()> {
        let mut listening = lock(&self.listening);
        if listening.is_none() {
            *listening = Some(listen(self.address, &self.zone)?.1);
        }
        Ok(())
    }
}

/// Opens both sockets on one port and serves them. A free UDP port need not be a free TCP port, so several are tried.
fn listen(address: SocketAddr, zone: &Arc<Mutex<Zone>>) -> Result<(SocketAddr, Background)> {
    let bind = || -> Result<_> {
        let udp = std::net::UdpSocket::bind(address)?;
        let address = udp.local_addr()?;
        let tcp = std::net::TcpListener::bind(address)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((address, udp, tcp))
    };
    let bound = (0..10).find_map(|_| bind().ok());
    let (address, udp, tcp) = bound.map_or_else(bind, Ok).with_context(|| format!("listen for DNS on {address}"))?;
    let answers = Answers(Arc::clone(zone));
    let serving = Background::start("dns", move || async move {
        let mut server = Server::new(answers);
        server.register_socket(UdpSocket::from_std(udp)?);
        server.register_listener(TcpListener::from_std(tcp)?, IDLE, 16);
        Ok(server.block_until_done().await?)
    })?;
    Ok((address, serving))
}

/// Answers out of the zone.
struct Answers(Arc<Mutex<Zone>>);

/// One answer.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    answers: Vec<Record>,
    authority: Option<Record>,
}

impl Zone {
    /// The entry of a name; counts the question.
    fn ask(&mut self, name: &str, record_type: RecordType) -> Option<Entry> {
        *self.asked.entry((name.to_owned(), record_type.to_string())).or_default() += 1;
        self.names.get(name).cloned()
    }

    fn reply(&self, asked: &Name, entry: Option<Entry>, record_type: RecordType) -> Result<Reply> {
        let negative_ttl = self.negative_ttl.unwrap_or(NEGATIVE_TTL);
        let soa = SOA::new(asked.clone(), Name::root(), 1, 60, 60, 60, negative_ttl);
        let negative = Some(Record::from_rdata(asked.clone(), negative_ttl, RData::SOA(soa)));
        let coded = |code| Ok(Reply { code, ..Reply::default() });
        let Some(entry) = entry else {
            return Ok(Reply { code: ResponseCode::NXDomain, answers: Vec::new(), authority: negative });
        };
        match entry.fault {
            Some(Fault::ServerFailure) => return coded(ResponseCode::ServFail),
            Some(Fault::Refused) => return coded(ResponseCode::Refused),
            Some(Fault::NoSuchName) => {
                return Ok(Reply { code: ResponseCode::NXDomain, answers: Vec::new(), authority: negative });
            }
            Some(Fault::NoRecords) => return Ok(Reply { authority: negative, ..Reply::default() }),
            Some(Fault::Silence | Fault::Delay(_) | Fault::Truncation) | None => {}
        }
        let mut answers = Vec::new();
        let (mut owner, mut entry) = (asked.clone(), entry);
        // An alias of an alias of … itself is nobody's test.
        while let Some(target) = entry.alias.take() {
            let target_name = absolute(&target)?;
            answers.push(Record::from_rdata(owner, entry.ttl, RData::CNAME(CNAME(target_name.clone()))));
            owner = target_name;
            entry = self.names.get(&target).cloned().unwrap_or_default();
        }
        let wanted = entry.addresses.iter().filter_map(|address| match (address, record_type) {
            (IpAddr::V4(address), RecordType::A) => Some(RData::A((*address).into())),
            (IpAddr::V6(address), RecordType::AAAA) => Some(RData::AAAA((*address).into())),
            _ => None,
        });
        let aliases = answers.len();
        answers.extend(wanted.map(|data| Record::from_rdata(owner.clone(), entry.ttl, data)));
        let authority = if answers.len() == aliases { negative } else { None };
        Ok(Reply { code: ResponseCode::NoError, answers, authority })
    }
}

fn absolute(name: &str) -> Result<Name> {
    Ok(Name::from_ascii(format!("{name}."))?)
}

#[async_trait]
impl RequestHandler for Answers {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.recursion_available = true;
        let nothing_sent = ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() });
        let Ok(info) = request.request_info() else { return nothing_sent };
        let record_type = info.query.query_type();
        let asked = Name::from(info.query.name());
        let name = asked.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let (fault, reply) = {
            let mut zone = lock(&self.0);
            let entry = zone.ask(&name, record_type);
            let fault = entry.as_ref().and_then(|entry| entry.fault);
            let broken = Reply { code: ResponseCode::ServFail, ..Reply::default() };
            (fault, zone.reply(&asked, entry, record_type).unwrap_or(broken))
        };
        let mut reply = reply;
        match fault {
            Some(Fault::Silence) => return nothing_sent,
            Some(Fault::Delay(time)) => tokio::time::sleep(time).await,
            Some(Fault::Truncation) if info.protocol == Protocol::Udp => {
                metadata.truncation = true;
                reply.answers.clear();
            }
            _ => {}
        }
        metadata.response_code = reply.code;
        let message = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            reply.answers.iter(),
            [],
            reply.authority.iter(),
            [],
        );
        // A client that has gone is no fault of the server.
        response.send_response(message).await.unwrap_or(nothing_sent)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use hickory_server::proto::op::{Message, Query};

    use super::*;

    /// Response code, truncation, and what the answer section holds.
    type Seen = (ResponseCode, bool, Vec<String>);

    fn question(name: &str, record_type: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.add_query(Query::query(absolute(name).unwrap(), record_type));
        message.to_vec().unwrap()
    }

    fn seen(bytes: &[u8]) -> Seen {
        let message = Message::from_vec(bytes).unwrap();
        let answers = message.answers.iter().map(|record| format!("{} {} {}", record.name, record.ttl, record.data));
        (message.metadata.response_code, message.metadata.truncation, answers.collect())
    }

    /// An answer over UDP within `deadline`.
    fn udp_within(dns: &DnsServer, name: &str, record_type: RecordType, deadline: Duration) -> std::io::Result<Seen> {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(dns.address())?;
        socket.set_read_timeout(Some(deadline))?;
        socket.send(&question(name, record_type))?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        Ok(seen(&buffer[..length]))
    }

    fn udp(dns: &DnsServer, name: &str, record_type: RecordType) -> Seen {
        udp_within(dns, name, record_type, Duration::from_secs(30)).unwrap()
    }

    fn tcp(dns: &DnsServer, name: &str, record_type: RecordType) -> Seen {
        let mut stream = TcpStream::connect(dns.address()).unwrap();
        let question = question(name, record_type);
        stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&question).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        seen(&answer)
    }

    fn found(answers: &[&str]) -> Seen {
        (ResponseCode::NoError, false, answers.iter().map(|answer| (*answer).to_owned()).collect())
    }

    #[test]
    fn a_name_answers_with_its_records_of_the_family_asked_for_and_counts_the_questions() {
        let dns = DnsServer::start().unwrap();
        dns.set("gw.example.net", 7, &["198.51.100.7", "2001:db8::7"]).unwrap();
        dns.set_alias("www.example.net", 9, "gw.example.net");
        assert_eq!(udp(&dns, "gw.example.net", RecordType::A), found(&["gw.example.net. 7 198.51.100.7"]));
        assert_eq!(tcp(&dns, "GW.example.net", RecordType::AAAA), found(&["gw.example.net. 7 2001:db8::7"]));
        assert_eq!(
            udp(&dns, "www.example.net", RecordType::A),
            found(&["www.example.net. 9 gw.example.net.", "gw.example.net. 7 198.51.100.7"])
        );
        dns.set("gw.example.net", 7, &["198.51.100.8"]).unwrap();
        assert_eq!(udp(&dns, "gw.example.net", RecordType::A), found(&["gw.example.net. 7 198.51.100.8"]));
        assert_eq!(udp(&dns, "gw.example.net", RecordType::AAAA), found(&[]));
        let counts = [("gw.example.net", "A"), ("gw.example.net", "AAAA"), ("www.example.net", "A"), ("www.example.net", "AAAA")];
        assert_eq!(counts.map(|(name, record_type)| dns.queries(name, record_type)), [2, 2, 1, 0]);
        assert_eq!(dns.names_asked().into_iter().collect::<Vec<_>>(), ["gw.example.net", "www.example.net"]);
    }

    #[test]
    fn a_name_fails_as_it_is_told_and_recovers() {
        let dns = DnsServer::start().unwrap();
        let name = "gw.example.net";
        assert_eq!(udp(&dns, name, RecordType::A), (ResponseCode::NXDomain, false, vec![]));
        dns.set(name, 7, &["198.51.100.7"]).unwrap();
        let faults = [
            (Fault::ServerFailure, (ResponseCode::ServFail, false, vec![])),
            (Fault::Refused, (ResponseCode::Refused, false, vec![])),
            (Fault::NoSuchName, (ResponseCode::NXDomain, false, vec![])),
            (Fault::NoRecords, found(&[])),
            (Fault::Truncation, (ResponseCode::NoError, true, vec![])),
        ];
        for (fault, expected) in faults {
            dns.fail(name, Some(fault));
            assert_eq!(udp(&dns, name, RecordType::A), expected, "{fault:?}");
        }
        let good = found(&["gw.example.net. 7 198.51.100.7"]);
        assert_eq!(tcp(&dns, name, RecordType::A), good);
        dns.fail(name, Some(Fault::Silence));
        assert!(udp_within(&dns, name, RecordType::A, Duration::from_millis(200)).is_err());
        dns.fail(name, Some(Fault::Delay(Duration::from_millis(300))));
        assert!(udp_within(&dns, name, RecordType::A, Duration::from_millis(50)).is_err());
        assert_eq!(udp(&dns, name, RecordType::A), good);
        dns.fail(name, None);
        assert_eq!(udp(&dns, name, RecordType::A), good);
    }

    #[test]
    fn a_stopped_server_refuses_and_comes_back_where_it_was() {
        let dns = DnsServer::start().unwrap();
        dns.set("gw.example.net", 7, &["198.51.100.7"]).unwrap();
        dns.stop();
        assert!(TcpStream::connect(dns.address()).is_err());
        assert!(udp_within(&dns, "gw.example.net", RecordType::A, Duration::from_secs(5)).is_err());
        dns.resume().unwrap();
        assert_eq!(udp(&dns, "gw.example.net", RecordType::A), found(&["gw.example.net. 7 198.51.100.7"]));
    }
}
