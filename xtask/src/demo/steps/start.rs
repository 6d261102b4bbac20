//! The daemon starts.

use anyhow::Result;

use crate::{
    demo::{
        shell::Place::{Client, Dev, Hub, Web},
        tour::Tour,
    },
    say::show,
};

/// What listens where: name of the log, and the command.
const SERVERS: [(crate::demo::shell::Place, &str, &str); 8] = [
    (Dev, "dev-80", "socat TCP-LISTEN:80,fork,reuseaddr EXEC:'sh http.sh dev'"),
    (Dev, "dev-443", "socat TCP-LISTEN:443,fork,reuseaddr EXEC:'sh http.sh dev'"),
    (Dev, "dev-22", "socat TCP-LISTEN:22,fork,reuseaddr EXEC:cat"),
    (Dev, "dev-udp", "socat UDP-RECVFROM:5000,fork EXEC:cat"),
    (Web, "web-8080", "socat TCP6-LISTEN:8080,fork,reuseaddr,ipv6only=0 EXEC:'sh http.sh web'"),
    (Web, "web-8081", "socat TCP6-LISTEN:8081,fork,reuseaddr,ipv6only=0 EXEC:'sh http.sh web'"),
    (Web, "web-iperf3", "iperf3 --server"),
    (Client, "client-80", "socat TCP-LISTEN:80,fork,reuseaddr EXEC:'sh http.sh client'"),
];

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    for (place, name, command) in SERVERS {
        tour.lab.start(place, name, command)?;
    }
    tour.run(Hub, "hubctl check hub.yaml documents")?;
    show("hub$ hubd run --config hub.yaml &");
    let took = tour.lab.start_hubd()?;
    tour.check(&format!("hubd is ready after {} ms", took.as_millis()), true);

    let status = tour.run_lines(Hub, "hubctl status", 40)?;
    tour.check("the persona of the file is active", status.has("1 active"));
    let programs = tour.run(
        Hub,
        "hubctl status --json | jq -c '[.attachments[] | select(.hook | startswith(\"tc\")) | .interface] | unique'",
    )?;
    let everywhere = ["wan0", "lan0", "hub"].iter().all(|name| programs.has(&format!("\"{name}")));
    tour.check("programs run on both ports and on the member's", everywhere);
    let addresses = tour.run(Web, "ip -br address show eth0")?;
    let given = ["10.50.0.10/", "fd00:50::10/"].iter().all(|address| addresses.has(address));
    tour.check("the member has the interface and the addresses that the file gives it", given);
    Ok(())
}
