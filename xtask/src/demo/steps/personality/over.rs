//! A switch while traffic flows.

use anyhow::Result;

use crate::demo::{
    shell::Place::{Client, Dev, Hub},
    tour::Tour,
};

pub(in crate::demo::steps) fn switch(tour: &mut Tour) -> Result<()> {
    let ping = tour.start(Client, "over-ping", "ping -q -i 0.01 -c 500 10.20.0.5")?;
    let six = tour.start(Client, "over-ping6", "ping -q -i 0.01 -c 500 fd00:20::5")?;
    let words = "--time 5 --interval 1 --bitrate 20M";
    let stream = tour.start(Client, "over-iperf3", &format!("iperf3 --client 10.20.0.5 {words}"))?;
    let session = "sh -c 'while sleep 0.1; do echo hello; done | socat -u - TCP:10.20.0.5:3306'";
    let database = tour.start(Client, "over-database", session)?;
    tour.wait(Hub, "hubctl flows app", "10.20.0.5:3306")?;
    let done =
        tour.run_lines(Hub, "hubctl personality switch app lockdown --drain 1s --why 'an attack'", 30)?;
    tour.check("the switch is done and verified", done.succeeded() && done.has("app has lockdown@1"));
    let now = tour.run(Hub, "hubctl interface list")?;
    tour.check("the interface has the personality `lockdown`", now.has("lockdown@1"));
    let closed = tour.run_lines(Client, "nc -vz -w 1 10.20.0.5 3306", 2)?;
    tour.check("the database is refused", closed.has("refused"));
    let page = tour.run(Client, "curl -sS --max-time 2 http://10.20.0.5/")?;
    tour.check("the web site answers", page.has("hello from app"));
    let sockets = tour.run(Dev, "ss -Htn state established 'sport = :3306'")?;
    tour.check("the session with the database was reset on both sides", sockets.text.trim().is_empty());
    tour.end_of(database, 3)?;
    for ping in [ping, six] {
        let ping = tour.end_of(ping, 4)?;
        let lost = ping.number_after("transmitted,") == Some(500.0);
        tour.check("500 of 500 packets came back meanwhile", lost);
    }
    let stream = tour.end_of(stream, 12)?;
    tour.check("the TCP stream that both allow went on", stream.succeeded());
    Ok(())
}
