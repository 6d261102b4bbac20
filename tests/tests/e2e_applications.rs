//! Rules that ask for first bytes, with real clients and servers: TLS, HTTP, SSH and DNS.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a helper that cannot go on fails the test that called it"
)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use hub_tests::lab::world::{FAMILIES, member_at, outside_at, with_port};
use hub_tests::lab::{Background, Output, Space, World, echoes, wait_until};
use hub_tests::root;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the file that is downloaded.
const BULK: usize = 16 << 20;
/// What `curl` says of a TLS handshake that was reset, and of an answer that was.
const TLS_RESET: i32 = 35;
const ANSWER_RESET: i32 = 56;

/// Packets that a rule of the persona judged.
fn hits(world: &World, rule: u16) -> u64 {
    let counters = world.hub.get("/v1/personas/p0/counters").expect(200);
    let rules = counters["rules"].as_array().unwrap().iter();
    rules.filter(|count| count["rule"] == rule).map(|count| count["packets"].as_u64().unwrap_or(0)).sum()
}

/// Serves the files of the lab's folder over TLS on port 443, one family each.
fn tls_servers(world: &World) -> [Background; 2] {
    let folder = world.lab.folder().display().to_string();
    let member = &world.members[0];
    member.sh(&format!(
        "cd {folder} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
         -subj /CN=test -keyout key.pem -out cert.pem 2> /dev/null && head -c {BULK} /dev/zero > bulk"
    ));
    let servers = ["-4", "-6"].map(|family| {
        member.background(&format!(
            "env -C {folder} openssl s_server {family} -accept 443 -cert cert.pem -key key.pem -WWW"
        ))
    });
    wait_until("the TLS servers listen", PATIENCE, || {
        member.sh("ss -Hltn 'sport = :443'").lines().count() == 2
    });
    servers
}

/// Asks a server by a name, at an address; how `curl` ended.
fn curl(from: &Space, url: &str, at: IpAddr, words: &str) -> Output {
    let host = url.split('/').nth(2).unwrap();
    let port = if url.starts_with("https") { 443 } else { 80 };
    let place = with_port(at, port);
    let place = place.strip_suffix(&format!(":{port}")).unwrap();
    from.try_sh(
        &format!(
            "exec curl --silent --insecure --max-time 15 --output /dev/null --resolve {host}:{port}:{place} \
             --write-out '%{{http_code}} %{{size_download}} %{{time_total}}' {words} {url}"
        ),
        PATIENCE,
    )
}

fn code(output: &Output) -> Option<i32> {
    output.status.and_then(|status| status.code())
}

/// Seconds that `curl` took.
fn seconds(output: &Output) -> f64 {
    output.stdout.split(' ').nth(2).and_then(|text| text.parse().ok()).unwrap()
}

