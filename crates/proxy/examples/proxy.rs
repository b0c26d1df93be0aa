//! The proxy alone: `cargo run -p theater-proxy --example proxy -- -c bootstrap.yaml [--concurrency N]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    proxy::command::main(std::env::args_os().skip(1).collect())
}
