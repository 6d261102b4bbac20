//! Documents and configurations that are wrong: right ones with mistakes that people and programs make.

use serde_json::{Value, json};

use crate::generate::Random;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A field, or several: the error names it.
    Field,
    /// The text itself, which is neither YAML nor JSON.
    Text,
}

/// A text that must be refused.
#[derive(Clone, Debug)]
pub struct Mistake {
    /// What is wrong with it.
    pub kind: Kind,
    /// The text.
    pub text: Vec<u8>,
}

/// A persona that is right; what is wrong is put into it.
pub fn good(random: &mut Random, name: &str) -> Value {
    let third = random.byte();
    json!({
        "name": name,
        "ip_range": [format!("10.222.{third}.0/24"), format!("fd00:222:{third:x}::/64")],
        "protocols": ["tcp", "udp", "icmp"],
        "security_policies": [
            {"protocol": "tcp", "port": [80, 443], "action": "allow"},
            {"protocol": "udp", "port": "1000-2000", "source": "192.0.2.0/24", "action": "deny"},
        ],
        "default_action": "deny",
    })
}

/// Values that are wrong, by the field that they are put into.
fn wrong(random: &mut Random) -> (String, Value) {
    let rules = |rule: Value| ("/security_policies/1".to_owned(), rule);
    let (field, value) = match random.below(12) {
        0 => (
            "/ip_range",
            random.pick(&[
                json!("10.1.2.3/24"),
                json!("10.0.0.0/33"),
                json!(5),
                json!([]),
                json!("banana"),
                json!("127.0.0.0/8"),
                json!("224.0.0.0/4"),
                json!("fd00::1/64"),
                json!(["10.222.0.0/24", null]),
                json!({"v4": "10.0.0.0/8"}),
            ]),
        ),
        1 => (
            "/name",
            random.pick(&[
                json!(""),
                json!("a name"),
                json!("x".repeat(200)),
                json!(5),
                json!(null),
                json!("a/b"),
            ]),
        ),
        2 => {
            ("/protocols", random.pick(&[json!(["tpc"]), json!([300]), json!({}), json!([null]), json!("")]))
        }
        3 | 4 => {
            let rule = random.pick(&[
                json!({"protocol": "tcp", "action": "alow"}),
                json!({"protocol": "tcp", "port": 70_000, "action": "allow"}),
                json!({"protocol": "icmp", "port": 80, "action": "allow"}),
                json!({"protocol": "tcp", "port": "90-80", "action": "allow"}),
                json!({"source": "10.0.0.1/8", "action": "deny"}),
                json!({"protocol": "tcp", "action": "allow", "bogus": 1}),
                json!({"protocol": "tcp"}),
                json!({"protocol": "tcp", "action": "allow", "direction": "sideways"}),
                json!({"source": "10.0.0.0/8", "destination": "fd00::/8", "action": "deny"}),
                json!("allow everything"),
                json!(null),
            ]);
            return rules(rule.unwrap());
        }
        5 => ("/default_action", random.pick(&[json!("maybe"), json!(1), json!(null), json!("allow all")])),
        6 => ("/strict", random.pick(&[json!("sure"), json!(3), json!([]), json!(null)])),
        7 => ("/ttl", random.pick(&[json!("banana"), json!("-4h"), json!({}), json!("4 fortnights")])),
        8 => ("/expiration", random.pick(&[json!("2031-02-30T00:00:00Z"), json!("tomorrow"), json!([1])])),
        9 => (
            "/endpoints",
            random.pick(&[
                json!([{"name": "x"}]),
                json!([{"namespace": "y"}]),
                json!("x"),
                json!([{"name": "x", "namespace": "n", "mtu": "big"}]),
            ]),
        ),
        10 => (
            random.pick(&["/egress", "/qos", "/peers"]).unwrap(),
            random.pick(&[
                json!({"next_hop": ["banana"]}),
                json!({"bandwidth": "100mb"}),
                json!([5]),
                json!(7),
            ]),
        ),
        _ => (
            random.pick(&["/protcols", "/ip_ranges", "/Name", "/security_policy", "/x"]).unwrap(),
            random.pick(&[json!(1), json!("x"), json!(["tcp"])]),
        ),
    };
    (field.to_owned(), value.unwrap())
}

/// A persona document, as YAML or as a JSON body, that is wrong.
pub fn persona(random: &mut Random, name: &str, is_yaml: bool) -> Mistake {
    let mut value = good(random, name);
    if random.chance(20) {
        let text = if is_yaml { yaml(&value) } else { value.to_string() };
        return Mistake { kind: Kind::Text, text: broken(random, text, is_yaml) };
    }
    for _ in 0..=random.below(3) {
        let (pointer, wrong) = wrong(random);
        match value.pointer_mut(&pointer) {
            Some(field) => *field = wrong,
            None => value[pointer.trim_start_matches('/')] = wrong,
        }
    }
    Mistake { kind: Kind::Field, text: if is_yaml { yaml(&value) } else { value.to_string() }.into_bytes() }
}

/// A configuration of the daemon that is wrong.
pub fn hub(random: &mut Random) -> Mistake {
    let mut value = json!({"interfaces": [{"name": "up0", "role": "uplink"}], "loose_tcp": "60s"});
    if random.chance(15) {
        let text = serde_json::to_string_pretty(&value).unwrap();
        return Mistake { kind: Kind::Text, text: broken(random, text, true) };
    }
    let (field, wrong) = match random.below(8) {
        0 => ("interfaces", json!([{"name": "up0", "role": "downlink"}])),
        1 => ("interfaces", json!([{"role": "uplink"}])),
        2 => ("failsafe", json!({"ports": ["tcp/70000"]})),
        3 => ("limits", json!({"flows": random.pick(&[json!(-1), json!("many"), json!(0)])})),
        4 => ("timeouts", json!({"opening": random.pick(&[json!("soon"), json!([]), json!("-3s")])})),
        5 => ("pools", json!({"lab": ["10.0.0.1/8"]})),
        6 => (
            "api",
            json!({"listen": random.pick(&[json!("nowhere"), json!("0.0.0.0:99999"), json!("127.0.0.1:1")])}),
        ),
        _ => ("intefaces", json!([])),
    };
    value[field] = wrong;
    Mistake { kind: Kind::Field, text: serde_json::to_string_pretty(&value).unwrap().into_bytes() }
}

/// JSON is YAML; one field a line gives errors lines and columns of their own.
fn yaml(value: &Value) -> String {
    let mut value = value.clone();
    value["kind"] = json!("persona");
    serde_json::to_string_pretty(&value).unwrap()
}

/// A text that cannot be read.
fn broken(random: &mut Random, text: String, is_yaml: bool) -> Vec<u8> {
    let mut bytes = text.into_bytes();
    match random.below(if is_yaml { 7 } else { 4 }) {
        // Without its last brace it is not whole, wherever it is cut.
        0 => bytes.truncate(1 + random.below(bytes.len() - 2)),
        1 => bytes.insert(bytes.len() - 1, 0xff),
        2 => bytes = [b"{".as_slice(), &bytes].concat(),
        3 => bytes = b"[".repeat(20_000),
        4 => {
            bytes = b"a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
              c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n\
              e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n\
              g: [*f,*f,*f,*f,*f,*f,*f,*f,*f]\n"
                .to_vec();
        }
        5 => bytes = b"kind: persona\nname: twice\nname: twice\nip_range: 10.222.0.0/24\n".to_vec(),
        _ => bytes = b"kind: persona\n\tname: tab\n".to_vec(),
    }
    bytes
}
