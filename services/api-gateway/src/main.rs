//! The api-gateway of the theater as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    api_gateway::main()
}
