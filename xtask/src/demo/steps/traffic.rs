//! Packets of real clients, allowed and denied.

use anyhow::Result;

use crate::demo::{
    shell::{
        Place::{self, Client, Dev, Hub},
        Seen,
    },
    tour::Tour,
};

/// A command of a client, and what comes of it.
struct Attempt {
    from: Place,
    command: &'static str,
    promise: &'static str,
    holds: fn(&Seen) -> bool,
}

const ATTEMPTS: [Attempt; 9] = [
    Attempt {
        from: Client,
        command: "curl -sS --max-time 2 http://10.100.0.10/",
        promise: "tcp/80 passes: rule 0 allows it",
        holds: |seen| seen.has("hello from dev"),
    },
    Attempt {
        from: Client,
        command: "nc -vz -w 1 10.100.0.10 22",
        promise: "tcp/22 does not: rule 1 denies it in silence",
        holds: |seen| !seen.succeeded() && seen.has("timed out"),
    },
    Attempt {
        from: Client,
        command: "nc -vz -w 1 10.100.0.10 443",
        promise: "tcp/443 does not: no rule matches, and the default is deny",
        holds: |seen| !seen.succeeded() && seen.has("timed out"),
    },
    Attempt {
        from: Client,
        command: "echo over udp | nc -u -w 1 10.100.0.10 5000",
        promise: "udp passes: no rule speaks of it",
        holds: |seen| seen.has("over udp"),
    },
    Attempt {
        from: Client,
        command: "ping -c 1 -W 1 10.100.0.10",
        promise: "ping does not: icmp is not among the protocols",
        holds: |seen| seen.number_after("transmitted,") == Some(0.0),
    },
    Attempt {
        from: Dev,
        command: "curl -sS --max-time 2 http://192.0.2.10/",
        promise: "the member reaches the world outside",
        holds: |seen| seen.has("hello from client"),
    },
    Attempt {
        from: Client,
        command: "curl -sS --max-time 2 'http://[fd00:50::10]:8080/'",
        promise: "IPv6: tcp/8080 of the second persona passes",
        holds: |seen| seen.has("hello from web"),
    },
    Attempt {
        from: Client,
        command: "ping -c 2 -i 0.1 fd00:50::10",
        promise: "IPv6: ping passes where a rule allows it",
        holds: |seen| seen.number_after("transmitted,") == Some(2.0),
    },
    Attempt {
        from: Client,
        command: "nc -vz -w 1 fd00:50::10 23",
        promise: "IPv6: tcp/23 is rejected, and the client is told at once",
        holds: |seen| !seen.succeeded() && seen.has("refused"),
    },
];

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    let events = tour.start(Hub, "events", "hubctl events --follow --type packet")?;
    for attempt in &ATTEMPTS {
        let seen = tour.run_lines(attempt.from, attempt.command, 3)?;
        tour.check(attempt.promise, (attempt.holds)(&seen));
    }
    let events = tour.end_after(events, "rule_reject", 8)?;
    let told =
        ["rule_deny", "default_deny", "protocol", "rule_reject"].iter().all(|reason| events.has(reason));
    tour.check("each refusal is an event with its reason", told);
    Ok(())
}
