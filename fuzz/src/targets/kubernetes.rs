//! What clients send to API servers and kubelets.

use super::text;
use crate::Target;

pub(super) const TARGETS: &[Target] = &[Target {
    name: "quantity",
    run: quantity,
    also: &[],
}];

fn quantity(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(quantity) = api::quantity::Quantity::parse(text) else {
        return;
    };
    let written = quantity.to_string();
    let again = api::quantity::Quantity::parse(&written);
    assert_eq!(
        again.map(|again| again.to_string()).ok().as_ref(),
        Some(&written),
        "{text:?} is written as {written:?}, which is read otherwise"
    );
}
