//! Queues of personalities with bandwidths: there before a switch needs them, and until nobody uses them.

use super::switch::Switching;
use super::switch_documents::of_interface;
use super::*;
use crate::desired::queues::{Queue, QueuePlace};
use crate::systems::personality::switch::Phase;

/// Places of the queues of an interface, and the rate of its persona's class in Mbit/s with headers.
fn queues(switching: &Switching, interface: &str) -> (Vec<QueuePlace>, Option<u64>) {
    let desired = switching.script.desired();
    let own = desired.queues.iter().filter(|(key, _)| key.interface == interface);
    let rates = own.clone().filter_map(|(key, queue)| match (key.place, queue) {
        (QueuePlace::Class(minor), Queue::Class(class)) if minor > 1 && class.parent == 1 => {
            Some(class.rate_bps / 1_000_000)
        }
        _ => None,
    });
    (own.map(|(key, _)| key.place).collect(), rates.max())
}

#[test]
fn queues_come_before_a_switch_and_stay_after_it() {
    let mut switching = Switching::new(1, json!({}));
    assert_eq!(queues(&switching, "veth0").0, [], "nobody has a bandwidth");
    let slow = json!({"qos_settings": {"bandwidth": "8Mbps"}});
    let slow = switching.keep(of_interface(0, 1, slow));
    let root = [QueuePlace::Root, QueuePlace::Class(1)];
    assert_eq!(queues(&switching, "veth0").0, root, "somebody may have one");
    switching.start(vec![Switching::order("i0", &slow)]).unwrap();
    let (prepared, rate) = queues(&switching, "veth0");
    assert!(prepared.len() > root.len() && prepared.starts_with(&root), "{prepared:?}");
    assert_eq!((switching.phase("i0"), rate), (Some(Phase::Prepare), Some(8)));
    switching.finish("i0");
    assert_eq!(queues(&switching, "veth0"), (prepared.clone(), rate));
    // To one without: what is queued leaves by the class that it is in.
    switching.start(vec![Switching::order("i0", "p0-0")]).unwrap();
    switching.finish("i0");
    assert_eq!(queues(&switching, "veth0"), (prepared, rate));
    switching.wait(61);
    assert_eq!(queues(&switching, "veth0").0, root);
}

#[test]
fn of_two_bandwidths_the_one_that_decides_holds() {
    let mut switching = Switching::new(1, json!({}));
    let of = |number, rate: &str| of_interface(0, number, json!({"qos_settings": {"bandwidth": rate}}));
    let [slow, fast] = [of(1, "8Mbps"), of(2, "80Mbps")].map(|document| switching.keep(document));
    switching.start(vec![Switching::order("i0", &slow)]).unwrap();
    switching.finish("i0");
    switching.start(vec![Switching::order("i0", &fast)]).unwrap();
    assert_eq!(queues(&switching, "veth0").1, Some(8));
    switching.finish("i0");
    assert_eq!(queues(&switching, "veth0").1, Some(81));
}
