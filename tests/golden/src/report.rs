//! The table that people and scripts read.

use crate::Outcome;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many paths of a case are shown unless all are asked for.
const PATHS: usize = 3;

/// A line for each case (`equal`, or the paths that differ), the totals of each group, and `N of M equal` as the last line.
///
/// `all_paths`: not only the first paths of a case. `differing`: no line for cases that are equal.
pub fn render(outcomes: &[Outcome], all_paths: bool, differing: bool) -> String {
    let width = outcomes
        .iter()
        .map(|outcome| outcome.case.chars().count())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    let mut totals: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for outcome in outcomes {
        let total = totals.entry(&outcome.group).or_default();
        total.1 += 1;
        if outcome.differences.is_empty() {
            total.0 += 1;
            if !differing {
                let _ = writeln!(out, "{:width$}  equal", outcome.case);
            }
            continue;
        }
        let shown = if all_paths { usize::MAX } else { PATHS };
        for (index, difference) in outcome.differences.iter().take(shown).enumerate() {
            let name = if index == 0 { &outcome.case } else { "" };
            let _ = writeln!(out, "{name:width$}  {difference}");
        }
        if outcome.differences.len() > shown {
            let more = outcome.differences.len() - shown;
            let _ = writeln!(out, "{:width$}  and {more} more", "");
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let (mut equal, mut all) = (0, 0);
    for (group, total) in totals {
        let _ = writeln!(out, "{group}: {} of {} equal", total.0, total.1);
        equal += total.0;
        all += total.1;
    }
    let _ = writeln!(out, "{equal} of {all} equal");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(group: &str, case: &str, differences: &[&str]) -> Outcome {
        Outcome {
            group: group.to_owned(),
            case: case.to_owned(),
            differences: differences.iter().map(|&text| text.to_owned()).collect(),
        }
    }

    #[test]
    fn each_case_has_a_line_and_the_total_is_last() {
        let outcomes = [
            outcome("b", "b-one", &[]),
            outcome("c", "c-three", &["p: a", "p: b", "p: c", "p: d"]),
        ];
        let expected = "b-one    equal\nc-three  p: a\n         p: b\n         p: c\n         and 1 more\n\n\
                        b: 1 of 1 equal\nc: 0 of 1 equal\n1 of 2 equal\n";
        assert_eq!(render(&outcomes, false, false), expected);
        let all = render(&outcomes, true, true);
        assert!(all.contains("p: d") && !all.contains("b-one"), "{all}");
        assert!(render(&[], false, false).ends_with("0 of 0 equal\n"));
    }
}
