//! Personalities: kept by content, never changed, removed while nobody has them.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::admit::invalid;
use super::{Hub, refused};
use crate::command::switch::PersonalityCommand;
use crate::command::{Problem, Rejection, RejectionKind, Reply};
use crate::compile;
use crate::document::personality::PersonalityDocument;
use crate::model::application::Defined;
use crate::model::persona::Persona;
use crate::model::personality::{self, Carried, Personality, Version, Wanted};
use crate::systems::personality::seat;
use crate::systems::personality::versions::Kept;
use crate::view::Origin;
use crate::view::switch::PersonalityView;

/// Versions of all personalities together.
const VERSIONS: usize = 4_096;

impl Hub {
    pub(super) fn personality(
        &mut self,
        command: PersonalityCommand,
        now: Timestamp,
    ) -> Result<Reply, Rejection> {
        match command {
            PersonalityCommand::Create { document } => {
                if self.is_filed(&document.name) {
                    let detail =
                        format!("managed_by_file: `{}` is defined by a file: change it there", document.name);
                    return Err(refused(RejectionKind::Conflict, "", detail));
                }
                let version = self.keep_version(&document, Origin::Api, now)?;
                let view = self.personality_view(&version).ok_or_else(|| unknown(&version.to_string()))?;
                Ok(Reply::Personality(Box::new(view)))
            }
            PersonalityCommand::Delete { personality } => self.forget(&personality),
        }
    }

    /// Keeps a personality; compiles it, so that what is kept fits the data path.
    pub(super) fn keep_version(
        &mut self,
        document: &PersonalityDocument,
        origin: Origin,
        now: Timestamp,
    ) -> Result<Version, Rejection> {
        let personality = Personality::new(document).map_err(invalid)?;
        let unknown = seat::known(&personality, &self.config).err().unwrap_or_default();
        let unknown = personality.settled(unknown);
        if !unknown.is_empty() {
            return Err(invalid(unknown));
        }
        let digest = personality::digest(personality.document());
        if let Some(kept) = self.interfaces.versions.with_digest(&document.name, &digest) {
            let (version, same) = (kept.version.clone(), kept.origin == origin);
            if !same {
                let moved = Kept { origin, ..kept.as_ref().clone() };
                self.interfaces_mut().versions.insert(moved);
            }
            return Ok(version);
        }
        if self.interfaces.versions.len() >= VERSIONS {
            let detail = format!("{VERSIONS} versions of personalities are kept: remove some");
            return Err(refused(RejectionKind::Full, "", detail));
        }
        let rules = compiled(&personality, &self.config.applications).or_else(|problems| {
            let settled = personality.settled(problems);
            if settled.is_empty() { Ok([0, 0]) } else { Err(invalid(settled)) }
        })?;
        let (count, limit) = (rules.iter().sum::<usize>(), self.config.limits.rules as usize);
        if count > limit {
            let detail =
                format!("{count} compiled rules, and the hub has room for {limit} in all: use fewer");
            return Err(refused(RejectionKind::Full, "/firewall_rules", detail));
        }
        let version = self.interfaces.versions.next(&document.name);
        let kept = Kept { version: version.clone(), digest, personality, created_at: now, origin, rules };
        self.interfaces_mut().versions.insert(kept);
        Ok(version)
    }

    fn forget(&mut self, text: &str) -> Result<Reply, Rejection> {
        let wanted =
            Wanted::parse(text).map_err(|error| refused(RejectionKind::Invalid, "", error.to_string()))?;
        let those: Vec<Version> = match wanted.number {
            Some(number) => vec![Version { name: wanted.name.clone(), number }],
            None => self.interfaces.versions.named(&wanted.name).map(|kept| kept.version.clone()).collect(),
        };
        let known = |version: &&Version| self.interfaces.versions.get(version).is_some();
        if those.is_empty() || !those.iter().all(|version| known(&version)) {
            return Err(unknown(text));
        }
        if self.is_filed(&wanted.name) {
            let detail = format!("managed_by_file: `{}` is defined by a file: change it there", wanted.name);
            return Err(refused(RejectionKind::Conflict, "", detail));
        }
        self.unused(&those)?;
        for version in &those {
            self.interfaces_mut().versions.remove(version);
        }
        Ok(Reply::Deleted)
    }

    /// Refuses to remove versions that somebody has.
    pub(super) fn unused(&self, those: &[Version]) -> Result<(), Rejection> {
        for version in those {
            let users = self.users(version);
            if !users.is_empty() {
                let users: Vec<String> = users.into_iter().map(|user| format!("`{user}`")).collect();
                let detail = format!("personality {version} is used by interface {}", users.join(", "));
                return Err(refused(RejectionKind::Conflict, "", detail));
            }
        }
        Ok(())
    }

