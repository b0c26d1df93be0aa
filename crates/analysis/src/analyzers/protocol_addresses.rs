//! `serviceentry.Analyzer`: TCP without an address, so that nothing tells its connections apart (IST0134).

use crate::context::Context;
use crate::fields::Fields;
use crate::kind::Kind;
use crate::messages;

/// Runs the analyzer.
pub fn analyze(context: &mut Context<'_>) {
    let metadata = context.mesh().field("defaultConfig").field("proxyMetadata");
    let on = |name: &str| metadata.text(name) == "true";
    if on("ISTIO_META_DNS_CAPTURE")
        && (on("ISTIO_META_DNS_AUTO_ALLOCATE") || on("PILOT_ENABLE_IP_AUTOALLOCATE"))
    {
        return;
    }
    for entry in context.each(Kind::ServiceEntry) {
        let has_address = !entry.spec.items("addresses").is_empty()
            || !entry.status.items("addresses").is_empty();
        if has_address {
            continue;
        }
        for (index, port) in entry.spec.items("ports").iter().enumerate() {
            let protocol = port.text("protocol");
            if protocol.is_empty() || protocol.eq_ignore_ascii_case("TCP") {
                context.report(
                    messages::service_entry_addresses_required(entry)
                        .at(&format!("spec.ports[{index}].name")),
                );
            }
        }
    }
}
