//! Applications by name: the catalogue, and what a personality says about them.
//!
//! An application is known by its protocols and ports.

use super::problems::Problems;
use super::protocol::{TCP, UDP};
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::personality::{AccessDocument, ApplicationsDocument};
use crate::document::rule::{DirectionDocument, RuleDocument};
use crate::model::policy::Action;

/// Most entries of one personality.
pub const APPLICATIONS: usize = 64;

/// One application of the catalogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Application {
    /// Its name.
    pub name: &'static str,
    /// What it uses: protocol and ports.
    pub ports: &'static [(u8, &'static [u16])],
}

/// The catalogue, by name (IANA service names where there are some).
pub const CATALOGUE: &[Application] = &[
    Application { name: "dns", ports: &[(UDP, &[53]), (TCP, &[53])] },
    Application { name: "http", ports: &[(TCP, &[80, 8080])] },
    Application { name: "https", ports: &[(TCP, &[443]), (UDP, &[443])] },
    Application { name: "imap", ports: &[(TCP, &[143, 993])] },
    Application { name: "ldap", ports: &[(TCP, &[389, 636])] },
    Application { name: "mqtt", ports: &[(TCP, &[1883, 8883])] },
    Application { name: "mysql", ports: &[(TCP, &[3306])] },
    Application { name: "ntp", ports: &[(UDP, &[123])] },
    Application { name: "postgresql", ports: &[(TCP, &[5432])] },
    Application { name: "rdp", ports: &[(TCP, &[3389]), (UDP, &[3389])] },
    Application { name: "redis", ports: &[(TCP, &[6379])] },
    Application { name: "sip", ports: &[(UDP, &[5060]), (TCP, &[5060, 5061])] },
    Application { name: "smtp", ports: &[(TCP, &[25, 465, 587])] },
    Application { name: "snmp", ports: &[(UDP, &[161, 162])] },
    Application { name: "ssh", ports: &[(TCP, &[22])] },
    Application { name: "syslog", ports: &[(UDP, &[514]), (TCP, &[514, 6514])] },
    Application { name: "telnet", ports: &[(TCP, &[23])] },
    Application { name: "wireguard", ports: &[(UDP, &[51820])] },
];

/// The application of this name.
pub fn find(name: &str) -> Option<Application> {
    CATALOGUE.iter().find(|application| application.name == name).copied()
}

/// What a personality says about applications.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applications {
    /// What becomes of those that are not named; `None` leaves it to the rules.
    pub default: Option<AccessDocument>,
    /// Applications in order with what becomes of them.
    pub entries: Vec<(Application, AccessDocument)>,
}

impl Applications {
    /// Checks `application_access_policy`; problems point below it.
    pub fn new(problems: &mut Problems, document: &ApplicationsDocument) -> Self {
        let base = "/application_access_policy/applications";
        if document.applications.len() > APPLICATIONS {
            problems
                .add(base, format!("{} entries: use at most {APPLICATIONS}", document.applications.len()));
        }
        let mut entries: Vec<(Application, AccessDocument)> = Vec::new();
        for (index, written) in document.applications.iter().enumerate() {
            let pointer = format!("{base}/{index}/application");
            match find(&written.application) {
                None => {
                    let names: Vec<&str> = CATALOGUE.iter().map(|application| application.name).collect();
                    let names = names.join(", ");
                    let detail = format!("application `{}`: use one of {names}", written.application);
                    problems.add(pointer, detail);
                }
                Some(application) if entries.iter().any(|(other, _)| *other == application) => {
                    problems.add(pointer, format!("application `{}` is there twice", application.name));
                }
                Some(application) => entries.push((application, written.action)),
            }
        }
        Self { default: document.default, entries }
    }

    /// Rules that say the same by protocols and ports, to follow those of the personality.
    pub fn rules(&self) -> Vec<RuleDocument> {
        let of = |(application, access): &(Application, AccessDocument)| {
            let access = *access;
            let name = application.name;
            application.ports.iter().map(move |(protocol, ports)| {
                let ports = ports.iter().map(|port| Scalar::Number((*port).into())).collect();
                let port = Some(OneOrMany::Many(ports));
                let protocol = Some(Scalar::Number((*protocol).into()));
                rule(format!("application {name}"), access, protocol, port)
            })
        };
        let mut rules: Vec<RuleDocument> = self.entries.iter().flat_map(of).collect();
        rules.extend(self.default.map(|access| rule("other applications".to_owned(), access, None, None)));
        rules
    }
}

fn rule(
    name: String,
    access: AccessDocument,
    protocol: Option<Scalar>,
    port: Option<OneOrMany<Scalar>>,
) -> RuleDocument {
    let action = match access {
        AccessDocument::Allow => Action::Allow,
        AccessDocument::Deny => Action::Deny,
    };
    RuleDocument {
        name: Some(name),
        direction: Some(DirectionDocument::Both),
        protocol,
        port,
        ..RuleDocument::new(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_catalogue_is_sorted_and_small_enough_for_rules() {
        assert!(CATALOGUE.is_sorted_by(|one, other| one.name < other.name));
        assert_eq!(find("ssh").unwrap().ports, [(TCP, &[22][..])]);
        assert!(find("SSH").is_none());
    }

    #[test]
    fn entries_become_rules_in_order_and_the_default_comes_last() {
        let written = json!({"default": "deny", "applications": [
            {"application": "telnet", "action": "deny"}, {"application": "https", "action": "allow"}]});
        let mut problems = Problems::default();
        let applications = Applications::new(&mut problems, &serde_json::from_value(written).unwrap());
        assert!(problems.is_empty());
        let rules = serde_json::to_value(applications.rules()).unwrap();
        let both = |name: &str, more: serde_json::Value| {
            let mut rule = json!({"name": name, "direction": "both"});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let wanted = json!([
            both("application telnet", json!({"protocol": 6, "port": [23], "action": "deny"})),
            both("application https", json!({"protocol": 6, "port": [443], "action": "allow"})),
            both("application https", json!({"protocol": 17, "port": [443], "action": "allow"})),
            both("other applications", json!({"action": "deny"})),
        ]);
        assert_eq!(rules, wanted);
    }

    #[test]
    fn unknown_and_repeated_applications_are_refused() {
        let written = json!({"applications": [{"application": "gopher", "action": "deny"},
            {"application": "ssh", "action": "deny"}, {"application": "ssh", "action": "allow"}]});
        let mut problems = Problems::default();
        Applications::new(&mut problems, &serde_json::from_value(written).unwrap());
        let problems = problems.into_vec();
        let pointers: Vec<&str> = problems.iter().map(|problem| problem.pointer.as_str()).collect();
        let base = "/application_access_policy/applications";
        assert_eq!(pointers, [format!("{base}/0/application"), format!("{base}/2/application")]);
    }
}
