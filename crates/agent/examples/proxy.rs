//! The proxy alone: `cargo run -p theater-agent --example proxy -- -c bootstrap.yaml [--concurrency N]`.
//! Called by the name `pilot-agent` it is the agent.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    let args = args.collect();
    if Path::new(&name)
        .file_name()
        .is_some_and(|name| name == "pilot-agent")
    {
        agent::main(args)
    } else {
        proxy::command::main(args)
    }
}
