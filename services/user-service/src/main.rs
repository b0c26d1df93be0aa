//! The user-service of the theater as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    user_service::main()
}
