//! An error in a file, shown with the line it is in and a caret below the place.

use std::fmt;
use std::path::PathBuf;

use super::located::Place;

/// Most characters of a line that are shown.
const WINDOW: usize = 160;

/// One error in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file.
    pub path: PathBuf,
    /// Line from 1; 0 if the error is about the file as a whole.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// JSON pointer to the field; empty if there is none.
    pub pointer: String,
    /// The field, for example `security_policies[1].port`; empty if there is none.
    pub field: String,
    /// What is wrong and what would be right.
    pub detail: String,
    /// Text of the line.
    source: String,
}

impl Diagnostic {
    /// An error at a place in a file.
    pub fn new(
        path: impl Into<PathBuf>,
        text: &str,
        place: Place,
        pointer: &str,
        detail: impl Into<String>,
    ) -> Self {
        let index = (place.line as usize).checked_sub(1);
        Self {
            path: path.into(),
            line: place.line,
            column: place.column,
            pointer: pointer.to_owned(),
            field: field(pointer),
            detail: detail.into(),
            source: index.and_then(|index| text.lines().nth(index)).unwrap_or_default().to_owned(),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.detail)?;
        let path = self.path.display();
        if self.line == 0 {
            return write!(f, "  --> {path}");
        }
        let (line, column) = (self.line, self.column.max(1) as usize);
        let margin = " ".repeat(line.to_string().len());
        // Of a long line, what is around the place.
        let left_out = (column - 1).saturating_sub(WINDOW / 2);
        let source: String = self.source.chars().skip(left_out).take(WINDOW).collect();
        let start = column - 1 - left_out;
        // A tab keeps its width only below another tab.
        let indent: String =
            source.chars().take(start).map(|letter| if letter == '\t' { '\t' } else { ' ' }).collect();
        let carets = "^".repeat(word_length(&source, start));
        writeln!(f, "{margin}--> {path}:{line}:{column}")?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{line} | {source}")?;
        let space = if self.field.is_empty() { "" } else { " " };
        write!(f, "{margin} | {indent}{carets}{space}{}", self.field)
    }
}

/// A JSON pointer as people write it: `/qos/bandwidth` is `qos.bandwidth`.
pub fn field(pointer: &str) -> String {
    let mut text = String::new();
    for step in pointer.split('/').skip(1) {
        if step.parse::<usize>().is_ok() {
            text.extend(["[", step, "]"]);
        } else {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(&step.replace("~1", "/").replace("~0", "~"));
        }
    }
    text
}

/// Characters from `start` to the end of the word or quoted text there, at least one.
fn word_length(source: &str, start: usize) -> usize {
    let mut letters = source.chars().skip(start);
    let Some(first) = letters.next() else { return 1 };
    if first == '"' || first == '\'' {
        return letters.position(|letter| letter == first).map_or(1, |end| end + 2);
    }
    let end = |letter: &char| letter.is_whitespace() || matches!(letter, ',' | ']' | '}' | '#');
    1 + letters.take_while(|letter| !end(letter)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_is_below_the_word() {
        let text = "name: a\nqos: {bandwidth: 100mb, latency: 1s}\n";
        let place = Place { line: 2, column: 18 };
        let shown = Diagnostic::new("a.yaml", text, place, "/qos/bandwidth", "no unit").to_string();
        assert_eq!(
            shown,
            "error: no unit\n --> a.yaml:2:18\n  |\n2 | qos: {bandwidth: 100mb, latency: 1s}\n  |                  ^^^^^ qos.bandwidth"
        );
    }

    #[test]
    fn a_long_line_is_shown_around_the_place() {
        let text = format!("{}x{}", "[".repeat(1_000), "]".repeat(1_000));
        let place = Place { line: 1, column: 1_001 };
        let shown = Diagnostic::new("a.yaml", &text, place, "", "too deep").to_string();
        assert!(shown.contains(&format!("1 | {}x]", "[".repeat(WINDOW / 2))), "{shown}");
        assert!(shown.lines().all(|line| line.len() < WINDOW + 20), "{shown}");
    }

    #[test]
    fn pointers_read_like_fields() {
        assert_eq!(field("/security_policies/1/port"), "security_policies[1].port");
        assert_eq!(field(""), "");
    }
}
