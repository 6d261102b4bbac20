//! Signatures of applications, checked: lists multiplied into what the data path compares.

use hub_common::application::{
    self, KIND_DNS, KIND_HTTP, KIND_OTHER, KIND_QUIC, KIND_SMTP, KIND_SSH, KIND_TLS, METHODS, NAME_BYTES,
    PAYLOAD_BYTES, Signature,
};

use super::problems::Problems;
use super::protocol::{self, Protocol};
use crate::document::parts::{OneOrMany, Scalar};
use crate::document::signature::{BytesDocument, SignatureDocument, SpeaksDocument};

/// Most signatures that the lists of one rule may become.
pub const SIGNATURES_PER_RULE: usize = 64;

/// Reads what a rule asks of first bytes: any of these signatures, and the protocol that carries them.
pub fn read(
    problems: &mut Problems,
    base: &str,
    document: &SignatureDocument,
) -> (Vec<Signature>, Option<Protocol>) {
    let Some(kind) = kind(problems, base, document) else { return (Vec::new(), None) };
    let carrier = match kind {
        KIND_OTHER => None,
        KIND_DNS | KIND_QUIC => Some(Protocol::Number(protocol::UDP)),
        _ => Some(Protocol::Number(protocol::TCP)),
    };
    let mut signatures = vec![Signature { kind, ..Signature::ZERO }];
    for (field, names) in
        [("tls_sni", &document.tls_sni), ("http_host", &document.http_host), ("dns_name", &document.dns_name)]
    {
        signatures = each(problems, &format!("{base}/{field}"), signatures, names.as_ref(), named);
    }
    let pointer = format!("{base}/alpn");
    signatures =
        each(problems, &pointer, signatures, document.alpn.as_ref(), |signature, text| match text.len() {
            1..=16 => Ok(Signature { offer: application::offer(text.as_bytes()), ..signature }),
            _ => Err(format!("alpn `{text}`: use 1 to 16 letters, like h2")),
        });
    let pointer = format!("{base}/http_method");
    signatures = each(problems, &pointer, signatures, document.http_method.as_ref(), |signature, text| {
        let place = METHODS.iter().position(|method| **method == *text);
        let place = place.ok_or_else(|| format!("method `{text}`: use one of {}", METHODS.join(", ")))?;
        Ok(Signature { method: u8::try_from(place + 1).unwrap_or_default(), ..signature })
    });
    if let Some(bytes) = &document.bytes
        && let Some((at, bytes)) = bytes_of(problems, &format!("{base}/bytes"), bytes)
    {
        signatures =
            signatures.into_iter().filter_map(|signature| signature.with_bytes(at, &bytes)).collect();
    }
    if signatures.len() > SIGNATURES_PER_RULE {
        let detail = format!(
            "its lists become {} signatures: use at most {SIGNATURES_PER_RULE} in one rule",
            signatures.len()
        );
        problems.add(base, detail);
    }
    (signatures, carrier)
}

/// The kind that all parts agree on.
fn kind(problems: &mut Problems, base: &str, document: &SignatureDocument) -> Option<u8> {
    let parts = [
        ("tls_sni", document.tls_sni.is_some(), KIND_TLS),
        ("alpn", document.alpn.is_some(), KIND_TLS),
        ("http_host", document.http_host.is_some(), KIND_HTTP),
        ("http_method", document.http_method.is_some(), KIND_HTTP),
        ("dns_name", document.dns_name.is_some(), KIND_DNS),
    ];
    let said = document.speaks.map(|speaks| match speaks {
        SpeaksDocument::Tls => KIND_TLS,
        SpeaksDocument::Http => KIND_HTTP,
        SpeaksDocument::Ssh => KIND_SSH,
        SpeaksDocument::Smtp => KIND_SMTP,
        SpeaksDocument::Dns => KIND_DNS,
        SpeaksDocument::Quic => KIND_QUIC,
    });
    let mut given = parts.iter().filter(|(_, given, _)| *given);
    let first = said.or_else(|| given.clone().next().map(|(_, _, kind)| *kind));
    if first.is_none() && document.bytes.is_none() {
        problems.add(base, "a signature says something: give `speaks`, a name, or `bytes`");
        return None;
    }
    let kind = first.unwrap_or(KIND_OTHER);
    if let Some((field, _, _)) = given.find(|(_, _, other)| *other != kind) {
        let spoken = application::KINDS.get(usize::from(kind)).copied().unwrap_or_default();
        problems.add(format!("{base}/{field}"), format!("says nothing of a connection that speaks {spoken}"));
        return None;
    }
    Some(kind)
}

