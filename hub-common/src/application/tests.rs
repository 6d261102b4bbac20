use super::*;

fn payload(bytes: &[u8]) -> Payload {
    let mut payload = Payload { length: bytes.len().min(PAYLOAD_BYTES) as u32, ..Payload::ZERO };
    for (place, byte) in bytes.iter().take(PAYLOAD_BYTES).enumerate() {
        payload.bytes[place] = *byte;
    }
    payload
}

fn name(features: &Features) -> String {
    let letters = features.name.iter().flat_map(|word| word.to_le_bytes());
    let mut letters: Vec<u8> = letters.take(features.name_bytes as usize).collect();
    letters.reverse();
    String::from_utf8(letters).unwrap()
}

/// A client's hello as RFC 8446 has it, with extensions before and behind the name.
fn client_hello(host: &str, offers: &[&str]) -> Vec<u8> {
    let sized = |bytes: Vec<u8>| [(bytes.len() as u16).to_be_bytes().to_vec(), bytes].concat();
    let extension = |kind: u16, inside: Vec<u8>| [kind.to_be_bytes().to_vec(), sized(inside)].concat();
    let names = sized([vec![0], sized(host.as_bytes().to_vec())].concat());
    let offers =
        offers.iter().flat_map(|offer| [vec![offer.len() as u8], offer.as_bytes().to_vec()].concat());
    let extensions = [
        extension(0x0a0a, vec![]),
        extension(43, vec![2, 3, 4]),
        extension(0, names),
        extension(16, sized(offers.collect())),
        extension(51, vec![7; 36]),
    ];
    let inside = [
        vec![3, 3],
        vec![9; 32],
        [vec![32], vec![8; 32]].concat(),
        sized(vec![0x13, 0x01, 0x13, 0x02]),
        vec![1, 0],
        sized(extensions.concat()),
    ]
    .concat();
    let handshake = [vec![1, 0], (inside.len() as u16).to_be_bytes().to_vec(), inside].concat();
    [vec![0x16, 3, 1], sized(handshake)].concat()
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn of(kind: u8) -> Signature {
    Signature { kind, ..Signature::ZERO }
}

#[test]
fn a_hello_says_host_and_protocols() {
    let bytes = payload(&client_hello("API.Example.com", &["h2", "http/1.1"]));
    let seen = features(&bytes, true);
    assert_eq!((seen.kind, name(&seen).as_str()), (KIND_TLS, "api.example.com"));
    let exact = of(KIND_TLS).named("api.example.com", false).unwrap();
    assert!(exact.fits(&seen, &bytes));
    let below = of(KIND_TLS).named("example.com", true).unwrap();
    assert!(below.fits(&seen, &bytes));
    for (other, below) in [
        ("example.com", false),
        ("i.example.com", false),
        ("pi.example.com", true),
        ("api.example.com", true),
    ] {
        assert!(!of(KIND_TLS).named(other, below).unwrap().fits(&seen, &bytes), "{other} {below}");
    }
    let offers = |name: &str| Signature { offer: offer(name.as_bytes()), ..of(KIND_TLS) };
    assert!(offers("h2").fits(&seen, &bytes) && offers("http/1.1").fits(&seen, &bytes));
    assert!(!offers("h3").fits(&seen, &bytes));
}

#[test]
fn a_hello_that_is_cut_has_no_name() {
    let whole = client_hello("example.com", &[]);
    let end = whole.windows(11).position(|window| window == b"example.com").unwrap() + 11;
    for length in 0..whole.len() {
        let seen = features(&payload(&whole[..length]), true);
        assert_eq!(seen.name_bytes > 0, length >= end, "{length} bytes");
    }
}

#[test]
fn a_name_of_any_length_up_to_the_most_is_compared_whole() {
    for letters in 1..=NAME_BYTES + 2 {
        let host = "a".repeat(letters);
        let bytes = payload(&client_hello(&host, &[]));
        let seen = features(&bytes, true);
        if letters > NAME_BYTES {
            assert_eq!(seen.name_bytes, 0);
            assert!(of(KIND_TLS).named(&host, false).is_none());
            continue;
        }
        assert!(of(KIND_TLS).named(&host, false).unwrap().fits(&seen, &bytes), "{letters}");
        if letters > 1 {
            assert!(!of(KIND_TLS).named(&host[1..], false).unwrap().fits(&seen, &bytes), "{letters}");
        }
    }
}

#[test]
fn a_request_says_method_and_host() {
    let text = b"GET /host: HTTP/1.1\r\nUser-Agent: x\r\nhOsT:  Example.org:8080\r\nAccept: */*\r\n\r\n";
    let bytes = payload(text);
    let seen = features(&bytes, true);
    assert_eq!((seen.kind, seen.method, name(&seen).as_str()), (KIND_HTTP, 1, "example.org"));
    let get = Signature { method: 1, ..of(KIND_HTTP) };
    assert!(get.fits(&seen, &bytes) && !Signature { method: 3, ..get }.fits(&seen, &bytes));
    for (place, method) in (1..).zip(METHODS) {
        let bytes = payload(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(features(&bytes, true).method, place, "{method}");
    }
    let far = [b"POST / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 700], b"\r\nHost: far.example\r\n".to_vec()];
    assert_eq!(name(&features(&payload(&far.concat()), true)), "far.example");
    let cut = features(&payload(b"GET / HTTP/1.1\r\nHost: exam"), true);
    assert_eq!((cut.kind, cut.name_bytes), (KIND_HTTP, 0));
}

#[test]
fn a_question_says_its_name() {
    let bytes = payload(&question("www.Example.com"));
    let seen = features(&bytes, false);
    assert_eq!((seen.kind, name(&seen).as_str()), (KIND_DNS, "www.example.com"));
    assert!(of(KIND_DNS).named("example.com", true).unwrap().fits(&seen, &bytes));
    let long = ["a".repeat(40), "b".repeat(23)].join(".");
    assert_eq!(name(&features(&payload(&question(&long)), false)), long);
    let longer = ["a".repeat(40), "b".repeat(24)].join(".");
    assert_eq!(features(&payload(&question(&longer)), false).name_bytes, 0);
    let whole = question("example.com");
    for length in 0..whole.len() - 4 {
        assert_eq!(features(&payload(&whole[..length]), false).name_bytes, 0, "{length} bytes");
    }
}

#[test]
fn banners_and_long_headers_are_recognised() {
    for (bytes, is_tcp, kind) in [
        (&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..], true, KIND_SSH),
        (b"220 mail.example ESMTP\r\n", true, KIND_SMTP),
        (b"EHLO client\r\n", true, KIND_SMTP),
        (b"\xc3\0\0\0\x01\x08abcdefgh", false, KIND_QUIC),
        (b"\xc3\0\0\0\0\x08abcdefgh", false, KIND_OTHER),
        (b"SSH-2.0", false, KIND_OTHER),
        (b"", true, KIND_OTHER),
        (b"GETAWAY", true, KIND_OTHER),
    ] {
        assert_eq!(features(&payload(bytes), is_tcp).kind, kind, "{bytes:?}");
    }
}

#[test]
fn bytes_are_compared_at_their_place() {
    let bytes = payload(b"\0\0MAGIC-0123456789");
    let seen = features(&bytes, true);
    let at = |at, bytes: &[u8]| of(KIND_OTHER).with_bytes(at, bytes).unwrap();
    assert!(at(2, b"MAGIC").fits(&seen, &bytes) && at(3, b"AGIC-0123456789").fits(&seen, &bytes));
    assert!(!at(1, b"MAGIC").fits(&seen, &bytes) && !at(4, b"GIC-0123456789x").fits(&seen, &bytes));
    assert!(of(KIND_OTHER).with_bytes(0, &[0; 17]).is_none());
    assert!(of(KIND_OTHER).with_bytes(PAYLOAD_BYTES as u32, b"x").is_none());
}

#[test]
fn no_bytes_make_it_panic() {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for round in 0..20_000 {
        let mut bytes = match round % 4 {
            0 => client_hello("some.host.example", &["h2"]),
            1 => question("some.host.example"),
            2 => b"GET / HTTP/1.1\r\nHost: some.host.example\r\n\r\n".to_vec(),
            _ => (0..random()).map(|_| random()).collect(),
        };
        for _ in 0..4 {
            let place = random() as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random();
            }
        }
        for is_tcp in [true, false] {
            let seen = features(&payload(&bytes), is_tcp);
            assert!(seen.name_bytes as usize <= NAME_BYTES);
        }
    }
}
