//! `docs/courses.md`: the state of every row, written from the data. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::course::{Course, Row};

/// What is known of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It does what the course says.
    Passes,
    /// It answers what a real cluster answers, which is not what the course says.
    AsReal,
    /// It waits for a feature.
    Waits,
}

/// The state of `row`.
#[must_use]
pub fn state(row: &Row) -> State {
    match (&row.missing, &row.never) {
        (Some(_), _) => State::Waits,
        (None, Some(_)) => State::AsReal,
        (None, None) => State::Passes,
    }
}

/// The whole page.
#[must_use]
pub fn page(courses: &[Course]) -> String {
    let mut page = String::from(
        "# The courses\n\n\
         Every command of these courses is typed verbatim into a shell, in order, against a fresh theater, and its exit status,\n\
         output and effect are compared with what the course or, where the course is wrong, a real cluster promises. The commands and\n\
         expectations are in `tests/courses/*/course.yaml`; `tests/courses/run` runs them and fails when a row that passes stops passing. `cargo test`\n\
         runs one course, with `THEATER_COURSES=all` every one; with these expectations each has run through. This page is written from the data by\n\
         `tests/courses/run --write docs`.\n\n\
         - **passes**: does what the course says.\n\
         - **as real**: the course promises what no Kubernetes or Istio does; the answer is the real one, for the reason given.\n\
         - **waits**: the named feature is missing.\n\n\
         Rows that repeat an earlier command are typed too, but counted once.\n\n",
    );
    summary(&mut page, courses);
    for course in courses {
        let _ = write!(
            page,
            "\n## {}: {}\n\n| row | command | state | |\n|---|---|---|---|\n",
            course.name(),
            course.title
        );
        for row in &course.rows {
            let (word, why) = match state(row) {
                State::Passes => ("passes", ""),
                State::AsReal => ("as real", row.never.as_deref().unwrap_or_default()),
                State::Waits => ("waits", row.missing.as_deref().unwrap_or_default()),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {word} | {} |",
                row.id,
                shown(&row.run),
                why.replace('|', "\\|")
            );
        }
    }
    page
}

fn summary(page: &mut String, courses: &[Course]) {
    let mut tools: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for row in courses.iter().flat_map(|course| &course.rows) {
        if row.same_as.is_none() {
            tools.entry(&row.tool).or_default()[state(row) as usize] += 1;
        }
    }
    page.push_str("| tool | passes | as real | waits | all |\n|---|---|---|---|---|\n");
    let mut all = [0; 3];
    for (tool, counts) in &tools {
        for (sum, count) in all.iter_mut().zip(counts) {
            *sum += count;
        }
        line(page, tool, counts);
    }
    line(page, "all", &all);
}

fn line(page: &mut String, name: &str, counts: &[usize; 3]) {
    let [passes, real, waits] = counts;
    let _ = writeln!(
        page,
        "| {name} | {passes} | {real} | {waits} | {} |",
        passes + real + waits
    );
}

/// The first line of a command as code, without what would break the table.
fn shown(command: &str) -> String {
    let first = command.lines().next().unwrap_or_default().trim_end();
    let more = if command.trim_end().lines().count() > 1 {
        " …"
    } else {
        ""
    };
    let short: String = first.chars().take(110).collect();
    let cut = if short.len() < first.len() { "…" } else { "" };
    format!(
        "`{}{cut}{more}`",
        short.replace('|', "\\|").replace('`', "'")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_once_and_shown_with_their_reason() {
        let course: Course = yaml_serde::from_str(
            "title: T\nrows:\n\
             - {id: A, run: 'kubectl get a | grep b'}\n\
             - {id: B, run: kubectl get a, same_as: A}\n\
             - {id: C, run: kubectl c, missing: feature c}\n\
             - {id: D, run: curl d, tool: curl, never: no such thing}\n",
        )
        .unwrap();
        let page = page(&[course]);
        assert!(page.contains("| kubectl | 1 | 0 | 1 | 2 |"), "{page}");
        assert!(page.contains("| all | 1 | 1 | 1 | 3 |"), "{page}");
        assert!(page.contains("| A | `kubectl get a \\| grep b` | passes |  |"));
        assert!(page.contains("| C | `kubectl c` | waits | feature c |"));
    }
}
