//! Switches that do not hold: a check fails, nobody confirms, the daemon dies.

use anyhow::Result;

use crate::{
    demo::{
        shell::Place::{Client, Hub},
        tour::Tour,
    },
    say::show,
};

pub(in crate::demo::steps) fn fail(tour: &mut Tour) -> Result<()> {
    let ping = tour.start(Client, "fail-ping", "ping -q -i 0.01 -c 300 10.20.0.5")?;
    let failed = tour.run_lines(Hub, "hubctl personality switch app broken", 30)?;
    tour.check("the switch failed, and says why", !failed.succeeded() && failed.has("192.0.2.10:9"));
    let now = tour.run(Hub, "hubctl interface list")?;
    tour.check("the interface has what it had", now.has("lockdown@1") && now.has("active"));
    let page = tour.run(Client, "curl -sS --max-time 2 http://10.20.0.5/")?;
    tour.check("the web site answers", page.has("hello from app"));
    let ping = tour.end_of(ping, 4)?;
    tour.check("300 of 300 packets came back meanwhile", ping.number_after("transmitted,") == Some(300.0));
    Ok(())
}

pub(in crate::demo::steps) fn confirm(tour: &mut Tour) -> Result<()> {
    let waits = tour.run_lines(Hub, "hubctl personality switch app office --urgent --confirm 3s", 30)?;
    tour.check("it waits for a confirmation", waits.has("confirm"));
    let open = tour.run_lines(Client, "nc -vz -w 1 10.20.0.5 3306", 2)?;
    tour.check("the database is open", open.succeeded());
    let back = tour.wait(Hub, "hubctl interface list", "active  lockdown@1")?;
    tour.check("nobody confirmed, so the interface went back", back.has("active  lockdown@1"));
    let closed = tour.run_lines(Client, "nc -vz -w 1 10.20.0.5 3306", 2)?;
    tour.check("the database is refused", closed.has("refused"));
    Ok(())
}

pub(in crate::demo::steps) fn killed(tour: &mut Tour) -> Result<()> {
    let lent = tour.run_lines(Hub, "hubctl personality switch app office --for 4s --why 'a repair'", 30)?;
    tour.check("the database is lent for four seconds", lent.succeeded());
    let open = tour.run_lines(Client, "nc -vz -w 1 10.20.0.5 3306", 2)?;
    tour.check("it is open", open.succeeded());
    let pid = tour.lab.hubd_pid()?;
    tour.run(Hub, &format!("kill -KILL {pid}"))?;
    tour.lab.reap_hubd()?;
    let closed = tour.wait(Client, "nc -vz -w 1 10.20.0.5 3306", "refused")?;
    tour.check("the data path ends it by itself, without hubd", closed.has("refused"));
    let page = tour.run(Client, "curl -sS --max-time 2 http://10.20.0.5/")?;
    tour.check("the web site answers", page.has("hello from app"));
    show("hub$ hubd run --config hub.yaml &");
    tour.lab.start_hubd()?;
    let back = tour.wait(Hub, "hubctl interface list", "active  lockdown@1")?;
    tour.check("a new hubd finds the interface so", back.has("active  lockdown@1"));
    Ok(())
}
