//! The seats of a hall: their labels and which of them to take. No I/O.

use serde::{Deserialize, Deserializer};
use service_kit::{Error, Result};

/// The rows of a hall.
pub const ROWS: [char; 6] = ['A', 'B', 'C', 'D', 'E', 'F'];

/// Seats in each row, numbered from 1.
pub const PER_ROW: u8 = 10;

/// What a client asks for: so many seats, or these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// The next free seats.
    Count(u32),
    /// Seats by label, e.g. `["A1", "A2"]`.
    Labels(Vec<String>),
}

impl Wish {
    /// How many seats are asked for.
    pub fn count(&self) -> usize {
        match self {
            Self::Count(count) => *count as usize,
            Self::Labels(labels) => labels.len(),
        }
    }
}

impl<'de> Deserialize<'de> for Wish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// The same two forms; only the message for anything else is ours.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Count(u32),
            Labels(Vec<String>),
        }
        match Form::deserialize(deserializer) {
            Ok(Form::Count(count)) => Ok(Self::Count(count)),
            Ok(Form::Labels(labels)) => Ok(Self::Labels(labels)),
            Err(_) => Err(serde::de::Error::custom(
                "neither a number of seats nor a list of labels like [\"A1\", \"A2\"]",
            )),
        }
    }
}

/// All labels of a hall, in the order in which seats are given away.
pub fn all() -> Vec<String> {
    ROWS.iter()
        .flat_map(|row| (1..=PER_ROW).map(move |number| format!("{row}{number}")))
        .collect()
}

/// The labels a wish names, checked; `None` when any seat will do.
///
/// # Errors
/// [`Error::BadRequest`] for no seats, too many, unknown labels, or one label twice.
pub fn named(wish: &Wish) -> Result<Option<Vec<String>>> {
    let hall = ROWS.len() * usize::from(PER_ROW);
    match wish {
        Wish::Count(0) => Err(Error::BadRequest("seats must be at least 1".into())),
        Wish::Count(count) if *count as usize > hall => Err(Error::BadRequest(format!(
            "seats must be at most {hall}: the hall has no more"
        ))),
        Wish::Count(_) => Ok(None),
        Wish::Labels(labels) if labels.is_empty() => Err(Error::BadRequest(
            "seats must name at least one seat".into(),
        )),
        Wish::Labels(labels) => {
            let known = all();
            let mut chosen: Vec<String> = Vec::with_capacity(labels.len());
            for label in labels {
                let label = label.trim().to_ascii_uppercase();
                if !known.contains(&label) {
                    return Err(Error::BadRequest(format!(
                        "seats: there is no seat {label:?}; seats are {} to {}",
                        known[0],
                        known[known.len() - 1]
                    )));
                }
                if chosen.contains(&label) {
                    return Err(Error::BadRequest(format!("seats: {label} is named twice")));
                }
                chosen.push(label);
            }
            Ok(Some(chosen))
        }
    }
}

/// The next `count` free seats, given which seats of [`all`] are taken.
///
/// # Errors
/// [`Error::Conflict`] when fewer are free.
pub fn next_free(count: usize, taken: &[bool]) -> Result<Vec<String>> {
    let free: Vec<String> = all()
        .into_iter()
        .zip(taken)
        .filter_map(|(label, taken)| (!taken).then_some(label))
        .collect();
    match free.len() {
        0 => Err(sold_out()),
        left if left < count => Err(Error::Conflict(format!(
            "only {left} seats of this movie are left"
        ))),
        _ => Ok(free.into_iter().take(count).collect()),
    }
}

/// Why these seats cannot be had, given which seats of [`all`] are taken.
pub fn refusal(labels: &[String], taken: &[bool]) -> Error {
    if taken.iter().all(|taken| *taken) {
        return sold_out();
    }
    let gone: Vec<String> = all()
        .into_iter()
        .zip(taken)
        .filter_map(|(label, taken)| (*taken && labels.contains(&label)).then_some(label))
        .collect();
    Error::Conflict(format!(
        "seats: {} already taken; choose other seats",
        gone.join(", ")
    ))
}

fn sold_out() -> Error {
    Error::Conflict("this movie is sold out".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> Wish {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_number_or_a_list_of_labels() {
        assert_eq!(named(&wish("2")).unwrap(), None);
        assert_eq!(
            named(&wish(r#"["a1", "B10"]"#)).unwrap().unwrap(),
            ["A1", "B10"]
        );
        for bad in ["0", "61", "[]", r#"["G1"]"#, r#"["A11"]"#, r#"["A1","a1"]"#] {
            assert!(named(&wish(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn anything_else_is_explained() {
        for bad in ["-1", "1.5", "\"A1\"", "{}", "[1]", "null"] {
            let error = serde_json::from_str::<Wish>(bad).unwrap_err().to_string();
            assert!(error.contains("list of labels"), "{bad}: seen {error}");
        }
    }

    #[test]
    fn the_next_free_seats_in_order_until_the_hall_is_full() {
        let mut taken = vec![false; 60];
        taken[1] = true;
        assert_eq!(next_free(2, &taken).unwrap(), ["A1", "A3"]);
        let mut full = vec![true; 60];
        assert_eq!(
            next_free(1, &full).unwrap_err(),
            Error::Conflict("this movie is sold out".into())
        );
        assert_eq!(refusal(&["A1".into()], &full), sold_out());
        full[59] = false;
        assert!(
            refusal(&["A1".into(), "F10".into()], &full)
                .to_string()
                .contains("A1 already"),
        );
        assert!(matches!(next_free(2, &full), Err(Error::Conflict(_))));
        assert_eq!(next_free(1, &full).unwrap(), ["F10"]);
    }
}
