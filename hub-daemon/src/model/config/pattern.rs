//! Patterns of interface names.

/// Whether a name fits a pattern of letters, `*` (any number of letters) and `?` (one letter).
pub(super) fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => glob(rest, name) || matches!(name, [_, tail @ ..] if glob(pattern, tail)),
        ([b'?', rest @ ..], [_, tail @ ..]) => glob(rest, tail),
        ([letter, rest @ ..], [first, tail @ ..]) => letter == first && glob(rest, tail),
        _ => false,
    }
}