fn each(
    problems: &mut Problems,
    base: &str,
    signatures: Vec<Signature>,
    written: Option<&OneOrMany<String>>,
    apply: impl Fn(Signature, &str) -> Result<Signature, String>,
) -> Vec<Signature> {
    let Some(written) = written else { return signatures };
    if written.as_slice().is_empty() {
        problems.add(base, "the list is empty: name at least one, or leave the field out");
    }
    let mut all = Vec::new();
    for (pointer, text) in written.pointed(base) {
        for signature in &signatures {
            match apply(*signature, text) {
                Ok(signature) => all.push(signature),
                Err(detail) => {
                    problems.add(pointer, detail);
                    break;
                }
            }
        }
    }
    all
}

/// A host, or with `*.` in front all below it.
fn named(signature: Signature, text: &str) -> Result<Signature, String> {
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if !name.split('.').all(label) {
        return Err(format!("name `{text}`: use a host like example.com, or *.example.com for all below it"));
    }
    signature.named(name, below).ok_or_else(|| format!("name `{text}`: use at most {NAME_BYTES} letters"))
}

fn bytes_of(problems: &mut Problems, base: &str, document: &BytesDocument) -> Option<(u32, Vec<u8>)> {
    let at = document.at.unwrap_or(0);
    let (field, bytes) = match (&document.text, &document.hex) {
        (Some(text), None) => ("text", text.clone().into_bytes()),
        (None, Some(hex)) => ("hex", problems.take(&format!("{base}/hex"), unhex(hex))?),
        _ => {
            problems.add(base, "give either `text` or `hex`");
            return None;
        }
    };
    if bytes.is_empty() || bytes.len() > 16 {
        problems.add(format!("{base}/{field}"), format!("{} bytes: use 1 to 16", bytes.len()));
        return None;
    }
    if at as usize + bytes.len() > PAYLOAD_BYTES {
        let detail = format!("at {at}: the first {PAYLOAD_BYTES} bytes are looked at");
        problems.add(format!("{base}/at"), detail);
        return None;
    }
    Some((at, bytes))
}

fn unhex(written: &Scalar) -> Result<Vec<u8>, String> {
    let text = written.to_string();
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    match digits {
        Some(digits) if digits.len() % 2 == 0 => {
            Ok(digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
        }
        _ => Err(format!("hex `{text}`: use two hexadecimal digits for each byte, in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(yaml: &str) -> Result<(Vec<Signature>, Option<Protocol>), Vec<String>> {
        let document: SignatureDocument = serde_saphyr::from_str(yaml).unwrap();
        let mut problems = Problems::default();
        let found = read(&mut problems, "/s", &document);
        let problems = problems.into_vec();
        if problems.is_empty() {
            return Ok(found);
        }
        Err(problems.into_iter().map(|problem| format!("{}: {}", problem.pointer, problem.detail)).collect())
    }

    #[test]
    fn lists_multiply_and_the_protocol_follows() {
        let (signatures, carrier) =
            parsed("{tls_sni: [a.example, '*.b.example'], alpn: [h2, http/1.1]}").unwrap();
        assert_eq!((signatures.len(), carrier), (4, Some(Protocol::Number(protocol::TCP))));
        assert!(signatures.iter().all(|signature| signature.kind == KIND_TLS && signature.offer != 0));
        let (signatures, carrier) = parsed("{dns_name: x.example}").unwrap();
        assert_eq!((signatures.len(), carrier), (1, Some(Protocol::Number(protocol::UDP))));
        assert_eq!(parsed("{bytes: {at: 4, hex: 'ff00'}}").unwrap().1, None);
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        for (yaml, expected) in [
            ("{}", "/s: a signature says something"),
            ("{speaks: ssh, tls_sni: a.example}", "/s/tls_sni: says nothing of a connection that speaks ssh"),
            ("{tls_sni: 'a.*.example'}", "/s/tls_sni: name `a.*.example`: use a host"),
            ("{tls_sni: []}", "/s/tls_sni: the list is empty"),
            ("{http_method: get}", "/s/http_method: method `get`: use one of GET"),
            ("{bytes: {hex: 'abc'}}", "/s/bytes/hex: hex `abc`: use two hexadecimal digits"),
            ("{bytes: {at: 1020, text: hello}}", "/s/bytes/at: at 1020"),
            ("{bytes: {}}", "/s/bytes: give either `text` or `hex`"),
        ] {
            let problems = parsed(yaml).unwrap_err();
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{yaml}: {problems:?}");
        }
    }
}
