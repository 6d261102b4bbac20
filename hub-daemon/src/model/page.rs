//! A page that is asked for, and who is believed to be its server.

use std::fmt;
use std::path::{Path, PathBuf};

use super::url::Url;

/// Scheme of pages whose server may be anybody.
const ANYBODY: &str = "https+insecure://";

/// Whose certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trust {
    /// Those by authorities that the machine trusts.
    Machine,
    /// Those by authorities in a PEM file.
    File(PathBuf),
    /// All.
    Anybody,
}

/// A URL with who is believed to be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page {
    written: String,
    url: Url,
    trust: Option<Trust>,
}

/// Why there is no such page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// The URL is not one.
    #[error("http `{0}`: use a URL like http://10.20.0.9/health or https://web.example/health")]
    Url(String),
    /// A file where no certificate is checked.
    #[error("ca is for `https://`: leave it out")]
    Needless,
    /// A file that depends on where the hub was started.
    #[error("file `{}`: use an absolute path", .0.display())]
    Relative(PathBuf),
}

impl Page {
    /// Reads a URL with `http`, `https` or `https+insecure`; `ca` names the authorities for `https`, which are those
    /// of the machine otherwise.
    pub fn new(written: &str, ca: Option<&Path>) -> Result<Self, NoPage> {
        let no_url = || NoPage::Url(written.to_owned());
        let anybody = written.strip_prefix(ANYBODY).map(|rest| format!("https://{rest}"));
        let url = Url::parse(anybody.as_deref().unwrap_or(written)).ok_or_else(no_url)?;
        let trust = match (url.secure, anybody, ca) {
            (true, None, None) => Some(Trust::Machine),
            (true, None, Some(ca)) if ca.is_absolute() => Some(Trust::File(ca.to_owned())),
            (true, None, Some(ca)) => return Err(NoPage::Relative(ca.to_owned())),
            (true, Some(_), None) => Some(Trust::Anybody),
            (false, _, None) => None,
            (true, Some(_), Some(_)) | (false, _, Some(_)) => return Err(NoPage::Needless),
        };
        Ok(Self { written: written.to_owned(), url, trust })
    }

    /// Where it is.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Who is believed to be there; absent where nobody says who they are.
    pub const fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
}

impl fmt::Display for Page {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_whom_to_ask_and_whom_to_believe() {
        let ca = Path::new("/etc/hub/ca.pem");
        for (url, ca, host, port, path, trust) in [
            ("http://10.0.0.1", None, "10.0.0.1", 80, "/", None),
            ("http://[fd00::1]:8080/a?b=c", None, "fd00::1", 8080, "/a?b=c", None),
            ("https://red.example/x", None, "red.example", 443, "/x", Some(Trust::Machine)),
            ("https://[fd00::1]", Some(ca), "fd00::1", 443, "/", Some(Trust::File(ca.into()))),
            ("https+insecure://10.0.0.1:8443/", None, "10.0.0.1", 8443, "/", Some(Trust::Anybody)),
        ] {
            let page = Page::new(url, ca).unwrap();
            assert_eq!((page.url().host.as_str(), page.url().port, &*page.url().path), (host, port, path));
            assert_eq!((page.trust(), page.to_string()), (trust.as_ref(), url.to_owned()));
        }
    }

    #[test]
    fn a_page_that_cannot_be_asked_for_is_refused() {
        for wrong in ["ftp://10.0.0.1", "10.0.0.1", "http://", "https://", "http://a b/", "https+insecure://"]
        {
            assert_eq!(Page::new(wrong, None), Err(NoPage::Url(wrong.into())));
        }
        for clear in ["http://10.0.0.1", "https+insecure://10.0.0.1"] {
            assert_eq!(Page::new(clear, Some(Path::new("/ca.pem"))), Err(NoPage::Needless), "{clear}");
        }
        let relative = Page::new("https://10.0.0.1", Some(Path::new("ca.pem")));
        assert_eq!(relative, Err(NoPage::Relative("ca.pem".into())));
    }
}
