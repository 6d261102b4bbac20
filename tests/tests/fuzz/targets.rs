//! What takes the bytes; each says whether they were good.

use std::path::Path;

use hub_common::event::Reason;
use hub_common::packet::{PACKET_ARP, PACKET_ASKS, PACKET_OTHER, PACKET_VLAN, Packet};
use hub_common::parse::whole;
use hub_daemon::command::Command;
use hub_daemon::document::{hub, read, source, text};
use hub_daemon::hub::Hub;
use hub_daemon::hub::state::State;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_tests::model::{Parsed, parse};
use jiff::Timestamp;

fn fresh() -> Hub {
    Hub::new(Config::default(), IdSource::new(1))
}

/// A file of documents, down to the tables that it asks for.
pub(crate) fn document(bytes: &[u8]) -> bool {
    let path = Path::new("fuzz.yaml");
    let Ok(text) = text::decode(path, bytes.to_vec()) else { return false };
    let Ok(source) = source::parse(path, &text) else { return false };
    let sources = [source];
    let mut hub = fresh();
    match hub.handle(Command::Documents(source::documents(&sources)), Timestamp::UNIX_EPOCH) {
        Ok(_reply) => drop(hub.desired(Timestamp::UNIX_EPOCH)),
        Err(rejection) => {
            assert!(!source::explain(&sources, &rejection).is_empty(), "refused without a word");
        }
    }
    true
}

/// `hub.yaml`.
pub(crate) fn configuration(bytes: &[u8]) -> bool {
    let path = Path::new("hub.yaml");
    let Ok(text) = text::decode(path, bytes.to_vec()) else { return false };
    match hub::parse(path, &text) {
        Ok(_config) => true,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            false
        }
    }
}

/// The body of a request that creates a persona.
pub(crate) fn body(bytes: &[u8]) -> bool {
    let document = match read::persona_from_slice(bytes) {
        Ok(document) => Box::new(document),
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a word");
            return false;
        }
    };
    let mut hub = fresh();
    match hub.handle(Command::Create { document }, Timestamp::UNIX_EPOCH) {
        Ok(_reply) => drop(hub.desired(Timestamp::UNIX_EPOCH)),
        Err(rejection) => assert!(!rejection.problems.is_empty(), "refused without a word"),
    }
    true
}

/// A state file: what is read is restored, asked for its tables, and written again.
pub(crate) fn state(bytes: &[u8]) -> bool {
    let Ok(state) = serde_json::from_slice::<State>(bytes) else { return false };
    let hub = Hub::restore(Config::default(), IdSource::new(1), state, Timestamp::UNIX_EPOCH);
    drop(hub.desired(Timestamp::UNIX_EPOCH));
    let written = serde_json::to_vec(&hub.state()).unwrap();
    let again = serde_json::from_slice::<State>(&written).unwrap();
    assert_eq!(hub.state(), again, "what is written is read");
    true
}

/// A frame: the parser of the programs reads what the model reads.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let read = || {
        let mut packet = Packet::ZERO;
        whole(&bytes, None, &mut packet).map(|()| packet)
    };
    let ours = read();
    assert_eq!(ours, read(), "it depends on the bytes alone");
    match (ours, parse(bytes)) {
        (Ok(packet), Ok(parsed)) => match parsed {
            Parsed::Ip(headers) => {
                assert_eq!(packet.protocol, headers.protocol);
                true
            }
            Parsed::Arp(asks) => {
                assert_eq!(Ok(packet.has(PACKET_ASKS)), asks.map(|asks| asks.is_some()));
                packet.has(PACKET_ARP)
            }
            Parsed::Tagged => packet.has(PACKET_VLAN),
            Parsed::Other => packet.has(PACKET_OTHER),
        },
        // What follows a tag is read by the programs and not by the model: a tagged frame is refused anyway.
        (Err(_reason), Ok(Parsed::Tagged)) => false,
        (Err(ours), Ok(Parsed::Arp(asks))) => {
            assert_eq!(Err(ours), asks);
            false
        }
        (Err(ours), Err(models)) => {
            assert_eq!(ours == Reason::Martian, models == Reason::Martian, "{ours:?} is not {models:?}");
            false
        }
        (ours, models) => panic!("{ours:?} is not {models:?}"),
    }
}
