//! Upgrades to this version from another one, and back: connections go on, and what was stored is as it was.

use std::fs;
use std::path::PathBuf;

use hub_tests::effort::{Effort, figure};
use hub_tests::lab::world::FAMILIES;
use hub_tests::lab::{Stopwatch, wait_until};
use hub_tests::root;
use serde_json::Value;

use crate::site::{Caller, PATIENCE, Site, configure};
use crate::{HOOKS, LIMITS};

/// Folder with the programs of the other version (`cargo xtask upgrade`); without it this version stands for it.
const OTHER: &str = "HUB_OTHER_BIN_DIR";
/// Set where the other version need not take over what this one leaves: every upgrade begins anew.
const ONE_WAY: &str = "HUB_UPGRADE_ONE_WAY";

#[test]
fn connections_outlive_upgrades_from_another_version_and_back() {
    if !root() {
        return;
    }
    let other = std::env::var_os(OTHER).map(PathBuf::from);
    let is_one_way = std::env::var_os(ONE_WAY).is_some();
    let hooks = if other.is_some() { HOOKS.len() } else { 1 };
    let watch = Stopwatch::start();
    for hook in &HOOKS[..hooks] {
        let mut site = None;
        let (mut upgrades, mut lines, mut calls, mut lost) = (0, 0, 0, String::new());
        for round in Effort::new(1, 50).rounds() {
            let mut here = site.take().unwrap_or_else(|| Site::of_version(*hook, other.as_deref()));
            let (definition, judged, packets) = (definition(&here), here.judged(), here.packets());
            let callers = FAMILIES.map(|v4| Caller::start(here.world.members[0].clone(), v4));
            for version in [None, other.as_deref()] {
                let way = if version.is_none() { "to this version" } else { "back" };
                let when = format!("{hook:?}, upgrade {round}, {way}");
                here.world.hub.change_version(version);
                here.restart(LIMITS[0], round % 3 == 1, &when);
                lost = if version.is_none() { here.lost() } else { lost };
                here.keeps_out(&when);
                here.is_whole(&when);
                assert_eq!(here.judged(), judged, "{when}");
                assert_eq!(self::definition(&here), definition, "{when}");
                assert!(here.packets() > packets, "{when}");
                if is_one_way || other.is_none() {
                    break;
                }
            }
            calls += callers.map(Caller::finish).iter().sum::<u64>();
            upgrades = round + 1;
            if is_one_way {
                lines += here.finish();
            } else {
                site = Some(here);
            }
        }
        lines += site.map_or(0, Site::finish);
        let begun = if lost.is_empty() { String::new() } else { format!(" (begun anew: {lost})") };
        figure(
            "R3",
            &format!(
                "{hook:?}: {upgrades} upgrades, {lines} lines there and back and {calls} calls, 0 resets{begun}, {:.0} s",
                watch.elapsed().as_secs_f64()
            ),
        );
    }
}

/// A version that stored what this one does not know was left for this one: nothing happens until it is back.
#[test]
fn a_state_of_another_version_ends_the_start_and_changes_nothing() {
    if !root() {
        return;
    }
    let mut site = Site::new(HOOKS[0]);
    let file = site.world.hub.folder().join("state/state.json");
    assert!(site.world.hub.process().stop().success());
    let stored = fs::read_to_string(&file).unwrap();
    let later = stored.replacen('{', r#"{"novelty":true,"#, 1);
    fs::write(&file, &later).unwrap();
    let find = format!("find {} | sort", site.pins().display());
    let before = site.world.router.sh(&find);
    // Other limits: a start that went on would have made maps of these sizes.
    configure(&site.world, site.hook, LIMITS[1]);
    site.world.hub.launch();
    wait_until("hubd has ended", PATIENCE, || !site.world.hub.process().is_running());
    let log = site.world.hub.log();
    assert!(log.contains("state.json is whole") && log.contains("unknown field `novelty`"), "{log}");
    assert_eq!(fs::read_to_string(&file).unwrap(), later);
    assert_eq!(site.world.router.sh(&find), before);
    site.goes_on("without the daemon that is too old");
    fs::write(&file, stored).unwrap();
    site.restart(LIMITS[0], true, "with the version that wrote it");
    site.keeps_out("with the version that wrote it");
    assert!(site.finish() > 0);
}

/// What the hub knows of the persona whatever its version.
fn definition(site: &Site) -> Value {
    let view = site.world.hub.get("/v1/personas/p0").expect(200);
    let known = ["id", "name", "segment", "generation", "created_at", "definition"];
    known.iter().map(|field| view[field].clone()).collect()
}
