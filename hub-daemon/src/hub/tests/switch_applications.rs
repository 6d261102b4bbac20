//! Applications that personalities name: the hub's own, and those of the configuration.

use super::switch::Switching;
use super::switch_documents::{config, of_interface};
use super::*;
use crate::command::switch::PersonalityCommand;
use crate::document::read::personality_from_value;

fn naming(application: &str) -> Value {
    let entry = json!({"application": application, "action": "allow"});
    of_interface(0, 0, json!({"application_access_policy": {"default": "deny", "applications": [entry]}}))
}

fn refusal(switching: &mut Switching, application: &str) -> String {
    let document = Box::new(personality_from_value(naming(application)).unwrap());
    let command = Command::Personality(PersonalityCommand::Create { document });
    let rejection = switching.script.hub.handle(command, switching.script.now).unwrap_err();
    let [problem] = &rejection.problems[..] else { panic!("{rejection:?}") };
    format!("{} {}", problem.pointer, problem.detail)
}

/// Has the configuration say that the intranet is this TLS host.
fn configure(switching: &mut Switching, host: &str) {
    let mut config = config();
    let entry = json!({"port": 443, "signature": {"tls_sni": host}});
    config.applications.insert("intranet".into(), serde_json::from_value(entry).unwrap());
    switching.script.hub.handle(Command::Configure(Box::new(config)), switching.script.now).unwrap();
}

/// Letters of the names that the only carrier listens for.
fn names(switching: &Switching) -> Vec<u32> {
    let desired = switching.script.hub.desired(switching.script.now);
    let segments = desired.segments.values();
    segments.flat_map(|segment| &segment.policy.signatures).map(|signature| signature.name_least).collect()
}

#[test]
fn names_in_no_catalogue_are_refused_with_the_nearest() {
    let mut switching = Switching::new(0, json!({}));
    let place = "/application_access_policy/applications/0/application";
    let said = refusal(&mut switching, "shh");
    assert_eq!(said, format!("{place} there is no application `shh`: did you mean `ssh`?"));
    configure(&mut switching, "intra.example");
    let said = refusal(&mut switching, "intranat");
    assert_eq!(said, format!("{place} there is no application `intranat`: did you mean `intranet`?"));
}

#[test]
fn carriers_follow_the_applications_of_the_configuration() {
    let mut switching = Switching::new(0, json!({}));
    switching.script.links(&[("veth0", true)]);
    configure(&mut switching, "intra.example");
    switching.keep(naming("intranet"));
    switching.enlist(json!({"name": "i0", "interface": "eth0", "namespace": "n0", "port": "veth0",
        "personality": "p0-0"}));
    switching.script.reconciled(&[]);
    assert_eq!(names(&switching), ["intra.example".len() as u32]);
    configure(&mut switching, "intranet.example");
    switching.script.reconciled(&[]);
    assert_eq!(names(&switching), ["intranet.example".len() as u32]);
    // An application that is gone leaves the interface as it was.
    switching.script.hub.handle(Command::Configure(Box::new(config())), switching.script.now).unwrap();
    switching.script.reconciled(&[]);
    assert_eq!(names(&switching), ["intranet.example".len() as u32]);
}
