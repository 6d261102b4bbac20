//! The lab itself: without a hub, its namespaces talk; afterwards nothing of it is left.

use std::time::Duration;

use hub_tests::lab::{Lab, wait_until};
use hub_tests::root;

#[test]
fn namespaces_talk_over_both_families_and_vanish() {
    if !root() {
        return;
    }
    let mut lab = Lab::new();
    let (router, client) = (lab.space("router"), lab.space("client"));
    router.wire(
        ("r0", &["198.51.100.1/24", "2001:db8:a::1/64"]),
        (&client, "c0", &["198.51.100.2/24", "2001:db8:a::2/64"]),
    );
    assert!(client.pings("198.51.100.1") && client.pings("2001:db8:a::1"));
    assert!(!client.pings("198.51.100.9"));
    let mut server = router.listen(8080);
    assert!(client.connects("198.51.100.1", 8080) && client.connects("2001:db8:a::1", 8080));
    server.kill();
    assert!(!client.connects("198.51.100.1", 8080));
    assert_eq!(router.mac("r0").len(), 6);
    let inside = client.within(|| std::fs::read_to_string("/proc/thread-self/net/dev").unwrap());
    assert!(inside.contains("c0:"), "{inside}");

    let (folder, path) = (lab.folder().to_owned(), router.path());
    drop(lab);
    assert!(!folder.exists() && !path.exists());
}

#[test]
fn a_panicking_test_leaves_nothing_behind() {
    if !root() {
        return;
    }
    let mut path = None;
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut lab = Lab::new();
        let space = lab.space("a");
        path = Some(space.path());
        let _server = space.background("sleep 1000");
        panic!("as a failed assertion would");
    }));
    assert!(outcome.is_err());
    let path = path.unwrap();
    wait_until("the namespace is gone", Duration::from_secs(5), || !path.exists());
}

#[test]
fn commands_that_hang_are_stopped() {
    if !root() {
        return;
    }
    let mut lab = Lab::new();
    let space = lab.space("a");
    let output = space.try_sh("sleep 1000 & sleep 1000", Duration::from_millis(100));
    assert!(output.status.is_none());
}
