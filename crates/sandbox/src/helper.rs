//! The re-executed, single-threaded side of this crate.

use std::ffi::OsString;

/// First argument with which the program re-executes itself.
pub const INIT_COMMAND: &str = "sandbox-init";

/// Entry of the re-executed program: `theater sandbox-init <role>`. `args` are the arguments
/// after [`INIT_COMMAND`]. Must be called before any thread exists. Never returns: it becomes
/// a container, a cluster, or exits.
pub fn init_main(args: &[OsString]) -> ! {
    let _ = args;
    std::process::exit(70)
}
