//! The steps of each demo, in order.

mod change;
mod create;
mod expire;
mod explain;
mod finish;
mod look;
mod personality;
mod restart;
mod start;
mod traffic;

use super::tour::Step;

/// Personas filter and route.
pub(super) const PERSONAS: [Step; 11] = [
    Step { title: "the hub starts, with one persona from a file", run: start::run },
    Step { title: "a persona comes over REST", run: create::run },
    Step { title: "packets of real clients", run: traffic::run },
    Step { title: "which rule dropped what", run: explain::run },
    Step { title: "routes in the kernel", run: look::routes },
    Step { title: "tables of the data path", run: look::maps },
    Step { title: "metrics", run: look::metrics },
    Step { title: "rules change under traffic", run: change::run },
    Step { title: "hubd is killed under traffic", run: restart::run },
    Step { title: "a persona ends while hubd stands still", run: expire::run },
    Step { title: "nothing is left behind", run: finish::run },
];

/// An interface is switched, and put back.
pub(super) const PERSONALITY: [Step; 8] = [
    Step { title: "an interface has its first personality", run: personality::start },
    Step { title: "what a switch would do", run: personality::plan },
    Step { title: "a switch under traffic", run: personality::switch },
    Step { title: "a switch whose check fails", run: personality::fail },
    Step { title: "a switch that nobody confirms", run: personality::confirm },
    Step { title: "access for a while, and hubd is killed", run: personality::killed },
    Step { title: "what happened", run: personality::told },
    Step { title: "nothing is left behind", run: personality::finish },
];
