//! The `Authorization` header, with tokens that change on disk.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;

use crate::{Auth, Error, Result};

/// How long a token read from a file is used before the file is read again. Kubelets replace
/// tokens long before they expire.
const REREAD: Duration = Duration::from_secs(10);

pub(crate) enum Bearer {
    None,
    Fixed(HeaderValue),
    File {
        path: PathBuf,
        cached: Mutex<Option<(Instant, HeaderValue)>>,
    },
}

impl Bearer {
    pub(crate) fn new(auth: &Auth) -> Result<Self> {
        Ok(match auth {
            Auth::None | Auth::ClientCert { .. } => Self::None,
            Auth::Token(token) => Self::Fixed(header(token)?),
            Auth::TokenFile(path) => Self::File {
                path: path.clone(),
                cached: Mutex::new(None),
            },
        })
    }

    /// The header of a request made at `now`.
    pub(crate) fn header(&self, now: Instant) -> Result<Option<HeaderValue>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(value) => Ok(Some(value.clone())),
            Self::File { path, cached } => {
                let mut cached = cached.lock();
                if let Some((read_at, value)) = &*cached
                    && now.duration_since(*read_at) < REREAD
                {
                    return Ok(Some(value.clone()));
                }
                let value = header(&crate::config::read(path)?)?;
                *cached = Some((now, value.clone()));
                Ok(Some(value))
            }
        }
    }

    /// Forgets what was read; returns whether reading again could help.
    pub(crate) fn forget(&self) -> bool {
        match self {
            Self::File { cached, .. } => {
                cached.lock().take();
                true
            }
            _ => false,
        }
    }
}

fn header(token: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| Error::Config("the bearer token holds characters no token has".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_read_again_after_a_while_or_when_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let bearer = Bearer::new(&Auth::TokenFile(path.clone())).unwrap();
        let start = Instant::now();
        let text = |at| {
            bearer
                .header(at)
                .unwrap()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(text(start), "Bearer one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(text(start + Duration::from_secs(1)), "Bearer one");
        assert_eq!(text(start + REREAD), "Bearer two");
        std::fs::write(&path, "three").unwrap();
        assert!(bearer.forget());
        assert_eq!(text(start + REREAD), "Bearer three");
    }
}
