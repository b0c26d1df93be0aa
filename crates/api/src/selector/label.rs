//! Label selectors: `a=b,c!=d,e in (f,g),!h`.

use crate::field::quote;
use crate::meta;
use crate::status::StatusError;
use serde_json::Value;

/// One requirement on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// Operator.
    pub op: Op,
    /// Values; empty for `Exists` and `NotExists`.
    pub values: Vec<String>,
}

/// Operators of label selectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Op {
    In,
    NotIn,
    Exists,
    NotExists,
    Greater,
    Less,
}

/// A label selector; all requirements must hold. The empty one matches everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// The requirements.
    pub requirements: Vec<Requirement>,
    nothing: bool,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        let number = |v: &str| v.parse::<i64>().ok();
        match self.op {
            Op::Exists => value.is_some(),
            Op::NotExists => value.is_none(),
            Op::In => value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            Op::NotIn => !value.is_some_and(|v| self.values.iter().any(|w| w == v)),
            Op::Greater | Op::Less => match (
                value.and_then(number),
                self.values.first().and_then(|v| number(v)),
            ) {
                (Some(a), Some(b)) => {
                    if self.op == Op::Greater {
                        a > b
                    } else {
                        a < b
                    }
                }
                _ => false,
            },
        }
    }
}

impl LabelSelector {
    /// Matches no object (what an absent `spec.selector` of a workload means).
    pub fn nothing() -> Self {
        Self {
            requirements: Vec::new(),
            nothing: true,
        }
    }

    /// Parses `?labelSelector=`: `a=b,c!=d,e in (f,g),h notin (i),j,!k,l>1`.
    pub fn parse(s: &str) -> Result<Self, StatusError> {
        let requirements = Parser {
            tokens: tokens(s),
            at: 0,
        }
        .parse()
        .map_err(StatusError::bad_request)?;
        Ok(Self {
            requirements,
            nothing: false,
        })
    }

