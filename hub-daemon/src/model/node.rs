//! This hub among several: which personas live here, and how many.
//!
//! The same documents may be given to every hub. One that names another hub is known here, and nothing of it
//! is in the kernel; its routes come from the hub where it lives, by the routing daemon beside.

use std::collections::BTreeMap;

use super::bandwidth::Bandwidth;
use super::names;
use super::problems::Problems;
use crate::command::Problem;
use crate::document::node::{GatewayDocument, NodeDocument, NodeRole};
use crate::document::persona::PersonaDocument;
use crate::view::{NodeRoom, NodeView};

/// This hub among several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    name: Option<String>,
    role: NodeRole,
    labels: BTreeMap<String, String>,
    personas: Option<u32>,
    bandwidth: Option<Bandwidth>,
}

impl Node {
    /// Checks `node` of `hub.yaml`.
    pub fn new(problems: &mut Problems, written: &NodeDocument) -> Self {
        if let Some(name) = &written.name {
            problems.take("/node/name", names::persona(name));
        }
        let capacity = &written.capacity;
        if capacity.personas == Some(0) {
            problems.add("/node/capacity/personas", "0 personas: use 1 or more, or leave it out");
        }
        let bandwidth = capacity.bandwidth.as_ref();
        Self {
            name: written.name.clone(),
            role: written.role,
            labels: written.labels.clone(),
            personas: capacity.personas,
            bandwidth: bandwidth
                .and_then(|written| problems.take("/node/capacity/bandwidth", Bandwidth::parse(written))),
        }
    }

    /// Whether a persona lives on another hub.
    pub fn is_elsewhere(&self, document: &PersonaDocument) -> bool {
        match &document.gateway {
            None => false,
            Some(GatewayDocument { node: Some(node), .. }) => self.name.as_ref() != Some(node),
            Some(GatewayDocument { node: None, labels, .. }) => {
                let mut asked = labels.iter().flatten();
                self.role != NodeRole::Gateway
                    || !asked.all(|(key, value)| self.labels.get(key) == Some(value))
            }
        }
    }

    /// What does not fit if so many personas live here, and so many bits a second are promised each way.
    pub fn overload(&self, personas: usize, promised_bps: [u64; 2]) -> Option<Problem> {
        let name =
            self.name.as_deref().map_or_else(|| "this hub".to_owned(), |name| format!("node `{name}`"));
        if let Some(limit) = self.personas.filter(|limit| personas > *limit as usize) {
            let detail =
                format!("{name} is full: `node.capacity.personas` is {limit}; choose another gateway");
            return Some(Problem::new("/gateway", detail));
        }
        let limit = self.bandwidth?;
        let most = promised_bps.into_iter().max().unwrap_or_default();
        (most > limit.bps()).then(|| {
            let detail = format!(
                "{name} is full: {most} bit/s would be promised and `node.capacity.bandwidth` is {}; ask for \
                 less, or choose another gateway",
                limit.bps()
            );
            Problem::new("/qos/bandwidth", detail)
        })
    }

    /// Its name among others.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What it is and how full, with so many personas and so many bits a second promised each way. Its tables
    /// hold `most` personas.
    pub fn view(&self, is_ready: bool, most: u32, personas: usize, promised_bps: [u64; 2]) -> NodeView {
        let bps = self.bandwidth.map(Bandwidth::bps);
        let personas = personas as u64;
        let most = u64::from(self.personas.map_or(most, |limit| limit.min(most)));
        let [ingress, egress] = promised_bps;
        let free = |used: u64| bps.map(|all| all.saturating_sub(used));
        NodeView {
            name: self.name.clone(),
            role: self.role,
            labels: self.labels.clone(),
            ready: is_ready,
            capacity: NodeRoom { personas: most, ingress_bps: bps, egress_bps: bps },
            used: NodeRoom { personas, ingress_bps: Some(ingress), egress_bps: Some(egress) },
            free: NodeRoom {
                personas: most.saturating_sub(personas),
                ingress_bps: free(ingress),
                egress_bps: free(egress),
            },
            persona: None,
        }
    }
}

