//! `hubctl` on a terminal: `personality switch` asks whether to keep what it did (yes, no, and nobody there), `top`
//! draws anew until it is told to end. The terminal is that of `script`, which every Debian has.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test that called it")]

use std::io::{Read as _, Write as _};
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hub_tests::lab::resource::Which::{Open, Shut};
use hub_tests::lab::resource::{Resource, SWITCH};
use hub_tests::lab::{Stopwatch, World, patience, program, wait_until};
use hub_tests::root;
use serde_json::json;

/// A session at a terminal.
struct Terminal {
    child: std::process::Child,
    keys: Option<ChildStdin>,
    screen: Receiver<String>,
    shown: String,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    fn switch(resource: &Resource, words: &str) -> Self {
        Self::start(&resource.world, &format!("personality switch {words}"))
    }

    fn start(world: &World, words: &str) -> Self {
        let (hubctl, socket) = (program("hubctl"), world.hub.socket());
        // Without a shell around it, which would end with 130 of its own after Ctrl-C.
        let line = format!("exec {} --socket {} {words}", hubctl.display(), socket.display());
        let mut command = world.router.program("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut screen) = (child.stdin.take(), child.stdout.take().unwrap());
        let (written, shown) = channel();
        // Ends with the session.
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(length @ 1..) = screen.read(&mut bytes) {
                let text = String::from_utf8_lossy(bytes.get(..length).unwrap()).into_owned();
                // Who looked may have gone.
                written.send(text).ok();
            }
        });
        Self { child, keys, screen: shown, shown: String::new(), reader: Some(reader) }
    }

    fn shown(&mut self) -> &str {
        self.shown.extend(self.screen.try_iter());
        &self.shown
    }

    /// Waits for the question.
    #[track_caller]
    fn asked(&mut self) {
        wait_until("it asks", SWITCH, || self.shown().contains("keep it? [y/n]"));
    }

    fn type_line(&mut self, text: &str) {
        self.press(&format!("{text}\n"));
    }

    fn press(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// How it ended, and what it showed; the keyboard stays there to the last.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let mut code = None;
        wait_until("hubctl ends", SWITCH, || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        self.reader.take().unwrap().join().unwrap();
        (code.and_then(|status| status.code()), self.shown().to_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // One that has ended is as good as stopped.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn a_switch_on_a_terminal_is_kept_by_a_word_alone() {
    if !root() {
        return;
    }
    let resource = Resource::new();
    let mut terminal = Terminal::switch(&resource, "web shut --urgent");
    terminal.asked();
    assert_eq!(resource.state(), "awaiting_confirm");
    assert!(terminal.shown().contains("web has shut@1"));
    terminal.type_line("n");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("has open@1 as before"), "{shown}");
    resource.expect_whole(Open, "after a no");

    // Nobody is there: it says so when the time is over, and does not wait for a key.
    let watch = Stopwatch::start();
    let mut terminal = Terminal::switch(&resource, "web shut --urgent --confirm 2s");
    terminal.asked();
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("not confirmed in time") && shown.contains("has open@1 as before"), "{shown}");
    assert!(watch.elapsed() < Duration::from_secs(15) * patience(), "{:?}", watch.elapsed());
    resource.settle();
    resource.expect_whole(Open, "after silence");

    let mut terminal = Terminal::switch(&resource, "web shut --urgent");
    terminal.asked();
    terminal.type_line("y");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("web has shut@1"), "{shown}");
    resource.settle();
    resource.expect_whole(Shut, "after a yes");

    let (code, shown) = Terminal::switch(&resource, "web open --urgent --no-confirm").end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("[y/n]"), "{shown}");
    resource.settle();
    resource.expect_whole(Open, "without a question");
}

#[test]
fn top_draws_on_a_screen_of_its_own_until_it_is_told_to_end() {
    const DRAWN: &str = "\x1b[H\x1b[J";
    const INTERRUPT: &str = "\x03";
    if !root() {
        return;
    }
    let world = World::new(2);
    world.create(0, &json!({}));
    let mut terminal = Terminal::start(&world, "top --interval 100ms --sort name");
    let drawings = |terminal: &mut Terminal, with: &str| {
        let with = |drawing: &&str| drawing.contains("PERSONA") && drawing.contains(with);
        terminal.shown().split(DRAWN).skip(1).filter(with).count()
    };
    wait_until("it is drawn anew", SWITCH, || drawings(&mut terminal, "p0") >= 3);
    assert_eq!(drawings(&mut terminal, "p1"), 0);
    world.create(1, &json!({}));
    wait_until("who came is shown", SWITCH, || drawings(&mut terminal, "p1") >= 2);
    terminal.press(INTERRUPT);
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown:?}");
    let [before, after] = ["\x1b[?1049h", "\x1b[?1049l"].map(|part| shown.matches(part).count());
    assert_eq!((before, after), (1, 1), "the screen of before is given back: {shown:?}");
    assert!(shown.trim_end().ends_with("\x1b[?25h\x1b[?1049l"), "with its cursor: {shown:?}");
}