    /// Names of interfaces that have a version, or go to it in some case.
    pub(super) fn users(&self, version: &Version) -> BTreeSet<String> {
        let latest = self.interfaces.versions.named(&version.name).next_back();
        let latest = latest.is_some_and(|kept| kept.version == *version);
        let means = |wanted: &Wanted| {
            wanted.name == version.name && wanted.number.map_or(latest, |number| number == version.number)
        };
        let records = self.interfaces.records.iter();
        let those = records.filter(|(_, record)| {
            let settings = &record.settings;
            let has = [Some(&record.current), record.previous.as_ref(), record.last_known_good.as_ref()];
            let lies = [Some(&record.layout.live), record.layout.other.as_ref()];
            let goes = record.switch.as_ref().map(|switch| [&switch.from, &switch.to]);
            let back = record.temporary.as_ref().map(|temporary| &temporary.back);
            let held = has.into_iter().chain(lies).flatten().chain(goes.into_iter().flatten()).chain(back);
            let levels =
                settings.zones.iter().flat_map(|zones| zones.levels.iter().map(|(_, wanted)| wanted));
            let failover = settings.failover.as_ref().map(|failover| &failover.to);
            held.into_iter().any(|held| held == version)
                || settings.default.iter().chain(levels).chain(failover).any(means)
        });
        let tried = self.interfaces.experiments.values().filter(|experiment| !experiment.stage().is_over());
        let tried = tried.flat_map(|experiment| &experiment.members);
        let tried = tried.filter(|(_, member)| member.a == *version || member.b == *version);
        those.map(|(name, _)| name).chain(tried.map(|(name, _)| name)).cloned().collect()
    }

    /// Whether a file defines the last version of a name.
    fn is_filed(&self, name: &str) -> bool {
        let last = self.interfaces.versions.named(name).next_back();
        last.is_some_and(|kept| matches!(kept.origin, Origin::File { .. }))
    }

    /// The version that somebody asks for.
    pub(super) fn version(&self, wanted: &Wanted, pointer: &str) -> Result<Version, Rejection> {
        let kept = self.interfaces.versions.find(wanted);
        kept.map(|kept| kept.version.clone()).ok_or_else(|| {
            let number = wanted.number.map_or(String::new(), |number| format!("@{number}"));
            let detail = format!("there is no personality `{}{number}`", wanted.name);
            refused(RejectionKind::Invalid, pointer, detail)
        })
    }

    pub(super) fn kept(&self, version: &Version) -> Result<&Kept, Rejection> {
        let kept = self.interfaces.versions.get(version);
        kept.map(AsRef::as_ref).ok_or_else(|| unknown(&version.to_string()))
    }

    pub(super) fn personality_view(&self, version: &Version) -> Option<PersonalityView> {
        let kept = self.interfaces.versions.get(version)?;
        Some(PersonalityView {
            version: kept.version.clone(),
            digest: kept.digest.clone(),
            created_at: kept.created_at,
            origin: kept.origin.clone(),
            definition: kept.personality.document().clone(),
            compiled_rules: kept.rules,
            used_by: self.users(version),
        })
    }
}

fn unknown(text: &str) -> Rejection {
    refused(RejectionKind::NotFound, "", format!("there is no personality `{text}`"))
}

/// How many compiled rules it has towards the interface, and from it; or what is wrong with it, by its own fields.
fn compiled(personality: &Personality, applications: &Defined) -> Result<[usize; 2], Vec<Problem>> {
    let mut ranges: Vec<_> = personality.addresses().keys().map(|address| address.addr().into()).collect();
    if ranges.is_empty() {
        ranges.extend(personality::PLACEHOLDERS);
    }
    let document = personality.carrier(personality.name(), &Carried::default(), &ranges, None, applications);
    let persona = Persona::new(&document)
        .map_err(|problems| problems.into_iter().map(own_field).collect::<Vec<_>>())?;
    let policy = compile::compile(&persona, &[]);
    Ok([policy.ingress.len(), policy.egress.len()])
}

/// A problem of the persona that carries a personality, as one of the personality.
fn own_field(problem: Problem) -> Problem {
    let fields = [("/security_policies", "/firewall_rules"), ("/qos", "/qos_settings")];
    let renamed = fields
        .iter()
        .find_map(|(carried, own)| problem.pointer.strip_prefix(carried).map(|rest| format!("{own}{rest}")));
    Problem { pointer: renamed.unwrap_or_else(|| problem.pointer.clone()), ..problem }
}