/// Where a persona lives, in words.
pub fn whereabouts(document: &PersonaDocument) -> String {
    match &document.gateway {
        None => "it lives on every hub that is given it".to_owned(),
        Some(GatewayDocument { node: Some(node), .. }) => format!("it lives on node `{node}`"),
        Some(GatewayDocument { node: None, labels, .. }) => {
            let asked = labels.iter().flatten().map(|(key, value)| format!("{key}={value}"));
            format!("it lives on the gateways with {}", asked.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Checks which hub a persona belongs to. One that is still to be chosen is nobody's to admit.
pub fn gateway(problems: &mut Problems, document: &PersonaDocument) {
    let Some(GatewayDocument { node, labels, choose }) = &document.gateway else { return };
    if choose.is_some() {
        let detail = "`choose: free` is for a persona that is created over the API or by `hubctl persona create`: \
                      the hub that is asked chooses once. Files are read by all hubs, of which none may choose for \
                      the others, and a persona that is there does not move: write `node: NAME`, or `labels` alone";
        problems.add("/gateway/choose", detail);
    }
    let has_labels = labels.as_ref().is_some_and(|labels| !labels.is_empty());
    match node {
        Some(_) if labels.is_some() => {
            problems.add("/gateway/labels", "gateway: use either `node` or `labels`");
        }
        Some(node) => _ = problems.take("/gateway/node", names::persona(node)),
        None if !has_labels && choose.is_none() => {
            problems.add("/gateway", "gateway: write `node: NAME`, or `labels` that it must have");
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::document::node::CapacityDocument;

    fn node(role: NodeRole) -> Node {
        let labels = [("site".to_owned(), "east".to_owned()), ("rack".to_owned(), "7".to_owned())].into();
        let capacity = CapacityDocument { personas: Some(2), bandwidth: Some("1Gbps".into()) };
        let mut problems = Problems::default();
        let node = Node::new(&mut problems, &NodeDocument { name: Some("a".into()), role, labels, capacity });
        problems.settle(node).unwrap()
    }

    fn asks(gateway: Option<serde_json::Value>) -> PersonaDocument {
        let gateway = gateway.map(|value| serde_json::from_value(value).unwrap());
        PersonaDocument { gateway, ..PersonaDocument::default() }
    }

    #[test]
    fn a_persona_lives_where_its_gateway_is() {
        let lives = |role, gateway| !node(role).is_elsewhere(&asks(gateway));
        for role in [NodeRole::Hub, NodeRole::Gateway] {
            let is_gateway = role == NodeRole::Gateway;
            assert!(lives(role, None));
            assert!(lives(role, Some(json!({"node": "a"}))));
            assert!(!lives(role, Some(json!({"node": "b"}))));
            assert_eq!(lives(role, Some(json!({"labels": {"site": "east"}}))), is_gateway);
            assert_eq!(lives(role, Some(json!({"labels": {"site": "east", "rack": "7"}}))), is_gateway);
            assert!(!lives(role, Some(json!({"labels": {"site": "east", "rack": "8"}}))));
        }
        let asked = asks(Some(json!({"node": "b"})));
        assert!(Node::default().is_elsewhere(&asked), "a hub without a name is nobody's gateway");
        assert_eq!(whereabouts(&asked), "it lives on node `b`");
    }

    #[test]
    fn a_gateway_is_chosen_one_way() {
        let said = |gateway| {
            let mut problems = Problems::default();
            super::gateway(&mut problems, &asks(Some(gateway)));
            problems.into_vec().into_iter().map(|problem| problem.pointer).collect::<Vec<_>>()
        };
        assert!(said(json!({"node": "a"})).is_empty() && said(json!({"labels": {"a": "b"}})).is_empty());
        assert_eq!(said(json!({})), ["/gateway"]);
        assert_eq!(said(json!({"labels": {}})), ["/gateway"]);
        assert_eq!(said(json!({"node": "-"})), ["/gateway/node"]);
        assert_eq!(said(json!({"node": "a", "labels": {"a": "b"}})), ["/gateway/labels"]);
        assert_eq!(said(json!({"choose": "free", "labels": {"a": "b"}})), ["/gateway/choose"]);
    }

    #[test]
    fn a_node_says_which_limit_is_reached() {
        let node = node(NodeRole::Hub);
        assert_eq!(node.overload(2, [1_000_000_000, 0]), None);
        let many = node.overload(3, [0, 0]).unwrap();
        assert!(
            many.pointer == "/gateway" && many.detail.contains("`node.capacity.personas` is 2"),
            "{many:?}"
        );
        let much = node.overload(1, [0, 1_000_000_001]).unwrap();
        assert!(
            much.pointer == "/qos/bandwidth" && much.detail.contains("node.capacity.bandwidth"),
            "{much:?}"
        );
        assert_eq!(Node::default().overload(usize::MAX, [u64::MAX; 2]), None);
    }
}
