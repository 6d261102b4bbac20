//! A data path whose numbers are known.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hub_daemon::datapath_view::{
    Answer, AnswerRule, CandidateCounts, Count, DecidedBy, DetectionCount, DropCount, FlowCounts, FlowTable,
    FlowView, FlowsBegun, HookCounts, ImpactedFlow, Impacts, QuarantinedView, Question, RuleCount,
    SegmentCounts, Sweep,
};
use hub_daemon::inputs::datapath::Datapath;
use hub_daemon::judgement::{Asked, Judgement};
use hub_daemon::kernel::impacted::{Change, Waited};
use hub_daemon::kernel::reader::ReadError;
use hub_daemon::model::SegmentId;
use hub_daemon::qos_view::{HandshakeTimes, QueueCounts};

use crate::support::FILED;

/// A data path whose numbers are known.
#[derive(Debug)]
pub(crate) struct FixedDatapath;

impl Datapath for FixedDatapath {
    fn judge(&self, _: &[Asked]) -> Result<Vec<Judgement>, ReadError> {
        Ok(Vec::new())
    }

    fn ended(&self, _: SegmentId) -> Result<u64, ReadError> {
        Ok(0)
    }

    fn segment(&self, segment: SegmentId) -> Result<SegmentCounts, ReadError> {
        let count = |packets| Count { packets, bytes: packets * 100 };
        Ok(SegmentCounts {
            ingress: count(u64::from(segment.0)),
            egress: count(20),
            ingress_dropped: count(3),
            egress_dropped: count(0),
            drops: vec![DropCount {
                reason: "rule_deny".into(),
                direction: "ingress".into(),
                count: count(3),
            }],
            rules: vec![RuleCount {
                rule: 1,
                identity: 0,
                baseline: false,
                direction: "ingress".into(),
                count: count(3),
                would_drop: 0,
            }],
            would_drop: Vec::new(),
            flows: FlowsBegun { ingress: 7, egress: 8 },
            detections: vec![DetectionCount { detector: "port_scan".into(), times: 2 }],
            handshakes: Some(HandshakeTimes {
                count: 4,
                sum_us: 2_500,
                p50_us: 700,
                p95_us: 60_000,
                p99_us: 60_000,
                buckets: vec![0, 3, 1],
            }),
            queues: Vec::new(),
        })
    }

    fn segments(&self, of: &[SegmentId]) -> Result<Sweep, ReadError> {
        of.iter().map(|segment| Ok((*segment, self.segment(*segment)?))).collect()
    }

    fn impacted(&self, change: &Change<'_>, limit: usize) -> Result<Impacts, ReadError> {
        let flow = self.flows(None, 1)?.remove(0);
        assert!(limit > 0 && change.drain_udp && change.failsafe.contains(&(6, 22)));
        let flows =
            vec![ImpactedFlow { flow, active: true, survives: false, by: DecidedBy::Rule, rule: Some(1) }];
        Ok(Impacts { breaks_active: 1, survives_active: 2, flows, ..Impacts::default() })
    }

    fn waited(&self, _: &Change<'_>, _: bool, _: Option<&Waited>) -> Result<Waited, ReadError> {
        Ok(Waited::default())
    }

    fn flow_counts(&self) -> Result<FlowCounts, ReadError> {
        let table = FlowTable { established: 3, established_max: 100, opening: 1, opening_max: 50 };
        Ok(FlowCounts { table, personas: [(SegmentId(1), 4)].into() })
    }

    fn candidate(&self, _segment: SegmentId) -> Result<CandidateCounts, ReadError> {
        Ok(CandidateCounts { judged: 10, agreed: 10, ..CandidateCounts::default() })
    }

    fn paced(&self) -> Result<BTreeMap<SegmentId, [u64; 2]>, ReadError> {
        Ok([(SegmentId(1), [80, 900])].into())
    }

    fn handshakes(&self) -> Result<BTreeMap<SegmentId, HandshakeTimes>, ReadError> {
        Ok(self.segment(SegmentId(1))?.handshakes.map(|times| (SegmentId(1), times)).into_iter().collect())
    }

    fn queues(&self) -> Result<BTreeMap<SegmentId, Vec<QueueCounts>>, ReadError> {
        let queue = QueueCounts {
            interface: "eth2".into(),
            direction: "ingress".into(),
            priority: "normal".into(),
            backlog_bytes: 1_500,
            delay_us: 120,
            packets: 9,
            bytes: 9_000,
            drops: 2,
        };
        Ok(BTreeMap::from([(SegmentId(1), vec![queue])]))
    }

    fn hooks(&self) -> Result<Vec<HookCounts>, ReadError> {
        Ok(vec![HookCounts {
            hook: "tc_in".into(),
            received: 10,
            redirected: 4,
            passed: 2,
            skipped: 1,
            replied: 0,
            dropped: 3,
            events_lost: 5,
            drops_unattributed: 0,
            reasons: vec![("rule_deny".into(), 3)],
        }])
    }

    fn quarantined(&self, _segment: SegmentId) -> Result<Vec<QuarantinedView>, ReadError> {
        let expires_at = "2030-01-01T00:00:00Z".parse().unwrap();
        Ok(vec![QuarantinedView { address: "192.0.2.7".parse().unwrap(), expires_at }])
    }

    fn flows(&self, segment: Option<SegmentId>, limit: usize) -> Result<Vec<FlowView>, ReadError> {
        let flow = FlowView {
            protocol: "tcp".into(),
            source: IpAddr::from([10, 0, 0, 1]),
            source_port: 40_000,
            target: "fd00::2".parse().unwrap(),
            target_port: 80,
            state: "established".into(),
            source_segment: segment.unwrap_or(SegmentId(1)),
            target_segment: SegmentId(0),
            sent: Count { packets: 5, bytes: 500 },
            received: Count { packets: 4, bytes: 400 },
            idle_seconds: 0.5,
            age_seconds: 2.0,
        };
        Ok(vec![flow; limit.min(3)])
    }

    fn why(&self, question: &Question) -> Result<Answer, ReadError> {
        if question.protocol == "nonsense" {
            return Err(ReadError::Question("protocol `nonsense`: use a name or number".into()));
        }
        let passes = question.target_port == Some(80);
        Ok(Answer {
            verdict: if passes { "pass" } else { "drop" }.into(),
            reason: (!passes).then(|| "rule_deny".into()),
            explanation: if passes { "it passes" } else { "a rule denies it" }.into(),
            source_persona: None,
            target_persona: Some(FILED.into()),
            rules: vec![AnswerRule {
                persona: FILED.into(),
                direction: "ingress".into(),
                rule: Some(1),
                written: "/etc/hub/filed.yaml:9".into(),
                text: "deny tcp to port 22".into(),
                would_drop: None,
            }],
            established: false,
            port: question.port.clone().unwrap_or_else(|| "eth0".into()),
            leaves_by: Some("hub1".into()),
        })
    }
}
