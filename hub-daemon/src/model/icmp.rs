//! ICMP types and codes by name; a name may mean another number in each family.

use crate::document::parts::Scalar;

/// Numbers of a type or code in each family; `None` where the family has no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpNumber {
    /// In ICMP (RFC 792).
    pub v4: Option<u8>,
    /// In ICMP for IPv6 (RFC 4443).
    pub v6: Option<u8>,
    /// Written as a name, so that it means the same in both families.
    pub named: bool,
}

/// Why a text is no ICMP type or code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{written}`: use a number 0 to 255, or one of {known}")]
pub struct IcmpError {
    what: &'static str,
    written: String,
    known: String,
}

type Names = &'static [(&'static str, Option<u8>, Option<u8>)];

const TYPES: Names = &[
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("redirect", Some(5), Some(137)),
    ("timestamp-request", Some(13), None),
    ("timestamp-reply", Some(14), None),
    ("router-solicitation", Some(10), Some(133)),
    ("router-advertisement", Some(9), Some(134)),
    ("neighbour-solicitation", None, Some(135)),
    ("neighbour-advertisement", None, Some(136)),
];

const CODES: Names = &[
    ("net-unreachable", Some(0), Some(0)),
    ("host-unreachable", Some(1), Some(3)),
    ("protocol-unreachable", Some(2), None),
    ("port-unreachable", Some(3), Some(4)),
    ("fragmentation-needed", Some(4), None),
    ("admin-prohibited", Some(13), Some(1)),
];

/// Reads an ICMP type.
pub fn parse_type(written: &Scalar) -> Result<IcmpNumber, IcmpError> {
    parse(written, "icmp_type", TYPES)
}

/// Reads an ICMP code.
pub fn parse_code(written: &Scalar) -> Result<IcmpNumber, IcmpError> {
    parse(written, "icmp_code", CODES)
}

fn parse(written: &Scalar, what: &'static str, names: Names) -> Result<IcmpNumber, IcmpError> {
    let text = written.to_string().trim().to_ascii_lowercase();
    if let Ok(number) = text.parse() {
        return Ok(IcmpNumber { v4: Some(number), v6: Some(number), named: false });
    }
    let Some((_, v4, v6)) = names.iter().find(|(name, _, _)| *name == text) else {
        let known: Vec<&str> = names.iter().map(|(name, _, _)| *name).collect();
        return Err(IcmpError { what, written: written.to_string(), known: known.join(", ") });
    };
    Ok(IcmpNumber { v4: *v4, v6: *v6, named: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_number_in_each_family() {
        let echo = parse_type(&"echo-request".into()).unwrap();
        assert_eq!((echo.v4, echo.v6), (Some(8), Some(128)));
        assert_eq!(parse_type(&8.into()).unwrap().v4, Some(8));
        assert!(parse_code(&"no-such".into()).unwrap_err().to_string().contains("port-unreachable"));
    }
}
