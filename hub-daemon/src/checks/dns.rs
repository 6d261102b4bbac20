//! Questions for names to one server, over UDP.
//!
//! An answer counts only with the question's random number, and with the name in the same random upper and lower
//! case (the 0x20 trick), so that nobody who cannot see the question can answer it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures::future::{join, select_ok};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use ring::rand::{SecureRandom as _, SystemRandom};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::Origin;

const PORT: u16 = 53;
/// How long one question waits for its answer, and how many are asked.
const WAIT: Duration = Duration::from_secs(1);
const TRIES: u32 = 3;
/// How long it takes to find that nobody answers, and a little more.
pub(super) const LONGEST: Duration = Duration::from_millis(3200);
/// Longest answer over UDP that anybody sends who was not told of more.
const ANSWER_BYTES: usize = 4096;

/// Asks for a name: any answer that says that it is there, or that it is not, passes. `.` asks for its servers.
pub(super) async fn check(server: IpAddr, name: &str, origin: &Origin) -> Result<String, String> {
    let kind = if name == "." { TYPE::NS } else { TYPE::A };
    let answer = question(server, name, kind, origin).await?;
    let code = word(answer.code);
    if matches!(answer.code, RCODE::NoError | RCODE::NameError) {
        Ok(format!("{server} answered {code}"))
    } else {
        Err(format!("{server} answers {code} for {name}"))
    }
}

/// Addresses of a name, as the first of these servers tells that has any: all are asked at once, so that a dead one
/// costs no time.
pub(super) async fn addresses(
    servers: &[IpAddr],
    name: &str,
    origin: &Origin,
) -> Result<Vec<IpAddr>, String> {
    if servers.is_empty() {
        return Err(format!("{name} has no address: there is no server to ask"));
    }
    let asked = servers.iter().map(|server| Box::pin(addresses_by(*server, name, origin)));
    let (found, _others) =
        select_ok(asked).await.map_err(|reason| format!("{name} has no address: {reason}"))?;
    Ok(found)
}

async fn addresses_by(server: IpAddr, name: &str, origin: &Origin) -> Result<Vec<IpAddr>, String> {
    let ask = |kind| question(server, name, kind, origin);
    let answers = join(ask(TYPE::A), ask(TYPE::AAAA)).await;
    let mut reason = format!("{server} knows none");
    let mut found = Vec::new();
    for answer in [answers.0, answers.1] {
        match answer {
            Ok(answer) => found.extend(answer.addresses),
            Err(error) => reason = error,
        }
    }
    if found.is_empty() { Err(reason) } else { Ok(found) }
}

/// What a server said.
struct Answer {
    code: RCODE,
    addresses: Vec<IpAddr>,
}

async fn question(server: IpAddr, name: &str, kind: TYPE, origin: &Origin) -> Result<Answer, String> {
    let ask = async {
        let random = random()?;
        let name = mixed(name, &random);
        let [id0, id1, ..] = random;
        let id = u16::from_be_bytes([id0, id1]);
        let bytes = encode(id, &name, kind)?;
        let socket = open(server)?;
        origin.place(&socket, server)?;
        socket.connect(origin.reached(SocketAddr::new(server, PORT))?).await?;
        let mut buffer = [0; ANSWER_BYTES];
        let mut refusal = None;
        for _ in 0..TRIES {
            socket.send(&bytes).await?;
            let answer = async {
                loop {
                    let length = socket.recv(&mut buffer).await?;
                    let answer = decode(buffer.get(..length).unwrap_or_default(), id, &name);
                    if let Some(answer) = answer {
                        return Ok::<_, io::Error>(answer);
                    }
                }
            };
            match timeout(WAIT, answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                // Nobody listens there yet, or any more: it may begin to.
                Ok(Err(error)) => {
                    refusal = Some(error);
                    tokio::time::sleep(WAIT / 4).await;
                }
                Err(_) => {}
            }
        }
        Err(refusal.unwrap_or_else(|| io::ErrorKind::TimedOut.into()))
    };
    ask.await.map_err(|error: io::Error| told(server, &error))
}

