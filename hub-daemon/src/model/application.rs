//! Applications by name: the catalogue, and what a personality says about them.
//!
//! An application is known by its protocols and ports, and where its first bytes tell it from others, by those. It
//! is allowed where both are right. One of the hub's own catalogue is denied on its ports whatever it says there,
//! and on every port if it can be heard.

use std::collections::BTreeMap;

use super::names;
use super::problems::Problems;
use super::protocol::{TCP, UDP};
use super::rule::Rule;
use crate::command::Problem;
use crate::document::application::CatalogueEntryDocument;
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::personality::{AccessDocument, ApplicationsDocument};
use crate::document::read::{escape, nearest};
use crate::document::rule::{DirectionDocument, RuleDocument};
use crate::document::signature::{SignatureDocument, SpeaksDocument};
use crate::model::policy::Action;

/// Most entries of one personality, and most applications of `hub.yaml`.
pub const APPLICATIONS: usize = 64;

/// One application of the hub's own catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: &'static str,
    /// What it uses: protocol, ports (none are all), and what is spoken there if that can be heard.
    pub uses: &'static [Use],
    /// What only this application speaks, wherever it is heard.
    pub speaks: Option<SpeaksDocument>,
}

/// Protocol, ports, and what is spoken there.
type Use = (u8, &'static [u16], Option<SpeaksDocument>);

const DNS: Option<SpeaksDocument> = Some(SpeaksDocument::Dns);
const HTTP: Option<SpeaksDocument> = Some(SpeaksDocument::Http);
const QUIC: Option<SpeaksDocument> = Some(SpeaksDocument::Quic);
const SMTP: Option<SpeaksDocument> = Some(SpeaksDocument::Smtp);
const SSH: Option<SpeaksDocument> = Some(SpeaksDocument::Ssh);
const TLS: Option<SpeaksDocument> = Some(SpeaksDocument::Tls);

/// An application that is known by its ports alone.
const fn by_port(name: &'static str, uses: &'static [Use]) -> Application {
    Application { name, uses, speaks: None }
}

/// The catalogue, by name (IANA service names where there are some).
pub const CATALOGUE: &[Application] = &[
    Application { name: "dns", uses: &[(UDP, &[53], DNS), (TCP, &[53], None)], speaks: DNS },
    Application { name: "http", uses: &[(TCP, &[80, 8080], HTTP)], speaks: HTTP },
    by_port("https", &[(TCP, &[443], TLS), (UDP, &[443], QUIC)]),
    by_port("imap", &[(TCP, &[143, 993], None)]),
    by_port("ldap", &[(TCP, &[389, 636], None)]),
    by_port("mqtt", &[(TCP, &[1883, 8883], None)]),
    by_port("mysql", &[(TCP, &[3306], None)]),
    by_port("ntp", &[(UDP, &[123], None)]),
    by_port("postgresql", &[(TCP, &[5432], None)]),
    Application { name: "quic", uses: &[(UDP, &[443], QUIC)], speaks: QUIC },
    by_port("rdp", &[(TCP, &[3389], None), (UDP, &[3389], None)]),
    by_port("redis", &[(TCP, &[6379], None)]),
    by_port("sip", &[(UDP, &[5060], None), (TCP, &[5060, 5061], None)]),
    Application { name: "smtp", uses: &[(TCP, &[25, 587], SMTP), (TCP, &[465], TLS)], speaks: SMTP },
    by_port("snmp", &[(UDP, &[161, 162], None)]),
    Application { name: "ssh", uses: &[(TCP, &[22], SSH)], speaks: SSH },
    by_port("syslog", &[(UDP, &[514], None), (TCP, &[514, 6514], None)]),
    by_port("telnet", &[(TCP, &[23], None)]),
    Application { name: "tls", uses: &[(TCP, &[], TLS)], speaks: TLS },
    by_port("wireguard", &[(UDP, &[51820], None)]),
];

/// The application of the hub's own catalogue with this name.
pub fn find(name: &str) -> Option<Application> {
    CATALOGUE.iter().find(|application| application.name == name).copied()
}

/// Applications that `hub.yaml` adds to the catalogue, or puts in place of entries of it: rules without an action.
pub type Defined = BTreeMap<String, CatalogueEntryDocument>;

/// Reads `applications` of `hub.yaml`.
pub fn read(problems: &mut Problems, written: &Defined) -> Defined {
    if written.len() > APPLICATIONS {
        problems.add("/applications", format!("{} entries: use at most {APPLICATIONS}", written.len()));
    }
    for (name, entry) in written {
        let base = format!("/applications/{}", escape(name));
        problems.take(&base, names::persona(name));
        if *entry == CatalogueEntryDocument::default() {
            problems.add(base, "the entry is empty: give `protocol`, `port` or `signature`");
            continue;
        }
        let rule = defined(name.clone(), entry, AccessDocument::Allow);
        for problem in Rule::new("", 0, &rule).err().unwrap_or_default() {
            let field = problem.pointer.strip_prefix("/0").unwrap_or(&problem.pointer);
            problems.add(format!("{base}{field}"), problem.detail);
        }
    }
    written.clone()
}

/// What a personality says about applications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applications {
    /// What becomes of those that are not named; `None` leaves it to the rules.
    pub default: Option<AccessDocument>,
    /// Names in order with what becomes of them.
    pub entries: Vec<(String, AccessDocument)>,
}

