//! What is bent: the examples of the repository, and packets of every kind.

use std::fs;
use std::path::{Path, PathBuf};

use hub_daemon::command::{Command, FileDocument};
use hub_daemon::document::{source, text};
use hub_daemon::hub::Hub;
use hub_daemon::model::config::Config;
use hub_daemon::model::id::IdSource;
use hub_tests::packet::flags::SYN;
use hub_tests::packet::{Datagram, Extension, Fragment, ip};
use jiff::Timestamp;

use crate::record::folder;

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config");
    let entries = [folder.clone(), folder.join("examples")]
        .into_iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    found.sort();
    found
}

fn is_configuration(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "hub.yaml")
}

pub(crate) fn documents() -> Vec<Vec<u8>> {
    examples().iter().filter(|path| !is_configuration(path)).map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn configurations() -> Vec<Vec<u8>> {
    examples().iter().filter(|path| is_configuration(path)).map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn personas() -> Vec<FileDocument> {
    let path = Path::new("seed.yaml");
    let texts = documents().into_iter().map(|bytes| text::decode(path, bytes).unwrap());
    texts.flat_map(|text| source::documents(&[source::parse(path, &text).unwrap()]).personas).collect()
}

pub(crate) fn bodies() -> Vec<Vec<u8>> {
    personas().iter().map(|file| serde_json::to_vec(&file.document).unwrap()).collect()
}

/// States of hubs with one persona each.
pub(crate) fn states() -> Vec<Vec<u8>> {
    let states = personas().into_iter().filter_map(|file| {
        let mut hub = Hub::new(Config::default(), IdSource::new(1));
        hub.handle(Command::Create { document: Box::new(file.document) }, Timestamp::UNIX_EPOCH).ok()?;
        Some(serde_json::to_vec(&hub.state()).unwrap())
    });
    states.collect()
}

/// Each record, all in one, and links with each of the others.
pub(crate) fn netlink() -> Vec<Vec<u8>> {
    let names = [
        "links",
        "addresses",
        "routes4",
        "routes6",
        "rules4",
        "rules6",
        "neighbours",
        "queues",
        "classes",
        "notices",
    ];
    let records = names.map(|name| fs::read(folder().join(name).with_extension("bin")).unwrap());
    let with_links = records[1..].iter().map(|record| [records[0].clone(), record.clone()].concat());
    let all = records[..9].concat();
    records.iter().cloned().chain(with_links).chain([all]).collect()
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (a, b) in [("10.1.0.5", "192.0.2.1"), ("2001:db8:1::5", "2001:db8:ffff::1")] {
        let tcp = Datagram::tcp((a, 40_000), (b, 80), SYN);
        let udp = Datagram::udp((a, 40_000), (b, 53));
        all.extend([
            tcp.frame(),
            udp.frame(),
            udp.clone().with_tag(0x8100, 5).frame(),
            udp.clone().with_tag(0x8100, 5).with_tag(0x88a8, 6).frame(),
            Datagram::ping(ip(a), ip(b), 7).frame(),
            Datagram::error_about(ip(b), &tcp, if ip(a).is_ipv4() { 3 } else { 1 }, 1).frame(),
            Datagram::sctp((a, 1), (b, 2)).frame(),
            Datagram::gre(ip(a), ip(b)).frame(),
        ]);
        if ip(a).is_ipv4() {
            all.push(udp.clone().with_options(&[7, 7, 4, 0, 0, 0, 0]).frame());
            let mut piece = udp;
            piece.fragment = Fragment { position: 0, more: true };
            all.push(piece.with_payload(&[1; 64]).frame());
        } else {
            let more = Extension::fragment(9, Fragment { position: 0, more: true });
            for chain in [
                vec![Extension::padding(60, 2)],
                vec![Extension::routing(4), more],
                vec![Extension::authentication()],
            ] {
                all.push(
                    chain
                        .into_iter()
                        .fold(udp.clone(), Datagram::with_extension)
                        .with_payload(&[1; 64])
                        .frame(),
                );
            }
        }
    }
    all
}
