//! Lives of a persona that has everything: a link into a namespace, queues, a routing table, ranges out of pools, a
//! set, translation. After a fault the kernel holds all of it or nothing, and a persona that failed says why.

use std::collections::BTreeMap;

use hub_tests::lab::wait_until;
use serde_json::{Value, json};

use crate::phases::{PATIENCE, Site};
use crate::strike::attach;

/// What the kernel holds, in lines without numbers and how often each is there: ranges, links and tables differ
/// from life to life.
type Held = BTreeMap<String, usize>;

/// What the kernel holds with the persona, and without.
pub(crate) struct Whole {
    with: Held,
    without: Held,
    /// Lives in which the persona failed for a while, and said why.
    pub(crate) failed: usize,
}

impl Whole {
    /// From a life without faults. The one before turned on what stays: forwarding, the range of pools.
    pub(crate) fn of(site: &Site) -> Self {
        let live = || {
            let view = site.world.hub.send("POST", "/v1/personas", &rich(site)).expect(201);
            assert_eq!(view["state"], "active", "{view:#}");
            let mut with = held(site);
            wait_until("addresses are no longer tried", PATIENCE, || {
                let before = std::mem::replace(&mut with, held(site));
                before == with
            });
            site.world.hub.request("DELETE", "/v1/personas/rich", &[], "").expect(204);
            with
        };
        live();
        let without = held(site);
        let with = live();
        for part in ["htb", "lookup", "via", "dev hub", "hub# <"] {
            let lines = |held: &Held| held.keys().filter(|line| line.contains(part)).count();
            assert!(lines(&with) > lines(&without), "{part}: {with:#?}");
        }
        Self { with, without, failed: 0 }
    }
}

fn rich(site: &Site) -> Value {
    let guest = site.world.lab.named("guest");
    json!({
        "name": "rich",
        "ip_range": ["auto", "auto6"],
        "endpoints": [{"name": "one", "namespace": guest.name()}],
        "qos": {"bandwidth": "10Mbps", "latency": "20ms"},
        "egress": {"next_hop": ["192.0.2.10", "2001:db8:2::10"], "nat": "masquerade"},
        "sets": {"staff": {"entries": ["192.0.2.0/24", "2001:db8:2::/64"]}},
        "security_policies": [{"protocol": "udp", "port": 7_001, "source": "@staff", "action": "allow"}],
    })
}

/// Reads what the kernel holds of the hub, and in the namespace of the endpoint.
fn held(site: &Site) -> Held {
    let links = "for link in $(ip -oneline link | cut -d: -f2 | cut -d@ -f1); do
            tc qdisc show dev $link; tc class show dev $link; done";
    let own = "ip -oneline -details link show type veth | grep -o 'hub[^:]*: <\\|veth'
        ip -oneline address; ip rule; ip -6 rule
        ip route show table all proto 177; ip -6 route show table all proto 177";
    let guest = "ip -oneline address; ip route; ip -6 route";
    let text = [
        site.world.router.sh(&format!("{own}; {links}")),
        site.world.lab.named("guest").sh(guest).replace('\n', " (guest)\n"),
    ];
    let mut found = Held::new();
    for line in text.iter().flat_map(|text| text.lines()) {
        *found.entry(without_numbers(line)).or_default() += 1;
    }
    found
}

/// A line with its words, and a mark for each that is a number, an address or a name of a link.
fn without_numbers(line: &str) -> String {
    let words = line.split_whitespace().filter(|word| !["tentative", "deprecated"].contains(word));
    let words = words.map(|word| match word.strip_prefix("hub") {
        Some(rest) if rest.starts_with(|letter: char| letter.is_ascii_digit()) => "hub#",
        _ if word.contains(|letter: char| letter.is_ascii_digit() || letter == ':') => "#",
        _ => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

impl Site {
    /// Makes and deletes a persona that has everything; whether the daemon died.
    pub(crate) fn rich_life(&mut self, words: &[String], name: &str) -> bool {
        let mut whole = self.whole.take().expect("the site is one for rich lives");
        let mut strace = attach(words, self.world.hub.process().id());
        let (status, view) = self.ask("POST", "", &rich(self));
        let mut has_failed = says_why(&view, name);
        let mut is_there = [true, false].as_slice();
        match status {
            200..300 if view["state"] == "active" => {
                assert_eq!(differences(&held(self), &whole.with), "", "{name}: active is whole");
            }
            400..500 => is_there = &[false],
            _ => {}
        }
        let deleted = self.ask("DELETE", "/rich", &Value::Null).0;
        if deleted == 204 {
            is_there = &[false];
        }
        self.goes_on(name);
        strace.stop();
        let died = !self.world.hub.process().is_running();
        let mut last = String::new();
        let mut found = false;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(&format!("{name}: all or nothing"), PATIENCE * 2, || {
                self.is_back();
                // Who is killed may look alive for a moment.
                let Some(answer) = self.look("/rich") else { return false };
                found = answer.status == 200;
                has_failed |= says_why(&answer.body, name);
                last = differences(&held(self), if found { &whole.with } else { &whole.without });
                last.is_empty() && (!found || answer.body["state"] == "active")
            });
        }));
        assert!(waited.is_ok(), "{name}: {last}");
        assert!(is_there.contains(&found), "{name}: {status}, {deleted}, and it is there: {found}");
        if found {
            self.world.hub.request("DELETE", "/v1/personas/rich", &[], "").expect(204);
            assert_eq!(differences(&held(self), &whole.without), "", "{name}: nothing is left");
        }
        self.is_repaired(name);
        whole.failed += usize::from(has_failed);
        self.whole = Some(whole);
        died
    }
}

/// A persona that failed says what the kernel refused; whether it did fail.
#[track_caller]
fn says_why(view: &Value, name: &str) -> bool {
    let has_failed = view["state"] == "failed";
    let told = view["conditions"].as_array().is_some_and(|told| {
        told.iter().any(|one| one["message"].as_str().is_some_and(|message| !message.is_empty()))
    });
    assert!(told || !has_failed, "{name}: failed without a word: {view:#}");
    has_failed
}

/// Lines that one has more often than the other.
fn differences(found: &Held, wanted: &Held) -> String {
    let lines = found.keys().chain(wanted.keys().filter(|line| !found.contains_key(*line)));
    let count = |held: &Held, line: &String| held.get(line).copied().unwrap_or_default();
    let differing = lines.filter(|line| count(found, line) != count(wanted, line));
    let told = differing
        .map(|line| format!("{} times instead of {}: {line}\n", count(found, line), count(wanted, line)));
    told.collect()
}
