//! The daemon is killed and comes back; packets do not notice.

use anyhow::Result;

use crate::{
    demo::{
        shell::Place::{Client, Hub},
        tour::Tour,
    },
    say::show,
};

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    let ping = tour.start(Client, "restart-ping", "ping -q -i 0.01 -c 200 10.50.0.10")?;
    let stream = tour.start(Client, "restart-iperf3", "iperf3 --client 10.50.0.10 --time 3 --interval 0")?;
    let pid = tour.lab.hubd_pid()?;
    tour.run(Hub, &format!("sleep 0.3; kill -KILL {pid}"))?;
    tour.lab.reap_hubd()?;
    let dead = tour.run(Hub, "hubctl status")?;
    tour.check("hubctl says that nobody answers, by exit code 3", dead.code == Some(3));
    show("hub$ hubd run --config hub.yaml &");
    let took = tour.lab.start_hubd()?;
    tour.check(&format!("hubd is ready again after {} ms", took.as_millis()), true);

    let personas = tour.run(Hub, "hubctl persona list")?;
    let both = personas.has("TempDevNetwork") && personas.has("staging");
    tour.check("it knows its personas", both);
    let ping = tour.end_of(ping, 4)?;
    tour.check("200 of 200 packets came back meanwhile", ping.number_after("transmitted,") == Some(200.0));
    let stream = tour.end_of(stream, 9)?;
    tour.check("the TCP stream went on", stream.succeeded());
    Ok(())
}
