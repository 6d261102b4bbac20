//! Names for those who do not ask the API: a hosts file, and answers over DNS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::systems::persona::names::{self, DOMAIN, Name};
use crate::view::Snapshot;

/// Seconds that an answer may be kept: a persona may end at any time.
const TTL: u32 = 5;
/// Longest question; RFC 1035 section 2.3.4.
const QUESTION_BYTES: usize = 512;
/// An address that cannot be had is asked for again after this long.
const RETRY: Duration = Duration::from_secs(2);
/// Reason of the condition that lasts while nobody answers DNS.
const UNANSWERED: &str = "DnsUnanswered";

/// Keeps a hosts file equal to what there is.
pub async fn keep_hosts(path: PathBuf, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut written = None;
    loop {
        let text = names::hosts(&snapshots.borrow_and_update().clone());
        if written.as_ref() != Some(&text) {
            match replace(&path, &text).await {
                Ok(()) => written = Some(text),
                Err(error) => tracing::warn!(path = %path.display(), %error, "names cannot be written"),
            }
        }
        if snapshots.changed().await.is_err() {
            return;
        }
    }
}

async fn replace(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    tokio::fs::write(&fresh, text).await?;
    tokio::fs::rename(&fresh, path).await
}

/// Answers DNS questions for names below `hub`, and refuses all others. While the address cannot be had,
/// a condition says why: names are no reason to leave personas without their hub.
pub async fn answer_dns(
    address: SocketAddr,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    conditions: mpsc::Sender<(&'static str, Option<String>)>,
) {
    let socket = bound(address, &conditions).await;
    let mut bytes = [0; QUESTION_BYTES];
    loop {
        let (length, from) = match socket.recv_from(&mut bytes).await {
            Ok(received) => received,
            Err(error) => {
                // An ICMP error about an earlier answer.
                tracing::debug!(%error, "DNS socket");
                continue;
            }
        };
        let snapshot = Arc::clone(&snapshots.borrow());
        let question = bytes.get(..length).unwrap_or_default();
        if let Some(answer) = answer(question, from, &snapshot)
            && let Err(error) = socket.send_to(&answer, from).await
        {
            tracing::debug!(%error, %from, "DNS answer");
        }
    }
}

/// A socket with this address, however long it takes to get it.
async fn bound(address: SocketAddr, conditions: &mpsc::Sender<(&'static str, Option<String>)>) -> UdpSocket {
    let mut told = None;
    loop {
        let refused = match UdpSocket::bind(address).await {
            Ok(socket) => {
                tracing::info!(%address, "DNS is answered");
                if told.is_some() {
                    // A hub that ends needs no condition; so below.
                    drop(conditions.send((UNANSWERED, None)).await);
                }
                return socket;
            }
            Err(error) => format!("dns.listen {address}: {error}: {}", advice(&error)),
        };
        if told.as_ref() != Some(&refused) {
            tracing::error!("{refused}");
            drop(conditions.send((UNANSWERED, Some(refused.clone()))).await);
            told = Some(refused);
        }
        sleep(RETRY).await;
    }
}

/// What to do about an address that cannot be had.
fn advice(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "put dns.conf (/usr/share/doc/hub/examples) into /etc/systemd/system/hubd.service.d/, then \
             `systemctl daemon-reload` and `systemctl restart hubd`; or use a port from 1024 on"
        }
        Some(libc::EADDRINUSE) => {
            "another name server has it, see `ss -lunp`: end it (systemd-resolved: `DNSStubListener=no`), or \
             name one address of this host where it does not listen"
        }
        Some(libc::EADDRNOTAVAIL) => "no interface has this address: add it, or use another one",
        _ => "use an address and a port of this host that are free",
    }
}

