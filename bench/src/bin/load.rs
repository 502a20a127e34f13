//! `load`: end-to-end measurements of a relay, and the blind relay they are measured against.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    wardline_bench::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("load: it measures by what Linux says of processes, and runs only there");
    ExitCode::FAILURE
}
