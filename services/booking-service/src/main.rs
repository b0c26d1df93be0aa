//! The booking-service of the theater as a program.

use std::process::ExitCode;

fn main() -> ExitCode {
    booking_service::main()
}
