//! Conditions in the status of objects that this server keeps itself.

use serde_json::{Value, json};

/// What a condition says now.
pub(crate) struct Condition<'a> {
    /// Its type.
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'a str,
    pub message: &'a str,
}

impl Condition<'_> {
    fn before<'o>(&self, object: &'o Value) -> Option<&'o Value> {
        api::meta::list(&object["status"]["conditions"])
            .iter()
            .find(|c| c["type"] == self.kind)
    }

    /// Whether the object says so already.
    pub fn holds(&self, object: &Value) -> bool {
        self.before(object).is_some_and(|c| {
            c["status"] == self.status && c["reason"] == self.reason && c["message"] == self.message
        })
    }

    /// Puts it in the place of the one of its type, whose time it keeps while the status stays.
    pub fn set(&self, object: &mut Value, now: &str) {
        if self.holds(object) {
            return;
        }
        let since = match self.before(object) {
            Some(c) if c["status"] == self.status => c["lastTransitionTime"].clone(),
            _ => now.into(),
        };
        let mut all = api::meta::list(&object["status"]["conditions"]).to_vec();
        all.retain(|c| c["type"] != self.kind);
        all.push(
            json!({"type": self.kind, "status": self.status, "lastTransitionTime": since,
            "reason": self.reason, "message": self.message}),
        );
        object["status"]["conditions"] = all.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let says = |status, message| Condition {
            kind: "Available",
            status,
            reason: "Checked",
            message,
        };
        let mut object = json!({"status": {"conditions": [{"type": "Other"}]}});
        assert!(!says("False", "a").holds(&object));
        says("False", "a").set(&mut object, "then");
        assert!(says("False", "a").holds(&object));
        assert!(!says("False", "b").holds(&object));
        says("False", "b").set(&mut object, "later");
        assert_eq!(
            object["status"]["conditions"],
            json!([{"type": "Other"}, {"type": "Available", "status": "False", "lastTransitionTime": "then", "reason": "Checked", "message": "b"}])
        );
        says("True", "b").set(&mut object, "later");
        assert_eq!(
            object["status"]["conditions"][1]["lastTransitionTime"],
            "later"
        );
    }
}