impl Applications {
    /// Checks `application_access_policy`, but for names that only `hub.yaml` could know.
    pub fn new(problems: &mut Problems, document: &ApplicationsDocument) -> Self {
        let base = "/application_access_policy/applications";
        if document.applications.len() > APPLICATIONS {
            problems
                .add(base, format!("{} entries: use at most {APPLICATIONS}", document.applications.len()));
        }
        let mut entries: Vec<(String, AccessDocument)> = Vec::new();
        for (index, written) in document.applications.iter().enumerate() {
            let name = &written.application;
            if entries.iter().any(|(other, _)| other == name) {
                let pointer = format!("{base}/{index}/application");
                problems.add(pointer, format!("application `{name}` is there twice"));
            } else {
                entries.push((name.clone(), written.action));
            }
        }
        Self { default: document.default, entries }
    }

    /// Names that are in no catalogue, each with the nearest that is.
    pub fn unknown(&self, more: &Defined) -> Vec<Problem> {
        let mut problems = Problems::default();
        let own = CATALOGUE.iter().map(|application| application.name);
        let mut known: Vec<&str> = own.chain(more.keys().map(String::as_str)).collect();
        known.sort_unstable();
        known.dedup();
        for (index, (name, _)) in self.entries.iter().enumerate() {
            if known.contains(&name.as_str()) {
                continue;
            }
            let hint = match nearest(name, &known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use one of {}", known.join(", ")),
            };
            let pointer = format!("/application_access_policy/applications/{index}/application");
            problems.add(pointer, format!("there is no application `{name}`: {hint}"));
        }
        problems.into_vec()
    }

    /// Rules that say the same, to follow those of the personality. A name in no catalogue is one of the others.
    pub fn rules(&self, more: &Defined) -> Vec<RuleDocument> {
        let of = |(name, access): &(String, AccessDocument)| {
            let title = format!("application {name}");
            match (more.get(name), find(name)) {
                (Some(entry), _) => vec![defined(title, entry, *access)],
                (None, Some(application)) => built_in(&title, application, *access),
                (None, None) => Vec::new(),
            }
        };
        let mut rules: Vec<RuleDocument> = self.entries.iter().flat_map(of).collect();
        rules.extend(self.default.map(|access| rule("other applications".to_owned(), access)));
        rules
    }
}

fn defined(title: String, entry: &CatalogueEntryDocument, access: AccessDocument) -> RuleDocument {
    RuleDocument {
        protocol: entry.protocol.clone(),
        port: entry.port.clone(),
        signature: entry.signature.clone(),
        ..rule(title, access)
    }
}

fn built_in(title: &str, application: Application, access: AccessDocument) -> Vec<RuleDocument> {
    let spoken = |speaks| SignatureDocument { speaks: Some(speaks), ..SignatureDocument::default() };
    let denies = access == AccessDocument::Deny;
    let uses = application.uses.iter().filter(|(_, ports, _)| !(denies && ports.is_empty()));
    let mut rules: Vec<RuleDocument> = uses
        .map(|(protocol, ports, speaks)| {
            let ports: Vec<_> = ports.iter().map(|port| Scalar::Number((*port).into())).collect();
            RuleDocument {
                protocol: Some(Scalar::Number((*protocol).into())),
                port: (!ports.is_empty()).then_some(OneOrMany::Many(ports)),
                signature: speaks.filter(|_| !denies).map(spoken),
                ..rule(title.to_owned(), access)
            }
        })
        .collect();
    if denies && let Some(speaks) = application.speaks {
        rules.push(RuleDocument { signature: Some(spoken(speaks)), ..rule(title.to_owned(), access) });
    }
    rules
}

