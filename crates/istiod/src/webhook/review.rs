//! AdmissionReview: the envelope of both webhooks.

use base64::Engine;
use serde_json::{Value, json};

/// What a webhook decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// As it is, with warnings for the user.
    Allow(Vec<String>),
    /// With these changes (RFC 6902).
    Patch(Value),
    /// Not at all; the message is what `kubectl` prints.
    Deny(String),
}

/// Answers an AdmissionReview by deciding about its request.
///
/// # Errors
/// When it is no AdmissionReview with a request.
pub fn answer(review: &Value, decide: impl FnOnce(&Value) -> Verdict) -> Result<Value, String> {
    let request = &review["request"];
    let uid = request["uid"]
        .as_str()
        .ok_or("not an AdmissionReview: request.uid is missing")?;
    let mut response = json!({"uid": uid, "allowed": true});
    match decide(request) {
        Verdict::Allow(warnings) => {
            if !warnings.is_empty() {
                response["warnings"] = warnings.into();
            }
        }
        Verdict::Patch(patch) => {
            let text = patch.to_string();
            response["patchType"] = "JSONPatch".into();
            response["patch"] = base64::engine::general_purpose::STANDARD
                .encode(text)
                .into();
        }
        Verdict::Deny(message) => {
            response["allowed"] = false.into();
            response["status"] = json!({"message": message});
        }
    }
    Ok(
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_carry_the_uid_and_the_verdict() {
        let review = json!({"request": {"uid": "u1"}});
        let allowed = answer(&review, |_| Verdict::Allow(vec!["hm".into()])).unwrap();
        assert_eq!(allowed["response"]["uid"], "u1");
        assert_eq!(allowed["response"]["warnings"][0], "hm");
        let denied = answer(&review, |_| Verdict::Deny("no".into())).unwrap();
        assert_eq!(denied["response"]["allowed"], false);
        assert!(answer(&json!({}), |_| Verdict::Allow(Vec::new())).is_err());
    }
}
