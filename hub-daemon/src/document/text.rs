//! Bytes of a file to text: YAML is Unicode.

use std::path::Path;

use super::located::Place;
use super::snippet::Diagnostic;

/// The text of a file; an error shows the first byte that is not UTF-8.
pub fn decode(path: &Path, bytes: Vec<u8>) -> Result<String, Vec<Diagnostic>> {
    String::from_utf8(bytes).map_err(|error| {
        let bytes = error.as_bytes();
        let before =
            String::from_utf8_lossy(bytes.get(..error.utf8_error().valid_up_to()).unwrap_or_default());
        let (line, column) =
            (before.lines().count(), before.lines().last().map_or(0, |last| last.chars().count()));
        let (line, column) =
            if before.is_empty() || before.ends_with('\n') { (line + 1, 0) } else { (line, column) };
        let place = Place { line: line as u32, column: column as u32 + 1 };
        vec![Diagnostic::new(
            path,
            &String::from_utf8_lossy(bytes),
            place,
            "",
            "not UTF-8: save the file as UTF-8",
        )]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_wrong_byte_is_shown() {
        for (bytes, place) in [
            (b"name: \xff\n".as_slice(), (1, 7)),
            (b"\xff", (1, 1)),
            (b"a: 1\n\xff", (2, 1)),
            ("a: 1\nb: ü".as_bytes(), (0, 0)),
            (b"a: 1\nb: \xc3\xbc\xc3", (2, 5)),
        ] {
            let found = decode(Path::new("a.yaml"), bytes.to_vec());
            assert_eq!(found.map_or_else(|error| (error[0].line, error[0].column), |_text| (0, 0)), place);
        }
    }
}