fn rule(name: String, access: AccessDocument) -> RuleDocument {
    let action = match access {
        AccessDocument::Allow => Action::Allow,
        AccessDocument::Deny => Action::Deny,
    };
    RuleDocument { name: Some(name), direction: Some(DirectionDocument::Both), ..RuleDocument::new(action) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn applications(written: Value) -> (Applications, Vec<Problem>) {
        let mut problems = Problems::default();
        let found = Applications::new(&mut problems, &serde_json::from_value(written).unwrap());
        (found, problems.into_vec())
    }

    fn known(written: Value) -> (Defined, Vec<Problem>) {
        let mut problems = Problems::default();
        let found = read(&mut problems, &serde_json::from_value(written).unwrap());
        (found, problems.into_vec())
    }

    #[test]
    fn the_catalogue_is_sorted_and_its_rules_can_be_read() {
        assert!(CATALOGUE.is_sorted_by(|one, other| one.name < other.name));
        assert_eq!(find("ssh").unwrap().uses, [(TCP, &[22][..], SSH)]);
        assert!(find("SSH").is_none());
        for application in CATALOGUE {
            for access in [AccessDocument::Allow, AccessDocument::Deny] {
                let rules = built_in("x", *application, access);
                assert!(!rules.is_empty());
                for rule in rules {
                    Rule::new("", 0, &rule).unwrap();
                }
            }
        }
    }

    #[test]
    fn entries_become_rules_in_order_and_the_default_comes_last() {
        let (applications, problems) = applications(json!({"default": "deny", "applications": [
            {"application": "ssh", "action": "deny"}, {"application": "https", "action": "allow"},
            {"application": "intranet", "action": "allow"}, {"application": "unheard", "action": "allow"}]}));
        assert!(problems.is_empty());
        let intranet = json!({"port": 8443, "signature": {"tls_sni": "*.corp.example"}});
        let (more, problems) = known(json!({"intranet": intranet}));
        assert!(problems.is_empty());
        let rules = serde_json::to_value(applications.rules(&more)).unwrap();
        let both = |name: &str, more: Value| {
            let mut rule = json!({"name": name, "direction": "both"});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let speaks = |what: &str| json!({"speaks": what});
        let mut last = intranet;
        last["action"] = json!("allow");
        let wanted = json!([
            both("application ssh", json!({"protocol": 6, "port": [22], "action": "deny"})),
            both("application ssh", json!({"action": "deny", "signature": speaks("ssh")})),
            both(
                "application https",
                json!({"protocol": 6, "port": [443], "action": "allow", "signature": speaks("tls")})
            ),
            both(
                "application https",
                json!({"protocol": 17, "port": [443], "action": "allow", "signature": speaks("quic")})
            ),
            both("application intranet", last),
            both("other applications", json!({"action": "deny"})),
        ]);
        assert_eq!(rules, wanted);
    }

    #[test]
    fn unknown_and_repeated_applications_are_refused() {
        let (found, problems) = applications(json!({"applications": [
            {"application": "htps", "action": "deny"}, {"application": "intranat", "action": "deny"},
            {"application": "ssh", "action": "deny"}, {"application": "ssh", "action": "allow"}]}));
        let base = "/application_access_policy/applications";
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        assert_eq!(pointers, [format!("{base}/3/application")]);
        let (more, _) = known(json!({"intranet": {"port": 8443}}));
        let said: Vec<String> = found
            .unknown(&more)
            .into_iter()
            .map(|problem| format!("{} {}", problem.pointer, problem.detail))
            .collect();
        assert_eq!(
            said,
            [
                format!("{base}/0/application there is no application `htps`: did you mean `https`?"),
                format!("{base}/1/application there is no application `intranat`: did you mean `intranet`?"),
            ]
        );
    }

    #[test]
    fn definitions_are_checked_as_rules_are() {
        let (_, problems) = known(json!({
            "a": {"protocol": "tpc"}, "b": {"signature": {}}, "c": {}, "d": {"port": 80, "signature": {"tls_sni": "x.*"}},
            "Not a name": {"port": 1}}));
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        for pointer in ["/a/protocol", "/b/signature", "/c", "/d/signature/tls_sni", "/Not a name"] {
            let pointer = format!("/applications{pointer}");
            assert!(pointers.contains(&pointer.as_str()), "{pointer}: {pointers:?}");
        }
    }
}
