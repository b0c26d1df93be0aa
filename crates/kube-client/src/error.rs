//! What a request to an API server can end in, other than an answer.

use serde_json::Value;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server answered with a `metav1.Status` of failure.
    #[error("{message}")]
    Status {
        /// HTTP status code.
        code: u16,
        /// Machine-readable reason, for instance `NotFound`; may be empty.
        reason: String,
        /// The text for people.
        message: String,
        /// `details` of the status: name, kind, causes, retryAfterSeconds; null when absent.
        details: Box<Value>,
    },
    /// The API server could not be reached, or the connection broke.
    #[error("cannot reach {server}: {reason}")]
    Transport {
        /// Address of the API server.
        server: String,
        /// What happened, innermost cause last.
        reason: String,
    },
    /// No answer within the request timeout.
    #[error("{server} gave no answer within {seconds} s")]
    Timeout {
        /// Address of the API server.
        server: String,
        /// The timeout.
        seconds: u64,
    },
    /// The answer is not what the protocol promises.
    #[error("unusable answer from {server}: {reason}")]
    Protocol {
        /// Address of the API server.
        server: String,
        /// What is wrong.
        reason: String,
    },
    /// The client's own configuration is unusable.
    #[error("{0}")]
    Config(String),
    /// The request cannot be sent as it is.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// Reads the error out of an answer's code and body.
    pub(crate) fn from_response(code: u16, body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(status) if status["kind"] == "Status" => Self::from_status(&status, code),
            _ => {
                let text = String::from_utf8_lossy(body);
                let text = text.trim();
                Self::Status {
                    code,
                    // A path nothing is served at has no Status.
                    reason: if code == 404 { "NotFound" } else { "" }.to_owned(),
                    message: if text.is_empty() {
                        format!("the server answered with code {code} and no text")
                    } else {
                        text.chars().take(2_000).collect()
                    },
                    details: Box::new(Value::Null),
                }
            }
        }
    }

    /// Reads a `metav1.Status`; `code` is used where it names none.
    pub(crate) fn from_status(status: &Value, code: u16) -> Self {
        Self::Status {
            code: status["code"]
                .as_u64()
                .and_then(|code| u16::try_from(code).ok())
                .unwrap_or(code),
            reason: status["reason"].as_str().unwrap_or_default().to_owned(),
            message: status["message"].as_str().unwrap_or_default().to_owned(),
            details: Box::new(status["details"].clone()),
        }
    }

    /// The HTTP status code, when the server answered.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The machine-readable reason; empty when there is none.
    pub fn reason(&self) -> &str {
        match self {
            Self::Status { reason, .. } => reason,
            _ => "",
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object changed since it was read (409 with reason Conflict).
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != "AlreadyExists"
    }

    /// An object of that name exists (409 with reason AlreadyExists).
    pub fn is_already_exists(&self) -> bool {
        self.code() == Some(409) && self.reason() == "AlreadyExists"
    }

    /// The wanted history is gone: list again.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// The caller may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The object is invalid (422).
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// The caller is not known (401).
    pub fn is_unauthorized(&self) -> bool {
        self.code() == Some(401)
    }
}