    /// From a `metav1.LabelSelector` (`matchLabels`, `matchExpressions`). Null matches nothing, `{}` everything.
    /// An unknown operator matches nothing.
    pub fn from_value(v: &Value) -> Self {
        if !v.is_object() {
            return Self::nothing();
        }
        let mut out = Self::from_map(&v["matchLabels"]);
        for e in v["matchExpressions"].as_array().into_iter().flatten() {
            let op = match e["operator"].as_str() {
                Some("In") => Op::In,
                Some("NotIn") => Op::NotIn,
                Some("Exists") => Op::Exists,
                Some("DoesNotExist") => Op::NotExists,
                Some("Gt") => Op::Greater,
                Some("Lt") => Op::Less,
                _ => return Self::nothing(),
            };
            out.requirements.push(Requirement {
                key: e["key"].as_str().unwrap_or("").into(),
                op,
                values: e["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|s| s.as_str().map(String::from))
                    .collect(),
            });
        }
        out
    }

    /// From a plain map of labels (`Service.spec.selector`); an empty map matches everything.
    pub fn from_map(v: &Value) -> Self {
        let requirements = meta::pairs(v)
            .map(|(k, v)| Requirement {
                key: k.into(),
                op: Op::In,
                values: vec![v.into()],
            })
            .collect();
        Self {
            requirements,
            nothing: false,
        }
    }

    /// The object's labels satisfy the selector.
    pub fn matches(&self, obj: &Value) -> bool {
        self.matches_labels(&obj["metadata"]["labels"])
    }

    /// A map of labels satisfies the selector.
    pub fn matches_labels(&self, labels: &Value) -> bool {
        !self.nothing
            && self
                .requirements
                .iter()
                .all(|r| r.matches(labels[&r.key].as_str()))
    }

    /// Selects everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

impl std::fmt::Display for LabelSelector {
    /// The form of scale's `status.selector` and of query strings.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        let mut sorted: Vec<&Requirement> = self.requirements.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for r in sorted {
            let mut values = r.values.clone();
            values.sort();
            let list = values.join(",");
            parts.push(match r.op {
                Op::In if r.values.len() == 1 => format!("{}={list}", r.key),
                Op::In => format!("{} in ({list})", r.key),
                Op::NotIn if r.values.len() == 1 => format!("{}!={list}", r.key),
                Op::NotIn => format!("{} notin ({list})", r.key),
                Op::Exists => r.key.clone(),
                Op::NotExists => format!("!{}", r.key),
                Op::Greater => format!("{}>{list}", r.key),
                Op::Less => format!("{}<{list}", r.key),
            });
        }
        f.write_str(&parts.join(","))
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Sign(&'static str),
    End,
}

fn tokens(s: &str) -> Vec<Token> {
    const SIGNS: [&str; 9] = ["==", "!=", "=", "!", ",", "(", ")", ">", "<"];
    let mut out = Vec::new();
    let mut rest = s.trim_start();
    while !rest.is_empty() {
        if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            out.push(Token::Sign(sign));
            rest = rest[sign.len()..].trim_start();
            continue;
        }
        let end = rest
            .find(|c: char| c.is_whitespace() || "=!,()<>".contains(c))
            .unwrap_or(rest.len());
        out.push(Token::Word(rest[..end].into()));
        rest = rest[end..].trim_start();
    }
    out.push(Token::End);
    out
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

fn shown(t: &Token) -> String {
    match t {
        Token::Word(w) => quote_single(w),
        Token::Sign(s) => quote_single(s),
        Token::End => "''".into(),
    }
}

fn quote_single(s: &str) -> String {
    format!("'{s}'")
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at]
    }
    fn take(&mut self) -> Token {
        let t = self.tokens[self.at].clone();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        t
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut out = Vec::new();
        loop {
            match self.peek() {
                Token::Word(_) | Token::Sign("!") => {
                    out.push(
                        self.requirement()
                            .map_err(|why| format!("unable to parse requirement: {why}"))?,
                    );
                    match self.take() {
                        Token::End => return Ok(out),
                        Token::Sign(",") => {
                            if !matches!(self.peek(), Token::Word(_) | Token::Sign("!")) {
                                return Err(format!(
                                    "found {}, expected: identifier after ','",
                                    shown(self.peek())
                                ));
                            }
                        }
                        t => {
                            return Err(format!(
                                "found {}, expected: ',' or 'end of string'",
                                shown(&t)
                            ));
                        }
                    }
                }
                Token::End => return Ok(out),
                t => {
                    return Err(format!(
                        "found {}, expected: !, identifier, or 'end of string'",
                        shown(t)
                    ));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let negated = *self.peek() == Token::Sign("!");
        if negated {
            self.take();
        }
        let key = match self.take() {
            Token::Word(w) => w,
            t => return Err(format!("found {}, expected: identifier", shown(&t))),
        };
        if let Some(why) = crate::validate::names::qualified_name(&key).first() {
            return Err(format!("<nil>: Invalid value: {}: {why}", quote(&key)));
        }
        if negated {
            return Ok(Requirement {
                key,
                op: Op::NotExists,
                values: vec![],
            });
        }
        let op = match self.peek() {
            Token::End | Token::Sign(",") => {
                return Ok(Requirement {
                    key,
                    op: Op::Exists,
                    values: vec![],
                });
            }
            Token::Sign("=" | "==") => Op::In,
            Token::Sign("!=") => Op::NotIn,
            Token::Sign(">") => Op::Greater,
            Token::Sign("<") => Op::Less,
            Token::Word(w) if w == "in" => {
                self.take();
                return Ok(Requirement {
                    key,
                    op: Op::In,
                    values: self.values()?,
                });
            }
            Token::Word(w) if w == "notin" => {
                self.take();
                return Ok(Requirement {
                    key,
                    op: Op::NotIn,
                    values: self.values()?,
                });
            }
            t => {
                return Err(format!(
                    "found {}, expected: in, notin, =, ==, !=, gt, lt",
                    shown(t)
                ));
            }
        };
        self.take();
        let value = match self.peek() {
            Token::Word(w) => {
                let w = w.clone();
                self.take();
                w
            }
            Token::End | Token::Sign(",") => String::new(),
            t => return Err(format!("found {}, expected: identifier", shown(t))),
        };
        if matches!(op, Op::Greater | Op::Less) && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[0]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                quote(&value)
            ));
        }
        check_value(&key, &value)?;
        Ok(Requirement {
            key,
            op,
            values: vec![value],
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.take() {
            Token::Sign("(") => {}
            t => return Err(format!("found {} expected: '('", shown(&t))),
        }
        let mut out = Vec::new();
        let mut word_due = true;
        loop {
            match self.take() {
                Token::Word(w) if word_due => {
                    out.push(w);
                    word_due = false;
                }
                Token::Sign(",") => {
                    if word_due {
                        out.push(String::new());
                    }
                    word_due = true;
                }
                Token::Sign(")") => {
                    if word_due {
                        out.push(String::new());
                    }
                    break;
                }
                t => {
                    return Err(format!("found {}, expected: ',' or ')'", shown(&t)));
                }
            }
        }
        for v in &out {
            check_value("", v)?;
        }
        Ok(out)
    }
}

fn check_value(key: &str, value: &str) -> Result<(), String> {
    match crate::validate::names::label_value(value).first() {
        Some(why) if key.is_empty() => {
            Err(format!("values[0]: Invalid value: {}: {why}", quote(value)))
        }
        Some(why) => Err(format!(
            "values[0][{key}]: Invalid value: {}: {why}",
            quote(value)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn label_selectors_select() {
        let o = json!({"metadata": {"labels": {"app": "web", "tier": "1"}}});
        for (s, want) in [
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("x!=web", true),
            ("app in (a, web)", true),
            ("app notin (a)", true),
            ("x notin (a)", true),
            ("app", true),
            ("!app", false),
            ("!x", true),
            ("", true),
            ("app=web,tier=2", false),
            ("tier>0", true),
            ("tier<1", false),
            ("app=", false),
        ] {
            assert_eq!(LabelSelector::parse(s).unwrap().matches(&o), want, "{s}");
        }
        for s in [
            "app=web=x",
            "=a",
            "app in",
            "app in (a",
            "a b",
            "a,,b",
            "a=b,",
        ] {
            assert!(LabelSelector::parse(s).is_err(), "{s}");
        }
    }

    #[test]
    fn workload_selectors_select() {
        let s = LabelSelector::from_value(
            &json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]}),
        );
        assert!(s.matches_labels(&json!({"a": "b", "c": "e"})));
        assert!(!s.matches_labels(&json!({"a": "b"})));
        assert_eq!(s.to_string(), "a=b,c in (d,e)");
        assert!(!LabelSelector::from_value(&Value::Null).matches_labels(&json!({})));
    }

    #[test]
    fn mistakes_are_named_as_the_real_server_names_them() {
        for (s, why) in [
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "=a",
                "found '=', expected: !, identifier, or 'end of string'",
            ),
            (
                "a in",
                "unable to parse requirement: found '' expected: '('",
            ),
            (
                "a in (b",
                "unable to parse requirement: found '', expected: ',' or ')'",
            ),
            (
                "a b",
                "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a,,b", "found ',', expected: identifier after ','"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a==b c", "found 'c', expected: ',' or 'end of string'"),
            (
                "x>y",
                "unable to parse requirement: values[0]: Invalid value: \"y\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "a notin b",
                "unable to parse requirement: found 'b' expected: '('",
            ),
            (
                "!",
                "unable to parse requirement: found '', expected: identifier",
            ),
        ] {
            assert_eq!(LabelSelector::parse(s).unwrap_err().message, why, "{s}");
        }
        assert!(LabelSelector::parse("a in ()").is_ok());
    }
}
