//! A persona by the JSON of the specification.

use anyhow::Result;

use crate::demo::{shell::Place::Hub, tour::Tour};

const POST: &str =
    "curl -sS -i --unix-socket run/hubd.sock http://hub/personas -H 'Content-Type: application/json'";

pub(super) fn run(tour: &mut Tour) -> Result<()> {
    tour.run_lines(Hub, "cat persona.json", 20)?;
    let refused = tour.run_lines(Hub, &format!("{POST} -d @persona.json"), 20)?;
    tour.check("its expiration is past: 422", refused.has("HTTP/1.1 422"));
    let readable = refused.has("/expiration") && refused.has("expiration_in_past");
    tour.check("the problem names the field and says what would be right", readable);

    let created = tour.run_lines(Hub, &format!("sed s/2024/2099/ persona.json | {POST} -d @-"), 6)?;
    let is_created = created.has("HTTP/1.1 201") && created.text.to_lowercase().contains("location: ");
    tour.check("with an expiration to come: 201, and its Location", is_created);
    let shown = tour.run_lines(Hub, "hubctl persona show TempDevNetwork", 24)?;
    tour.check("it is active", shown.has("active"));
    let queues = tour.run(Hub, "tc class show dev lan0")?;
    tour.check("its bandwidth is a class of HTB", queues.has("class htb 177:"));
    tour.check("lint: rule 1 changes nothing, the default denies as well", shown.has("rule 1 is shadowed"));
    tour.run(Hub, "hubctl persona list")?;
    Ok(())
}