/// The answer to a question; nothing where there is none to give.
pub fn answer(question: &[u8], from: SocketAddr, snapshot: &Snapshot) -> Option<Vec<u8>> {
    let asked = Packet::parse(question).ok()?;
    if asked.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let mut answer = Packet::new_reply(asked.id());
    let [wanted] = asked.questions.as_slice() else { return refuse(answer, RCODE::FormatError) };
    let name = wanted.qname.to_string();
    let below = name.to_ascii_lowercase();
    let known_class = matches!(wanted.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY);
    let ours = below.strip_suffix(DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    answer.questions.push(Question::new(wanted.qname.clone(), wanted.qtype, wanted.qclass, false));
    if !ours || !known_class {
        return refuse(answer, RCODE::Refused);
    }
    answer.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
    let Some(found) = names::resolve(snapshot, &name) else { return refuse(answer, RCODE::NameError) };
    for address in seen_from(&found, from.ip(), snapshot) {
        let data = match address {
            IpAddr::V4(address) if asks(wanted.qtype, TYPE::A) => RData::A(A::from(address)),
            IpAddr::V6(address) if asks(wanted.qtype, TYPE::AAAA) => RData::AAAA(AAAA::from(address)),
            IpAddr::V4(_) | IpAddr::V6(_) => continue,
        };
        answer.answers.push(ResourceRecord::new(wanted.qname.clone(), CLASS::IN, TTL, data));
    }
    answer.build_bytes_vec().ok()
}

fn asks(asked: QTYPE, kind: TYPE) -> bool {
    asked == QTYPE::ANY || asked == QTYPE::TYPE(kind)
}

fn refuse(mut answer: Packet<'_>, code: RCODE) -> Option<Vec<u8>> {
    *answer.rcode_mut() = code;
    answer.build_bytes_vec().ok()
}

/// The addresses that whoever asks has to dial: members of the same persona native ones, members of a persona
/// with the same range the alias.
fn seen_from(found: &Name, from: IpAddr, snapshot: &Snapshot) -> Vec<IpAddr> {
    let holds = |ranges: Vec<IpNet>| ranges.iter().any(|range| range.contains(&from.to_canonical()));
    let asker = snapshot.personas.values().find(|view| {
        let ranges = view.definition.ip_range.as_slice().iter().filter_map(|range| range.parse().ok());
        holds(ranges.map(|range| view.virtual_ranges.get(&range).copied().unwrap_or(range)).collect())
    });
    let Some(asker) = asker else { return found.addresses.clone() };
    if asker.definition.name == found.persona {
        return found.native.clone();
    }
    let twin = |address: &IpAddr| asker.virtual_ranges.keys().any(|native| native.contains(address));
    if found.addresses.iter().any(twin) { found.aliases.clone() } else { found.addresses.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_others_and_broken_ones_are_refused() {
        let snapshot = Snapshot::default();
        let from = SocketAddr::from(([192, 0, 2, 1], 53));
        let asked = |name: &'static str| {
            let mut packet = Packet::new_query(7);
            let name = simple_dns::Name::new(name).unwrap();
            let question = Question::new(name, TYPE::A.into(), CLASS::IN.into(), false);
            packet.questions.push(question);
            packet.build_bytes_vec().unwrap()
        };
        let code = |question: &[u8]| {
            let bytes = answer(question, from, &snapshot)?;
            let answer = Packet::parse(&bytes).unwrap();
            assert!(answer.id() == 7 && answer.has_flags(PacketFlag::RESPONSE));
            Some(answer.rcode())
        };
        assert_eq!(code(&asked("one.web.hub")), Some(RCODE::NameError));
        assert_eq!(code(&asked("example.org")), Some(RCODE::Refused));
        assert_eq!(code(&asked("github")), Some(RCODE::Refused), "not below `hub`");
        assert_eq!(code(&Packet::new_query(7).build_bytes_vec().unwrap()), Some(RCODE::FormatError));
        assert_eq!(code(&[1, 2, 3]), None);
        let reply = answer(&asked("one.web.hub"), from, &snapshot).unwrap();
        assert_eq!(code(&reply), None, "answers are not answered: no loop");
    }
}