/// Why a server gave no answer.
fn told(server: IpAddr, error: &io::Error) -> String {
    let kind = error.kind();
    if kind == io::ErrorKind::TimedOut {
        format!("{server} does not answer DNS in {TRIES} tries of {WAIT:?}")
    } else if kind == io::ErrorKind::ConnectionRefused {
        format!("nobody answers DNS at {server}")
    } else if kind == io::ErrorKind::NetworkUnreachable {
        format!("there is no route to {server}")
    } else {
        format!("{server} cannot be asked: {error}")
    }
}

fn open(server: IpAddr) -> io::Result<UdpSocket> {
    let family = if server.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Datagram, flags, None)?;
    UdpSocket::from_std(std::net::UdpSocket::from(socket))
}

fn random() -> io::Result<[u8; 34]> {
    let mut bytes = [0; 34];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| io::Error::other("no random numbers"))?;
    Ok(bytes)
}

/// A name with letters in upper or lower case by the bits after the number.
fn mixed(name: &str, random: &[u8; 34]) -> String {
    let bits = random.iter().skip(2).flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
    let letters = name.trim_end_matches('.').chars().zip(bits.cycle());
    letters
        .map(|(letter, up)| if up { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() })
        .collect()
}

fn encode(id: u16, name: &str, kind: TYPE) -> io::Result<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).map_err(io::Error::other)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(io::Error::other)
}

/// An answer to the question; `None` where it is to another one, or none at all.
fn decode(bytes: &[u8], id: u16, name: &str) -> Option<Answer> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = packet.questions.first().map(|question| question.qname.to_string());
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || asked.as_deref() != Some(name) {
        return None;
    }
    let addresses = packet.answers.iter().filter_map(|record| {
        if let RData::A(found) = &record.rdata {
            Some(IpAddr::from(found.address.to_be_bytes()))
        } else if let RData::AAAA(found) = &record.rdata {
            Some(IpAddr::from(found.address.to_be_bytes()))
        } else {
            None
        }
    });
    Some(Answer { code: packet.rcode(), addresses: addresses.collect() })
}

fn word(code: RCODE) -> &'static str {
    match code {
        RCODE::NoError => "NOERROR",
        RCODE::FormatError => "FORMERR",
        RCODE::ServerFailure => "SERVFAIL",
        RCODE::NameError => "NXDOMAIN",
        RCODE::NotImplemented => "NOTIMP",
        RCODE::Refused => "REFUSED",
        RCODE::YXDOMAIN
        | RCODE::YXRRSET
        | RCODE::NXRRSET
        | RCODE::NOTAUTH
        | RCODE::NOTZONE
        | RCODE::BADVERS
        | RCODE::Reserved => "an error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u16, name: &str, code: RCODE) -> Vec<u8> {
        let question = encode(id, name, TYPE::A).unwrap();
        let mut packet = Packet::parse(&question).unwrap().into_reply();
        *packet.rcode_mut() = code;
        packet.build_bytes_vec().unwrap()
    }

    #[test]
    fn only_the_same_number_and_the_same_letters_answer() {
        let name = "hOsT.eXAMple";
        assert!(decode(&reply(7, name, RCODE::NoError), 7, name).is_some());
        assert!(decode(&reply(8, name, RCODE::NoError), 7, name).is_none(), "another number");
        assert!(decode(&reply(7, "host.example", RCODE::NoError), 7, name).is_none(), "other letters");
        assert!(decode(&encode(7, name, TYPE::A).unwrap(), 7, name).is_none(), "the question itself");
        let refused = decode(&reply(7, name, RCODE::Refused), 7, name).unwrap();
        assert_eq!(word(refused.code), "REFUSED");
        let whole = reply(7, name, RCODE::NoError);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length], 7, name).is_none());
        }
    }

    #[test]
    fn letters_follow_the_bits() {
        let mut random = [0; 34];
        random[2] = 0b101;
        assert_eq!(mixed("abc.", &random), "AbC");
        assert_eq!(mixed(".", &random), "");
    }

    #[test]
    fn the_root_can_be_asked_for() {
        let bytes = encode(7, "", TYPE::NS).unwrap();
        assert_eq!(&bytes[12..], [0, 0, 2, 0, 1]);
    }
}
