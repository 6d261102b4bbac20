//! The interface has its first personality, and one asks what another would do.

use anyhow::Result;

use crate::{
    demo::{
        shell::Place::{Client, Dev, Hub},
        tour::Tour,
    },
    say::show,
};

/// What listens where: name of the log, and the command.
const SERVERS: [(&str, &str); 3] = [
    ("dev-80", "socat TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0 EXEC:'sh http.sh app'"),
    ("dev-3306", "socat TCP6-LISTEN:3306,fork,reuseaddr,ipv6only=0 EXEC:cat"),
    ("dev-iperf3", "iperf3 --server"),
];

pub(in crate::demo::steps) fn start(tour: &mut Tour) -> Result<()> {
    for (name, command) in SERVERS {
        tour.lab.start(Dev, name, command)?;
    }
    tour.run_lines(Hub, "cat documents/app.yaml", 60)?;
    let checked = tour.run(Hub, "hubctl check hub.yaml documents")?;
    tour.check("the documents are right", checked.succeeded());
    show("hub$ hubd run --config hub.yaml &");
    let took = tour.lab.start_hubd()?;
    tour.check(&format!("hubd is ready after {} ms", took.as_millis()), true);
    let active = tour.wait(Hub, "hubctl interface list", "active")?;
    tour.check("the interface has the personality `office`", active.has("office@1"));
    let addresses =
        tour.run(Dev, "ip -br address show eth0; ip rule show; ip route show table all proto 177")?;
    let given = ["10.20.0.5/24", "fd00:20::5/64"].iter().all(|address| addresses.has(address));
    tour.check(
        "with its addresses, and a routing table of its own",
        given && addresses.has("default via 10.20.0.1"),
    );
    for url in ["http://10.20.0.5/", "http://[fd00:20::5]/"] {
        let page = tour.run(Client, &format!("curl -sS --max-time 2 '{url}'"))?;
        tour.check("the web site answers", page.has("hello from app"));
    }
    let database = tour.run_lines(Client, "nc -vz -w 1 10.20.0.5 3306", 2)?;
    tour.check("the database is open", database.succeeded());
    Ok(())
}

pub(in crate::demo::steps) fn plan(tour: &mut Tour) -> Result<()> {
    let web = tour.start(Client, "plan-web", "socat -u TCP:10.20.0.5:5201 -")?;
    let database = tour.start(Client, "plan-database", "socat -u TCP:10.20.0.5:3306 -")?;
    tour.wait(Hub, "hubctl interface show app; hubctl flows app", "10.20.0.5:3306")?;
    let plan = tour.run_lines(Hub, "hubctl personality switch app lockdown --dry-run", 40)?;
    tour.check("it says that nothing was done", plan.succeeded());
    tour.check("which connections would break, and by which rule", plan.has(":3306"));
    let kept = tour.run(Hub, "hubctl interface list")?;
    tour.check("the interface is as it was", kept.has("office@1"));
    database.end_now()?;
    web.end_now()?;
    Ok(())
}
