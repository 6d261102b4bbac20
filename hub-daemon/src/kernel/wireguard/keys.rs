//! Keys of tunnels: read from their files when they are used, and kept nowhere.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A key of any kind.
pub type Key = [u8; 32];

/// Longest key file: a key, and what an editor leaves behind it.
const FILE_BYTES: u64 = 256;

/// A key that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("key file {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file holds something else.
    #[error(
        "key file {path}: it should hold one key, 44 characters of base64 as `wg genkey` writes them, and \
         nothing else",
        path = path.display()
    )]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// A public key in a document is none.
    #[error("public key `{0}`: use 44 characters of base64, as `wg pubkey` writes them")]
    Public(String),
}

/// Reads a key file.
pub fn read(path: &Path) -> Result<Zeroizing<Key>, KeyError> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES as usize + 1));
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 <= FILE_BYTES => {
            decode(text.trim()).ok_or_else(|| KeyError::Content { path: path.to_owned() })
        }
        Err(source) if source.kind() != io::ErrorKind::InvalidData => {
            Err(KeyError::File { path: path.to_owned(), source })
        }
        Ok(_) | Err(_) => Err(KeyError::Content { path: path.to_owned() }),
    }
}

/// What tells whether a file was written since: times change when it is, and the file itself when it is replaced.
pub fn stamp(path: &Path) -> Option<[u64; 4]> {
    let file = std::fs::metadata(path).ok()?;
    Some([file.ino(), file.size(), file.mtime().cast_unsigned(), file.mtime_nsec().cast_unsigned()])
}

/// The public key of a private one.
pub fn public(private: &Key) -> Key {
    PublicKey::from(&StaticSecret::from(*private)).to_bytes()
}

/// Reads a public key of a document.
pub fn parse(text: &str) -> Result<Key, KeyError> {
    decode(text).map(|key| *key).ok_or_else(|| KeyError::Public(text.to_owned()))
}

/// A key as documents write it.
pub fn base64(key: &Key) -> String {
    STANDARD.encode(key)
}

fn decode(text: &str) -> Option<Zeroizing<Key>> {
    // The decoder wants room for whole groups.
    let mut bytes = Zeroizing::new([0; 33]);
    if text.len() != 44 {
        return None;
    }
    let length = STANDARD.decode_slice(text, bytes.as_mut_slice()).ok()?;
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(bytes.get(..length).filter(|bytes| bytes.len() == 32)?);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_wg_is_read() {
        // Alice's keys of RFC 7748, section 6.1.
        let private = decode("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=").unwrap();
        assert_eq!(base64(&public(&private)), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", "AAAA", &"A".repeat(44), "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let missing = read(Path::new("/nonexistent/key")).unwrap_err().to_string();
        assert!(missing.starts_with("key file /nonexistent/key: "), "{missing}");
        let other = read(Path::new("/proc/version")).unwrap_err().to_string();
        assert!(other.contains("/proc/version: it should hold one key"), "{other}");
    }
}
