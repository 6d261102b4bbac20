//! Rules change while packets run.

use anyhow::Result;

use crate::demo::{
    shell::Place::{Client, Hub},
    tour::Tour,
};

const PATCH: &str = r#"curl -sS -o /dev/null -w '%{http_code}\n' --unix-socket run/hubd.sock -X PATCH http://hub/personas/TempDevNetwork -H 'Content-Type: application/merge-patch+json' -d '{"security_policies": [{"protocol": "tcp", "port": [80, 443], "action": "allow"}]}'"#;

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    let closed = tour.run_lines(Client, "nc -vz -w 1 10.50.0.10 8081", 2)?;
    tour.check("tcp/8081 is closed", !closed.succeeded());
    let ping = tour.start(Client, "change-ping", "ping -q -i 0.01 -c 200 10.50.0.10")?;
    let stream = tour.start(Client, "change-iperf3", "iperf3 --client 10.50.0.10 --time 2 --interval 0")?;

    tour.run(Hub, "sed -i 's/8080, 5201/8080, 5201, 8081/' documents/staging.yaml")?;
    let plan = tour.run(Hub, "hubctl plan")?;
    tour.check("plan says what would change", plan.has("~ staging") && plan.has("8081"));
    let applied = tour.run(Hub, "hubctl apply")?;
    tour.check("apply does it", applied.succeeded());
    let open = tour.run(Client, "curl -sS --max-time 2 http://10.50.0.10:8081/")?;
    tour.check("tcp/8081 is open", open.has("hello from web"));

    let patched = tour.run(Hub, PATCH)?;
    tour.check("the API changes its persona", patched.has("200"));
    let open = tour.run(Client, "curl -sS --max-time 2 http://10.100.0.10:443/")?;
    tour.check("tcp/443 is open", open.has("hello from dev"));
    let edited = tour.run_lines(
        Hub,
        "curl -sS --unix-socket run/hubd.sock -X DELETE http://hub/personas/staging | jq -c '{status, title, detail}'",
        3,
    )?;
    tour.check("what a file owns, the API does not change: 409", edited.has("\"status\":409"));

    let ping = tour.end_of(ping, 4)?;
    let lost = ping.number_after("transmitted,") == Some(200.0);
    tour.check("200 of 200 packets came back meanwhile", lost);
    let stream = tour.end_of(stream, 9)?;
    tour.check("the TCP stream went on", stream.succeeded());
    Ok(())
}