#[test]
fn names_of_tls_hosts_decide_and_what_is_allowed_goes_fast() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"security_policies": [
            {"name": "bad", "port": 443, "signature": {"tls_sni": "bad.good.example"}, "action": "deny"},
            {"name": "good", "port": 443, "signature": {"tls_sni": "*.good.example"}, "action": "allow"},
        ]}),
    );
    let _servers = tls_servers(&world);
    let events = world.lab.folder().join("events");
    let _follower = world.router.background(&format!(
        "curl --silent --no-buffer --unix-socket {} 'http://hub/v1/events?type=packet' --output {}",
        world.hub.socket().display(),
        events.display()
    ));
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let before = (hits(&world, 1), world.total("redirected"), world.total("passed"));
        let good = curl(&world.outside, "https://a.good.example/bulk", there, "--http1.1");
        assert!(good.success(), "{good:?}");
        assert!(good.stdout.starts_with(&format!("200 {BULK} ")), "{good:?}");
        let after = (hits(&world, 1), world.total("redirected"), world.total("passed"));
        assert_eq!(after.0, before.0 + 1, "rules are asked once");
        // Frames of at most 64 KiB: those that say nothing, and those after the hello, leave by the flow's hops.
        let frames = BULK as u64 / 65_536;
        assert!(after.1 >= before.1 + frames, "{before:?} {after:?}");
        assert!(after.2 - before.2 < frames / 4, "{before:?} {after:?}");
        for host in ["bad.good.example", "good.example", "elsewhere.example"] {
            let refused = curl(&world.outside, &format!("https://{host}/bulk"), there, "");
            assert_eq!(code(&refused), Some(TLS_RESET), "{host}: {refused:?}");
            assert!(seconds(&refused) < 5.0, "{host} is told at once: {refused:?}");
        }
        let question = format!("tcp {} {} --in up0", outside_at(v4), with_port(there, 443));
        let (answer, passes) = world.why(&question);
        assert!(passes && answer["explanation"].as_str().unwrap().contains("first bytes"), "{answer:#}");
        assert_eq!(answer["rules"][0]["rule"], 1, "{answer:#}");
    }
    assert_eq!((hits(&world, 0), hits(&world, 1)), (2, 2));
    assert_eq!(world.dropped("p0", "rule_deny"), 2);
    wait_until("an event names the rule", PATIENCE, || {
        let text = std::fs::read_to_string(&events).unwrap_or_default();
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let mut values = data.filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
        values.any(|event| event["rule"] == json!(0) && event["reason"] == "rule_deny")
    });
}

#[test]
fn hosts_and_methods_of_http_decide() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"security_policies": [
            {"port": 80, "signature": {"http_host": "www.example", "http_method": ["GET", "HEAD"]},
             "action": "allow"},
        ]}),
    );
    let folder = world.lab.folder().display().to_string();
    let _server =
        world.members[0].background(&format!("python3 -m http.server 80 --bind :: --directory {folder}"));
    let listening = "ss -Hltn 'sport = :80' | grep -q LISTEN";
    wait_until("the server listens", PATIENCE, || world.members[0].succeeds(listening, PATIENCE));
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let asked = |url: &str, words: &str| curl(&world.outside, url, there, words);
        assert!(asked("http://www.example/", "").stdout.starts_with("200 "));
        assert!(asked("http://www.example/", "--head").stdout.starts_with("200 "));
        for (url, words) in [("http://other.example/", ""), ("http://www.example/", "--request DELETE")] {
            let refused = asked(url, words);
            assert_eq!(code(&refused), Some(ANSWER_RESET), "{url} {words}: {refused:?}");
        }
    }
    assert_eq!(world.dropped("p0", "default_deny"), 4);
}

/// A server that greets, and then echoes one word to each client in turn.
fn greet(member: &Space, port: u16, greeting: &'static [u8]) -> std::thread::JoinHandle<()> {
    let listener = member.within(|| TcpListener::bind(("::", port)).unwrap());
    std::thread::spawn(move || {
        for _ in FAMILIES {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(greeting).ok();
            let mut word = [0; 64];
            if let Ok(length) = stream.read(&mut word) {
                stream.write_all(&word[..length]).ok();
            }
        }
    })
}

#[test]
fn ssh_is_told_by_its_banner_on_any_port() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"security_policies": [
            {"protocol": "tcp", "port": 2200, "signature": {"speaks": "ssh"}, "action": "allow"},
            {"signature": {"speaks": "ssh"}, "action": "deny"},
            {"protocol": "tcp", "port": "1-65535", "action": "allow"},
        ]}),
    );
    let member = &world.members[0];
    let greeter = greet(member, 2200, b"SSH-2.0-greeter\r\n");
    let _echo = member.serve(&[2222]);
    for v4 in FAMILIES {
        let there = member_at(0, v4);
        let mut stream = world.outside.connect(there, 2200);
        let mut banner = [0; 17];
        stream.read_exact(&mut banner).unwrap();
        assert_eq!(&banner, b"SSH-2.0-greeter\r\n");
        assert!(echoes(&mut stream, PATIENCE));
        // A real client, which speaks first.
        let output = world.outside.try_sh(
            &format!(
                "exec ssh -F none -o BatchMode=yes -o ConnectTimeout=10 -o StrictHostKeyChecking=no \
                 -o UserKnownHostsFile=/dev/null -p 2222 nobody@{there} true"
            ),
            PATIENCE,
        );
        assert!(output.stderr.contains("reset"), "{output:?}");
        // The server was told as well, and serves on.
        let mut other = world.outside.connect(there, 2222);
        assert!(echoes(&mut other, PATIENCE), "something else on the same port");
    }
    assert_eq!(hits(&world, 1), 2);
    greeter.join().unwrap();
}

