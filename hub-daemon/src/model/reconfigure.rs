//! A configuration that was read again: what of it a running hub takes, and what needs a restart.

use std::sync::Arc;

use super::config::Config;

/// How a configuration differs from the one in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The one in use, with everything that can be changed while the hub runs.
    pub next: Config,
    /// Keys that are taken.
    pub taken: Vec<&'static str>,
    /// Keys that differ and need a restart.
    pub restart: Vec<&'static str>,
}

/// Compares two configurations.
pub fn difference(used: &Config, read: &Config) -> Difference {
    // Every key is named, so that a new one finds its place here and in one of the lists below.
    let next = Config {
        interfaces: read.interfaces.clone(),
        failsafe: read.failsafe.clone(),
        timeout_seconds: read.timeout_seconds,
        pools: read.pools.clone(),
        subnets: read.subnets.clone(),
        applications: read.applications.clone(),
        life: read.life,
        nodes: Arc::clone(&read.nodes),
        route_priority: read.route_priority,
        log: read.log,
        api: used.api.clone(),
        metrics: used.metrics,
        dns: used.dns,
        state_dir: used.state_dir.clone(),
        runtime_dir: used.runtime_dir.clone(),
        bpffs: used.bpffs.clone(),
        documents: used.documents.clone(),
        tc_hook: used.tc_hook,
        limits: used.limits,
        overlap_pool: used.overlap_pool.clone(),
        masquerade_ports: used.masquerade_ports,
        qos: used.qos,
        node: used.node.clone(),
        baseline: used.baseline.clone(),
        loose_tcp: used.loose_tcp,
        alerts: used.alerts.clone(),
        webhooks: used.webhooks.clone(),
    };
    let differing = |keys: &[(&'static str, bool)]| {
        keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect::<Vec<_>>()
    };
    let taken = differing(&[
        ("interfaces", used.interfaces != read.interfaces),
        ("failsafe", used.failsafe != read.failsafe),
        ("timeouts", used.timeout_seconds != read.timeout_seconds),
        ("pools", used.pools != read.pools),
        ("subnets", used.subnets != read.subnets),
        ("applications", used.applications != read.applications),
        ("life", used.life != read.life),
        ("nodes", used.nodes != read.nodes),
        ("route_priority", used.route_priority != read.route_priority),
        ("log", used.log != read.log),
    ]);
    let restart = differing(&[
        ("api", used.api != read.api),
        ("metrics", used.metrics != read.metrics),
        ("state_dir", used.state_dir != read.state_dir),
        ("runtime_dir", used.runtime_dir != read.runtime_dir),
        ("bpffs", used.bpffs != read.bpffs),
        ("documents", used.documents != read.documents),
        ("limits", used.limits != read.limits),
        ("qos", !used.qos.is_written_as(read.qos)),
        ("node", used.node != read.node),
        ("loose_tcp", used.loose_tcp != read.loose_tcp),
        ("dns", used.dns != read.dns),
        ("attach", used.tc_hook != read.tc_hook),
        ("overlap_pool", used.overlap_pool != read.overlap_pool),
        ("masquerade_ports", used.masquerade_ports != read.masquerade_ports),
        ("baseline", used.baseline != read.baseline),
        ("alerts", used.alerts != read.alerts),
        ("webhooks", used.webhooks != read.webhooks),
    ]);
    Difference { next, taken, restart }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_change_is_taken() {
        let used = Config::default();
        let mut read = used.clone();
        read.failsafe.insert((6, 2222));
        read.limits.flows = 9;
        read.loose_tcp = std::time::Duration::ZERO;
        let found = difference(&used, &read);
        assert_eq!((&found.taken[..], &found.restart[..]), (&["failsafe"][..], &["limits", "loose_tcp"][..]));
        assert_eq!((&found.next.failsafe, found.next.limits), (&read.failsafe, used.limits));
        read = used.clone();
        read.nodes = [crate::model::nodes::OtherNode {
            name: "b".into(),
            url: "unix:/b".into(),
            place: crate::model::nodes::Place::Unix("/b".into()),
            token_file: None,
        }]
        .into();
        let found = difference(&used, &read);
        assert_eq!(
            (&found.taken[..], found.next.nodes, found.restart),
            (&["nodes"][..], read.nodes, Vec::new())
        );
        let other: Config = {
            let text = "{baseline: [{protocol: tcp, port: 445, action: deny}], \
                alerts: [{metric: flows, value: 9}], webhooks: [{url: 'http://192.0.2.1/'}], \
                overlap_pool: [100.64.0.0/16], masquerade_ports: 20000-30000, dns: {listen: '127.0.0.1:5353'}, \
                attach: {tc: clsact}}";
            crate::document::hub::parse(std::path::Path::new("hub.yaml"), text)
                .expect("the configuration is valid")
        };
        let found = difference(&used, &other);
        let keys = ["dns", "attach", "overlap_pool", "masquerade_ports", "baseline", "alerts", "webhooks"];
        assert_eq!((&found.taken[..], &found.restart[..]), (&[][..], &keys[..]));
        let none = difference(&used, &used);
        assert!(none.taken.is_empty() && none.restart.is_empty() && none.next == used);
    }
}
