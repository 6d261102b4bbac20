//! Names that documents give: of personas, interfaces, namespaces and labels.

/// Why a name cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not there.
    #[error("a name is missing: give one like team-a")]
    Missing,
    /// Letters that names do not have.
    #[error("name `{0}`: use 1 to 63 letters, digits, `-`, `_` or `.`, a letter or digit first")]
    Persona(String),
    /// It could be taken for an id.
    #[error("name `{0}` looks like a persona id: use another one")]
    LikeId(String),
    /// Letters that names of sets do not have.
    #[error("set `{0}`: use 1 to 63 letters, digits, `-`, `_` or `.`, a letter or digit first")]
    Set(String),
    /// The kernel would refuse it.
    #[error("interface `{0}`: use 1 to 15 letters without spaces and `/`")]
    Interface(String),
    /// Neither a name nor a path.
    #[error("namespace `{0}`: use a name below /run/netns, or an absolute path")]
    Namespace(String),
}

/// Checks the name of a persona.
pub fn persona(name: &str) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Missing);
    }
    if !is_plain(name) {
        return Err(NameError::Persona(name.to_owned()));
    }
    if name.len() == 26 && name.parse::<ulid::Ulid>().is_ok() {
        return Err(NameError::LikeId(name.to_owned()));
    }
    Ok(())
}

/// Checks the name of a set.
pub fn set(name: &str) -> Result<(), NameError> {
    if is_plain(name) { Ok(()) } else { Err(NameError::Set(name.to_owned())) }
}

fn is_plain(name: &str) -> bool {
    let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let starts = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    name.len() <= 63 && starts && name.chars().all(letter)
}

/// Checks the name of an interface (`dev_valid_name` in net/core/dev.c).
pub fn interface(name: &str) -> Result<(), NameError> {
    let refused =
        |letter: char| letter.is_whitespace() || letter == '/' || letter == ':' || letter.is_control();
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || name.contains(refused) {
        return Err(NameError::Interface(name.to_owned()));
    }
    Ok(())
}

/// Checks the name or path of a network namespace.
pub fn namespace(name: &str) -> Result<(), NameError> {
    let path = name.starts_with('/') && name.len() > 1 && !name.contains("/../");
    let plain = !name.is_empty() && name.len() <= 255 && !name.contains('/') && name != "." && name != "..";
    if (path || plain) && !name.contains(char::is_control) {
        return Ok(());
    }
    Err(NameError::Namespace(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_confuse_are_refused() {
        assert!(persona("TempDevNetwork").is_ok() && persona("a.b-c_1").is_ok());
        for name in ["", "-a", "a b", "a/b", "ä", "01ARZ3NDEKTSV4RRFFQ69G5FAV", &"a".repeat(64)] {
            assert!(persona(name).is_err(), "{name}");
        }
        assert!(interface("eth0.100").is_ok() && interface("a/b").is_err());
        assert!(
            namespace("team").is_ok() && namespace("/proc/1/ns/net").is_ok() && namespace("a/b").is_err()
        );
    }
}
