//! The recorded answers in `data` are also Theater's.

use std::path::Path;

#[test]
fn committed_answers_are_ours() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut outcomes = Vec::new();
    for layout in theater_golden::entries(&data) {
        let compared = theater_golden::compare(&layout).expect("a known layout");
        assert!(
            !compared.is_empty(),
            "no cases are left in {}",
            layout.display()
        );
        outcomes.extend(compared);
    }
    assert!(outcomes.len() > 15, "only {} cases", outcomes.len());
    let report = theater_golden::report::render(&outcomes, true, true);
    let equal = outcomes
        .iter()
        .all(|outcome| outcome.differences.is_empty());
    assert!(equal, "{report}");
}
