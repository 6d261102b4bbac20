//! Events of dropped and logged packets.

use hub_daemon::datapath_view::EventView;
use hub_daemon::kernel::events::Events;
use tokio::sync::broadcast;

use crate::lab::{MEMBER, OUTSIDE, lab, syn};

/// Where traced packets go; nobody traces here.
fn traces() -> broadcast::Sender<hub_daemon::inputs::trace::Delivery> {
    broadcast::channel(1).0
}

#[test]
fn drops_reach_the_listeners_with_names() {
    lab(|lab| {
        let mut events = Events::open(lab.pins(), lab.names(), traces()).unwrap();
        let (sender, mut listener) = broadcast::channel(16);
        lab.inbound(syn(40_000, 22));
        assert_eq!(events.drain(&sender), 1);
        let EventView::Packet(event) = listener.try_recv().unwrap() else { panic!("a packet was dropped") };
        assert_eq!((event.action.as_str(), event.reason.as_deref()), ("drop", Some("rule_deny")));
        assert_eq!(
            (event.hook.as_str(), event.port.as_str(), event.protocol.as_str()),
            ("tc_in", "lo", "tcp")
        );
        assert_eq!((event.source, event.target), (OUTSIDE.into(), MEMBER.into()));
        assert_eq!((event.source_port, event.target_port, event.length_bytes), (40_000, 22, 40));
        assert_eq!((event.source_persona, event.target_persona.as_deref()), (None, Some("web")));
        assert_eq!(event.rule, Some(1));
        let age = jiff::Timestamp::now().duration_since(event.time);
        assert!(age.as_secs().abs() < 5, "{age:?}");
        assert_eq!(events.drain(&sender), 0);
    });
}

#[test]
fn ring_is_emptied_when_nobody_listens() {
    lab(|lab| {
        let mut events = Events::open(lab.pins(), lab.names(), traces()).unwrap();
        let (sender, listener) = broadcast::channel(16);
        drop(listener);
        for source in 0..5 {
            lab.inbound(syn(source, 22));
        }
        assert_eq!(events.drain(&sender), 5, "the rule logs, so every one is reported");
        let mut listener = sender.subscribe();
        assert_eq!(events.drain(&sender), 0);
        assert!(listener.try_recv().is_err());
    });
}

#[test]
fn task_sends_what_happens_while_it_runs() {
    lab(|lab| {
        let events = Events::open(lab.pins(), lab.names(), traces()).unwrap();
        let (sender, mut listener) = broadcast::channel(16);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let task = tokio::spawn(events.run(sender));
            lab.inbound(syn(40_000, 22));
            let event = tokio::time::timeout(std::time::Duration::from_secs(20), listener.recv()).await;
            assert!(matches!(event.unwrap().unwrap(), EventView::Packet(_)));
            task.abort();
        });
    });
}