/// A question for the address of a name, as resolvers send it.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

#[test]
fn names_that_are_asked_for_decide() {
    if !root() {
        return;
    }
    let world = World::new(1);
    world.create(
        0,
        &json!({"security_policies": [
            {"port": 53, "signature": {"dns_name": ["*.corp.example", "corp.example"]}, "action": "allow"},
        ]}),
    );
    let _server = world.members[0].serve(&[53]);
    for v4 in FAMILIES {
        let answered = |name: &str| {
            let any: IpAddr = if v4 { [0, 0, 0, 0].into() } else { [0_u16; 8].into() };
            let socket = world.outside.within(|| UdpSocket::bind((any, 0)).unwrap());
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket.send_to(&question(name), (member_at(0, v4), 53)).unwrap();
            let mut answer = [0; 512];
            socket.recv(&mut answer).is_ok_and(|length| answer[..length] == question(name))
        };
        assert!(answered("a.corp.example") && answered("CORP.example"));
        assert!(!answered("corp.example.org") && !answered("xcorp.example"));
    }
    assert_eq!((hits(&world, 0), world.dropped("p0", "default_deny")), (4, 4));
}

/// A connection that has said what it is.
fn greeted(world: &World, v4: bool) -> TcpStream {
    let mut stream = world.outside.connect(member_at(0, v4), 22);
    stream.write_all(b"SSH-2.0-x\r\n").unwrap();
    let mut echo = [0; 11];
    stream.read_exact(&mut echo).unwrap();
    stream
}

#[test]
fn what_was_heard_outlives_the_daemon_and_follows_the_rules() {
    if !root() {
        return;
    }
    // What is cut must not begin anew from the side that may.
    let mut world = World::with(1, "loose_tcp: 0s");
    let ssh = json!({"signature": {"speaks": "ssh"}, "action": "allow"});
    // Also a persona that tracks only what it must tracks what it listens to.
    world.create(0, &json!({"tracking": "needed", "security_policies": [ssh]}));
    let _server = world.members[0].serve(&[22]);
    let mut streams = FAMILIES.map(|v4| greeted(&world, v4));
    let mut waiting = FAMILIES.map(|v4| world.outside.connect(member_at(0, v4), 22));
    let all = |streams: &mut [TcpStream]| streams.iter_mut().all(|stream| echoes(stream, PATIENCE));
    world.hub.process().kill();
    assert!(all(&mut streams), "without the daemon");
    let mut alone = FAMILIES.map(|v4| greeted(&world, v4));
    world.hub.restart();
    world.active("p0");
    assert!(all(&mut streams) && all(&mut alone), "after its return");
    // Other signatures come first: those connections are still what they were heard to be.
    let tls = json!({"signature": {"tls_sni": "x.example"}, "action": "deny"});
    world.replace(0, &json!({"tracking": "needed", "security_policies": [tls, ssh]}));
    assert!(all(&mut streams) && all(&mut alone));
    for stream in &mut waiting {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"no banner").unwrap();
        let error = stream.read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    world.replace(0, &json!({"tracking": "needed", "security_policies": [tls]}));
    assert!(!streams.iter_mut().any(|stream| echoes(stream, Duration::from_millis(500))));
    for v4 in FAMILIES {
        let address = SocketAddr::new(member_at(0, v4), 22);
        assert!(
            world.outside.within(|| TcpStream::connect_timeout(&address, Duration::from_secs(1))).is_err()
        );
    }
}
